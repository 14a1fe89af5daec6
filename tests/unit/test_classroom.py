"""The state of a class: codes, places, turns, guesses, what is shown, and what its numbers are."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.axis.zones import Told, Zones
from demo.conversation.conversation import Conversation
from demo.conversation.lesson import MOST_PROMPT, Lesson
from demo.conversation.scenarios import load_scenarios
from demo.conversation.session_file import MOST_BYTES, turn_json
from demo.conversation.settings import BRANCHES, CAPPED, UNCAPPED
from demo.conversation.turns import Reply, Turn
from demo.engine.protocol import Token
from demo.page.classroom.classroom import (
    ALPHABET,
    AWAY_S,
    MOST_ASKED,
    MOST_SHOWN,
    MOST_WAITING,
    Classroom,
    RemovedError,
    WrongCodeError,
)
from demo.page.classroom.mirror import Mirror
from demo.page.classroom.numbers import (
    COLUMNS,
    MOST_ROWS,
    MOST_TURNS,
    Pair,
    Row,
    results_csv,
    results_json,
    rows_from,
)
from demo.page.classroom.origin import phone_address
from demo.page.classroom.students import PANES, ClassTurn, Student
from demo.page.classroom.talk import Loaded, Sent, news, speakers_conversation, turn_view
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis
from tests.helpers.scripted import SETTINGS

MARKS = PlotMarks(2, cap_layers=(1, 2), zones=Zones(0.2, 0.6, Told(10, 0.1, 0.8), Told(10, 0.7, 0.1)))
SECRET = "xyzzy-a-text-of-a-student"
LOADED = Loaded(None, random_axis(4, 16, 2, (1, 2)), "m")


class Clock:
    """Seconds that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def classroom(room: int = 3) -> tuple[Classroom, Clock, list[Conversation]]:
    clock, dropped = Clock(), list[Conversation]()
    return Classroom(MARKS, room, dropped.append, clock), clock, dropped


def reply(text: str, mean: float, finish: Any = "stop") -> Reply:
    return Reply(9, [Token(text, mean, mean, (0.0,), False)], finish)


def turn(uncapped: str = "Arr", capped: str = "Hello", low: float = -0.5, high: float = 0.7) -> Turn:
    return Turn(SECRET, {UNCAPPED: reply(uncapped, low), CAPPED: reply(capped, high)})


def claimed(room: Classroom, student: Student, message: str = "") -> tuple[Conversation, Lesson, int]:
    found = room.claim(student, message)
    assert found is not None
    return found


def answered(room: Classroom, student: Student, one: Turn | None = None, ends: bool = True) -> ClassTurn:
    """A turn of this student from its beginning to its end."""
    conversation, lesson, _ = claimed(room, student)
    conversation.turns.append(one or turn())
    begun = room.begin(student, conversation, lesson)
    if ends:
        room.end(student, conversation, begun)
    return begun


# --- joining


def test_the_code_has_no_letters_that_look_alike_and_is_found_however_it_is_typed():
    room, _, _ = classroom()
    assert not set("IL10O") & set(ALPHABET)
    student = room.join(f" {room.code[:2].lower()} {room.code[2:]} ")
    assert room.student(student.token) is student and student.seated
    with pytest.raises(UserError, match="no class with this code"):
        room.join(room.code[::-1] + "A")


def test_a_token_is_long_and_a_student_joins_again_as_the_same():
    room, _, _ = classroom()
    first, second = room.join(room.code), room.join(room.code)
    assert len(first.token) == 43 and first.token != second.token and (first.number, second.number) == (1, 2)
    assert room.join(room.code, first.token) is first
    with pytest.raises(UserError, match="damaged"):
        room.join(room.code, "short")


def test_whoever_finds_no_seat_waits_and_is_told_the_place():
    room, clock, _ = classroom(room=1)
    first, second, third = (room.join(room.code) for _ in range(3))
    assert [room.place_of(one) for one in (first, second, third)] == [0, 1, 2]
    with pytest.raises(UserError, match="waiting for a place"):
        room.claim(second)
    with room.present(second), room.present(third):
        clock.now = AWAY_S + 1  # the first has closed its tab
        assert [room.place_of(one) for one in (second, third)] == [0, 1]
        with room.present(first):
            assert room.place_of(first) == 2, "it comes back behind those who wait"


