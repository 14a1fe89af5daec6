"""How reliable an axis is, in words, and the warning for one that cannot be trusted."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest

from demo.axis.gates import GATES, LATE_TURNS, broken_banner, reliability


def gate(value: float, threshold: float, passed: bool) -> dict[str, object]:
    return {"value": value, "threshold": threshold, "passed": passed}


def test_every_gate_is_explained_passed_or_failed():
    for passed in (True, False):
        text = reliability({"gates": {name: gate(1.0, 0.9, passed) for name in GATES}})
        assert text.count("- Passed: " if passed else "- **Failed:** ") == len(GATES)
        assert f"**It passes {'all of its' if passed else '0 of its'} {len(GATES)} checks.**" in text


def test_a_failed_gate_is_named_with_its_figures_and_what_follows():
    manifest = {"gates": {"auc": gate(0.83, 0.95, False), "split_half": gate(0.97, 0.95, True)}}
    text = reliability(manifest)
    assert text.startswith("**It passes 1 of its 2 checks.** One reply's place on the axis is weak evidence")
    assert "- **Failed:** Of a default reply and a role-played one, the default one lies higher 83%" in text
    assert "- Passed: Made twice" in text and "cosine of 0.97" in text
    assert broken_banner(manifest) is None, "this axis has limits, but nothing is broken"


def test_the_mean_of_the_late_turns_is_mostly_in_the_right_order_where_the_gate_passes():
    normal, turns = NormalDist(), LATE_TURNS[1] - LATE_TURNS[0] + 1
    assert normal.cdf(math.sqrt(turns) * normal.inv_cdf(GATES["late_turns"])) > 0.9


@pytest.mark.parametrize("name", ["split_half", "default_above_roles", "role_order"])
def test_an_axis_that_cannot_be_trusted_has_a_banner(name):
    banner = broken_banner({"gates": {name: gate(0.21, 0.95, False), "auc": gate(0.5, 0.95, False)}})
    assert (
        banner is not None and banner.startswith("**This axis cannot be trusted.**") and "coin" not in banner
    )
    assert "0.21" in banner or "21%" in banner
    assert "nearly" not in banner and "close" not in banner, "a failed check must not read like a passed one"
    assert broken_banner({"gates": {name: gate(0.96, 0.95, True)}}) is None


@pytest.mark.parametrize(
    "gates",
    [
        {"auc": {"value": "<script>", "threshold": 0.95, "passed": False}, "<b>": gate(0.1, 0.9, False)},
        {"split_half": {"value": 1, "threshold": 1, "passed": "<script>"}, "fluency": "x"},
        [1, 2],
        None,
    ],
)
def test_text_from_an_untrusted_manifest_is_not_shown(gates):
    assert reliability({"gates": gates}).startswith("This axis carries no quality checks")
    assert broken_banner({"gates": gates}) is None
