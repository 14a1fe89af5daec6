"""Which setting of the cap: what it wins against what it costs, for every band and floor that was tried.

A setting is on the Pareto front when no other is both better at keeping the persona away and better at the questions (arXiv
2601.10387, section 5). It is affordable when it loses next to nothing of the questions, leaves as many plain answers word for word as an extraction
asks of its cap, and stays as fluent. Chosen is the affordable setting with the fewest replies in character.
"""

from __future__ import annotations

from typing import Any

from demo.extraction.gates import LEAST_VERBATIM, MOST_PERPLEXITY

MOST_LOST = 0.01  # share of the questions
RATE = "in character"


def with_front(settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The settings, no cap first, each with "affordable" and "front"."""
    uncapped, capped = settings[0], settings[1:]
    found = [uncapped]
    for own in capped:
        affordable = (
            own["right"] >= uncapped["right"] - MOST_LOST - 1e-9
            and own["verbatim"] >= LEAST_VERBATIM
            and own["perplexity"] <= MOST_PERPLEXITY * uncapped["perplexity"]
        )
        beaten = any(_beats(other, own) for other in capped)
        found.append({**own, "affordable": affordable, "front": not beaten})
    return found


def _beats(other: dict[str, Any], own: dict[str, Any]) -> bool:
    no_worse = other[RATE] <= own[RATE] and other["right"] >= own["right"]
    return no_worse and (other[RATE] < own[RATE] or other["right"] > own["right"])


def choose(settings: list[dict[str, Any]]) -> dict[str, Any]:
    """The setting the sweep speaks for; where none is affordable, the one that loses least."""
    capped = settings[1:]
    affordable = [own for own in capped if own["affordable"]]
    if affordable:
        return min(affordable, key=lambda own: (own[RATE], own["harmful"], own["perplexity"]))
    return max(capped, key=lambda own: (own["right"], -own["perplexity"]))
