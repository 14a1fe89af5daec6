"""The warning for an axis that fails its quality gates."""

from __future__ import annotations

from demo.axis.gates import GATE_WARNINGS, GATES, failed_gates, gate_banner


def gate(value: float, threshold: float, passed: bool) -> dict[str, object]:
    return {"value": value, "threshold": threshold, "passed": passed}


def test_every_gate_has_a_warning():
    assert set(GATE_WARNINGS) == set(GATES)


def test_an_axis_that_passes_has_no_banner():
    assert gate_banner({"gates": {name: gate(1.0, 0.9, True) for name in GATES}}) is None
    assert gate_banner({}) is None


def test_the_banner_names_a_failed_gate_with_its_numbers():
    banner = gate_banner({"gates": {"auc": gate(0.91, 0.95, False), "split_half": gate(0.97, 0.95, True)}})
    assert banner is not None and "AUC 0.91, needs 0.95" in banner and "1 of its quality gates" in banner
    assert "two halves" not in banner


def test_text_from_an_untrusted_manifest_is_not_shown():
    hostile = {
        "auc": {"value": "<script>", "threshold": 0.95, "passed": False},
        "<b>": gate(0.1, 0.9, False),
        "fluency": "x",
    }
    assert failed_gates({"gates": hostile}) == []
    assert failed_gates({"gates": [1, 2]}) == []
