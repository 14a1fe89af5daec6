"""Undoing, editing, forking and repeating turns, and reading chats, with known replies."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import gradio as gr
import pytest

from demo.conversation.conversation import Conversation
from demo.conversation.settings import BRANCHES, CAPPED, SEED_STEP, STEERED, UNCAPPED, TurnSettings
from demo.engine.protocol import Cap, Steer
from demo.page.chat_handlers import ChatHandlers
from demo.page.session import MOST_CHATS, Chat, Session
from demo.page.settings_panel import PanelValues
from demo.page.stage_handlers import StageHandlers
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis
from tests.helpers.scripted import SETTINGS, ScriptedEngine

NO_REQUEST = cast(gr.Request, None)
VALUES = PanelValues("", 0.3, 0.9, 1.1, 8, 0, 0, 1, "All", False, 1, 1.0, True, "p25", 1, 2)


def conversation_of(*texts: str) -> Conversation:
    conversation = Conversation()
    for text in texts:
        list(conversation.send(ScriptedEngine(words=(text, "!")), text, SETTINGS))
    return conversation


def texts_of(conversation: Conversation, branch: str = UNCAPPED) -> list[str]:
    """The texts of a branch's history."""
    return [message["content"] for message in conversation.messages(branch)]


def test_undo_returns_the_message_until_no_turn_is_left():
    conversation = conversation_of("one", "two")
    assert conversation.undo() == "two" and texts_of(conversation) == ["one", "one!"]
    assert conversation.undo() == "one" and conversation.turns == []
    with pytest.raises(UserError, match="no turn to take back"):
        conversation.undo()


def test_an_edit_replaces_the_turn_and_all_that_follow():
    conversation, engine = conversation_of("one", "two", "three"), ScriptedEngine(words=("new",))
    list(conversation.send(engine, "TWO", SETTINGS, at=1))
    assert texts_of(conversation) == ["one", "one!", "TWO", "new"]
    assert [m["content"] for m in engine.requests[0].messages] == ["Be kind.", "one", "one!", "TWO"]


def test_an_edit_that_fails_or_is_refused_restores_all_turns():
    conversation = conversation_of("one", "two", "three")
    before = list(conversation.turns)
    with pytest.raises(RuntimeError):
        list(conversation.send(ScriptedEngine(fail_after=1), "TWO", SETTINGS, at=1))
    assert conversation.turns == before
    with pytest.raises(UserError):
        conversation.send(ScriptedEngine(refuse=True), "TWO", SETTINGS, at=0)
    assert conversation.turns == before


def test_a_fork_shares_earlier_turns_but_not_later_ones():
    first = conversation_of("one", "two")
    second = first.fork(1)
    list(second.send(ScriptedEngine(words=("other",)), "too", SETTINGS))
    assert texts_of(first) == ["one", "one!", "two", "two!"]
    assert texts_of(second) == ["one", "one!", "too", "other"]
    assert first.id != second.id


def test_further_samples_use_other_seeds_and_do_not_enter_the_history():
    conversation, engine = Conversation(), ScriptedEngine()
    events = list(conversation.send(engine, "Hi", replace(SETTINGS, seeds=3)))
    assert {event.branch for event in events} == set(BRANCHES)
    assert sorted({request.sampling.seed for request in engine.requests}) == [0, SEED_STEP, 2 * SEED_STEP]
    reply = conversation.turns[0].replies[CAPPED]
    assert [sample.text for sample in reply.samples] == ["Hello there!"] * 2
    assert [sample.finish for sample in reply.samples] == ["stop"] * 2
    assert texts_of(conversation) == ["Hi", "Hello there!"]
    assert sorted(engine.forgotten) == sorted(
        f"{conversation.branch_id(b)}#{n}" for b in BRANCHES for n in (1, 2)
    )
    with pytest.raises(UserError, match="between 1 and"):
        replace(SETTINGS, seeds=99)


def test_a_turn_in_one_branch_alone_enters_only_its_history():
    conversation = conversation_of("one")
    list(conversation.send(ScriptedEngine(words=("mine",)), "only you", replace(SETTINGS, only=CAPPED)))
    assert texts_of(conversation, CAPPED) == ["one", "one!", "only you", "mine"]
    assert texts_of(conversation, UNCAPPED) == ["one", "one!"]


