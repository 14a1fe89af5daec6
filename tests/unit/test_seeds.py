"""Means over seeds: the interval of a published table, and pairs with the same random numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.conversation.seeds import reply_means, seed_gap, seed_mean
from demo.conversation.settings import CAPPED, UNCAPPED, OwnSettings
from demo.conversation.turns import Reply, Turn
from demo.engine.protocol import Token
from tests.helpers.scripted import SETTINGS

VALUES = st.lists(st.floats(-5, 5), min_size=2, max_size=8)


def reply(*means: float | None) -> Reply:
    """A reply and its further samples with these means."""
    first, *others = [Reply(9, [Token("a", mean, mean, (), False)], "stop") for mean in means]
    first.samples = others
    return first


def test_the_interval_is_that_of_student():
    # Quantiles of t at .975 from any printed table: 12.706 at 1 degree of freedom, 2.365 at 7.
    two = seed_mean([0.0, 1.0])
    assert two is not None and two.high - two.mean == pytest.approx(12.706 * 0.5, abs=1e-3)
    eight = seed_mean([0.0] * 4 + [1.0] * 4)
    spread = (8 * 0.25 / 7) ** 0.5
    assert eight is not None and eight.high - eight.mean == pytest.approx(2.365 * spread / 8**0.5, abs=1e-4)


@given(VALUES)
def test_the_mean_lies_within_and_equal_values_have_no_width(values):
    found = seed_mean(values)
    assert found is not None and found.low <= found.mean <= found.high and found.count == len(values)
    same = seed_mean([values[0]] * len(values))
    assert same is not None and same.high - same.low == pytest.approx(0, abs=1e-6)


def test_one_value_has_no_interval():
    assert (
        seed_mean([1.0]) is None and reply_means(reply(0.5)) is None and reply_means(reply(0.5, None)) is None
    )


def test_the_gap_is_over_pairs_with_the_same_random_numbers():
    turn = Turn("Hi", {UNCAPPED: reply(0.0, 1.0, None, 3.0), CAPPED: reply(1.0, 2.0, 9.0, 4.5)})
    gap = seed_gap(turn)
    assert gap is not None and (gap.count, gap.mean) == (3, pytest.approx((1 + 1 + 1.5) / 3))
    turn.replies[CAPPED].samples.pop()
    assert seed_gap(turn) is None
    assert seed_gap(Turn("Hi", {CAPPED: reply(1.0, 2.0)})) is None


def test_there_is_no_gap_where_more_than_the_cap_tells_the_replies_apart():
    turn = Turn("Hi", {UNCAPPED: reply(0.0, 1.0), CAPPED: reply(1.0, 2.0)}, SETTINGS)
    assert seed_gap(turn) is not None
    turn.settings = replace(SETTINGS, own=((CAPPED, OwnSettings(temperature=1.0)),))
    assert seed_gap(turn) is None
    turn.settings = SETTINGS
    turn.replies[CAPPED].tokens[0] = replace(turn.replies[CAPPED].tokens[0], given=True)
    assert seed_gap(turn) is None


def test_a_continued_reply_has_no_mean_with_shorter_ones():
    continued = reply(0.0, 1.0)
    continued.limit = 99
    assert reply_means(continued) is None