def test_a_student_who_is_away_keeps_the_seat_while_nobody_waits():
    room, clock, _ = classroom(room=1)
    student = room.join(room.code)
    clock.now = 10 * AWAY_S
    with room.present(student):
        assert room.place_of(student) == 0


def test_the_queue_ends_and_those_who_left_make_room():
    room, clock, _ = classroom(room=1)
    joined = [room.join(room.code) for _ in range(MOST_WAITING + 1)]
    with pytest.raises(UserError, match="full"):
        room.join(room.code)
    clock.now = AWAY_S + 1
    assert room.join(room.code).number == MOST_WAITING + 2
    assert room.student(joined[-1].token) is None


@given(st.lists(st.sampled_from(["join", "away", "back", "remove", "wider", "narrower"]), max_size=40))
def test_no_more_than_the_room_have_a_seat_and_nobody_waits_beside_a_free_one(steps: list[str]):
    room, clock, _ = classroom(room=2)
    here: list[tuple[Student, Any]] = []
    most = 2
    for step in steps:
        if step == "join":
            student = room.join(room.code)
            context = room.present(student)
            context.__enter__()
            here.append((student, context))
        elif step == "away" and here:
            here.pop(0)[1].__exit__(None, None, None)
            clock.now += AWAY_S + 1
        elif step == "remove" and here:
            student, context = here.pop()
            context.__exit__(None, None, None)
            room.remove(student.number)
        elif step == "wider":
            most += 1
            room.set_room(most)
        places = sorted(room.place_of(student) for student, _ in here)
        seated = sum(one["seated"] for one in room.board()["students"])
        assert seated <= most
        assert places == [0] * min(most, len(here)) + list(range(1, len(here) - most + 1))


# --- turns and guesses


def test_a_message_needs_a_turn_that_has_ended_and_no_pause():
    room, _, _ = classroom()
    student = room.join(room.code)
    conversation, lesson, number = claimed(room, student)
    assert (number, lesson) == (0, room.lesson)
    with pytest.raises(UserError, match="still being written"):
        room.claim(student)
    room.end(student, conversation, None)
    room.pause(True)
    with pytest.raises(UserError, match="paused"):
        room.claim(student)
    room.pause(False)
    for _ in range(MOST_TURNS):
        answered(room, student)
    with pytest.raises(UserError, match="at most"):
        room.claim(student)


def test_before_the_guess_the_phone_gets_words_only_and_the_order_differs():
    room, _, _ = classroom()
    student = room.join(room.code)
    orders = set()
    for _ in range(MOST_TURNS):
        one = answered(room, student)
        orders.add(one.order)
        view = turn_view(room, one)
        assert set(view) == {"user", "asks", "ended", "revealed", "shown", "taken", "panes"}
        assert [set(pane) for pane in view["panes"].values()] == [{"tokens"}, {"tokens"}]
        assert all(
            set(token) <= {"t", "s", "r"} for pane in view["panes"].values() for token in pane["tokens"]
        )
    assert len(orders) == 2, "one of 2^39 runs fails here by chance"


@pytest.mark.parametrize("pane", [*PANES, ""])
def test_a_guess_shows_the_answer_once(pane: str):
    room, _, _ = classroom()
    student = room.join(room.code)
    one = answered(room, student)
    room.guess(student, 0, pane)
    view = turn_view(room, one)
    right = pane and one.order[PANES.index(pane)] == CAPPED
    assert view["verdict"] == (None if not pane else "right" if right else "wrong")
    assert view["data"]["branches"][CAPPED]["mean"] == 0.7
    assert [view["panes"][name]["branch"] for name in PANES] == list(one.order)
    with pytest.raises(UserError, match="shown already"):
        room.guess(student, 0, "a")
    assert room.board()["guesses"] == {"right": int(bool(right)), "all": int(bool(pane))}


