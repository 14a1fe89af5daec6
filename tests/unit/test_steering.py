"""Steering against plain arithmetic, and a steered row beside others in one batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.capping import steer
from demo.engine.protocol import Request, Sampling, Steer, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis
from tests.helpers.tiny_models import tiny_llama

FLOATS = st.floats(-4, 4, allow_nan=False, width=32)


@given(st.lists(FLOATS, min_size=12, max_size=12), st.lists(FLOATS, min_size=2, max_size=2), st.booleans())
@settings(max_examples=80, deadline=None)
def test_push_adds_alpha_times_the_direction_and_nothing_elsewhere(values, alphas, masked):
    hidden = torch.tensor(values).reshape(2, 2, 3)
    direction = torch.tensor([0.5, -2.0, 1.5])
    exempt = torch.tensor([[masked, False], [False, masked]])
    found = steer(hidden, direction, torch.tensor(alphas), exempt)
    for row in range(2):
        for place in range(2):
            before = hidden[row, place].tolist()
            amount = 0.0 if exempt[row, place] else alphas[row]
            expected = [h + amount * d for h, d in zip(before, direction.tolist(), strict=True)]
            if amount == 0:
                assert torch.equal(found[row, place], hidden[row, place])
            assert found[row, place].tolist() == pytest.approx(expected, abs=1e-5)


def test_an_absurd_strength_is_refused():
    with pytest.raises(UserError, match="between -20 and 20"):
        Steer(1, float("nan"))


@pytest.fixture(scope="module")
def tiny(model: LoadedModel) -> LoadedModel:
    return tiny_llama(model)


def test_a_steered_row_moves_and_its_neighbours_do_not(tiny):
    axis = random_axis(len(tiny.layers), tiny.hidden_size, 2, (1, 2))
    engine = TransformersEngine(tiny, axis)
    chat = ({"role": "user", "content": "One two three"},)
    sampling = Sampling(temperature=0, max_new_tokens=6, repetition_penalty=1)

    def run(*requests: Request) -> dict[str, list[TokenEvent]]:
        rows: dict[str, list[TokenEvent]] = {}
        for event in engine.stream(requests):
            if isinstance(event, TokenEvent):
                rows.setdefault(event.branch, []).append(event)
        for branch in rows:
            engine.forget([branch])
        return rows

    plain = run(Request("a", chat, sampling))["a"]
    both = run(Request("a", chat, sampling), Request("s", chat, sampling, steer=Steer(2, 3.0)))
    assert [event.token_id for event in both["a"]] == [event.token_id for event in plain]
    first, steered = plain[0], both["s"][0]
    if steered.token_id == first.token_id:
        # Steered at the probe layer itself, so the same token stands exactly three axis units higher.
        assert steered.token.before == pytest.approx(first.token.before + 3.0, abs=1e-3)
    assert (
        sum(event.token.before or 0 for event in both["s"])
        > sum(event.token.before or 0 for event in plain) + 3
    )
    with pytest.raises(UserError, match="decoder layers 0 to"):
        engine.stream([Request("a", chat, sampling, steer=Steer(99, 1.0))])


def test_a_cache_made_without_steering_is_not_used_with_it(tiny):
    engine = TransformersEngine(tiny, random_axis(len(tiny.layers), tiny.hidden_size, 2, (1, 2)))
    chat = ({"role": "user", "content": "One two three"},)
    sampling = Sampling(temperature=0, max_new_tokens=3, repetition_penalty=1)
    list(engine.stream([Request("a", chat, sampling)]))
    again = next(iter(engine.stream([Request("a", chat, sampling)])))
    steered = next(iter(engine.stream([Request("a", chat, sampling, steer=Steer(1, 0.5))])))
    assert again.reused_tokens > 0 and steered.reused_tokens == 0
