"""The state of one class: who is in it, what the speaker has set, every conversation, and what is shown.

Nothing here knows of requests, pages or the engine, and nothing is stored or logged. Every method may be
called from any thread. A student is known by an opaque token alone.
"""

from __future__ import annotations

import hmac
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from secrets import choice, randbits, token_urlsafe
from threading import RLock
from typing import Any

from demo.conversation.conversation import Conversation
from demo.conversation.lesson import Lesson
from demo.conversation.settings import CAPPED, UNCAPPED
from demo.conversation.turns import Turn, well_formed
from demo.page.classroom.numbers import MOST_ROWS, MOST_TURNS, Row
from demo.page.classroom.students import PANES, ClassTurn, Exhibit, Shown, Student, owner_of
from demo.page.hosting import LARGEST_CLASS, MOST_STUDENTS
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError

MOST_WAITING = 120
MOST_SHOWN, MOST_ASKED = 40, 3  # turns on the board or asked for: of the class; asked for by one student
MOST_STREAMS = 8  # of one student: two of each tab

# Letters and digits that nobody takes for one another, on a screen or when they are read out.
ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
CODE_LENGTH = 5

# In seconds. A phone that sleeps comes back; while others wait, its seat goes to the first of them.
AWAY_S = 90.0
_ARRIVES_S = 20.0  # a page that has joined listens within a moment; a program that only joins takes no seat

TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")

_PAUSED = "The speaker has paused the class; your message is still in the box."
_WAITING = "You are still waiting for a place; your message is still in the box."
_WRITING = "Your replies are still being written; wait for their end, or stop them."
_NO_TURN = "That turn is no longer there."
DAMAGED = "Your stored conversation is damaged, so it cannot go on; begin a new one."


class WrongCodeError(UserError):
    """Somebody tried to join with a code that does not lead into the class."""


class RemovedError(UserError):
    """The speaker has removed this student."""


def new_code() -> str:
    """A join code."""
    return "".join(choice(ALPHABET) for _ in range(CODE_LENGTH))