@pytest.mark.parametrize(
    "one",
    [
        turn("Hello", "Hello"),
        Turn("a", {UNCAPPED: reply("x", 0.0, "cancelled"), CAPPED: reply("y", 0.0)}),
        Turn("a", {UNCAPPED: reply("x", 0.0), CAPPED: reply("y", 0.0, "failed")}),
    ],
)
def test_nobody_has_to_guess_between_equal_or_broken_replies(one: Turn):
    room, _, _ = classroom()
    student = room.join(room.code)
    begun = answered(room, student, one)
    assert begun.revealed and turn_view(room, begun)["same"] == (one.replies[UNCAPPED].text == "Hello")
    with pytest.raises(UserError, match="shown already"):
        room.guess(student, 0, "a")
    assert room.board()["guesses"]["all"] == 0


def test_a_guess_needs_whole_replies_and_a_pane():
    room, _, _ = classroom()
    student = room.join(room.code)
    answered(room, student, ends=False)
    with pytest.raises(UserError, match="must have ended"):
        room.guess(student, 0, "a")
    for index, pane in ((1, "a"), (-1, "a"), (0, "c")):
        with pytest.raises(UserError):
            room.guess(student, index, pane)


def test_the_next_message_shows_the_answer_that_was_not_guessed():
    room, _, _ = classroom()
    student = room.join(room.code)
    first = answered(room, student)
    answered(room, student)
    assert first.revealed and first.verdict is None


def test_without_guesses_colours_show_at_once_and_the_uncapped_reply_stands_first():
    room, _, _ = classroom()
    room.set_lesson(replace(room.lesson, guess=False))
    student = room.join(room.code)
    one = answered(room, student, ends=False)
    assert one.order == BRANCHES and turn_view(room, one)["panes"]["b"]["branch"] == CAPPED


def test_a_turn_that_fails_is_told_to_its_student_alone_and_gives_the_message_back():
    room, _, _ = classroom()
    student, other = room.join(room.code), room.join(room.code)
    conversation, lesson, _ = claimed(room, student)
    conversation.turns.append(turn())
    begun = room.begin(student, conversation, lesson)
    room.fail(student, conversation, begun, "No memory.")
    room.end(student, conversation, begun)
    state = news(room, LOADED, student, Sent(), False)[0]
    assert state["problem"] == {"number": 1, "text": "No memory.", "message": SECRET} and not state["writing"]
    assert news(room, LOADED, other, Sent(), False)[0]["problem"] is None
    assert room.board()["rows"] == []


def test_a_stream_gets_each_token_once_and_a_changed_turn_anew():
    room, _, _ = classroom()
    student, sent = room.join(room.code), Sent()
    conversation, lesson, _ = claimed(room, student)
    one = Turn("Hi", {branch: Reply(9) for branch in BRANCHES})
    conversation.turns.append(one)
    begun = room.begin(student, conversation, lesson)
    assert [message["type"] for message in news(room, LOADED, student, sent, False)] == [
        "state",
        "head",
        "turn",
    ]
    said: dict[str, str] = {"a": "", "b": ""}
    for word in ("Hello", " there", "!"):
        for branch in BRANCHES:
            one.replies[branch].add(Token(f"{word}{branch}", 0.1, 0.1, (), False))
            for message in news(room, LOADED, student, sent, False):
                for pane, part in message["panes"].items():
                    said[pane] += "".join(token["t"] for token in part["tokens"])
            # A pane that is a token ahead would tell the branches apart.
            counts = [said[pane].count(name) for pane, name in zip(PANES, begun.order, strict=True)]
            assert counts[0] == counts[1]
    assert said == {pane: one.replies[branch].text for pane, branch in zip(PANES, begun.order, strict=True)}
    assert news(room, LOADED, student, sent, False) == []
    for branch in BRANCHES:
        one.replies[branch].finish = "stop"
    room.end(student, conversation, begun)
    assert [message["type"] for message in news(room, LOADED, student, sent, False)] == ["state", "turn"]


