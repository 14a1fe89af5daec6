"""Answers the students of a class with the engine, and says what each student's page shows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from demo.axis.axis import AssistantAxis
from demo.axis.zones import zone_of
from demo.conversation.conversation import Conversation
from demo.conversation.lesson import Lesson
from demo.conversation.session_file import (
    Recording,
    dumps,
    from_json,
    parsed,
    rounded,
    to_json,
    token_json,
    turn_json,
)
from demo.conversation.settings import ALL_BRANCHES, BRANCHES
from demo.conversation.turns import Reply, Turn, well_formed
from demo.engine.protocol import WaitEvent
from demo.page.chat_handlers import plain_reason
from demo.page.classroom.classroom import DAMAGED, Classroom
from demo.page.classroom.numbers import LARGEST_MEAN
from demo.page.classroom.students import PANES, ClassTurn, Student
from demo.page.rate_limit import RateLimiter
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError, explain_failure

MOST_MESSAGE = 4000  # characters

_LOST = "The replies failed ({}); your message is back in the box, so try again."


@dataclass(frozen=True)
class Loaded:
    """The model that answers a class.

    Attributes:
        engine: one of `demo.engine.protocol.Engine`, which also says whether it knows conditional caps.
        name, dtype, template: of the model, as in its sessions.
        thinks: whether it always reasons before it answers.
    """

    engine: Any
    axis: AssistantAxis
    name: str
    dtype: str = ""
    template: str = ""
    thinks: bool = False

    def forget(self, conversation: Conversation) -> None:
        """Drop the KV cache of a conversation."""
        self.engine.forget([conversation.branch_id(branch) for branch in ALL_BRANCHES])


class Talk:
    """Runs the turns of all students; each call occupies a thread until its turn has ended."""

    def __init__(self, classroom: Classroom, loaded: Loaded, rate_limiter: RateLimiter) -> None:
        """rate_limiter: the page's, so that a visitor has the same limits in a class."""
        self._classroom, self._loaded, self._rate_limiter = classroom, loaded, rate_limiter

    def say(
        self, student: Student, text: object, id: str, address: str, began: Callable[[Exception | None], None]
    ) -> None:
        """Answer one message in both branches.

        Args:
            id: of the message; one that was taken before is not answered again.
            address: the visitor's, for the rate limit.
            began: called once, as soon as the turn has begun, or with the error that kept it from beginning.
        """
        try:
            message = _checked(text)
            claimed = self._classroom.claim(student, id)
        except Exception as error:
            began(error)
            return
        if claimed is None:
            began(None)
            return
        self._answer(student, message, claimed, address, began)

    def _answer(
        self,
        student: Student,
        message: str,
        claimed: tuple[Conversation, Lesson, int],
        address: str,
        began: Callable[[Exception | None], None],
    ) -> None:
        """claimed: as `Classroom.claim` returns it. The others are as for `say`."""
        (conversation, lesson, number), loaded, turn = claimed, self._loaded, None
        try:
            settings = lesson.settings(
                loaded.axis,
                student.number,
                number,
                loaded.engine.conditional_caps,
                loaded.dtype,
                loaded.template,
                loaded.thinks,
            )
            characters = len(message) + len(lesson.system_prompt)
            with self._rate_limiter.turn(address, characters, loaded.engine.load):
                events = conversation.send(loaded.engine, message, settings)
                turn = self._classroom.begin(student, conversation, lesson)
                began(None)
                with closing(events):
                    for event in events:
                        student.ahead = event.ahead if isinstance(event, WaitEvent) else 0
        except Exception as error:
            found = explain_failure(error)
            known = found if isinstance(found, UserError) else error
            if turn is None:
                began(known)
            else:
                why = plain_reason(known, _LOST)
                self._classroom.fail(student, conversation, turn, why)
        finally:
            self._classroom.end(student, conversation, turn)
            if student.conversation is not conversation:  # begun anew meanwhile; the turn has cached since
                loaded.forget(conversation)


