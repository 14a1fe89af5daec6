"""A reply at every decoder layer, as a conversation keeps it and a session file holds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from demo.conversation.json_values import items, maybe, number, text, whole

Rows = tuple[tuple[float, ...], ...]

# To so many decimals; colours and lines show no more, and a file stays small.
_DECIMALS = 2
_MOST_LAYERS, _MOST_TOKENS = 1024, 100_000


@dataclass(frozen=True, slots=True)
class Layers:
    """The projections of T tokens of a reply at L decoder layers, in axis units of each layer.

    The model read the reply again for this, so its tokens may be cut slightly differently.

    Attributes:
        probe: the probe layer.
        cap: the first and the last capped layer of the turn, in whichever branch; None without a cap.
        floors: that of each layer from the first capped one to the last; None for one that is not capped.
        tokens: their texts.
        reasoning: how many of them, at the beginning, are reasoning.
        own: [T][L], as the branch reads the reply.
        plain: [T][L], as the unsteered model reads it.
        below: the tokens, counted from 1, that lie below the floor at a capped layer as the unsteered model
            reads them.
    """

    probe: int
    cap: tuple[int, int] | None
    floors: tuple[float | None, ...]
    tokens: tuple[str, ...]
    reasoning: int
    own: Rows
    plain: Rows
    below: tuple[int, ...]


def rounded_rows(rows: Sequence[Sequence[float]]) -> Rows:
    """[T][L] as `Layers` keeps them."""
    return tuple(tuple(round(value, _DECIMALS) + 0.0 for value in row) for row in rows)


def below_floor(
    rows: Sequence[Sequence[float]], cap: tuple[int, int] | None, floors: Sequence[float | None]
) -> tuple[int, ...]:
    """The rows, counted from 1, with a value below the floor at a capped layer. They are not rounded yet."""
    if cap is None:
        return ()
    return tuple(
        place
        for place, row in enumerate(rows, 1)
        if any(
            floor is not None and value < floor for value, floor in zip(row[cap[0] :], floors, strict=False)
        )
    )


def layers_json(layers: Layers) -> dict[str, Any]:
    """The JSON object of a session file; `plain` is left out where it says the same as `own`."""
    return {
        "probe": layers.probe,
        "cap": None if layers.cap is None else list(layers.cap),
        "floors": list(layers.floors),
        "tokens": list(layers.tokens),
        "reasoning": layers.reasoning,
        "own": [list(row) for row in layers.own],
        **({} if layers.plain == layers.own else {"plain": [list(row) for row in layers.plain]}),
        "below": list(layers.below),
    }


def layers_from_json(data: dict[str, Any]) -> Layers:
    """The inverse. Raises KeyError, TypeError or ValueError for anything else."""
    own = _rows(data["own"])
    found = Layers(
        probe=whole(data["probe"]),
        cap=None if data["cap"] is None else _band(data["cap"]),
        floors=tuple(maybe(floor) for floor in items(data["floors"])),
        tokens=tuple(text(token) for token in items(data["tokens"])),
        reasoning=whole(data["reasoning"]),
        own=own,
        plain=_rows(data["plain"]) if "plain" in data else own,
        below=tuple(whole(place) for place in items(data["below"])),
    )
    _check(found)
    return found


def _band(data: object) -> tuple[int, int]:
    first, last = (whole(layer) for layer in items(data))
    if not 0 <= first <= last:
        raise ValueError("a band that ends before it begins")
    return first, last


def _rows(data: object) -> Rows:
    return tuple(tuple(number(value) for value in items(row)) for row in items(data))


def _check(layers: Layers) -> None:
    """Raises ValueError where the parts do not fit each other."""
    count, width = len(layers.tokens), len(layers.own[0]) if layers.own else 0
    if not (0 < count <= _MOST_TOKENS and 0 < width <= _MOST_LAYERS):
        raise ValueError("layers without tokens, or more than any reply has")
    for rows in (layers.own, layers.plain):
        if len(rows) != count or any(len(row) != width for row in rows):
            raise ValueError("layers of different lengths")
    first, last = layers.cap or (0, -1)
    if not (0 <= layers.probe < width and last < width and 0 <= layers.reasoning <= count):
        raise ValueError("layers that the reply does not have")
    if len(layers.floors) != last - first + 1:
        raise ValueError("not one floor for each capped layer")
    if any(not 1 <= place <= count for place in layers.below):
        raise ValueError("a token that the reply does not have")
