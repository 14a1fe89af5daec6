"""Settings and system prompts on the page: a turn keeps its own, and a conversation its own prompt."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest

from demo.conversation.exports import tokens_csv
from demo.conversation.scenarios import load_scenarios
from demo.conversation.session_file import dumps, loads
from demo.conversation.settings import make_cap
from demo.engine.protocol import Sampling
from demo.page.chat_handlers import ChatHandlers
from demo.page.persistence import restore_chats
from demo.page.recordings import figures
from demo.page.session import Chat, Session
from demo.page.settings_panel import PanelValues
from demo.page.stage_handlers import RETRY_STEP, StageHandlers
from demo.page.updates import turn_marks
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis
from tests.helpers.scripted import ScriptedEngine

NO_REQUEST = cast(gr.Request, None)
VALUES = PanelValues("", 0.3, 0.9, 1.1, 8, 0, 0, 1, "All", False, 1, 1.0, True, "p25", 1, 2)
OFF = replace(VALUES, cap_on=False)
DEMON = "You are a demon."


class Visit:
    """One visitor: what the page's boxes hold, and what the stage shows.

    Attributes:
        values: The settings in the drawer.
        message: The text in the message box.
        stored: By conversation, what the browser stores: its head and its turns.
    """

    def __init__(self, values: PanelValues = VALUES) -> None:
        self.engine, self.session = ScriptedEngine(), Session()
        self.handlers = ChatHandlers(self.engine, random_axis(4, 16, 1, (1, 2)), "tiny")
        self.values, self.message = values, ""
        self.stored: dict[str, Any] = {}
        self.shown: list[Any] = []

    def take(self, *updates: Any) -> Visit:
        """The page takes over what the server sends."""
        for update in updates:
            if update.message is not None:
                self.message = update.message
            if update.system_prompt is not None:
                self.values = replace(self.values, system_prompt=update.system_prompt)
            for op in json.loads(update.stage)["ops"] if update.stage else ():
                self._apply(op)
        return self

    def _apply(self, op: dict[str, Any]) -> None:
        if op["op"] == "reset":
            self.shown = op["turns"]
        elif op["op"] == "turn":
            self.shown[op["turn"] :] = [op["data"]]
        elif op["op"] == "persist":
            turns = self.stored.get(op["id"], {}).get("turns", [])[: op["from"]] + op["turns"]
            self.stored[op["id"]] = {**op["head"], "id": op["id"], "turns": turns}

    def say(self, text: str | None = None) -> Visit:
        """Send `text`, or what is in the box."""
        at = len(self.session.chat.conversation.turns)
        said = self.message if text is None else text
        return self.take(*self.handlers.answer(self.session, said, self.values, at))

    def ask(self, name: str, /, **fields: Any) -> Visit:
        """Press one of the stage's buttons."""
        requests = StageHandlers(self.handlers)
        turns = requests.dispatch(self.session, {"do": name, **fields}, self.values, cast(Any, Caller()))
        return self.take(*turns)

    def start(self, chat: Chat) -> Visit:
        """Press the button of a scenario."""
        return self.take(self.handlers.start(self.session, chat, self.values))

    def new_chat(self) -> Visit:
        return self.take(self.handlers.new_chat(self.session, self.values))

    @property
    def prompt_in_drawer(self) -> str:
        return str(self.values.system_prompt)

    @property
    def prompt_used(self) -> str:
        """The system prompt of the latest request; empty for none."""
        first = self.engine.requests[0].messages[0]
        return str(first["content"]) if first["role"] == "system" else ""

    @property
    def script(self) -> tuple[int, str]:
        """How many lines of the script count as sent, and the text in the box."""
        return self.session.overview()["script"]["said"], self.message


class Caller:
    """The address of the visitor, in place of Gradio's request."""

    def __init__(self) -> None:
        self.client = SimpleNamespace(host="127.0.0.1")
        self.headers: dict[str, str] = {}
        self.session_hash = "visitor"


def scenario(*lines: str, prompt: str = "") -> Chat:
    return Chat(title="Demon", system_prompt=prompt, script=lines)


