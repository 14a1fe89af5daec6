"""What an axis must reach to be trusted: thresholds, and a value held against one.

The numbers follow replications of the paper on other models: an axis can be stable and still measure only that there is a
system prompt, so stability, direction and separation are all asked for.
"""

from __future__ import annotations

from typing import Any

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
