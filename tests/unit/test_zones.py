"""The zones of an axis: the cut points against a plain reference, and one classification everywhere."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from demo.axis.axis import AssistantAxis, check_axis
from demo.axis.files import axis_from_bytes, axis_to_bytes, load_axis
from demo.axis.gates import reliability, what_a_reply_tells
from demo.axis.zones import (
    UNMEASURED,
    ZONE_NAMES,
    Told,
    Zones,
    zone_of,
    zones_from_json,
    zones_json,
    zones_of,
)
from demo.conversation.session_file import loads
from demo.conversation.settings import CapChoice
from demo.extraction.plan import FOLDS
from demo.extraction.zones import Measured, best_direction_auc, cut_points, discriminant, zones_from
from demo.models.default import DEFAULT_MODEL
from demo.page.recordings import ENDING, FOLDER, INTRO
from demo.plots.figures import token_figure, turn_figure
from demo.utils.paths import ROOT
from demo.utils.statistics import auc
from tests.helpers.axes import random_axis

TABLE = json.loads((ROOT / "demo/page/stage/test/zones.json").read_text(encoding="utf-8"))
ZONES = Zones(0.25, 0.75, Told(120, 0.1, 0.6), Told(150, 0.5, 0.08))
MEASURED = zones_json(ZONES) | {
    "auc": 0.83,
    "auc_by_tokens": [[1, 0.6], [2, 0.7], [4, 0.82], [8, 0.83]],
    "auc_by_replies": [[2, 0.9, 0.85, 140], [4, 0.96, 0.88, 49]],
    "ceiling": 0.91,
}

# Few different values, so that ties are common.
means = st.lists(st.integers(-20, 20).map(lambda tenths: tenths / 10), min_size=1, max_size=60)


@pytest.fixture
def axis() -> AssistantAxis:
    plain = random_axis(4, 6, 2, (1, 2))
    return replace(plain, manifest=plain.manifest | {"zones": MEASURED})


# --- the cut points


def reference(default: list[float], role: list[float], error: float) -> tuple[float, float]:
    """The definition, tried out at every value."""
    low = max(cut for cut in default if sum(value < cut for value in default) <= error * len(default))
    high = min(cut for cut in role if sum(value > cut for value in role) <= error * len(role))
    return (low, high) if low <= high else ((low + high) / 2, (low + high) / 2)


@given(default=means, role=means, error=st.sampled_from([0.0, 0.05, 0.1, 0.25]))
def test_cut_points_equal_the_definition_and_keep_the_error(default, role, error):
    low, high = cut_points(default, role, error)
    assert (low, high) == reference(default, role, error)
    assert low <= high
    assert sum(value < low for value in default) <= error * len(default)
    assert sum(value > high for value in role) <= error * len(role)


@given(default=means, role=means, shift=st.integers(-50, 50))
def test_cut_points_move_with_the_replies_and_mirror_when_the_sides_are_exchanged(default, role, shift):
    low, high = cut_points(default, role)
    moved = cut_points([value + shift for value in default], [value + shift for value in role])
    assert moved == pytest.approx((low + shift, high + shift))
    mirrored = cut_points([-value for value in role], [-value for value in default])
    assert mirrored == pytest.approx((-high, -low))


def test_where_the_kinds_lie_far_apart_one_cut_point_parts_them():
    low, high = cut_points([2.0, 3.0, 4.0], [-1.0, 0.0, 1.0])
    assert low == high == 1.5


def measured(fold: int | None, value: float) -> Measured:
    return Measured(fold, "x", torch.full((FOLDS, 3), value))


@given(default=means, role=means)
def test_shares_are_those_of_the_held_out_replies(default, role):
    replies = [measured(None, value) for value in default]
    replies += [measured(number % FOLDS, value) for number, value in enumerate(role)]
    zones = zones_from(replies)
    # Each default reply counts once on every fold axis.
    assert (zones.low, zones.high) == cut_points(default * FOLDS, role)
    for told, values in ((zones.default, default), (zones.role, role)):
        names = [zones.name_of(value) for value in values]
        assert told.replies == len(values)
        shares = (told.role_played, told.unclear, told.assistant)
        for name, share in zip(ZONE_NAMES, shares, strict=True):
            assert share == pytest.approx(names.count(name) / len(values), abs=2e-4)
    assert zones.default.role_played <= 0.1001 and zones.role.assistant <= 0.1001


# --- the best direction


def test_the_covariance_is_shrunk_as_ledoit_and_wolf_estimate_it():
    torch.manual_seed(0)
    above, below = torch.randn(30, 4) * torch.tensor([3.0, 1, 1, 0.2]) + 1, torch.randn(40, 4)
    centred = torch.cat([above - above.mean(0), below - below.mean(0)]).double()
    n, size = centred.shape
    plain = sum(torch.outer(row, row) for row in centred) / n
    scale = float(plain.trace()) / size
    target = scale * torch.eye(size, dtype=torch.float64)
    distance = float(((plain - target) ** 2).sum()) / size
    noise = sum(float(((torch.outer(row, row) - plain) ** 2).sum()) / size for row in centred) / n**2
    share = min(noise, distance) / distance
    shrunk = share * target + (1 - share) * plain
    expected = torch.linalg.inv(shrunk) @ (above.mean(0) - below.mean(0)).double()
    torch.testing.assert_close(discriminant(above, below), expected.float(), rtol=1e-4, atol=1e-5)


def test_the_best_direction_finds_what_the_difference_of_the_means_hides():
    torch.manual_seed(1)
    noise = torch.tensor([8.0, 0.3, 1.0])
    folds: list[int | None] = [None] * 300 + [number % FOLDS for number in range(300)]
    sides = torch.tensor([fold is None for fold in folds])[:, None] * torch.tensor([1.0, 1.0, 0.0])
    trained, tested = (torch.randn(600, 3) * noise + sides for _ in range(2))
    replies = [replace(measured(fold, 0.0), speaker=str(n % FOLDS)) for n, fold in enumerate(folds)]
    best = best_direction_auc(replies, tested, replies, trained)
    plain = (tested @ torch.tensor([1.0, 1.0, 0.0])).tolist()
    assert best > 0.95 > 0.7 > auc(plain[:300], plain[300:])


def test_the_best_direction_is_tested_on_prompts_that_it_was_not_made_from():
    """Each default prompt has a direction of its own, which does not help with another prompt."""
    torch.manual_seed(2)
    speakers = [n % FOLDS for n in range(200)]
    means = torch.randn(400, FOLDS + 1)
    means[:200] += 9 * torch.eye(FOLDS + 1)[speakers]
    replies = [replace(measured(None, 0.0), speaker=f"prompt {n}") for n in speakers]
    replies += [measured(n, 0.0) for n in speakers]
    assert best_direction_auc(replies, means, replies, means) < 0.7


def test_without_replies_of_both_kinds_there_is_no_best_direction():
    replies = [measured(0, 0.0), measured(1, 0.0)]
    assert math.isnan(best_direction_auc(replies, torch.zeros(2, 3), replies, torch.zeros(2, 3)))


# --- one classification


def test_the_server_calls_means_what_the_page_calls_them():
    for which, mean, name in TABLE["cases"]:
        zones = replace(ZONES, low=TABLE[which]["low"], high=TABLE[which]["high"])
        assert zones.name_of(mean) == zone_of(zones, mean) == name
        assert tuple(TABLE[which]["names"]) == ZONE_NAMES


def test_every_place_has_the_zones_of_the_axis(axis):
    assert axis.zones == ZONES
    for choice in (CapChoice.of_axis(axis), replace(CapChoice.of_axis(axis), on=False)):
        marks = choice.marks(axis)
        assert marks.zones == ZONES
        for figure in (token_figure(marks), turn_figure(marks)):
            meta = figure["layout"]["meta"]["zones"]
            assert (meta["low"], meta["high"], meta["names"]) == (ZONES.low, ZONES.high, list(ZONE_NAMES))


def test_an_axis_without_zones_names_none(axis):
    plain = replace(axis, manifest={k: v for k, v in axis.manifest.items() if k != "zones"})
    assert plain.zones is None and CapChoice.of_axis(plain).marks(plain).zones is None
    assert zone_of(plain.zones, 0.9) is None and zone_of(ZONES, None) is None
    assert what_a_reply_tells(plain.manifest) == UNMEASURED


def test_zones_survive_files(axis):
    check_axis(axis, "here")
    tensors, manifest = axis_to_bytes(axis)
    assert axis_from_bytes(tensors, json.loads(manifest), "there").zones == ZONES
    assert zones_from_json(json.loads(json.dumps(zones_json(ZONES)))) == ZONES
    assert zones_from_json(None) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"low": 0.8},
        {"low": None},
        {"high": math.inf},
        {"high": 1e9},
        {"low": True},
        {"low": -(10**400)},
        {"high": 10**400},
        {"low": math.nan},
        {"role": {"replies": 10**400, "role_played": 0.1, "assistant": 0.7}},
        {"role": {"replies": 9, "role_played": 10**400, "assistant": 0.7}},
        {"default": {"replies": 3, "role_played": 0.7, "assistant": 0.7}},
        {"role": {"replies": 0, "role_played": 0.1, "assistant": 0.7}},
        {"role": {"replies": "<b>", "role_played": 0.1, "assistant": 0.7}},
        {"role": [0.1, 0.7]},
    ],
)
def test_zones_that_make_no_sense_count_as_none(damage):
    with pytest.raises((TypeError, ValueError)):
        zones_from_json(MEASURED | damage)
    assert zones_of({"zones": MEASURED | damage}) is None
    assert zones_of({"zones": [1]}) is None


# --- words


def test_the_words_give_counts_shares_and_what_more_tokens_or_replies_tell():
    text = what_a_reply_tells({"zones": MEASURED})
    assert "Of 150 held-out role-played replies, 50% read as role-played and 8% as Assistant" in text
    assert "of 120 default ones, 60% read as Assistant and 10% as role-played; the rest are unclear" in text
    assert "60% of the time by the first token, and 83% by the first 8 tokens." in text
    assert "Little is gained after 4 tokens." in text
    assert "90% by the mean of 2 (by one: 85%; 140 roles), 96% by the mean of 4" in text
    assert "so 4 replies of a role that the model plays so often are enough" in text
    assert "The axis reaches 83%; the best linear direction" in text and text.endswith("reaches 91%.")
    assert "rarely" not in text


def test_a_weak_axis_says_that_a_single_reply_can_rarely_be_told():
    weak = zones_json(replace(ZONES, default=Told(9, 0.1, 0.2), role=Told(9, 0.2, 0.1)))
    text = what_a_reply_tells({"zones": weak | {"auc_by_replies": [[2, 0.7, 0.6, 20]]}})
    assert "So a single reply can rarely be told." in text
    assert "not even 2 replies tell them apart 95% of the time" in text


HUGE = 10**400


@pytest.mark.parametrize(
    "rows",
    [
        "<script>",
        [["<b>", 0.5]],
        [[1, "<b>"]],
        [[1]],
        [[1, 0.5], [2, 7]],
        [[1, 0.5], [HUGE, 0.6]],
        [[1, HUGE], [2, 0.6]],
        [[HUGE, 0.9, 0.8, 20]],
        [[2, 0.9, 0.8, HUGE]],
        [[2, 0.9, 0.8, math.inf]],
        HUGE,
        None,
    ],
)
def test_malformed_figures_are_left_out(rows):
    zones = MEASURED | {"auc_by_tokens": rows, "auc_by_replies": rows, "ceiling": rows}
    text = what_a_reply_tells({"zones": zones})
    assert "<" not in text and text.endswith("the rest are unclear.")


def test_the_page_says_beside_the_gates_what_a_reply_tells():
    gates = {"auc": {"value": 0.83, "threshold": 0.95, "passed": False}}
    assert "**What a single reply tells.**" in reliability({"gates": gates, "zones": MEASURED})
    assert UNMEASURED in reliability({"gates": gates})


# --- what is shipped


def test_the_shipped_recordings_have_the_zones_of_the_shipped_axis():
    zones = load_axis(DEFAULT_MODEL).zones
    paths = [INTRO, *sorted(FOLDER.glob(f"*{ENDING}"))]
    assert zones is not None and len(paths) > 2
    for path in paths:
        recording = loads(path.read_text(encoding="utf-8"))
        assert recording.model == DEFAULT_MODEL and recording.marks.zones == zones