def test_a_new_conversation_keeps_the_numbers_and_drops_the_texts():
    room, _, dropped = classroom()
    student = room.join(room.code)
    before = student.conversation
    answered(room, student)
    room.new_chat(student)
    answered(room, student)
    rows = room.rows()
    assert [(row.student, row.chat, len(row.pairs)) for row in rows] == [(1, 1, 1), (1, 2, 1)]
    assert dropped == [before] and before.stopped
    room.clear()
    assert room.rows() == [] and student.turns == [] and len(dropped) == 2


def test_a_turn_that_ends_after_a_clear_changes_nothing():
    room, _, _ = classroom()
    student = room.join(room.code)
    conversation, lesson, _ = claimed(room, student)
    conversation.turns.append(turn())
    begun = room.begin(student, conversation, lesson)
    room.clear()
    room.end(student, conversation, begun)
    assert room.rows() == [] and student.turns == [] and not student.writing


# --- showing


def test_the_board_has_numbers_only_until_the_speaker_shows_what_a_student_offers():
    room, _, _ = classroom()
    student = room.join(room.code)
    answered(room, student)
    with pytest.raises(UserError, match="Guess first"):
        room.ask_to_show(student, 0)
    room.guess(student, 0, "a")
    assert SECRET not in json.dumps(room.board())
    room.ask_to_show(student, 0)
    room.ask_to_show(student, 0)
    asked = room.board()
    assert asked["shown"] == [{"id": 1, "student": 1, "turn": 1, "shown": False}]
    assert SECRET not in json.dumps(asked)
    room.decide(1, True)
    shown = room.board()["shown"][0]
    assert (shown["user"], shown[UNCAPPED], shown[CAPPED]) == (SECRET, "Arr", "Hello")
    room.decide(1, False)
    assert SECRET not in json.dumps(room.board()) and student.turns[0].shown == "refused"


@pytest.mark.parametrize("how", ["withdraw", "new chat", "remove", "clear"])
def test_what_a_student_takes_back_is_shown_no_longer(how: str):
    room, _, _ = classroom()
    student = room.join(room.code)
    answered(room, student, turn("a", "a"))
    room.ask_to_show(student, 0)
    room.decide(1, True)
    if how == "withdraw":
        room.withdraw(student, 0)
    elif how == "new chat":
        room.new_chat(student)
    elif how == "remove":
        room.remove(student.number)
    else:
        room.clear()
    assert room.board()["shown"] == []
    with pytest.raises(UserError, match="taken it back"):
        room.decide(1, True)


def test_only_so_much_is_shown():
    room, _, _ = classroom()
    student = room.join(room.code)
    for number in range(MOST_TURNS):
        answered(room, student, turn("a", "a"))
        room.ask_to_show(student, number)
        if number >= MOST_TURNS - MOST_ASKED:
            continue
        room.decide(number + 1, True)
    other = room.join(room.code)
    answered(room, other, turn("a", "a"))
    assert MOST_SHOWN == MOST_TURNS
    with pytest.raises(UserError, match="Too much"):
        room.ask_to_show(other, 0)


def test_one_student_asks_for_so_much_and_not_again_for_what_was_refused():
    room, _, _ = classroom()
    student = room.join(room.code)
    for number in range(MOST_ASKED + 1):
        answered(room, student, turn("a", "a"))
        if number < MOST_ASKED:
            room.ask_to_show(student, number)
    with pytest.raises(UserError, match="wait until the speaker"):
        room.ask_to_show(student, MOST_ASKED)
    room.decide(1, False)
    room.withdraw(student, 0)
    with pytest.raises(UserError, match="does not show"):
        room.ask_to_show(student, 0)
    room.ask_to_show(student, MOST_ASKED)


# --- the speaker


def test_a_lesson_takes_a_scenario_and_refuses_what_it_cannot_be():
    scenarios = load_scenarios()
    lesson = Lesson.of({"scenario": scenarios[0].id, "system_prompt": "Be brief.", "seed": 3}, scenarios)
    assert lesson.script == scenarios[0].turns and lesson.system_prompt == "Be brief." and lesson.cap
    refused: list[dict[str, Any]] = [
        {"scenario": "no such"},
        {"scenario": 3},
        {"system_prompt": "a" * (MOST_PROMPT + 1)},
        {"system_prompt": None},
        {"seed": -1},
        {"seed": True},
        {"seed": "1"},
        {"cap": 1},
        {"guess": "yes"},
    ]
    for asked in refused:
        with pytest.raises(UserError):
            Lesson.of(asked, scenarios)


