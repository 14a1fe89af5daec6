"""Reasoning, failed replies, text that a template leaves out, and dates: from the settings to storage."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any, cast

import gradio as gr
import pytest

from demo.conversation.conversation import Conversation
from demo.conversation.session_file import Recording, dumps, loads
from demo.conversation.settings import CAPPED, UNCAPPED, CapChoice, TurnSettings
from demo.conversation.turns import Reply, Turn
from demo.engine.protocol import Sampling
from demo.engine.transformers_engine import TransformersEngine
from demo.models.chat_template import LeftOut
from demo.page.api import Api, conversation_from
from demo.page.chat_handlers import ChatHandlers
from demo.page.persistence import persist_op, restore_chats
from demo.page.recordings import chat_of
from demo.page.session import Session
from demo.page.settings_panel import PanelValues, build_settings_panel, panel_values
from demo.page.stage_handlers import StageHandlers
from demo.page.updates import Updates, recorded_turn, turn_op
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis
from tests.helpers.scripted import FAULT, SETTINGS, ScriptedEngine
from tests.helpers.tiny_models import tiny_llama

NO_REQUEST = cast(gr.Request, None)
VALUES = PanelValues("", 0.3, 0.9, 1.1, 8, 0, 0, 1, "All", False, 1, 1.0, True, "p25", 1, 2)
THINKING = replace(VALUES, thinking=True)
THOUGHTS = ("Let", " me", " see.")


@pytest.fixture
def axis():
    return random_axis(4, 16, 1, (1, 2))


def operations(updates: Any) -> list[dict[str, Any]]:
    """The stage's operations in these updates of the page."""
    return [op for one in updates if one.stage for op in json.loads(one.stage)["ops"]]


@pytest.mark.parametrize(
    ("thinking", "chosen", "span"),
    [
        (True, "Answer and reasoning", "both"),
        (True, "Answer only", "answer"),
        (True, "Reasoning only", "reasoning"),
        (True, None, "both"),
        (False, "Answer only", "both"),  # the choice is hidden
    ],
)
def test_the_settings_say_whether_the_model_reasons_and_where_the_cap_acts(axis, thinking, chosen, span):
    settings = replace(VALUES, thinking=thinking, span=chosen).turn_settings(axis, 0)
    assert (settings.thinking, settings.span) == (thinking, span)


def test_settings_that_are_not_text_are_refused(axis):
    with pytest.raises(UserError, match="not text"):
        replace(THINKING, span=["Answer only"]).turn_settings(axis, 0)


@pytest.mark.parametrize(
    ("thinking", "on", "can_change", "tokens"),
    [("never", False, True, 96), ("optional", False, True, 96), ("always", True, False, 1024)],
)
def test_the_panel_shows_reasoning_where_the_model_has_it(axis, thinking, on, can_change, tokens):
    with gr.Blocks():
        panel = build_settings_panel(axis, Sampling(), thinking)
    assert (panel.thinking.value, panel.thinking.interactive) == (on, can_change)
    assert panel.span.visible == on and panel.max_new_tokens.value == tokens
    shown, parent = True, panel.thinking.parent
    while parent is not None:
        shown, parent = shown and bool(getattr(parent, "visible", True)), parent.parent
    assert shown == (thinking != "never")
    values = panel_values([component.value for component in panel.inputs()])
    assert values.turn_settings(axis, 0).thinking == on


def test_both_branches_get_the_request_to_reason(axis):
    engine = ScriptedEngine(thoughts=THOUGHTS)
    handlers, session = ChatHandlers(engine, axis, "tiny"), Session()
    list(handlers.send(session, "Hi", replace(THINKING, span="Answer only"), NO_REQUEST))
    assert [(one.thinking, one.span) for one in engine.requests] == [(True, "answer")] * 2
    assert {one.date for one in engine.requests} == {session.chat.conversation.date}
    replies = session.chat.conversation.turns[0].replies
    assert replies[UNCAPPED].reasoning == "Let me see. Hm." and replies[CAPPED].reasoning == "Let me see."
    list(handlers.send(session, "Hi", VALUES, NO_REQUEST))
    assert [one.thinking for one in engine.requests] == [False] * 2