def _checked(text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise UserError("Write a message first.")
    if len(text) > MOST_MESSAGE:
        raise UserError(f"A message has at most {MOST_MESSAGE:,} characters here, not {len(text):,}.")
    return well_formed(text)


# --- what a student's page gets


@dataclass
class Sent:
    """What one stream of a student's page has been told.

    Attributes:
        state: the latest message of type "state".
        head: what the latest message of type "head" was made from.
        versions: of each turn; tokens: how many of the replies at A and B.
    """

    state: dict[str, Any] = field(default_factory=dict)
    head: tuple[object, ...] = ()
    chat: str = ""
    versions: dict[int, int] = field(default_factory=dict)
    tokens: dict[int, tuple[int, int]] = field(default_factory=dict)


@lru_cache(maxsize=8)
def _lesson_json(lesson: Lesson) -> dict[str, Any]:
    """Every stream asks for it several times a second, and it rarely changes."""
    return lesson.for_students().as_json()


def state_of(classroom: Classroom, student: Student, mirrored: bool) -> dict[str, Any]:
    """The student's place and what the speaker has set. mirrored: whether the speaker shows a stage."""
    problem = student.problem
    return {
        "type": "state",
        "class": classroom.id,
        "student": student.number,
        "place": classroom.place_of(student),
        "paused": classroom.paused,
        "lesson": _lesson_json(classroom.lesson),
        "chat": student.conversation.id,
        "turns": len(student.turns),
        "writing": student.writing,
        "ahead": student.ahead,
        "problem": problem and {"number": problem[0], "text": problem[1], "message": problem[2]},
        "mirrored": mirrored,
    }


def news(
    classroom: Classroom, loaded: Loaded, student: Student, sent: Sent, mirrored: bool
) -> list[dict[str, Any]]:
    """The messages that a stream has not been sent yet; see `demo.page.classroom.routes`."""
    with classroom.lock:  # a list, so that no slow phone holds the lock
        return list(_news(classroom, loaded, student, sent, mirrored))


def _news(
    classroom: Classroom, loaded: Loaded, student: Student, sent: Sent, mirrored: bool
) -> Iterator[dict[str, Any]]:
    state = state_of(classroom, student, mirrored)
    if state != sent.state:
        sent.state = state
        yield state
    head = classroom.lesson, student.system_prompt, student.conversation.id
    if head != sent.head:
        sent.head = head
        yield {"type": "head", "head": session_head(classroom, loaded, student)}
    if sent.chat != student.conversation.id:
        sent.chat, sent.versions, sent.tokens = student.conversation.id, {}, {}
    for index in [index for index in sent.versions if index >= len(student.turns)]:
        del sent.versions[index]  # a turn that failed
    for index, turn in enumerate(student.turns):
        if sent.versions.get(index) != turn.version:
            sent.versions[index] = turn.version
            view = turn_view(classroom, turn)
            sent.tokens[index] = _counts(view)
            yield {"type": "turn", "turn": index, "view": view}
        elif not turn.ended and (fresh := _fresh(turn, sent.tokens[index])):
            sent.tokens[index] = _counts(fresh, sent.tokens[index])
            yield {"type": "tokens", "turn": index, "panes": fresh["panes"]}


def turn_view(classroom: Classroom, turn: ClassTurn) -> dict[str, Any]:
    """One turn as its student may see it: no number, colour or name of a branch before it is revealed."""
    view: dict[str, Any] = {
        "user": turn.turn.user,
        "asks": turn.asks,
        "ended": turn.ended,
        "revealed": turn.revealed,
        "shown": turn.shown,
        "taken": turn.taken,
    }
    told, end = turn.revealed or turn.ended, _end_of(turn)
    panes: dict[str, dict[str, Any]] = {
        pane: {"tokens": _tokens(turn.turn.replies[branch], 0, end, turn.revealed)}
        | ({"branch": branch} if turn.revealed else {})
        | ({"fault": fault} if told and (fault := turn.turn.replies[branch].fault) else {})
        for pane, branch in zip(PANES, turn.order, strict=True)
    }
    if not turn.revealed or not turn.ended:
        return view | {"panes": panes}
    marks = classroom.marks
    for pane, branch in zip(PANES, turn.order, strict=True):
        mean = turn.turn.replies[branch].mean
        zone = zone_of(marks.zones, mean, marks.assistant)
        panes[pane] = {"branch": branch, "mean": rounded(mean), "zone": zone}
    return view | {
        "panes": panes,
        "same": turn.same,
        "verdict": turn.verdict,
        "scenario": turn.scenario,
        "data": turn_json(turn.turn, ()),
    }


def _end_of(turn: ClassTurn) -> int | None:
    """How many tokens of each reply may be seen; None for all.

    The engine adds each token to one reply before the other, so before the guess no reply shows a token more.
    """
    replies = [turn.turn.replies[branch] for branch in BRANCHES]
    if turn.revealed or any(reply.finish is not None for reply in replies):
        return None
    return min(len(reply.tokens) for reply in replies)


def _tokens(reply: Reply, start: int, end: int | None, revealed: bool) -> list[dict[str, Any]]:
    """Tokens of a reply from `start` to before `end`; before the turn is revealed, their words alone."""
    tokens = reply.tokens[start:end]
    if revealed:
        return [token_json(token, live=True, running=True) for token in tokens]
    return [
        {"t": token.text} | ({"r": 1} if token.reasoning else {}) | ({"s": 1} if token.special else {})
        for token in tokens
    ]


def _counts(view: dict[str, Any], before: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    a, b = (len(view["panes"].get(pane, {}).get("tokens", ())) for pane in PANES)
    return before[0] + a, before[1] + b


def _fresh(turn: ClassTurn, counts: tuple[int, int]) -> dict[str, Any] | None:
    """The tokens since `counts`, by pane; None where there are none."""
    end = _end_of(turn)
    panes: dict[str, dict[str, Any]] = {
        pane: {"tokens": found}
        for pane, branch, count in zip(PANES, turn.order, counts, strict=True)
        if (found := _tokens(turn.turn.replies[branch], count, end, turn.revealed))
    }
    return {"panes": panes} if panes else None


# --- what a student's tab gives back


def session_head(classroom: Classroom, loaded: Loaded, student: Student) -> dict[str, Any]:
    """The session file of a student's conversation without its turns; the page adds those that it has."""
    lesson, own = classroom.lesson.for_students(), student.system_prompt
    title, prompt = lesson.title or "A class", lesson.system_prompt if own is None else own
    head = Recording(loaded.name, [], classroom.marks, title, lesson.blurb, prompt)
    return to_json(head) | {"date": student.conversation.date}


def speakers_conversation(turns: Sequence[dict[str, Any]], loaded: Loaded, marks: PlotMarks) -> Conversation:
    """The conversation on the speaker's stage, with the uncapped and the capped reply of each turn.

    Args:
        turns: as `Mirror.turns` returns them.

    Raises:
        UserError: there is none, or it is one that cannot go on here.
    """
    kept = []
    for turn in turns:
        branches = turn.get("branches")
        if not isinstance(branches, dict) or not set(BRANCHES) <= set(branches):
            break
        kept.append(turn | {"branches": {branch: branches[branch] for branch in BRANCHES}})
    if not kept:
        raise UserError("The speaker's stage shows no turn with both replies yet; begin one of your own.")
    head = parsed(dumps(Recording(loaded.name, [], marks)))
    return conversation_of(head | {"turns": kept}, loaded)


def _check_bounds(turn: Turn) -> None:
    """Raises UserError for numbers that no model gives, or that the page cannot be sent."""
    means = [reply.mean for reply in turn.replies.values()]
    try:
        orjson.dumps(turn_json(turn, ()))
    except (TypeError, OverflowError) as error:
        raise UserError(DAMAGED) from error
    if not all(mean is None or abs(mean) <= LARGEST_MEAN for mean in means):
        raise UserError(DAMAGED)


def conversation_of(session: object, loaded: Loaded) -> Conversation:
    """The conversation that a tab gives back as a session file. It may be anything.

    Raises:
        UserError: it is not a session of this model with both replies in every turn.
    """
    recording = from_json(session)
    if recording.model != loaded.name:
        raise UserError(f"Your conversation was with {recording.model}, and another model is loaded now.")
    if any(set(turn.replies) != set(BRANCHES) for turn in recording.turns):
        raise UserError("Your conversation lacks replies, so it cannot go on; begin a new one.")
    for turn in recording.turns:
        _check_bounds(turn)
    conversation = Conversation(list(recording.turns))
    if recording.date:
        conversation.date = recording.date
    return conversation