def caps(visit: Visit) -> list[bool]:
    """For each turn that is shown, whether the cap was on."""
    return [turn["settings"]["cap"] is not None for turn in visit.shown]


# --- system prompts


def test_new_chat_has_nothing_of_the_scenario_before():
    visit = Visit().start(Chat.of_scenario(load_scenarios()[0])).say()
    assert visit.prompt_used and visit.message, "the scenario set nothing"
    visit.new_chat()
    assert (visit.prompt_in_drawer, visit.message) == ("", "")
    script = visit.session.overview()["script"]
    assert (script["blurb"], script["content_warning"], script["of"]) == ("", "", 0)
    visit.say("Hello")
    assert visit.prompt_used == ""


@pytest.mark.parametrize("how", ["switch", "close", "fork", "undo", "again", "edit", "recorded"])
def test_the_drawer_shows_the_system_prompt_that_is_used(how):
    visit = Visit().say("Hello").start(scenario("Who are you?", "What now?", prompt=DEMON)).say()
    wanted = DEMON
    if how == "switch":
        visit.ask("switch", conversation=0)
        wanted = ""
    elif how == "close":
        visit.ask("close", conversation=1)
        wanted = ""
    elif how == "fork":
        visit.ask("fork", turn=0)
    elif how == "undo":
        visit.ask("undo")
    elif how == "again":
        visit.ask("regenerate", turn=0)
    elif how == "edit":
        visit.ask("edit", turn=0, text="Who?")
    else:
        visit.handlers = replace(visit.handlers, model_name="smollm2-135m-instruct")
        visit.ask("recorded", name="menacing-demon")
        wanted = visit.session.chat.system_prompt
        assert wanted
    assert visit.prompt_in_drawer == wanted
    visit.say("And now?")
    assert visit.prompt_used == wanted == visit.prompt_in_drawer


def test_a_system_prompt_that_was_typed_and_not_sent_waits_with_its_conversation():
    visit = Visit().say("Hello").start(scenario("Who are you?", prompt=DEMON)).say()
    visit.ask("typed_prompt", conversation=visit.session.chat.id, text="Be kind.")
    assert visit.ask("switch", conversation=0).prompt_in_drawer == ""
    assert visit.ask("switch", conversation=1).prompt_in_drawer == "Be kind."


def test_a_typed_system_prompt_that_arrives_late_reaches_its_own_conversation():
    visit = Visit().say("Hello").start(scenario("Who are you?", prompt=DEMON)).say()
    typed = {"conversation": visit.session.chat.id, "text": "Be kind."}
    visit.ask("switch", conversation=0).ask("typed_prompt", **typed)
    assert [chat.system_prompt for chat in visit.session.chats] == ["", "Be kind."]
    assert visit.prompt_in_drawer == ""
    visit.ask("typed_prompt", conversation="gone", text="Be kind.")
    visit.ask("typed_prompt", conversation=visit.session.chat.id, text="Be brief.")
    assert visit.session.overview()["system_prompt"] == "Be brief."
    assert visit.prompt_in_drawer == "", "the box is left to whoever types"


def test_a_system_prompt_changed_in_a_pane_is_in_the_drawer_and_answers_the_next_message():
    visit = Visit().start(scenario("Who are you?", "What now?", prompt=DEMON)).say()
    visit.ask("system_prompt", text="Be kind.")
    assert visit.prompt_in_drawer == visit.session.overview()["system_prompt"] == "Be kind."
    assert visit.prompt_used == DEMON
    visit.say("And now?")
    assert visit.prompt_used == "Be kind."


def test_the_system_prompt_of_a_session_of_another_model_cannot_be_changed():
    visit = Visit()
    visit.handlers = replace(visit.handlers, model_name="another")
    visit.ask("recorded", name="menacing-demon")
    before = visit.session.chat.system_prompt
    with pytest.raises(UserError, match="watched but not continued"):
        visit.handlers.set_system_prompt(visit.session, "Be kind.")
    assert visit.session.chat.system_prompt == before != ""


