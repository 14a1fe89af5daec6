"""The path of a conversation: how far each reply's mean state lies from that of the reply before it.

States come from the engine, and so do the steps between them. This module says from which reply a step is
measured, which states a session file keeps, and how long the path is by turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from demo.conversation.settings import ALL_BRANCHES
from demo.conversation.turns import Reply, Turn
from demo.engine.protocol import State

# So many of a branch's last states stay in a session file: the next turn starts from the last one, another
# try at the last turn from the one before it.
_LAST_KEPT = 2


class PathLength(NamedTuple):
    """The length of a branch's path up to a turn.

    Attributes:
        length: the sum of the steps, in axis units.
        since: index of the turn from which it is counted: that of the first reply, or the last one whose step
            is not known.
    """

    length: float
    since: int


def has_place(reply: Reply | None) -> bool:
    """Whether this reply is a point of the path: it was not broken off, and has an answer."""
    return reply is not None and reply.finish in ("stop", "sentence", "length") and bool(reply.read)


def previous_state(turns: Sequence[Turn], branch: str) -> State | None:
    """The mean state of the last reply in a branch's history; None where there is none or it was not kept.

    An earlier reply does not stand in for it, because the step from there would be another one.
    """
    replies = (turn.reply_in(branch) for turn in reversed(turns))
    last = next((reply for reply in replies if has_place(reply)), None)
    return None if last is None else last.state


def states_kept(turns: Sequence[Turn]) -> list[set[str]]:
    """By turn, the branches whose reply keeps its state in a session file: the first and the last of each."""
    kept: list[set[str]] = [set() for _ in turns]
    for branch in ALL_BRANCHES:
        known = [
            index
            for index, turn in enumerate(turns)
            if (reply := turn.replies.get(branch)) is not None and reply.state is not None
        ]
        for index in {*known[:1], *known[-_LAST_KEPT:]}:
            kept[index].add(branch)
    return kept


def path_lengths(turns: Sequence[Turn], branch: str) -> list[PathLength | None]:
    """The length of a branch's path up to each turn; None before its first finished reply."""
    found: list[PathLength | None] = []
    now: PathLength | None = None
    for index, turn in enumerate(turns):
        reply = turn.reply_in(branch)
        if reply is not None and has_place(reply):
            if reply.step is None or now is None:
                now = PathLength(0.0, index)
            else:
                now = PathLength(now.length + reply.step.length, now.since)
        found.append(now)
    return found