def test_the_settings_of_a_turn_are_the_axis_s_own_cap_with_the_next_seed():
    axis = random_axis(4, 16, 2, (1, 2))
    axis = replace(axis, manifest={**axis.manifest})
    first = Lesson(seed=7).settings(axis, 1, 0, True, "float32", "digest", False)
    third = Lesson(seed=7, cap=False).settings(axis, 1, 2, True, "float32", "digest", False)
    assert first.cap is not None and first.cap.layers == (1, 2) and first.sampling.seed == 7
    assert third.cap is None and third.sampling.seed == 9 and third.dtype == "float32"


def test_students_have_seeds_of_their_own_unless_the_speaker_wants_one_picture():
    axis = random_axis(4, 16, 2, (1, 2))
    seeds = {
        Lesson(seed=7).settings(axis, student, turn, True, "float32", "", False).sampling.seed
        for student in (1, 2, 3)
        for turn in range(MOST_TURNS)
    }
    assert len(seeds) == 3 * MOST_TURNS, "no two turns of a class have the same seed"
    same = Lesson(seed=7, own_seeds=False).settings(axis, 3, 1, True, "float32", "", False)
    assert same.sampling.seed == 8


def test_students_are_not_told_what_a_scenario_shows_before_they_guess():
    lesson = Lesson(blurb="The cap holds it.")
    assert lesson.for_students().blurb == "" and replace(lesson, guess=False).for_students().blurb


def test_only_the_secret_makes_a_speaker_and_it_is_not_a_student_s_token():
    room, _, _ = classroom()
    student = room.join(room.code)
    assert room.is_speaker(room.secret) and len(room.secret) == 43
    for other in ("", student.token, room.code, room.id, room.secret[:-1], "é"):
        assert not room.is_speaker(other)


# --- after a restart


def test_a_class_comes_back_from_its_tabs():
    room, _, _ = classroom()
    student = room.join(room.code)
    answered(room, student, turn(low=-0.5))
    room.guess(student, 0, "a")
    verdict = student.turns[0].verdict or ""
    board = room.board()
    again, _, _ = classroom()
    again.bring_back(room.id, room.code, room.lesson, True, rows_from(board["rows"]))
    assert (again.id, again.code, again.paused, again.board()["rows"]) == (
        room.id,
        room.code,
        True,
        board["rows"],
    )
    other = again.join(room.code)
    assert other.number == 2, "numbers go on"
    back = again.join(room.code, student.token)
    assert back.number == 1
    again.give_back(back, Conversation([turn(low=-0.5)]), [verdict], [""], [False])
    assert back.chat == 1 and again.board()["rows"] == board["rows"]
    assert back.turns[0].verdict == verdict and back.turns[0].asks
    with pytest.raises(UserError, match="already"):
        again.give_back(back, Conversation([turn()]), [""], [""], [False])
    with pytest.raises(UserError, match="joined the new class"):
        again.bring_back(room.id, room.code, room.lesson, False, [])


def test_invented_conversations_do_not_fill_the_board():
    room, _, _ = classroom(room=9)
    with pytest.raises(UserError, match="does not know"):
        room.give_back(room.join(room.code), Conversation([turn()]), [""], [""], [False])
    again, _, _ = classroom(room=9)
    again.bring_back(room.id, room.code, room.lesson, False, [])
    student = again.join(room.code)
    for lengths in ((0, 1, 1), (1, 0, 1), (1, 1, 0), (2, 2, 2)):
        given = ([""] * lengths[0], [""] * lengths[1], [False] * lengths[2])
        with pytest.raises(UserError, match="damaged"):
            again.give_back(student, Conversation([turn()]), *given)
    for _ in range(2):  # the second time it is known by its row
        again.give_back(student, Conversation([turn()]), [""], [""], [False])
        again.new_chat(student)
        assert len(again.rows()) == 1
    again.clear()
    with pytest.raises(UserError, match="does not know"):
        again.give_back(student, Conversation([turn()]), [""], [""], [False])


