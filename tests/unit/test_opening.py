"""Opening chats from elsewhere: long ones are cut, and what cannot be read leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest

from demo.conversation.conversation import Conversation, End
from demo.conversation.settings import BRANCHES, CAPPED, UNCAPPED
from demo.conversation.turns import Reply, Turn
from demo.engine.protocol import ReadToken, Request, TooLongError, room_left
from demo.engine.remote.client import RemoteEngine
from demo.page.chat_handlers import ChatHandlers, PageUpdate
from demo.page.session import Chat, Session
from demo.page.settings_panel import PanelValues
from demo.page.stage_handlers import StageHandlers
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis
from tests.helpers.engines import served
from tests.helpers.scripted import SETTINGS, ScriptedEngine

NO_REQUEST = cast(gr.Request, None)
VALUES = PanelValues("", 0.3, 0.9, 1.1, 8, 0, 0, 1, "All", False, 1, 1.0, True, "p25", 1, 2)
TURNS = 7


class NarrowEngine(ScriptedEngine):
    """Holds `context` words, and reads a message at a time.

    Attributes:
        fail_after: Number of messages after which a reading fails; None for never.
        before_message: Called with the index of each message before it is read.
        asked: All requests for a reading.
        begun, closed: How many readings have begun, and have ended.
    """

    def __init__(self, context: int = 100, fail_after: int | None = None) -> None:
        super().__init__(fail_after=fail_after)
        self.context, self.asked, self.begun, self.closed = context, list[Request](), 0, 0
        self.before_message = lambda index: None

    def read(self, request: Request, cancel: Any = None) -> Iterator[list[ReadToken]]:
        self.asked.append(request)
        room_left(sum(len(message["content"].split()) for message in request.messages) - 1, self.context)
        return self._chunks(request, cancel)

    def _chunks(self, request: Request, cancel: Any) -> Iterator[list[ReadToken]]:
        self.begun += 1
        try:
            for index, chunk in enumerate(super().read(request)):
                self.before_message(index)
                if index == self.fail_after:
                    raise UserError("The numbers overflowed.")
                if cancel is not None and cancel.is_set():
                    return
                yield [ReadToken(one.message, one.text, 4 * (0.5,), 4 * (0.5,)) for one in chunk]
        finally:
            self.closed += 1


def conversation_of(turns: int) -> Conversation:
    """Each turn has a user message of two words and a reply of three."""
    made = [(f"question {n}", f"the answer {n}") for n in range(1, turns + 1)]
    return Conversation(
        [Turn(user, {branch: Reply.of_text(reply) for branch in BRANCHES}) for user, reply in made]
    )


def transcript(turns: int = TURNS, **more: Any) -> str:
    history = conversation_of(turns).messages(UNCAPPED)
    return json.dumps({"model": "other", "system": "Be kind.", "messages": history, **more})


# --- cutting


@pytest.mark.parametrize("keep", ["beginning", "end"])
@pytest.mark.parametrize("fit", [1, 2, 3, 6])
def test_as_many_whole_turns_are_kept_as_fit_with_the_system_prompt(keep: End, fit: int):
    engine, conversation = NarrowEngine(context=2 + 5 * fit + 4), conversation_of(TURNS)
    error = conversation.keep_what_fits(engine, SETTINGS, keep)
    assert error is not None and (error.tokens, error.context) == (2 + 5 * TURNS - 1, engine.context)
    first = 1 if keep == "beginning" else TURNS - fit + 1
    assert [turn.user for turn in conversation.turns] == [f"question {n}" for n in range(first, first + fit)]
    assert {request.messages[0]["content"] for request in engine.asked} == {"Be kind."}
    assert engine.begun == 0, "nothing was computed"
    list(conversation.read(engine, SETTINGS, 1))


def test_a_chat_that_fits_is_not_cut():
    conversation = conversation_of(TURNS)
    assert conversation.keep_what_fits(NarrowEngine(), SETTINGS, "end") is None
    assert len(conversation.turns) == TURNS


def test_a_chat_of_which_no_turn_fits_is_refused_unchanged():
    conversation = conversation_of(TURNS)
    with pytest.raises(UserError, match=r"Not even the last turn .* context of 3 tokens"):
        conversation.keep_what_fits(NarrowEngine(context=3), SETTINGS, "end")
    assert len(conversation.turns) == TURNS


def test_another_refusal_than_for_length_is_passed_on_and_cuts_nothing():
    conversation, engine = conversation_of(TURNS), NarrowEngine()

    def refuse(request: Request, cancel: Any = None) -> Iterator[list[ReadToken]]:
        raise UserError("The template refused these messages.")

    engine.read = refuse  # type: ignore[method-assign]
    with pytest.raises(UserError, match="template refused"):
        conversation.keep_what_fits(engine, SETTINGS, "beginning")
    assert len(conversation.turns) == TURNS


def test_an_engine_in_another_process_says_what_does_not_fit_and_frees_what_is_not_read():
    engine = NarrowEngine(context=2 + 5 * 3)
    engine.model = SimpleNamespace(  # type: ignore[attr-defined]
        spec="m",
        slug="m",
        device="cpu",
        dtype_name="float32",
        template="0123456789ab",
        dtype_reason="float32",
        thinking="never",
        revision=None,
        digest=None,
        base=False,
    )
    engine.axis = random_axis(4, 16, 1, (1, 2))  # type: ignore[attr-defined]
    engine.directions = {}  # type: ignore[attr-defined]
    conversation = conversation_of(TURNS)
    with served(engine) as url:
        remote = RemoteEngine(url)
        error = conversation.keep_what_fits(remote, SETTINGS, "end")
        assert isinstance(error, TooLongError) and error.context == engine.context
        assert len(conversation.turns) == 3
        assert remote._http._transport._pool.connections == [] or all(  # type: ignore[attr-defined]
            connection.is_idle()
            for connection in remote._http._transport._pool.connections  # type: ignore[attr-defined]
        ), "every response was closed"


# --- reading


def test_a_reading_that_is_stopped_keeps_the_whole_text():
    engine, conversation = NarrowEngine(), conversation_of(3)
    engine.before_message = lambda index: conversation.stop() if index == 4 else None
    assert list(conversation.read(engine, SETTINGS, 1)) == [(0, UNCAPPED)]
    assert conversation.stopped and engine.begun == engine.closed == 1
    texts = [turn.replies[branch].text for turn in conversation.turns for branch in BRANCHES]
    assert [text.replace(" ", "") for text in texts] == [f"theanswer{n}" for n in (1, 1, 2, 2, 3, 3)]
    means = [turn.replies[UNCAPPED].mean for turn in conversation.turns]
    assert means == [0.5, None, None] and conversation.turns[0].replies[CAPPED].mean is None


def test_what_the_template_does_not_write_stays_as_unread_text():
    """The engine reads no reasoning, and nothing at all of the second turn."""
    conversation = conversation_of(3)
    for branch in BRANCHES:
        conversation.turns[0].replies[branch] = Reply.of_text("the answer 1", "Why not.")
    engine = NarrowEngine()
    whole = engine._chunks
    engine._chunks = lambda request, cancel: (  # type: ignore[method-assign]
        chunk for n, chunk in enumerate(whole(request, cancel)) if n not in (3, 4)
    )
    assert [index for index, _ in conversation.read(engine, SETTINGS, 1)] == [0, 2, 0, 2]
    first, second, third = (turn.replies[CAPPED] for turn in conversation.turns)
    assert (first.reasoning, first.mean, first.reasoning_mean) == ("Why not.", 0.5, None)
    assert (second.text, second.mean) == ("the answer 2", None)
    assert third.text.split() == ["theanswer3"] and third.mean == 0.5
    assert [left.message for left in conversation.left_out] == [3, 4]


# --- on the page


class Visitor:
    """One session, and what the stage was sent."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.handlers, self.session = ChatHandlers(engine, random_axis(4, 16, 1, (1, 2)), "tiny"), Session()
        self.stage, self.updates = StageHandlers(self.handlers), list[PageUpdate]()

    def ask(self, **asked: Any) -> list[dict[str, Any]]:
        """Send a request; returns the operations of the answer."""
        self.updates = list(self.stage.dispatch(self.session, asked, VALUES, NO_REQUEST))
        return [op for update in self.updates if update.stage for op in json.loads(update.stage)["ops"]]

    @property
    def busy(self) -> bool:
        """Whether Stop stands in the place of Send."""
        return bool([False, *(one.busy for one in self.updates if one.busy is not None)][-1])

    @property
    def box(self) -> str:
        """What is in the message box."""
        return ["", *(one.message for one in self.updates if one.message is not None)][-1]


