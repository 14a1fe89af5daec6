"""The warning on an axis that misses its checks."""

from __future__ import annotations

from demo.axis.gates import GATE_WORDS, GATES, failed_gates, gate_banner


def gate(value: float, threshold: float, passed: bool) -> dict[str, object]:
    return {"value": value, "threshold": threshold, "passed": passed}


def test_every_gate_of_an_extraction_has_words():
    assert set(GATE_WORDS) == set(GATES)


def test_an_axis_that_passes_shows_nothing():
    assert gate_banner({"gates": {name: gate(1.0, 0.9, True) for name in GATES}}) is None
    assert gate_banner({}) is None


def test_a_missed_gate_is_named_with_its_numbers():
    banner = gate_banner({"gates": {"auc": gate(0.91, 0.95, False), "split_half": gate(0.97, 0.95, True)}})
    assert banner is not None and "AUC 0.91, needs 0.95" in banner and "1 of its checks" in banner
    assert "two halves" not in banner


def test_what_a_stranger_wrote_into_the_gates_never_reaches_the_page():
    hostile = {"auc": gate("<script>", 0.95, False), "<b>": gate(0.1, 0.9, False), "fluency": "x"}  # type: ignore[arg-type]
    assert failed_gates({"gates": hostile}) == []
    assert failed_gates({"gates": [1, 2]}) == []
