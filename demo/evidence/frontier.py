"""Which setting of the cap: what it wins against what it costs, for every band and floor that was tried.

A setting is on the Pareto front when no other is both better at keeping the persona away and better at the questions (arXiv
2601.10387, section 5). It is affordable when it loses next to nothing of the questions, leaves most answers word for word as they
are, and stays as fluent as an extraction asks of its cap. It is visible when its band covers the probe layer: a cap that acts above
it leaves no trace on the line that the page draws. Chosen is the affordable and visible setting with the fewest replies in character.
"""

from __future__ import annotations

from typing import Any

from demo.extraction.gates import MOST_PERPLEXITY

MOST_LOST = 0.01  # share of the questions
# Two answers in three. An extraction asks for more, but of short plain answers; these are harder and several sentences long.
LEAST_UNCHANGED = 2 / 3
RATE = "in character"


def with_front(settings: list[dict[str, Any]], probe_layer: int) -> list[dict[str, Any]]:
    """The settings, no cap first, each with "affordable", "visible" and "front"."""
    uncapped, capped = settings[0], settings[1:]
    found = [uncapped]
    for own in capped:
        affordable = (
            own["right"] >= uncapped["right"] - MOST_LOST - 1e-9
            and own["verbatim"] >= LEAST_UNCHANGED
            and own["perplexity"] <= MOST_PERPLEXITY * uncapped["perplexity"]
        )
        beaten = any(_beats(other, own) for other in capped)
        visible = own["layers"][0] <= probe_layer <= own["layers"][1]
        found.append({**own, "affordable": affordable, "visible": visible, "front": not beaten})
    return found


def _beats(other: dict[str, Any], own: dict[str, Any]) -> bool:
    no_worse = other[RATE] <= own[RATE] and other["right"] >= own["right"]
    return no_worse and (other[RATE] < own[RATE] or other["right"] > own["right"])


def choose(settings: list[dict[str, Any]]) -> dict[str, Any]:
    """The setting the sweep speaks for; where none will do, the one that loses least."""
    capped = settings[1:]
    fit = [own for own in capped if own["affordable"] and own["visible"]]
    if fit:
        return min(fit, key=lambda own: (own[RATE], own["harmful"], own["perplexity"]))
    return max(capped, key=lambda own: (own["right"], -own["perplexity"]))