class Classroom:
    """One class.

    Attributes:
        id: what the tabs of the class know it by.
        code: what students enter.
        lesson, paused: what the speaker has set.
        marks: the reference lines of the board, with the zones of the axis.
        changes: grows with every change that the board may show.
    """

    def __init__(
        self,
        marks: PlotMarks,
        room: int = MOST_STUDENTS,
        dropped: Callable[[Conversation], None] = lambda conversation: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """An empty class.

        Args:
            room: how many students may talk to the model.
            dropped: called with every conversation that nobody goes on with, while the class is locked.
            clock: seconds that only grow.
        """
        self.marks, self.room, self._dropped, self._clock = marks, room, dropped, clock
        self.id, self.code, self.secret = token_urlsafe(9), new_code(), token_urlsafe(32)
        self.lesson, self.paused, self.changes = Lesson(), False, 0
        self._students: dict[str, Student] = {}
        self._rows: list[Row] = []  # of conversations that have ended, or whose student is not here
        self._exhibits: list[Exhibit] = []
        self._is_back = False  # from a tab, after a restart
        self._given_back, self._removed = set[str](), set[str]()  # owners
        self._last_number = self._last_queued = self._last_exhibit = self._last_problem = 0
        self.lock = RLock()

    def is_speaker(self, secret: str) -> bool:
        """Whether this is the speaker's secret."""
        return hmac.compare_digest(well_formed(secret).encode(), self.secret.encode())

    def student(self, token: str) -> Student | None:
        """The student with this token. Raises RemovedError for one whom the speaker has removed."""
        with self.lock:
            if TOKEN.fullmatch(token) and owner_of(token) in self._removed:
                raise RemovedError("The speaker has removed you from the class.")
            return self._students.get(token)

    # --- joining, waiting, leaving

    def join(self, code: str, token: str = "", known_as: str = "") -> Student:
        """A student joins, or joins again with the token of their tab.

        Args:
            token: empty for a tab that has none yet.
            known_as: the id of the class for a tab that was in it. It stands for the code where the class has
                come back after a restart, because the speaker may have changed the code since.

        Raises:
            WrongCodeError: the code is wrong.
            RemovedError: the speaker has removed this student.
            UserError: there is no room to wait, or the token is none.
        """
        typed = "".join(well_formed(code).upper().split())
        returns = self._is_back and bool(token) and hmac.compare_digest(known_as.encode(), self.id.encode())
        if not returns and not hmac.compare_digest(typed.encode(), self.code.encode()):
            raise WrongCodeError("There is no class with this code here; look at the screen again.")
        if token and not TOKEN.fullmatch(token):
            raise UserError("This tab's token is damaged; open the address in a new tab.")
        with self.lock:
            known = self.student(token)
            if known is not None:
                return known
            if len(self._students) >= self.room + MOST_WAITING:
                self._forget_absent()
            if len(self._students) >= self.room + MOST_WAITING:
                raise UserError("The class is full, and so is its queue; try again in a few minutes.")
            arrived = self._clock() - AWAY_S + _ARRIVES_S
            student = Student(token or token_urlsafe(32), 0, seen=arrived)
            own = [row for row in self._rows if row.owner == student.owner]
            student.number = own[0].student if own else self._next_number()
            student.chat = max((row.chat for row in own), default=0) + 1
            self._students[student.token] = student
            self.changes += 1
            self._queue(student)
            return student

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def _queue(self, student: Student) -> None:
        self._last_queued += 1
        student.queued, student.seated = self._last_queued, False
        self._fill()

    def _is_present(self, student: Student) -> bool:
        return student.streams > 0 or self._clock() - student.seen < AWAY_S

    def _fill(self) -> None:
        """Give free seats to those who wait; of those who are away while others wait, take them."""
        waiting = [one for one in self._students.values() if not one.seated and self._is_present(one)]
        waiting.sort(key=lambda one: one.queued)
        seated = [one for one in self._students.values() if one.seated]
        for away in [one for one in seated if not self._is_present(one) and not one.writing]:
            if len(seated) - self.room + len(waiting) <= 0:
                break
            away.seated = False
            seated.remove(away)
            self.changes += 1
        for student in waiting[: max(0, self.room - len(seated))]:
            student.seated = True
            self.changes += 1

    def place_of(self, student: Student) -> int:
        """How many places from the front of the queue, from 1; 0 for a student who has a seat."""
        with self.lock:
            if not student.seated:
                self._fill()
            if student.seated:
                return 0
            others = (one for one in self._students.values() if not one.seated and self._is_present(one))
            return 1 + sum(one.queued < student.queued for one in others)

    def check_may_listen(self, student: Student) -> None:
        """Raises UserError when the student has too many streams open."""
        if student.streams >= MOST_STREAMS:
            raise UserError("Your conversation is open in too many tabs; close some.")

    @contextmanager
    def present(self, student: Student) -> Iterator[None]:
        """While a tab of the student has a stream open."""
        with self.lock:
            returns = not self._is_present(student) and not student.seated
            student.streams += 1
            if returns:
                self._queue(student)
            self.changes += 1
        try:
            yield
        finally:
            with self.lock:
                student.streams -= 1
                student.seen = self._clock()
                self.changes += 1

    def _forget_absent(self) -> None:
        """Make room for others; numbers stay."""
        for student in [one for one in self._students.values() if not self._is_present(one)]:
            if not student.seated and not student.writing:
                self._remove(student)

    def remove(self, number: int) -> None:
        """The speaker sends a student away; 0 for all of them. Raises UserError when there is none."""
        with self.lock:
            found = [one for one in self._students.values() if number in (0, one.number)]
            if not found:
                raise UserError("That student is no longer here.")
            for student in found:
                self._remove(student)
                self._removed.add(student.owner)
            self._fill()

    def _remove(self, student: Student) -> None:
        self._end_chat(student)
        student.gone = True
        del self._students[student.token]

    # --- turns

    def check_may_write(self, student: Student) -> None:
        """Raises UserError when this student may not send a message now."""
        with self.lock:
            if student.gone:
                raise UserError("You are no longer in this class; join again.")
            if student.writing:
                raise UserError(_WRITING)
            if self.paused:
                raise UserError(_PAUSED)
            if self.place_of(student):
                raise UserError(_WAITING)
            if len(student.turns) >= MOST_TURNS:
                raise UserError(
                    f"A conversation has at most {MOST_TURNS} turns here; begin a new one to go on."
                )

    def claim(self, student: Student, message: str = "") -> tuple[Conversation, Lesson, int] | None:
        """The student's next turn begins.

        Args:
            message: the id that the tab gives to it. A tab that got no answer sends a message once more.

        Returns:
            Their conversation, how it is answered, and the number of the turn from 0; None for a message that
            was taken before.

        Raises:
            UserError: it may not begin.
        """
        with self.lock:
            if message and message == student.message:
                return None
            self.check_may_write(student)
            student.writing, student.ahead, student.problem = True, 0, None
            student.message = message
            self.changes += 1
            own = student.system_prompt
            lesson = self.lesson if own is None else replace(self.lesson, system_prompt=own)
            return student.conversation, lesson, len(student.turns)

    def begin(self, student: Student, conversation: Conversation, lesson: Lesson) -> ClassTurn:
        """The conversation's last turn is being answered; what was not guessed before is shown now."""
        order = (UNCAPPED, CAPPED) if randbits(1) or not lesson.guess else (CAPPED, UNCAPPED)
        turn = ClassTurn(conversation.turns[-1], order, lesson.guess, lesson.scenario, not lesson.guess)
        with self.lock:
            if student.conversation is conversation:
                for earlier in student.turns:
                    self._reveal(earlier)
                student.turns.append(turn)
                self.changes += 1
            else:
                conversation.stop()  # the student began anew in between
        return turn

    def end(self, student: Student, conversation: Conversation, turn: ClassTurn | None) -> None:
        """The turn has ended. turn: None where it never began."""
        with self.lock:
            student.writing = False
            student.message = student.message if turn is not None else ""  # it may be sent again
            self.changes += 1
            if turn is not None and student.conversation is conversation:
                turn.ended = True
                turn.version += 1
                if not turn.can_be_guessed:
                    self._reveal(turn)

    def fail(self, student: Student, conversation: Conversation, turn: ClassTurn, why: str) -> None:
        """The turn was lost. Only this student is told."""
        with self.lock:
            if student.conversation is conversation and turn in student.turns:
                student.turns.remove(turn)
                self._last_problem += 1
                student.problem = (self._last_problem, why, turn.turn.user)
                student.message = ""

    @staticmethod
    def _reveal(turn: ClassTurn) -> None:
        if not turn.revealed:
            turn.revealed = True
            turn.version += 1

    def _turn(self, student: Student, index: int) -> ClassTurn:
        if not 0 <= index < len(student.turns):
            raise UserError(_NO_TURN)
        return student.turns[index]

    def guess(self, student: Student, index: int, pane: str) -> None:
        """The student takes a pane for the capped one; an empty pane shows the answer without a guess.

        Raises:
            UserError: the turn is not to be guessed, or not any more.
        """
        with self.lock:
            turn = self._turn(student, index)
            if pane and pane not in PANES:
                raise UserError("A guess is a or b.")
            if not turn.ended:
                raise UserError("Both replies must have ended before you guess.")
            if turn.revealed:
                raise UserError("The answer of this turn is shown already.")
            turn.guess = pane
            self._reveal(turn)
            self.changes += 1

    def new_chat(self, student: Student) -> None:
        """The student begins another conversation; the numbers of the one before stay on the board."""
        with self.lock:
            began = bool(self._row_of(student).pairs)
            self._end_chat(student)
            student.chat += began

    def give_back(
        self,
        student: Student,
        conversation: Conversation,
        guesses: Sequence[str],
        scenarios: Sequence[str],
        taken: Sequence[bool],
    ) -> None:
        """A tab gives back the conversation that the server no longer knows.

        The server knows the numbers of a student who left, and after a restart those that the board's tab has
        brought back. Others give a conversation back only after a restart, and once, so that a program cannot
        fill the board with invented ones.

        Args:
            conversation: with both replies in every turn.
            guesses: by turn, "right", "wrong" or empty.
            scenarios: by turn, the id of its scenario.
            taken: by turn, whether it was the speaker's.

        Raises:
            UserError: the student has a conversation here, or it is not one that this class has had.
        """
        lengths = {len(conversation.turns), len(guesses), len(scenarios), len(taken)}
        if len(lengths) > 1 or len(guesses) > MOST_TURNS:
            raise UserError(DAMAGED)
        with self.lock:
            if student.turns or student.writing:
                raise UserError("Your conversation is here already.")
            own = [row for row in self._rows if row.owner == student.owner]
            if not own and (not self._is_back or self._is_given_back(student)):
                raise UserError("This class does not know your stored conversation; begin a new one.")
            self._given_back.add(student.owner)
            told = zip(conversation.turns, guesses, scenarios, taken, strict=True)
            student.turns = [_turn_of(*one) for one in told]
            student.conversation = conversation
            if any(taken):
                student.system_prompt = _prompt_of(conversation)
            if own and student.turns:  # its latest conversation goes on
                latest = max(own, key=lambda row: row.chat)
                self._rows.remove(latest)
                student.chat = latest.chat
            self.changes += 1

    def _is_given_back(self, student: Student) -> bool:
        return student.owner in self._given_back or len(self._given_back) >= LARGEST_CLASS + MOST_WAITING

    def go_on_from(self, student: Student, conversation: Conversation) -> None:
        """The student goes on alone from the speaker's conversation, with its system prompt.

        Args:
            conversation: with both replies in every turn. Its turns are not the student's own on the board.

        Raises:
            UserError: the student's replies are still being written, or it is too long.
        """
        with self.lock:
            if student.writing:
                raise UserError(_WRITING)
            if len(conversation.turns) >= MOST_TURNS:
                raise UserError(
                    "The speaker's conversation is too long to go on from; begin one of your own."
                )
            self.new_chat(student)
            student.conversation = conversation
            student.turns = [ClassTurn(turn, ended=True, taken=True) for turn in conversation.turns]
            student.system_prompt = _prompt_of(conversation)

    def _end_chat(self, student: Student) -> None:
        """Keep the numbers of the student's conversation, and drop its texts."""
        row = self._row_of(student)
        if row.pairs:
            self._rows.append(row)
            if len(self._rows) > MOST_ROWS:
                self._forget_row()
        for exhibit in [one for one in self._exhibits if one.student is student]:
            self._exhibits.remove(exhibit)
        student.conversation.stop()
        self._dropped(student.conversation)
        student.conversation, student.turns, student.problem = Conversation(), [], None
        student.system_prompt = None
        self.changes += 1

    def _forget_row(self) -> None:
        """Drop the oldest conversation of the student with most of them."""
        counts = Counter(row.student for row in self._rows)
        most = counts.most_common(1)[0][0]
        self._rows.remove(next(row for row in self._rows if row.student == most))

    # --- showing a turn to the class

    def ask_to_show(self, student: Student, index: int) -> None:
        """The student wants the class to see a turn. Raises UserError when that cannot be."""
        with self.lock:
            turn = self._turn(student, index)
            if not turn.ended or not turn.revealed:
                raise UserError("Guess first; then you can show both replies to the class.")
            if turn.shown in ("asked", "shown"):
                return
            if turn.shown == "refused":
                raise UserError("The speaker does not show this turn; choose another one.")
            if len(self._exhibits) >= MOST_SHOWN:
                raise UserError("Too much is shown already; ask the speaker to take something down.")
            asked = [one for one in self._exhibits if one.student is student and not one.is_shown]
            if len(asked) >= MOST_ASKED:
                raise UserError(f"You have asked for {MOST_ASKED} turns; wait until the speaker has decided.")
            self._last_exhibit += 1
            self._exhibits.append(Exhibit(self._last_exhibit, student, index, turn))
            self._mark(turn, "asked")

    def withdraw(self, student: Student, index: int) -> None:
        """The student no longer wants it. Raises UserError when there is no such turn."""
        with self.lock:
            turn = self._turn(student, index)
            self._exhibits = [one for one in self._exhibits if one.turn is not turn]
            if turn.shown != "refused":
                self._mark(turn, "")

    def decide(self, exhibit: int, shown: bool) -> None:
        """The speaker shows what a student has asked to show, or refuses it or takes it down.

        Raises:
            UserError: the student has withdrawn it.
        """
        with self.lock:
            found = next((one for one in self._exhibits if one.id == exhibit), None)
            if found is None:
                raise UserError("That is no longer there; the student has taken it back.")
            if not shown:
                self._exhibits.remove(found)
            self._mark(found.turn, "shown" if shown else "refused")

    def _mark(self, turn: ClassTurn, shown: Shown) -> None:
        turn.shown = shown
        turn.version += 1
        self.changes += 1

    # --- the speaker

    def set_lesson(self, lesson: Lesson) -> None:
        """Every message from now on is answered so."""
        with self.lock:
            self.lesson = lesson
            self.changes += 1

    def pause(self, paused: bool) -> None:
        """While the class is paused, nobody sends a message; replies that are being written end."""
        with self.lock:
            self.paused = paused
            self.changes += 1

    def clear(self) -> None:
        """Everybody begins anew: no conversation, no numbers, nothing shown."""
        with self.lock:
            for student in self._students.values():
                self._end_chat(student)
                student.chat = 1
            self._rows = []
            self.changes += 1

    def change_code(self) -> None:
        """From now on another code leads into the class. Those who are in it stay."""
        with self.lock:
            self.code = new_code()
            self._is_back = False  # whoever has not come back yet needs the new code too
            self.changes += 1

    def set_room(self, room: int) -> None:
        """How many students may talk to the model. Those who have a seat keep it. Raises UserError."""
        if not 1 <= room <= LARGEST_CLASS:
            raise UserError(f"The number of places is a whole number from 1 to {LARGEST_CLASS}.")
        with self.lock:
            self.room = room
            self.changes += 1
            self._fill()

    def bring_back(self, id: str, code: str, lesson: Lesson, paused: bool, rows: Sequence[Row]) -> None:
        """The speaker's tab gives back a class that the server no longer knows.

        Raises:
            UserError: a class has begun here, or the code is none.
        """
        if len(code) != CODE_LENGTH or set(code) - set(ALPHABET) or not re.fullmatch(r"[\w-]{12}", id):
            raise UserError("The class that this tab has stored is damaged; open a new one.")
        with self.lock:
            if self._students:
                raise UserError("Students have joined the new class already, so the old one stays closed.")
            self.id, self.code, self.lesson, self.paused = id, code, lesson, paused
            self._rows = list(rows)
            self._last_number = max((row.student for row in rows), default=0)
            self._is_back = True
            self.changes += 1

    # --- what the board shows

    def _row_of(self, student: Student) -> Row:
        pairs = [turn.numbers(self.marks) for turn in student.turns if turn.ended and not turn.taken]
        return Row(student.number, student.chat, student.owner, pairs)

    def rows(self) -> list[Row]:
        """The numbers of every conversation, by student and conversation."""
        with self.lock:
            live = [row for one in self._students.values() if (row := self._row_of(one)).pairs]
            latest = [*self._rows, *live][-MOST_ROWS:]
            return sorted(latest, key=lambda row: (row.student, row.chat))

    def mark(self) -> tuple[int, int]:
        """Differs whenever the board may show something else: who is present changes by time alone."""
        with self.lock:
            return self.changes, sum(map(self._is_present, self._students.values()))

    def board(self) -> dict[str, Any]:
        """All that the board shows, but for the address. Texts of students only where they are shown."""
        with self.lock:
            rows = self.rows()
            guesses = [pair.guess for row in rows for pair in row.pairs if pair.guess]
            return {
                "id": self.id,
                "code": self.code,
                "lesson": self.lesson.as_json(),
                "paused": self.paused,
                "room": self.room,
                "students": [
                    {
                        "number": one.number,
                        "present": self._is_present(one),
                        "seated": one.seated,
                        "writing": one.writing,
                    }
                    for one in self._students.values()
                ],
                "rows": [row.as_json for row in rows],
                "guesses": {"right": guesses.count("right"), "all": len(guesses)},
                "shown": [one.as_json() for one in self._exhibits],
            }


def _turn_of(turn: Turn, guess: str, scenario: str, taken: bool) -> ClassTurn:
    """A turn that a tab gives back. Whether it was guessed right is known, but not which pane was which."""
    pane = {"right": "b", "wrong": "a"}.get(guess, "")
    return ClassTurn(turn, asks=bool(pane), scenario=scenario, ended=True, guess=pane, taken=taken)


def _prompt_of(conversation: Conversation) -> str | None:
    settings = conversation.turns[-1].settings if conversation.turns else None
    return None if settings is None else settings.system_prompt