def test_the_speaker_s_turns_come_back_as_the_speaker_s():
    room, _, _ = classroom()
    room.bring_back(room.id, room.code, room.lesson, False, [])
    student = room.join(room.code)
    shown = replace(turn(), settings=SETTINGS)
    room.give_back(student, Conversation([shown, turn()]), ["", ""], ["", ""], [True, False])
    assert [len(row.pairs) for row in room.rows()] == [1]
    assert student.system_prompt is None, "of the student's own last turn, which had none"
    assert [view["taken"] for view in (turn_view(room, one) for one in student.turns)] == [True, False]


def test_the_board_keeps_as_many_conversations_as_a_tab_can_give_back_and_forgets_the_most_talkative():
    room, _, _ = classroom(room=MOST_ROWS)
    quiet, talkative = room.join(room.code), room.join(room.code)
    answered(room, quiet, turn("a", "a"))
    room.new_chat(quiet)
    for _ in range(MOST_ROWS + 3):
        answered(room, talkative, turn("a", "a"))
        room.new_chat(talkative)
        room.new_chat(talkative)  # without a turn it is no further conversation
    answered(room, talkative, turn("a", "a"))
    rows = room.rows()
    assert len(rows) == MOST_ROWS == len(rows_from([row.as_json for row in rows]))
    assert talkative.chat == MOST_ROWS + 4 == rows[-1].chat


def test_a_message_is_answered_once_and_again_only_if_it_was_lost():
    room, _, _ = classroom()
    student = room.join(room.code)
    conversation, lesson, _ = claimed(room, student, "first")
    assert room.claim(student, "first") is None, "while its replies are written"
    conversation.turns.append(turn("a", "a"))
    room.end(student, conversation, room.begin(student, conversation, lesson))
    assert room.claim(student, "first") is None, "and when they have ended"
    conversation, _, number = claimed(room, student, "second")
    assert number == 1
    room.end(student, conversation, None)  # it never began
    conversation, lesson, _ = claimed(room, student, "second")
    conversation.turns.append(turn())
    begun = room.begin(student, conversation, lesson)
    room.fail(student, conversation, begun, "No memory.")
    room.end(student, conversation, begun)
    claimed(room, student, "second")


def test_a_turn_whose_conversation_was_dropped_before_it_began_is_stopped():
    room, _, _ = classroom()
    student = room.join(room.code)
    conversation, lesson, _ = claimed(room, student)
    room.clear()
    conversation.turns.append(turn())
    conversation._cancel.clear()  # as `send` does
    room.begin(student, conversation, lesson)
    assert conversation.stopped and student.turns == []


def test_a_removed_student_does_not_come_back_with_the_old_token():
    room, _, _ = classroom()
    student = room.join(room.code)
    room.remove(student.number)
    for attempt in (lambda: room.student(student.token), lambda: room.join(room.code, student.token)):
        with pytest.raises(RemovedError):
            attempt()
    assert room.join(room.code).number == 2


def test_a_program_that_only_joins_soon_loses_its_seat():
    room, clock, _ = classroom(room=1)
    room.join(room.code)
    second = room.join(room.code)
    assert room.place_of(second) == 1
    with room.present(second):
        clock.now = AWAY_S / 2
        assert room.place_of(second) == 0


def test_the_id_of_a_class_that_came_back_stands_for_a_code_that_has_changed_since():
    room, _, _ = classroom()
    student = room.join(room.code)
    with pytest.raises(UserError, match="no class with this code"):
        room.join("AAAAA", "a" * 43, room.id)
    room.change_code()
    again, _, _ = classroom()
    again.bring_back(room.id, room.code, room.lesson, False, [])
    assert again.join("an old code", student.token, room.id).token == student.token
    for token, known_as in (("", room.id), ("b" * 43, "b" * 12), ("b" * 43, "")):
        with pytest.raises(UserError, match="no class with this code"):
            again.join("an old code", token, known_as)
    again.change_code()
    with pytest.raises(WrongCodeError):
        again.join("an old code", "c" * 43, room.id)


