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