def notices(operations: list[dict[str, Any]]) -> list[str]:
    return [op["text"] for op in operations if op["op"] == "notice"]


@pytest.mark.parametrize(
    ("keep", "words", "users"),
    [
        ("beginning", "Turns 1–3 of 7 are read; the rest", [1, 2, 3]),
        ("end", "Turns 5–7 of 7 are read, here as turns 1–3; the rest", [5, 6, 7]),
        (None, "Turns 1–3 of 7 are read; the rest", [1, 2, 3]),
    ],
)
def test_a_long_transcript_is_read_as_far_as_it_fits_and_says_so(keep, words, users):
    visitor = Visitor(NarrowEngine(context=2 + 5 * 3))
    operations = visitor.ask(do="open", how="read", keep=keep, text=transcript())
    assert notices(operations) == [] and not visitor.busy and visitor.session.running is None
    assert any(update.busy for update in visitor.updates)
    chat = visitor.session.chat
    assert [turn.user for turn in chat.conversation.turns] == [f"question {n}" for n in users]
    assert all(turn.replies[branch].mean == 0.5 for turn in chat.conversation.turns for branch in BRANCHES)
    assert words in chat.blurb and "model's context of 17 tokens" in chat.blurb
    assert [op for op in operations if op["op"] == "conversations"][-1]["script"]["blurb"] == chat.blurb
    assert [op for op in operations if op["op"] == "persist"][-1]["head"]["blurb"] == chat.blurb
    layers = visitor.ask(do="layers", turn=2, branch=CAPPED)
    assert [op["op"] for op in layers] == ["layers"]
    visitor.ask(do="close", conversation=0)
    assert visitor.session.chat.conversation.turns == []