def test_everybody_can_be_sent_away():
    room, _, _ = classroom()
    students = [room.join(room.code) for _ in range(5)]
    answered(room, students[0])
    room.remove(0)
    assert all(student.gone for student in students) and room.board()["students"] == []
    assert len(room.rows()) == 1, "the numbers stay"
    with pytest.raises(UserError, match="no longer here"):
        room.remove(0)


def test_a_student_without_a_stored_conversation_begins_another():
    room, _, _ = classroom()
    student = room.join(room.code)
    answered(room, student)
    again, _, _ = classroom()
    again.bring_back(room.id, room.code, room.lesson, False, room.rows())
    back = again.join(room.code, student.token)
    answered(again, back)
    assert [(row.student, row.chat) for row in again.rows()] == [(1, 1), (1, 2)]


@pytest.mark.parametrize(
    ("id", "code"), [("a", "AAAAA"), ("a" * 12, "aaaaa"), ("a" * 12, "AAAA"), ("<script>aaaa", "AAAAA")]
)
def test_a_damaged_class_stays_closed(id: str, code: str):
    room, _, _ = classroom()
    with pytest.raises(UserError, match="damaged"):
        room.bring_back(id, code, Lesson(), False, [])


PAIRS = st.builds(
    Pair,
    st.none() | st.floats(-9, 9).map(lambda value: round(value, 4)),
    st.none() | st.floats(-9, 9).map(lambda value: round(value, 4)),
    st.sampled_from(["role-played", "unclear", "Assistant", None]),
    st.sampled_from(["role-played", "unclear", "Assistant", None]),
    st.integers(0, 99),
    st.booleans(),
    st.sampled_from(["right", "wrong", None]),
    st.sampled_from(["", "demon"]),
    st.booleans(),
    st.integers(0, 99),
)


@given(st.lists(st.lists(PAIRS, max_size=4), max_size=5))
def test_rows_survive_the_way_through_a_tab(pairs: list[list[Pair]]):
    rows = [Row(number, 1, "f" * 64, own) for number, own in enumerate(pairs, 1)]
    assert rows_from(json.loads(json.dumps([row.as_json for row in rows]))) == rows


ROW: dict[str, Any] = {
    "student": 1,
    "chat": 1,
    "owner": "f" * 64,
    "pairs": [{"uncapped": 0.1, "capped": None}],
}


@pytest.mark.parametrize(
    "rows",
    [
        None,
        {},
        [ROW, ROW],
        [ROW | {"student": 0}],
        [ROW | {"owner": "x"}],
        [ROW | {"pairs": ROW["pairs"] * (MOST_TURNS + 1)}],
        [ROW | {"pairs": [{"uncapped": 1e9, "capped": 0}]}],
        [ROW | {"pairs": [{"uncapped": float("nan"), "capped": 0}]}],
        [ROW | {"pairs": [{"uncapped": 0, "capped": 0, "scenario": SECRET * 9}]}],
        [ROW | {"pairs": [{"uncapped": 0, "capped": 0, "guess": "maybe"}]}],
        [ROW | {"pairs": [{"uncapped": 0, "capped": 0, "capped_zone": SECRET}]}],
        [3],
    ],
)
def test_damaged_rows_are_refused_in_one_sentence(rows: Any):
    with pytest.raises(UserError, match="damaged"):
        rows_from(rows)


# --- results


def test_results_hold_every_number_and_no_text():
    room, _, _ = classroom()
    student = room.join(room.code)
    answered(room, student)
    room.guess(student, 0, "a")
    table = list(csv.DictReader(io.StringIO(results_csv(room.rows()))))
    assert tuple(table[0]) == COLUMNS
    assert (table[0]["uncapped"], table[0]["capped"], table[0]["lift"]) == ("-0.5", "0.7", "1.2")
    assert (table[0]["uncapped_zone"], table[0]["capped_zone"]) == ("role-played", "Assistant")
    text = results_json(room.rows(), "a-model", MARKS, "2026-01-01")
    found = json.loads(text)
    assert found["format"] == "persona-drift-class" and found["conversations"][0]["turns"][0]["lift"] == 1.2
    for written in (text, results_csv(room.rows())):
        assert SECRET not in written and "Arr" not in written
        assert student.token not in written and student.owner not in written