def test_a_turn_keeps_the_number_format_it_was_made_in():
    visit = Visit()
    visit.handlers = replace(visit.handlers, dtype="bfloat16")
    visit.say("Hello")
    visit.handlers = replace(visit.handlers, dtype="float32")
    visit.say("And now?")
    settings = [turn.settings for turn in visit.session.chat.conversation.turns]
    assert [one.dtype for one in settings if one] == ["bfloat16", "float32"]


@pytest.mark.parametrize("how", ["file", "read", "replay"])
def test_what_is_opened_brings_its_system_prompt_into_the_drawer(how):
    visit = Visit(replace(VALUES, system_prompt=DEMON)).say("Hello")
    said = [("system", "Be kind."), ("user", "a"), ("assistant", "b"), ("user", "c")]
    text = json.dumps([{"role": role, "content": content} for role, content in said])
    if how == "file":
        recording = visit.handlers.recording(visit.session.chat, visit.values)
        text = dumps(replace(recording, system_prompt="Be kind."))
    visit.ask("open", text=text, how=how)
    assert visit.prompt_in_drawer == "Be kind."
    waiting = {"file": "", "read": "c", "replay": "a"}  # the message that has no reply yet
    assert visit.message == waiting[how]
    visit.say("And now?")
    assert visit.prompt_used == "Be kind."


def test_a_fork_has_the_system_prompt_of_its_last_turn():
    visit = Visit(replace(VALUES, system_prompt="Be brief.")).say("Hello")
    visit.values = replace(visit.values, system_prompt="Be long.")
    visit.say("And you?").ask("fork", turn=0)
    assert visit.prompt_in_drawer == "Be brief."


def test_a_recording_that_was_continued_is_stored_with_the_prompt_of_now():
    visit = Visit(replace(VALUES, system_prompt="Be brief.")).say("Hello")
    recording = visit.handlers.recording(visit.session.chat, visit.values)
    visit.start(Chat(visit.session.chat.conversation, "Opened", recording=recording))
    visit.values = replace(visit.values, system_prompt="Be long.")
    visit.say("More")
    assert visit.stored[visit.session.chat.id]["system_prompt"] == "Be long."


# --- settings


def test_a_turn_keeps_its_settings_when_the_switch_is_moved():
    visit = Visit().say("One")
    visit.values = OFF
    visit.say("Two")
    assert caps(visit) == [True, False]
    visit.ask("show")
    assert caps(visit) == [True, False]
    assert [turn["marks"]["meta"]["cap_layers"] for turn in visit.shown] == [[1, 2], None]
    visit.values = VALUES
    visit.ask("show")
    assert caps(visit) == [True, False]
    assert [turn["settings"]["seed"] for turn in visit.shown] == [0, 1]


def test_a_restored_tab_and_an_opened_file_keep_each_turns_settings():
    visit = Visit(replace(VALUES, seed=7, system_prompt=DEMON)).say("One")
    visit.values = replace(OFF, steer_on=True, thinking=True, span="Answer only", seeds=2)
    visit.say("Two")
    made = [turn.settings for turn in visit.session.chat.conversation.turns]
    assert all(made)

    again = Session()
    restore_chats(again, [json.dumps(one) for one in visit.stored.values()], 0, "tiny")
    assert [turn.settings for turn in again.chat.conversation.turns] == made
    opened = loads(dumps(visit.handlers.recording(visit.session.chat, VALUES)))
    assert [turn.settings for turn in opened.turns] == made

    visit.session, visit.values = again, VALUES
    visit.ask("show")
    assert caps(visit) == [True, False]


def test_another_attempt_has_the_settings_of_now_and_a_new_seed_and_says_so():
    visit = Visit().say("One")
    visit.values = replace(OFF, temperature=0.7)
    visit.ask("regenerate", turn=0)
    settings = visit.shown[0]["settings"]
    assert (settings["attempt"], settings["seed"]) == (2, RETRY_STEP)
    assert (settings["cap"], settings["temperature"]) == (None, 0.7)
    assert {request.sampling.seed for request in visit.engine.requests} == {RETRY_STEP}
    visit.ask("regenerate", turn=0)
    assert visit.shown[0]["settings"]["attempt"] == 3
    visit.ask("edit", turn=0, text="Two")
    assert visit.shown[0]["settings"]["attempt"] == 1, "another message is a first attempt"