def test_the_steered_branch_starts_with_the_uncapped_history():
    conversation, engine = conversation_of("one"), ScriptedEngine(words=("pushed",))
    steered = replace(SETTINGS, steer=Steer(2, 1.5), cap=Cap((1,), (0.5,)))
    list(conversation.send(engine, "two", steered))
    by_branch = {request.branch.rpartition("/")[2]: request for request in engine.requests}
    assert set(by_branch) == {UNCAPPED, CAPPED, STEERED}
    assert by_branch[STEERED].steer == Steer(2, 1.5) and by_branch[STEERED].cap is None
    assert by_branch[CAPPED].steer is None and by_branch[UNCAPPED].in_prompt == (None, None, None, "both")
    assert texts_of(conversation, STEERED) == ["one", "one!", "two", "pushed"]
    with pytest.raises(UserError, match="steered reply is off"):
        TurnSettings(SETTINGS.sampling, None, only=STEERED)


def test_reading_gives_every_token_a_projection_and_generates_nothing():
    conversation = conversation_of("a b", "c")
    conversation.turns[1].replies[UNCAPPED].tokens[:] = conversation.turns[1].replies[UNCAPPED].tokens[:1]
    engine = ScriptedEngine()
    read = list(conversation.read(engine, replace(SETTINGS, cap=Cap((1,), (0.0,))), probe_layer=1))
    assert read == [(0, UNCAPPED), (1, UNCAPPED), (0, CAPPED), (1, CAPPED)] and engine.requests == []
    plain, capped = (conversation.turns[0].replies[branch] for branch in BRANCHES)
    assert [token.text for token in plain.tokens] == ["a", "b!"]
    assert [(token.before, token.after) for token in capped.tokens] == [(0, 1), (1, 2)]
    assert plain.fired == 0 and capped.fired == 2 and plain.user_projection == 0.5


def test_conversations_are_shown_and_closed():
    session = Session()
    empty = session.chat
    kept = [Chat(conversation_of("x"), title=str(n)) for n in range(MOST_CHATS + 1)]
    assert session.show(kept[0]) == [empty], "an untouched chat is closed"
    for chat in kept[1:-1]:
        assert session.show(chat) == []
    assert session.show(kept[-1]) == [kept[0]], "the oldest is closed when there are too many"
    assert session.show(kept[3]) == [] and session.chat is kept[3]
    assert session.close(0) is kept[1] and session.chat is kept[3]
    session.chats = [kept[3]]
    session.current = 0
    session.close(0)
    assert len(session.chats) == 1 and session.chat.conversation.turns == []


def handlers_and_session() -> tuple[ChatHandlers, Session]:
    return ChatHandlers(ScriptedEngine(), random_axis(4, 16, 1, (1, 2)), "tiny"), Session()


def test_a_fork_has_the_next_message_of_its_script_in_the_box():
    handlers, session = handlers_and_session()
    handlers.start(session, Chat(title="Demon", script=("one", "two", "three")), VALUES)
    for at, text in enumerate(("one", "two")):
        list(handlers.answer(session, text, VALUES, at))

    def box_after(**request: object) -> str | None:
        [update] = StageHandlers(handlers).dispatch(session, request, VALUES, NO_REQUEST)
        return update.message

    assert box_after(do="fork", turn=0) == "two"
    assert box_after(do="fork", turn=0) == "two"
    assert [one.title for one in session.chats] == ["Demon", *2 * ["Fork after turn 1: Demon"]]
    assert box_after(do="switch", conversation=0) == "three", "it waits there while another chat is shown"


def test_no_message_of_a_script_is_skipped_after_an_undo_or_another_attempt():
    handlers, session = handlers_and_session()
    handlers.start(session, Chat(script=("one", "two", "three")), VALUES)

    def box_after(text: str, at: int) -> str | None:
        return list(handlers.answer(session, text, VALUES, at))[-1].message

    assert box_after("one", 0) == "two"
    session.chat.conversation.undo()
    assert box_after("one", 0) == "two"
    assert box_after("two", 1) == "three"
    assert box_after("ONE", 0) == "two", "an edited message is followed by the script's second one"