# --- the mirror


def test_the_mirror_keeps_what_shows_the_present_state():
    mirror = Mirror()
    assert not mirror.put([{"op": "tokens", "turn": 0}], {}), "it begins with a whole conversation"
    meta = {"model": "m", "intro": {"turns": [1]}}
    assert mirror.put([{"op": "reset", "meta": meta, "turns": []}], {"panel": "map"})
    serial, ops, view = mirror.since(-1)
    assert view == {"panel": "map"} and ops[0]["meta"]["intro"] is None and ops[0]["meta"]["watch_only"]
    running = [{"op": "turn_start", "turn": 0}, {"op": "tokens", "turn": 0}, {"op": "persist"}]
    mirror.put(running, {})
    assert [op["op"] for op in mirror.since(serial)[1]] == ["turn_start", "tokens"]
    mirror.put([{"op": "turn", "turn": 0, "data": {}}, {"op": "turn_start", "turn": 1}], {})
    assert [op["op"] for op in mirror.since(-1)[1]] == ["reset", "turn", "turn_start"]
    mirror.put([{"op": "turn", "turn": 0, "data": {}}], {})
    assert [op.get("turn") for op in mirror.since(-1)[1]] == [None, 0, 1, 0]
    with pytest.raises(UserError, match="too long for the phones"):
        mirror.put([{"op": "turn", "turn": 0, "data": "é" * (MOST_BYTES // 2)}], {})
    assert not mirror.is_live
    assert mirror.put([{"op": "reset", "meta": meta, "turns": []}], {})
    mirror.clear()
    assert not mirror.is_live and mirror.since(serial)[1] == []


def test_a_student_goes_on_from_what_the_speaker_s_stage_shows():
    shown = turn_json(replace(turn(), settings=SETTINGS))
    mirror = Mirror()
    with pytest.raises(UserError, match="no turn"):
        speakers_conversation(mirror.turns(), LOADED, MARKS)
    mirror.put([{"op": "reset", "meta": {}, "turns": [shown, shown]}, {"op": "turn_start", "turn": 1}], {})
    assert len(mirror.turns()) == 1, "the second is being answered again"
    mirror.put([{"op": "turn", "turn": 1, "data": shown}, {"op": "turn", "turn": 2, "data": {"live": 1}}], {})
    conversation = speakers_conversation(mirror.turns(), LOADED, MARKS)
    assert [one.user for one in conversation.turns] == [SECRET, SECRET]
    room, _, _ = classroom()
    student = room.join(room.code)
    room.go_on_from(student, conversation)
    going, lesson, number = claimed(room, student)
    assert (going, number, lesson.system_prompt) == (conversation, 2, SETTINGS.system_prompt)
    assert room.rows() == [], "the speaker's turns are not the student's"
    with pytest.raises(UserError, match="still being written"):
        room.go_on_from(student, conversation)
    going.turns.append(turn())
    room.end(student, going, room.begin(student, going, lesson))
    assert [len(row.pairs) for row in room.rows()] == [1]


@pytest.mark.parametrize(
    ("ops", "view"), [(None, {}), ([3], {}), ([{"op": "evil"}], {}), ([{}], {}), ([], None), ([], [])]
)
def test_the_mirror_takes_operations_only(ops: Any, view: Any):
    with pytest.raises(UserError, match="no operations"):
        Mirror().put(ops, view)


# --- the address


@pytest.mark.parametrize(
    ("given", "asked", "found"),
    [
        ("https://class.example", "http://localhost:7860", "https://class.example/class"),
        ("", "https://page.example", "https://page.example/class"),
        ("", "http://192.168.7.7:7860", "http://192.168.7.7:7860/class"),
        ("", "http://[fd00::1]:80", "http://[fd00::1]:80/class"),
        ("", "javascript:alert(1)", "/class"),
        ("", "http://[", "/class"),
        ("", "", "/class"),
    ],
)
def test_phones_find_the_address_that_was_named_or_that_the_speaker_sees(given: str, asked: str, found: str):
    assert phone_address(given, asked, "") == found