def test_updates_mark_reasoning_and_keep_it_out_of_the_answer():
    conversation, sent = Conversation(), []
    updates = Updates(conversation)
    engine = ScriptedEngine(thoughts=THOUGHTS, words=("**Hello**",))
    for event in conversation.send(engine, "Hi", replace(SETTINGS, thinking=True)):
        updates.add_events([event])
        sent += json.loads(updates.take())["ops"]
    tokens = [t for op in sent if op["op"] == "tokens" and op["branch"] == CAPPED for t in op["tokens"]]
    assert [one.get("r", 0) for one in tokens] == [1, 1, 1, 0, 0]
    end = next(op for op in sent if op["op"] == "turn_end" and op["branch"] == CAPPED)
    assert end["mean"] == -0.5 and end["count"] == 1
    assert end["reasoning_mean"] == pytest.approx((-0.5 - 1 - 0.5) / 3, abs=1e-4)
    for data in (turn_op(conversation, 0)["data"], recorded_turn(conversation.turns[0])):
        assert data["branches"][CAPPED]["html"] == "<p><strong>Hello</strong></p>\n"


def test_a_failed_branch_says_why_and_the_conversation_goes_on(axis):
    engine = ScriptedEngine(failing=CAPPED)
    handlers, session = ChatHandlers(engine, axis, "tiny"), Session()
    sent = operations(handlers.send(session, "Hi", VALUES, NO_REQUEST))
    assert not any(op["op"] in ("lost", "notice") for op in sent)
    whole = [op for op in sent if op["op"] == "turn"][-1]["data"]["branches"]
    assert (whole[CAPPED]["finish"], whole[CAPPED]["fault"]) == ("failed", FAULT)
    assert whole[UNCAPPED]["finish"] == "stop" and "fault" not in whole[UNCAPPED]
    engine.failing = ""
    list(handlers.send(session, "And now?", VALUES, NO_REQUEST))
    assert [turn.replies[CAPPED].finish for turn in session.chat.conversation.turns] == ["failed", "stop"]


def test_left_out_text_is_reported_once_per_conversation(axis):
    parts = (LeftOut(0, "system", True), LeftOut(2, "assistant", False), LeftOut(4, "assistant", False))
    engine = ScriptedEngine(left_out=parts[:1])
    handlers, session = ChatHandlers(engine, axis, "tiny"), Session()

    def reported(text: str) -> list[str]:
        sent = operations(handlers.send(session, text, VALUES, NO_REQUEST))
        return [op["text"] for op in sent if op["op"] == "left_out"]

    system = "This model’s chat template leaves out the system prompt, so it has no effect."
    assert reported("one") == [system] and reported("two") == []
    engine.left_out = parts
    both = f"{system} It also leaves out part of an earlier reply."
    assert reported("three") == [both] and reported("four") == []
    again = operations([handlers.reset(session, VALUES)])
    assert [op["text"] for op in again if op["op"] == "left_out"] == [both]
    fresh = operations([handlers.new_chat(session, VALUES)])
    assert [op["text"] for op in fresh if op["op"] == "left_out"] == [""]


def test_the_browser_and_files_bring_back_reasoning_faults_and_the_date(axis):
    engine = ScriptedEngine(thoughts=THOUGHTS, failing=CAPPED)
    handlers, session = ChatHandlers(engine, axis, "tiny"), Session()
    session.chat.conversation.date = "2024-02-29"
    list(handlers.send(session, "Hi", THINKING, NO_REQUEST))
    recording = handlers.recording(session.chat, THINKING)
    op = persist_op(session.chat, recording)
    stored = json.dumps(op["head"] | {"id": op["id"], "turns": op["turns"]})
    restored = Session()
    restore_chats(restored, [stored], 0, "tiny")
    for chat in (restored.chat, chat_of(loads(dumps(recording)), "tiny")):
        assert chat.conversation.date == chat.fork(1).conversation.date == "2024-02-29"
        replies = chat.conversation.turns[0].replies
        assert replies[UNCAPPED].reasoning == "Let me see. Hm." and replies[CAPPED].fault == FAULT
        assert handlers.recording(chat, VALUES).date == "2024-02-29"


