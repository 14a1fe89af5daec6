"""How figures are written in the evaluation's reports, and whether they reach their goals."""

from __future__ import annotations

from typing import Any

from demo.evaluation.results import MOST_COST, MOST_LOST

# What a setting of the cap may cost is the goal for the cap in use.
# The fall is about that of the figures published with the paper, for models of 32B and 70B.
GOAL_FALL, GOAL_DIFFERENCE, GOAL_PERPLEXITY = 0.5, MOST_LOST, MOST_COST

FEWEST = 5  # uncapped replies of a kind without which a fall says nothing


def seeds(number: int) -> str:
    """A number of seeds in words."""
    return "one seed" if number == 1 else f"{number} seeds"


def share(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.1f}%"


def points(value: float) -> str:
    """A difference of shares in percentage points, with a sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def change_of(estimate: dict[str, float]) -> str:
    """A difference of shares in percentage points, with its 95% interval."""
    value, low, high = (points(estimate[name]) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def units(value: float | None) -> str:
    """A projection in axis units, with a sign; a dash for None."""
    return "–" if value is None else f"{value:+.2f}".replace("-", "−")


def fall_of(group: dict[str, Any], seeds: int) -> str:
    """A relative fall with its 95% interval, or that too few uncapped replies tell of it.

    Args:
        group: "attempts", the shares of their replies "uncapped" and "capped", and the "fall".
        seeds: replies of each attempt.
    """
    value, low, high = (group["fall"][name] for name in ("value", "low", "high"))
    if _number(group, seeds) < FEWEST or value is None or low is None or high is None:
        return "too few to tell"
    if not group["capped"]:  # then all resampled falls are 100%, however few replies there are
        return f"100%, all {_number(group, seeds)}"
    return f"{value:.0%} [{low:.0%}, {high:.0%}]".replace("-", "−")


def verdict(reached: bool) -> str:
    return "reached" if reached else "missed"


def fall_verdict(group: dict[str, Any], seeds: int) -> str:
    """Whether a relative fall reaches its goal, and for certain. Arguments: those of `fall_of`."""
    value, low = group["fall"]["value"], group["fall"]["low"]
    if _number(group, seeds) < FEWEST or value is None or low is None:
        return "not tested"
    if value < GOAL_FALL:
        return "missed"
    return "reached" if low >= GOAL_FALL else "reached by the estimate, not by its whole interval"


def _number(group: dict[str, Any], seeds: int) -> int:
    """Of the uncapped replies, those of the kind."""
    return round(group["attempts"] * seeds * group["uncapped"])


def reached_difference(change: float) -> bool:
    """Whether a change of the share of correct answers stays within its goal."""
    return abs(change) <= GOAL_DIFFERENCE


def reached_perplexity(ratio: float) -> bool:
    """Whether the ratio of perplexities stays within its goal."""
    return ratio <= GOAL_PERPLEXITY