def test_another_attempt_after_a_reload_has_a_new_seed_too():
    visit = Visit().say("One")
    restored = Session()
    restore_chats(restored, [json.dumps(one) for one in visit.stored.values()], 0, "tiny")
    visit.session = restored
    visit.ask("regenerate", turn=0)
    assert {request.sampling.seed for request in visit.engine.requests} == {RETRY_STEP}


def test_a_transcript_that_was_read_says_under_which_cap():
    visit = Visit()
    text = json.dumps([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c"}])
    visit.ask("open", text=text, how="read")
    visit.values = OFF
    visit.ask("show")
    assert caps(visit) == [True]
    assert visit.shown[0]["settings"]["read"] is True


def test_reference_lines_of_a_turn_are_those_of_the_figures():
    axis = random_axis(4, 16, 1, (1, 2))
    for values in (VALUES, OFF, replace(VALUES, first_layer=2)):
        marks = values.cap_choice().marks(axis)
        lines = json.loads(json.dumps(turn_marks(marks)))
        for figure in figures(marks).values():
            layout = figure["layout"]
            assert lines["shapes"] == layout["shapes"] and lines["annotations"] == layout["annotations"]
            assert lines["meta"].items() <= layout["meta"].items()


def test_moving_the_floor_does_not_move_the_lines_of_a_recording():
    visit = Visit().say("One")
    chat = visit.session.chat
    ops = json.loads(visit.handlers.redraw_marks(visit.session, OFF).stage or "")["ops"]
    assert [op["op"] for op in ops] == ["marks"]
    chat.recording = visit.handlers.recording(chat, VALUES)
    assert json.loads(visit.handlers.redraw_marks(visit.session, OFF).stage or "")["ops"] == []


def test_every_sample_has_its_own_seed():
    settings = replace(VALUES, seeds=3, seed=5).turn_settings(random_axis(4, 16, 1, (1, 2)), 1)
    assert settings.sampling == Sampling(max_new_tokens=8, seed=6)
    assert [settings.seed_of(sample) for sample in range(3)] == [6, 1006, 2006]


# --- panes with settings of their own


UNLOCKED = replace(
    VALUES,
    system_prompt="Be kind.",
    locked=False,
    capped_prompt="Be a demon.",
    uncapped_temperature=0.9,
    steered_floor="p75",
)


def test_panes_share_everything_while_they_are_locked_together():
    assert replace(UNLOCKED, locked=True).turn_settings(random_axis(4, 16, 1, (1, 2)), 0).own == ()


def test_a_pane_has_its_own_prompt_and_temperature_and_the_third_its_own_floor():
    visit = Visit(replace(UNLOCKED, steer_on=True, steer_alpha=0)).say("One")
    uncapped, capped, third = visit.engine.requests
    assert [one.messages[0]["content"] for one in (uncapped, capped, third)] == [
        "Be kind.",
        "Be a demon.",
        "Be kind.",
    ]
    assert [one.sampling.temperature for one in (uncapped, capped, third)] == [0.9, 0.3, 0.3]
    axis = random_axis(4, 16, 1, (1, 2))
    assert (uncapped.cap, capped.cap) == (None, make_cap(axis, 1, 2, "p25"))
    assert third.cap == make_cap(axis, 1, 2, "p75")


def test_own_settings_are_saved_exported_and_followed_in_later_turns():
    visit = Visit(replace(UNLOCKED, steer_on=True)).say("One").say("Two")
    recording = visit.handlers.recording(visit.session.chat, visit.values)
    again = loads(dumps(recording))
    assert [turn.settings and turn.settings.own for turn in again.turns] == [
        turn.settings and turn.settings.own for turn in recording.turns
    ]
    rows = list(csv.DictReader(io.StringIO(tokens_csv(recording).removeprefix("\ufeff"), newline="")))
    assert {row["temperature"] for row in rows if row["branch"] == "uncapped"} == {"0.9"}
    assert {row["temperature"] for row in rows if row["branch"] == "capped"} == {"0.3"}
    assert {row["floor_name"] for row in rows if row["branch"] == "steered"} == {"p75"}
    assert [row["text"] for row in rows if row["branch"] == "system capped"] == ["Be a demon."] * 2
    assert visit.engine.requests[1].messages[0]["content"] == "Be a demon."


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (replace(UNLOCKED, uncapped_temperature=9), "Temperature must lie"),
        (replace(UNLOCKED, capped_temperature="warm"), "temperature of a pane must be a finite number"),
        (replace(UNLOCKED, uncapped_prompt=3), "not text"),
        (replace(UNLOCKED, steer_on=True, steered_floor="p99"), "p99"),
    ],
)
def test_own_settings_that_cannot_be_are_refused_in_one_sentence(values, sentence):
    with pytest.raises(UserError, match=sentence):
        values.turn_settings(random_axis(4, 16, 1, (1, 2)), 0)