def test_a_single_turn_that_fits_is_described_in_the_singular():
    visitor = Visitor(NarrowEngine(context=2 + 5))
    visitor.ask(do="open", how="read", keep="end", text=transcript())
    assert "Turn 7 of 7 is read, here as turn 1;" in visitor.session.chat.blurb


@pytest.mark.parametrize("fail_after", [1, 4])
def test_a_reading_that_fails_leaves_nothing_behind(fail_after):
    visitor = Visitor(NarrowEngine())
    scripted = Chat(title="Demon", system_prompt="Roar.", script=("one", "two"))
    visitor.session.show(scripted)
    before = list(visitor.session.chats)
    visitor.handlers.engine.fail_after = fail_after  # type: ignore[attr-defined]
    operations = visitor.ask(do="open", how="read", text=transcript())
    assert notices(operations) == ["The numbers overflowed."] and operations[-1]["op"] == "notice"
    assert not visitor.busy and visitor.session.running is None
    assert visitor.session.chats == before and visitor.session.chat is scripted
    assert visitor.box == "one" and visitor.updates[-2].system_prompt == "Roar."
    assert [op for op in operations if op["op"] == "conversations"][-1]["list"] == ["Demon"]


@pytest.mark.parametrize(
    ("engine", "text", "words"),
    [
        (NarrowEngine(context=3), transcript(), "Not even the first turn"),
        (NarrowEngine(), transcript(messages=[{"role": "user", "content": [{"type": "image"}]}]), "an image"),
        (NarrowEngine(), "no chat", "not JSON"),
    ],
)
def test_a_transcript_that_cannot_be_read_changes_nothing(engine, text, words):
    visitor = Visitor(engine)
    before = visitor.session.chat
    for how in ("read", "replay") if words != "Not even the first turn" else ("read",):
        [notice] = visitor.ask(do="open", how=how, text=text)
        assert words in notice["text"]
        assert [update.busy for update in visitor.updates] == [None] and visitor.session.chats == [before]


def test_layers_that_cannot_be_read_end_with_a_notice_and_can_be_asked_for_again():
    visitor = Visitor(NarrowEngine())
    visitor.ask(do="open", how="read", text=transcript())
    engine = cast(NarrowEngine, visitor.handlers.engine)
    engine.context = 3
    failed, notice = visitor.ask(do="layers", turn=1, branch=CAPPED)
    asked = {"conversation": visitor.session.chat.id, "turn": 1, "branch": CAPPED}
    assert failed == {"op": "layers_failed", **asked} and "tokens long" in notice["text"]
    engine.context = 100
    assert [op["op"] for op in visitor.ask(do="layers", turn=1, branch=CAPPED)] == ["layers"]


