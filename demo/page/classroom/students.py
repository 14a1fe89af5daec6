"""The students of a class, their turns, and the turns that they want to show."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from demo.conversation.conversation import Conversation
from demo.conversation.settings import BRANCHES, CAPPED, UNCAPPED
from demo.conversation.turns import Turn, same_words
from demo.page.classroom.numbers import Guess, Pair, pair_of
from demo.plots.marks import PlotMarks

PANES = ("a", "b")
Shown = Literal["", "asked", "shown", "refused"]


def owner_of(token: str) -> str:
    """The digest by which a student's rows are known; the token cannot be found from it."""
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(eq=False)
class ClassTurn:
    """One turn of a student.

    Attributes:
        order: the branches that stand at A and at B.
        asks: whether the student guesses before the colours show.
        revealed: whether the student may know which reply is which.
        guess: the pane that the student took for the capped one; empty for none.
        shown: whether the student wants to show it to the class, and what the speaker said.
        taken: whether it is of the speaker's conversation, from which the student goes on.
        version: changes with every change other than a further token.
    """

    turn: Turn
    order: tuple[str, str] = (UNCAPPED, CAPPED)
    asks: bool = False
    scenario: str = ""
    revealed: bool = True
    ended: bool = False
    guess: str = ""
    shown: Shown = ""
    taken: bool = False
    version: int = 0
    _numbers: Pair | None = None

    @property
    def same(self) -> bool:
        """Whether both replies are the same words."""
        return same_words(self.turn)

    @property
    def can_be_guessed(self) -> bool:
        """Whether there are two whole replies that differ."""
        ends = [self.turn.replies[branch].finish for branch in BRANCHES]
        return not self.same and not {"failed", "cancelled", None} & set(ends)

    @property
    def verdict(self) -> Guess | None:
        """Whether the guess was right; None without one."""
        if not self.guess:
            return None
        return "right" if self.order[PANES.index(self.guess)] == CAPPED else "wrong"

    def numbers(self, marks: PlotMarks) -> Pair:
        """What the board knows of it, once it has ended. The means are computed once."""
        if self._numbers is None:
            self._numbers = pair_of(self.turn, marks, scenario=self.scenario)
        return replace(self._numbers, guess=self.verdict)


@dataclass(eq=False)
class Student:
    """One tab of a student.

    Attributes:
        number: what the board calls it, from 1.
        chat: the number of its conversation, from 1.
        writing: whether replies are being written.
        ahead: conversations that the engine answers before this one.
        problem: why the last turn failed, as (number of the failure, sentence, the message that was lost).
        seated: False while it waits for a place.
        queued: orders those who wait.
        streams: connections that are open.
        seen: when one was last open, in seconds of the monotonic clock.
        gone: set when the speaker has removed it.
        system_prompt: of a conversation that goes on from the speaker's; None for the lesson's.
        message: the id that its tab gave to the latest message, so that none is answered twice.
    """

    token: str
    number: int
    conversation: Conversation = field(default_factory=Conversation)
    turns: list[ClassTurn] = field(default_factory=list)
    chat: int = 1
    writing: bool = False
    ahead: int = 0
    problem: tuple[int, str, str] | None = None
    seated: bool = False
    queued: int = 0
    streams: int = 0
    seen: float = field(default_factory=time.monotonic)
    gone: bool = False
    system_prompt: str | None = None
    message: str = ""

    @property
    def owner(self) -> str:
        return owner_of(self.token)


@dataclass(eq=False)
class Exhibit:
    """A turn that a student wants to show. Its texts leave the student's page only while `is_shown`."""

    id: int
    student: Student
    at: int
    turn: ClassTurn

    @property
    def is_shown(self) -> bool:
        return self.turn.shown == "shown"

    def as_json(self) -> dict[str, Any]:
        """What the board is sent of it."""
        head = {"id": self.id, "student": self.student.number, "turn": self.at + 1}
        if not self.is_shown:
            return head | {"shown": False}
        turn = self.turn.turn
        texts = {branch: turn.replies[branch].text for branch in BRANCHES}
        return head | {"shown": True, "user": turn.user, **texts}
