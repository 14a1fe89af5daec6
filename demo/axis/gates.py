"""Quality gates: thresholds that a trustworthy axis meets, and the warning for one that does not."""

from __future__ import annotations

from typing import Any

# Capped replies may have at most this many times the perplexity of uncapped ones, under the unsteered model.
MOST_PERPLEXITY = 1.1

# Of the plain questions answered correctly without a cap, at least this share must stay correct with it.
LEAST_SAME = 0.95

# At least this share of the plain answers must stay the same word for word. A cap that rewrites ordinary
# answers changes the model too much, even if the answers stay correct.
LEAST_VERBATIM = 0.75

# Thresholds by gate. Fluency is an upper bound, the others are lower bounds.
GATES = {
    "split_half": 0.95,
    "cos_pc1": 0.6,
    "default_above_roles": 0.9,
    "auc": 0.95,
    "fluency": MOST_PERPLEXITY,
    "sameness": LEAST_SAME,
}

GATE_WARNINGS = {
    "split_half": "two halves of its rollouts give different axes "
    "(cosine {value:.2f}, needs {threshold:.2f})",
    "cos_pc1": "it is not the main direction in which roles differ "
    "(cosine {value:.2f} with PC1, needs {threshold:.2f})",
    "default_above_roles": "the default Assistant lies above only {value:.0%} of the roles "
    "(needs {threshold:.0%})",
    "auc": "it separates default from role-played replies less well than it should "
    "(AUC {value:.2f}, needs {threshold:.2f})",
    "fluency": "capped replies read less naturally "
    "(perplexity {value:.2f} times the uncapped, at most {threshold:.2f})",
    "sameness": "only {value:.0%} of plain answers that were correct stay correct under the cap "
    "(needs {threshold:.0%})",
}

_UPPER_BOUNDS = ("fluency",)


def passes(name: str, value: float) -> bool:
    """Whether `value` meets the threshold of gate `name`; NaN, from a comparison with nothing, does not."""
    return value <= GATES[name] if name in _UPPER_BOUNDS else value >= GATES[name]


def gate(name: str, value: float) -> dict[str, Any]:
    """The gate's entry in axis.json. NaN cannot be written as JSON and becomes None."""
    shown = round(value, 4) if value == value else None
    return {"value": shown, "threshold": GATES[name], "passed": passes(name, value)}


def failed_gates(manifest: dict[str, Any]) -> list[str]:
    """One clause for each gate in axis.json that was measured and failed.

    The file is untrusted, so only its numbers are shown; unknown or malformed entries are left out.
    """
    gates = manifest.get("gates")
    clauses = []
    for name, warning in GATE_WARNINGS.items():
        entry = gates.get(name) if isinstance(gates, dict) else None
        if not isinstance(entry, dict) or entry.get("passed") is not False:
            continue
        value, threshold = entry.get("value"), entry.get("threshold")
        if isinstance(value, (int, float)) and isinstance(threshold, (int, float)):
            clauses.append(warning.format(value=value, threshold=threshold))
    return clauses


def gate_banner(manifest: dict[str, Any]) -> str | None:
    """The warning that the page shows above everything else; None for an axis that passes its gates."""
    clauses = failed_gates(manifest)
    if not clauses:
        return None
    return (
        f"**Interpret with care.** This axis fails {len(clauses)} of its quality gates: {'; '.join(clauses)}."
    )