def test_the_page_is_told_the_prompts_of_single_panes():
    visit = Visit()
    [op] = json.loads(visit.handlers.show_prompts(visit.session, UNLOCKED).stage or "")["ops"]
    assert op == {"op": "pane_prompts", "prompts": {"capped": "Be a demon."}}
    [op] = json.loads(visit.handlers.show_prompts(visit.session, replace(UNLOCKED, locked=True)).stage or "")[
        "ops"
    ]
    assert op["prompts"] == {}


# --- scripts


def test_own_messages_and_other_attempts_leave_the_script_where_it_was():
    visit = Visit().start(scenario("one", "two", "three"))
    assert visit.script == (0, "one")
    assert visit.say().script == (1, "two")
    assert visit.say("my own").script == (1, "two")
    assert visit.ask("regenerate", turn=1).script == (1, "two")
    assert visit.ask("regenerate", turn=0).script == (1, "two")
    assert visit.say().script == (2, "three")
    assert visit.ask("edit", turn=1, text="TWO").script == (2, "three"), "an edited line has been sent"
    assert visit.say().script == (3, "")


def test_undo_moves_the_script_back():
    visit = Visit().start(scenario("one", "two", "three")).say().say()
    assert visit.script == (2, "three")
    assert visit.ask("undo").script == (1, "two")
    assert visit.say().script == (2, "three")
    visit.say("my own").ask("undo")
    assert visit.script == (2, "my own")


def test_a_script_continues_in_a_fork_after_a_switch_and_after_a_reload():
    visit = Visit().say("Hello").start(scenario("one", "two", "three")).say().say("my own").say()
    assert visit.ask("fork", turn=1).script == (1, "two")
    assert visit.ask("switch", conversation=1).script == (2, "three")
    restored = Session()
    restore_chats(restored, [json.dumps(one) for one in visit.stored.values()], 1, "tiny")
    assert (restored.chat.said, restored.chat.next_line()) == (2, "three")


def test_a_script_that_an_earlier_version_stored_continues():
    visit = Visit().start(scenario("one", "two", "three")).say().say("my own")
    [stored] = visit.stored.values()
    stored["said"] = 3
    del stored["scripted"]
    restored = Session()
    restore_chats(restored, [json.dumps(stored)], 0, "tiny")
    assert (restored.chat.said, restored.chat.next_line()) == (1, "two")


def test_a_message_that_is_typed_meanwhile_stays_in_the_box():
    visit = Visit().say("Hello")
    updates = list(visit.handlers.answer(visit.session, "Again", VALUES, 1))
    assert [update.message for update in (updates[0], updates[-1])] == ["", None]
    updates = list(visit.handlers.answer(visit.session, "Other", VALUES, 1))
    assert updates[0].message is None, "an edited message was not in the box"
