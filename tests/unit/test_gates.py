"""How reliable an axis is, in words, and the warning for one that cannot be trusted."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from statistics import NormalDist

import pytest

from demo.axis.files import load_axis
from demo.axis.gates import (
    ASSISTANT_WORDS,
    GATES,
    LARGE_SHIFT,
    LATE_TURNS,
    MEASURED_WORDS,
    axis_words,
    broken_banner,
    is_assistant_axis,
    reliability,
)
from demo.extraction.add_gates import with_sections
from demo.models.default import DEFAULT_MODEL
from demo.utils.paths import AXES


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


@pytest.mark.parametrize("name", ["split_half", "default_above_roles"])
def test_an_axis_that_cannot_be_trusted_has_a_banner(name):
    banner = broken_banner({"gates": {name: gate(0.21, 0.95, False), "auc": gate(0.5, 0.95, False)}})
    assert (
        banner is not None and banner.startswith("**This axis cannot be trusted.**") and "coin" not in banner
    )
    assert "0.21" in banner or "21%" in banner
    assert "nearly" not in banner and "close" not in banner, "a failed check must not read like a passed one"
    assert broken_banner({"gates": {name: gate(0.96, 0.95, True)}}) is None


def test_an_axis_with_another_order_of_roles_is_not_called_the_assistants():
    def manifest(passed: object) -> dict[str, object]:
        return {"gates": {"role_order": gate(0.03, 0.2, False) | {"passed": passed}}}

    assert not is_assistant_axis(manifest(False))
    assert axis_words(manifest(False)) == MEASURED_WORDS and axis_words(manifest(True)) == ASSISTANT_WORDS
    banner = broken_banner(manifest(False))
    assert banner is not None and banner.startswith("**This axis is not the Assistant Axis.**")
    above = {"gates": {"role_order": gate(0.0, 0.2, False), "default_above_roles": gate(1.0, 0.9, True)}}
    assert "The model's own replies lie above 100%" in reliability(above)
    for named in ({}, {"gates": 1}, {"gates": {"role_order": 2}}, manifest("no"), manifest(True)):
        assert is_assistant_axis(named), "without a failed gate an axis keeps its name"


def test_a_system_prompt_of_the_templates_own_is_said_where_it_moves_replies_far():
    measured = {"gates": {"auc": gate(0.99, 0.95, True)}}
    for shift in (LARGE_SHIFT, -0.7):
        text = reliability(measured | {"template_shift": shift})
        assert f"moves replies by {shift:+.2f} axis units" in text
    for shift in (0.49, None, True, "0.9", float("nan"), float("inf"), 10**9):
        assert reliability(measured | {"template_shift": shift}) == reliability(measured)


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


def test_a_report_can_be_brought_up_to_date_before_the_late_turns_are_measured():
    """Zones and gates are added by two commands, in any order."""
    axis = load_axis(DEFAULT_MODEL)
    report = (AXES / DEFAULT_MODEL / "report.md").read_text(encoding="utf-8")
    assert with_sections(report, axis) == report
    early = {key: value for key, value in axis.manifest.items() if key != "late_turns"}
    assert with_sections(report, replace(axis, manifest=early)) == report, "what is there stays"
    without = re.sub(r"^## Late turns.*?(?=^## )", "", report, flags=re.M | re.S)
    assert with_sections(without, replace(axis, manifest=early)) == without
    assert with_sections(without, axis) == report
