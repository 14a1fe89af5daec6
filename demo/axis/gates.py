"""What a trustworthy axis must pass, in words, and the warning for one that does not."""

from __future__ import annotations

from typing import Any

GATE_WORDS = {
    "split_half": "two halves of its rollouts give different axes (cosine {value:.2f}, needs {threshold:.2f})",
    "cos_pc1": "it is not the roles' main direction of difference (cosine {value:.2f} with PC1, needs {threshold:.2f})",
    "default_above_roles": "the default Assistant lies above only {value:.0%} of the roles (needs {threshold:.0%})",
    "auc": "it tells default from role-played replies less well than it should (AUC {value:.2f}, needs {threshold:.2f})",
    "fluency": "capped replies read less naturally (perplexity {value:.2f} times the uncapped, at most {threshold:.2f})",
    "sameness": "only {value:.0%} of plain answers that were right stay right under the cap (needs {threshold:.0%})",
}


def failed_gates(manifest: dict[str, Any]) -> list[str]:
    """One clause for each gate of axis.json that was measured and not passed. Unknown or malformed entries are left out:
    the file may come from anyone, and only numbers of it are shown."""
    gates = manifest.get("gates")
    clauses = []
    for name, words in GATE_WORDS.items():
        gate = gates.get(name) if isinstance(gates, dict) else None
        if not isinstance(gate, dict) or gate.get("passed") is not False:
            continue
        value, threshold = gate.get("value"), gate.get("threshold")
        if isinstance(value, (int, float)) and isinstance(threshold, (int, float)):
            clauses.append(words.format(value=value, threshold=threshold))
    return clauses


def gate_banner(manifest: dict[str, Any]) -> str | None:
    """The sentence that the page shows above everything else, or None for an axis that passes."""
    clauses = failed_gates(manifest)
    if not clauses:
        return None
    return f"**Read with care.** This axis misses {len(clauses)} of its checks: {'; '.join(clauses)}."


# Capped replies may be at most this much more surprising, token by token, to the unsteered model...
MOST_PERPLEXITY = 1.1

# ... and at least this share of the plain questions answered rightly without a cap must be answered rightly with it.
LEAST_SAME = 0.95

# A cap that rewrites ordinary answers is no safeguard but another model, even where they stay right: at least this share of
# the plain answers must come out word for word.
LEAST_VERBATIM = 0.75

# fluency is an upper bound, the others are lower ones.
GATES = {
    "split_half": 0.95,
    "cos_pc1": 0.6,
    "default_above_roles": 0.9,
    "auc": 0.95,
    "fluency": MOST_PERPLEXITY,
    "sameness": LEAST_SAME,
}

_UPPER = ("fluency",)


def passes(name: str, value: float) -> bool:
    """Whether `value` meets the threshold of gate `name`; NaN, where one side of a comparison is empty, does not."""
    return value <= GATES[name] if name in _UPPER else value >= GATES[name]


def gate(name: str, value: float) -> dict[str, Any]:
    """The gate's entry in axis.json. NaN cannot be written as JSON and becomes None."""
    shown = round(value, 4) if value == value else None
    return {"value": shown, "threshold": GATES[name], "passed": passes(name, value)}