def test_a_stopped_reading_ends_with_send_and_says_how_far_it_came():
    engine = NarrowEngine()
    visitor = Visitor(engine)
    engine.before_message = lambda index: visitor.handlers.stop(visitor.session) if index == 6 else None
    operations = visitor.ask(do="open", how="read", text=transcript())
    assert notices(operations) == ["The reading was stopped after 0 of 7 turns."] and not visitor.busy
    assert len(visitor.session.chat.conversation.turns) == TURNS


def test_readings_are_not_drawn_into_another_conversation():
    engine = NarrowEngine()
    visitor = Visitor(engine)
    engine.before_message = lambda index: (
        visitor.handlers.switch(visitor.session, Chat(title="Other")) if index == 6 else None
    )
    visitor.ask(do="open", how="read", text=transcript())
    assert visitor.session.chat.title == "Other" and visitor.updates[-1].stage is None and not visitor.busy
    assert [chat.title for chat in visitor.session.chats] == ["Transcript of other", "Other"]


def test_a_failing_reading_is_closed_behind_a_visitor_who_has_gone_on():
    engine = NarrowEngine()
    visitor = Visitor(engine)

    def leave_and_fail(index: int) -> None:
        visitor.handlers.switch(visitor.session, Chat(title="Other"))
        raise UserError("The numbers overflowed.")

    engine.before_message = leave_and_fail
    assert notices(visitor.ask(do="open", how="read", text=transcript())) == ["The numbers overflowed."]
    assert [chat.title for chat in visitor.session.chats] == ["Other"] and visitor.box == ""


def test_the_visitor_is_asked_which_of_several_chats_to_open():
    chats = [json.loads(transcript(1)), json.loads(transcript(2, title="Second"))]
    visitor, text = Visitor(NarrowEngine()), json.dumps(chats)
    [asked] = visitor.ask(do="open", how="read", text=text)
    assert asked == {"op": "chats", "titles": ["question 1", "Second"], "count": 2}
    assert visitor.session.chat.title == "Free chat"
    visitor.ask(do="open", how="read", text=text, chat=1)
    chat = visitor.session.chat
    assert chat.title == "Second" and len(chat.conversation.turns) == 2
    assert chat.blurb == "Written by other, read by tiny. This is chat 2 of 2 in its file."


@pytest.mark.parametrize(("keep", "box"), [("beginning", ""), ("end", "And now?")])
def test_a_last_message_follows_the_end_of_a_long_transcript_only(keep, box):
    history = [*conversation_of(TURNS).messages(UNCAPPED), {"role": "user", "content": "And now?"}]
    visitor = Visitor(NarrowEngine(context=2 + 5 * 3))
    visitor.ask(do="open", how="read", keep=keep, text=transcript(messages=history))
    assert visitor.box == box and len(visitor.session.chat.conversation.turns) == 3


@pytest.mark.parametrize("turns", [0, 2])
def test_a_last_message_without_a_reply_is_in_the_box(turns):
    history = [*conversation_of(turns).messages(UNCAPPED), {"role": "user", "content": "And now?"}]
    visitor = Visitor(NarrowEngine())
    assert notices(visitor.ask(do="open", how="read", text=transcript(messages=history))) == []
    assert visitor.box == "And now?" and not visitor.busy
    assert len(visitor.session.chat.conversation.turns) == turns


def test_a_transcript_brings_its_system_prompt_also_when_it_is_replayed():
    for how in ("read", "replay"):
        visitor = Visitor(NarrowEngine())
        visitor.ask(do="open", how=how, text=transcript())
        assert [one.system_prompt for one in visitor.updates if one.system_prompt is not None] == ["Be kind."]
    assert visitor.box == "question 1"


def test_words_of_an_unknown_model_are_not_attributed():
    visitor = Visitor(NarrowEngine())
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    visitor.ask(do="open", how="read", text=json.dumps(messages))
    blurb = visitor.session.chat.blurb
    assert blurb.startswith("Written by a model that the file does not name, read by tiny.")
