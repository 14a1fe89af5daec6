"""Undoing, editing, forking and repeating turns, and reading chats, with known replies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demo.conversation.conversation import Conversation
from demo.conversation.settings import BRANCHES, CAPPED, SEED_STEP, STEERED, UNCAPPED, TurnSettings
from demo.engine.protocol import Cap, Steer
from demo.page.session import MOST_CHATS, Chat, Session
from demo.utils.errors import UserError
from tests.helpers.scripted import SETTINGS, ScriptedEngine


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
    assert by_branch[CAPPED].steer is None and by_branch[UNCAPPED].intervention == (None, None, "both")
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


def test_a_fork_of_a_script_continues_with_its_own_next_line():
    chat = Chat(conversation_of("one", "two"), script=("one", "two", "three"), said=3)
    fork = chat.fork(1)
    assert fork.next_line() == "two" and fork.next_line() == "three" and fork.next_line() == ""