def test_layers_are_read_with_the_reasoning_and_the_settings_of_the_turn(axis):
    engine, asked = ScriptedEngine(thoughts=THOUGHTS), []
    handlers, session = ChatHandlers(engine, axis, "tiny"), Session()
    list(handlers.send(session, "Hi", replace(THINKING, span="Reasoning only"), NO_REQUEST))
    read = engine.read

    def noted(request, cancel=None):
        asked.append(request)
        return read(request)

    engine.read = noted  # type: ignore[method-assign]
    data = {"do": "layers", "turn": 0, "branch": CAPPED}
    list(StageHandlers(handlers).dispatch(session, data, VALUES, NO_REQUEST))
    assert [(one.cap is None, one.thinking, one.span) for one in asked] == [
        (True, True, "reasoning"),
        (False, True, "reasoning"),
    ]
    assert asked[0].messages[-1] == {
        "role": "assistant",
        "content": "Hello there!",
        "reasoning": "Let me see.",
    }
    assert {one.date for one in asked} == {session.chat.conversation.date}


def test_the_endpoint_reasons_when_asked_and_refuses_where_the_model_cannot(axis):
    engine = ScriptedEngine(thoughts=THOUGHTS)
    can = Api(engine, axis, "tiny", thinking="optional")
    found = can.reply("Hi", thinking=True)
    assert (found[CAPPED]["reasoning"], found[CAPPED]["text"]) == ("Let me see.", "Hello there!")
    assert "reasoning" not in can.reply("Hi")[CAPPED] and not engine.requests[0].thinking
    always = Api(engine, axis, "tiny", thinking="always").reply("Hi")
    assert always["turn"][CAPPED] == "Hello there!" and engine.requests[0].thinking
    with pytest.raises(gr.Error, match="does not reason"):
        Api(engine, axis, "tiny").reply("Hi", thinking=True)


def test_the_history_of_the_endpoint_carries_the_date(axis):
    api = Api(ScriptedEngine(), axis, "tiny")
    turn = api.reply("Hi")["turn"]
    assert turn["date"] == Conversation().date
    assert api.reply("Hi", [turn | {"date": "2024-02-29"}])["turn"]["date"] == "2024-02-29"
    del turn["date"]
    assert conversation_from([turn]).date == Conversation().date
    with pytest.raises(UserError, match="YYYY-MM-DD"):
        conversation_from([turn | {"date": "yesterday"}])


def test_a_recording_without_a_date_can_be_continued(axis):
    turns = Conversation()
    list(turns.send(ScriptedEngine(), "Hi", SETTINGS))
    recording = Recording("tiny", turns.turns, CapChoice.of_axis(axis).marks(axis))
    assert chat_of(recording, "tiny").conversation.date == Conversation().date


def test_reading_a_chat_says_what_the_template_drops(model):
    """The tiny model's template writes no system prompt."""
    tiny = tiny_llama(model)
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] != 'system' %}<|im_start|>{{ m['role'] }}\n"
        "{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    )
    engine = TransformersEngine(
        replace(tiny, tokenizer=tokenizer), random_axis(len(tiny.layers), tiny.hidden_size, 1, (1, 2))
    )
    turns = [Turn("Hello", {UNCAPPED: Reply.of_text("Good day.")})]
    for prompt, left_out in (("Speak as a cook.", (LeftOut(0, "system", True),)), ("", ())):
        conversation = Conversation(list(turns))
        settings = TurnSettings(Sampling(), None, prompt)
        list(conversation.read(engine, settings, 1))
        assert conversation.left_out == left_out
