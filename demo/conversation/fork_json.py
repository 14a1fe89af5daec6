"""Forks and notes in session files; see docs/session-file.md. The functions raise what json_values raises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from demo.conversation.forks import Fork, ForkPoint, Notes
from demo.conversation.json_values import items, text, whole
from demo.conversation.settings import ALL_BRANCHES
from demo.conversation.turns import Turn

# As many as a page holds open beside the conversation that they left.
MOST_FORKS = 23

# Turns, and the first that is wanted, as JSON.
TurnsJson = Callable[[Sequence[Turn], int], list[dict[str, Any]]]
ReadTurn = Callable[[dict[str, Any]], Turn]


def notes_json(notes: Notes) -> dict[str, Any]:
    """The keys of what has been noted; none where nothing was."""
    return {**({"star": True} if notes.star else {}), **({"note": notes.note} if notes.note else {})}


def notes_from(data: dict[str, Any]) -> Notes:
    """The inverse of `notes_json`."""
    return Notes(bool(data.get("star")), text(data.get("note", "")))


def point_json(point: ForkPoint) -> dict[str, Any]:
    """Where a fork leaves its parent."""
    if not point.branch:
        return {"turn": point.turn}
    return {
        "turn": point.turn,
        "branch": point.branch,
        "token": point.token,
        "was": point.was,
        "words": point.words,
    }


def point_from(data: dict[str, Any]) -> ForkPoint:
    """The inverse of `point_json`."""
    branch = text(data.get("branch", ""))
    point = ForkPoint(
        whole(data["turn"]),
        branch,
        whole(data.get("token", 0)),
        text(data.get("was", "")),
        text(data.get("words", "")),
    )
    if point.turn < 0 or point.token < 0 or branch not in ("", *ALL_BRANCHES):
        raise ValueError("a fork at a place that no conversation has")
    return point


def forks_json(turns: list[Turn], forks: Sequence[Fork], turns_json: TurnsJson) -> list[dict[str, Any]]:
    """Forks with the turns that they do not share with their parents.

    Args:
        turns: of the conversation that the first fork left.
    """
    of = [turns, *(fork.turns for fork in forks)]
    return [
        {
            "parent": fork.parent,
            "point": point_json(fork.point),
            "title": fork.title,
            "blurb": fork.blurb,
            "system_prompt": fork.system_prompt,
            **notes_json(fork.notes),
            "shared": (shared := shared_turns(of[fork.parent], fork.turns)),
            "turns": turns_json(fork.turns, shared),
        }
        for fork in forks
    ]


def forks_from(data: object, turns: list[Turn], read_turn: ReadTurn) -> tuple[Fork, ...]:
    """The inverse of `forks_json`."""
    found: list[Fork] = []
    of = [turns]
    if len(items(data)) > MOST_FORKS:
        raise ValueError("too many forks")
    for one in items(data):
        parent, shared = whole(one["parent"]), whole(one["shared"])
        if not 0 <= parent < len(of) or not 0 <= shared <= len(of[parent]):
            raise ValueError("a fork from a conversation that is not in the file")
        own = [*of[parent][:shared], *(read_turn(turn) for turn in items(one["turns"]))]
        found.append(
            Fork(
                parent,
                point_from(one["point"]),
                own,
                text(one.get("title", "")),
                text(one.get("blurb", "")),
                text(one.get("system_prompt", "")),
                notes_from(one),
            )
        )
        of.append(own)
    return tuple(found)


def shared_turns(parent: Sequence[Turn], fork: Sequence[Turn]) -> int:
    """How many turns at the beginning are the same objects."""
    pairs = zip(parent, fork, strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one is not other), min(len(parent), len(fork)))
