"""Taking turns back, changing, forking and repeating them, and reading chats from elsewhere, with an engine that is known."""

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


def said(conversation: Conversation, branch: str = UNCAPPED) -> list[str]:
    return [message["content"] for message in conversation.messages(branch)]


def test_undo_gives_the_message_back_and_stops_at_the_beginning():
    conversation = conversation_of("one", "two")
    assert conversation.undo() == "two" and said(conversation) == ["one", "one!"]
    assert conversation.undo() == "one" and conversation.turns == []
    with pytest.raises(UserError, match="no turn to take back"):
        conversation.undo()


def test_an_edited_turn_replaces_itself_and_what_followed():
    conversation, engine = conversation_of("one", "two", "three"), ScriptedEngine(words=("new",))
    list(conversation.send(engine, "TWO", SETTINGS, at=1))
    assert said(conversation) == ["one", "one!", "TWO", "new"]
    assert [m["content"] for m in engine.requests[0].messages] == ["Be kind.", "one", "one!", "TWO"]


def test_an_edit_that_fails_or_is_refused_brings_everything_back():
    conversation = conversation_of("one", "two", "three")
    before = list(conversation.turns)
    with pytest.raises(RuntimeError):
        list(conversation.send(ScriptedEngine(fail_after=1), "TWO", SETTINGS, at=1))
    assert conversation.turns == before
    with pytest.raises(UserError):
        conversation.send(ScriptedEngine(refuse=True), "TWO", SETTINGS, at=0)
    assert conversation.turns == before


def test_a_fork_shares_the_past_and_not_the_future():
    first = conversation_of("one", "two")
    second = first.fork(1)
    list(second.send(ScriptedEngine(words=("other",)), "too", SETTINGS))
    assert said(first) == ["one", "one!", "two", "two!"]
    assert said(second) == ["one", "one!", "too", "other"]
    assert first.id != second.id


def test_more_seeds_answer_with_other_numbers_and_leave_the_history_alone():
    conversation, engine = Conversation(), ScriptedEngine()
    events = list(conversation.send(engine, "Hi", replace(SETTINGS, seeds=3)))
    assert {event.branch for event in events} == set(BRANCHES)
    assert sorted({request.sampling.seed for request in engine.requests}) == [0, SEED_STEP, 2 * SEED_STEP]
    reply = conversation.turns[0].replies[CAPPED]
    assert [sample.text for sample in reply.samples] == ["Hello there!"] * 2
    assert [sample.finish for sample in reply.samples] == ["stop"] * 2
    assert said(conversation) == ["Hi", "Hello there!"]
    assert sorted(engine.forgotten) == sorted(
        f"{conversation.branch_id(b)}#{n}" for b in BRANCHES for n in (1, 2)
    )
    with pytest.raises(UserError, match="between 1 and"):
        replace(SETTINGS, seeds=99)


def test_one_branch_spoken_to_alone_has_a_history_of_its_own():
    conversation = conversation_of("one")
    list(conversation.send(ScriptedEngine(words=("mine",)), "only you", replace(SETTINGS, only=CAPPED)))
    assert said(conversation, CAPPED) == ["one", "one!", "only you", "mine"]
    assert said(conversation, UNCAPPED) == ["one", "one!"]


def test_the_steered_branch_starts_from_what_the_uncapped_one_said():
    conversation, engine = conversation_of("one"), ScriptedEngine(words=("pushed",))
    steered = replace(SETTINGS, steer=Steer(2, 1.5), cap=Cap((1,), (0.5,)))
    list(conversation.send(engine, "two", steered))
    by_branch = {request.branch.rpartition("/")[2]: request for request in engine.requests}
    assert set(by_branch) == {UNCAPPED, CAPPED, STEERED}
    assert by_branch[STEERED].steer == Steer(2, 1.5) and by_branch[STEERED].cap is None
    assert by_branch[CAPPED].steer is None and by_branch[UNCAPPED].intervention == (None, None)
    assert said(conversation, STEERED) == ["one", "one!", "two", "pushed"]
    with pytest.raises(UserError, match="steered reply is off"):
        TurnSettings(SETTINGS.sampling, None, only=STEERED)


def test_reading_places_every_word_and_generates_nothing():
    conversation = conversation_of("a b", "c")
    conversation.turns[1].replies[UNCAPPED].tokens[:] = conversation.turns[1].replies[UNCAPPED].tokens[:1]
    engine = ScriptedEngine()
    read = list(conversation.read(engine, replace(SETTINGS, cap=Cap((1,), (0.0,))), probe_layer=1))
    assert read == [(0, UNCAPPED), (1, UNCAPPED), (0, CAPPED), (1, CAPPED)] and engine.requests == []
    plain, capped = (conversation.turns[0].replies[branch] for branch in BRANCHES)
    assert [token.text for token in plain.tokens] == ["a", "b!"]
    assert [(token.before, token.after) for token in capped.tokens] == [(0, 1), (1, 2)]
    assert plain.fired == 0 and capped.fired == 2 and plain.user_projection == 0.5


def test_the_list_of_conversations():
    session = Session()
    empty = session.chat
    kept = [Chat(conversation_of("x"), title=str(n)) for n in range(MOST_CHATS + 1)]
    assert session.show(kept[0]) == [empty], "an untouched chat makes room"
    for chat in kept[1:-1]:
        assert session.show(chat) == []
    assert session.show(kept[-1]) == [kept[0]], "the oldest goes when there are too many"
    assert session.show(kept[3]) == [] and session.chat is kept[3]
    assert session.close(0) is kept[1] and session.chat is kept[3]
    session.chats = [kept[3]]
    session.current = 0
    session.close(0)
    assert len(session.chats) == 1 and session.chat.conversation.turns == []


def test_a_forked_script_goes_on_where_the_fork_is():
    chat = Chat(conversation_of("one", "two"), script=("one", "two", "three"), said=3)
    fork = chat.fork(1)
    assert fork.next_line() == "two" and fork.next_line() == "three" and fork.next_line() == ""
