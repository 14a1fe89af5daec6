"""Two conversations side by side, turn by turn, for notebooks and scripts. The page has its own view."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from demo.conversation.settings import CAPPED
from demo.conversation.turns import Reply, Turn

Kind = Literal["same", "left", "right"]

_WORD = re.compile(r"\s*\S+|\s+$")


@dataclass(frozen=True, slots=True)
class ComparedTurn:
    """One turn of two conversations.

    Attributes:
        users: the two messages; None where a conversation has no such turn.
        replies: the two replies; None where there is none.
        difference: mean of the right reply minus mean of the left one, axis units; None without both. It
            means something only if both were read along the same axis.
    """

    users: tuple[str | None, str | None]
    replies: tuple[Reply | None, Reply | None]
    difference: float | None

    @property
    def words(self) -> list[tuple[Kind, str]]:
        """The texts of both replies in pieces: what they share, and what only one of them has."""
        left, right = (reply.text if reply else "" for reply in self.replies)
        return word_difference(left, right)


def compare(
    left: Sequence[Turn], right: Sequence[Turn], branch: str = CAPPED, right_branch: str | None = None
) -> list[ComparedTurn]:
    """Compare two conversations.

    Args:
        left, right: their turns; the same ones with another `right_branch` compare two branches.
        branch: whose replies are compared.
        right_branch: another branch for the right side; None for the same.
    """
    rows = []
    for one, other in zip_longest(left, right):
        replies = (
            one.reply_in(branch) if one else None,
            other.reply_in(right_branch or branch) if other else None,
        )
        mine, yours = (reply.mean if reply else None for reply in replies)
        difference = None if mine is None or yours is None else yours - mine
        rows.append(
            ComparedTurn((one.user if one else None, other.user if other else None), replies, difference)
        )
    return rows


def word_difference(left: str, right: str) -> list[tuple[Kind, str]]:
    """Two texts in pieces: ("same", text), and ("left", text) or ("right", text) for what only one has."""
    mine, yours = _WORD.findall(left), _WORD.findall(right)
    pieces: list[tuple[Kind, str]] = []
    for name, a, b, c, d in difflib.SequenceMatcher(None, mine, yours, autojunk=False).get_opcodes():
        if name == "equal":
            pieces.append(("same", "".join(mine[a:b])))
            continue
        pieces += [("left", "".join(mine[a:b]))] if b > a else []
        pieces += [("right", "".join(yours[c:d]))] if d > c else []
    return pieces
