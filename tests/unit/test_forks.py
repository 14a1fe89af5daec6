"""Forks on the page: at a token, in a tree with notes, in session files and in the browser's storage.

The engine's replies are known; tests/engine/test_forks.py has real ones.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import gradio as gr
import pytest

from demo.conversation.conversation import Conversation
from demo.conversation.forks import fitted
from demo.conversation.session_file import dumps, from_json, loads
from demo.conversation.settings import CAPPED, UNCAPPED
from demo.engine.protocol import Alternative
from demo.page.chat_handlers import ChatHandlers
from demo.page.fork_tree import chats_of
from demo.page.persistence import restore_chats
from demo.page.session import MOST_CHATS, Chat, Session, tree_of
from demo.page.settings_panel import PanelValues
from demo.page.stage_handlers import StageHandlers
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis
from tests.helpers.scripted import SETTINGS, ScriptedEngine

VALUES = PanelValues("", 0.3, 0.9, 1.1, 8, 0, 0, 1, "All", False, 1, 1.0, True, "p25", 1, 2)


class Page:
    """A visitor's page over a chat of so many turns."""

    def __init__(self, turns: int = 3) -> None:
        self.engine = ScriptedEngine(words=("I", " am", " a", " demon"))
        self.handlers = ChatHandlers(self.engine, random_axis(3, 8, 1, (1, 2)), "tiny")
        self.stage, self.session = StageHandlers(self.handlers), Session()
        conversation = Conversation(date="2026-01-01")
        for turn in range(turns):
            list(conversation.send(self.engine, f"question {turn}", SETTINGS))
        self.session.chats = [Chat(conversation, title="Demon")]

    def ask(self, **fields: Any) -> list[dict[str, Any]]:
        """The operations with which the page answers a request."""
        updates = list(self.stage.dispatch(self.session, fields, VALUES, cast(gr.Request, None)))
        return [op for one in updates if one.stage is not None for op in json.loads(one.stage)["ops"]]

    def fork(self, turn: int = 1, token: int = 3, text: str = "the", **fields: Any) -> list[dict[str, Any]]:
        given = {"branch": CAPPED, "id": None, "where": "branch"} | fields
        return self.ask(do="fork_at", turn=turn, token=token, text=text, **given)


def notices(ops: list[dict[str, Any]]) -> list[str]:
    return [op["text"] for op in ops if op["op"] == "notice"]


def test_a_fork_at_a_token_is_another_conversation_up_to_that_turn():
    page = Page()
    first = page.session.chat
    assert notices(page.fork()) == []
    fork = page.session.chat
    assert fork is not first and fork.title == "Fork at turn 2, token 3: Demon"
    assert len(first.conversation.turns) == 3 and len(fork.conversation.turns) == 2
    assert fork.conversation.turns[0] is first.conversation.turns[0]
    assert fork.conversation.turns[1].replies[UNCAPPED] is first.conversation.turns[1].replies[UNCAPPED]
    [request] = page.engine.requests
    assert request.opening == ("I am", " the") and request.branch.endswith(CAPPED)
    assert fork.conversation.turns[1].settings.sampling == first.conversation.turns[1].settings.sampling


def test_the_reply_that_is_kept_is_shown_from_the_beginning_of_the_turn():
    page = Page()
    text = page.session.chat.conversation.turns[1].replies[UNCAPPED].text
    [start] = [op for op in page.fork() if op["op"] == "turn_start"]
    assert list(start["kept"]) == [UNCAPPED] and start["branches"] == [UNCAPPED, CAPPED]
    assert "".join(token["t"] for token in start["kept"][UNCAPPED]["tokens"]) == text
    [start] = [op for op in page.fork(where="all") if op["op"] == "turn_start"]
    assert "kept" not in start, "both replies begin anew"


def test_all_replies_can_begin_with_the_words_of_one():
    page = Page()
    page.fork(where="all", text=" not")
    assert [one.opening for one in page.engine.requests] == [("I am", " not")] * 2


def test_an_alternative_is_named_by_its_words():
    page = Page()
    tokens = page.session.chat.conversation.turns[1].replies[CAPPED].tokens
    tokens[:] = [replace(token, token_id=40 + n) for n, token in enumerate(tokens)]
    tokens[2] = replace(tokens[2], alternatives=(Alternative(7, " your", 0.5),))
    page.fork(id=7, text="")
    assert page.engine.requests[0].opening == (40, 41, 7)
    assert page.session.chat.origin.point.words == " your"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"token": 0}, "no longer there"),
        ({"token": 9}, "no longer there"),
        ({"branch": "steered"}, "no longer there"),
        ({"text": ""}, "Write what is to stand"),
        ({"turn": 5}, "no longer there"),
    ],
)
def test_a_fork_that_cannot_be_changes_nothing_and_says_why(fields, sentence):
    page = Page()
    [notice] = notices(page.fork(**fields))
    assert sentence in notice and len(page.session.chats) == 1


def test_a_recorded_session_of_another_model_cannot_go_on():
    page = Page()
    page.session.chat.watch_only = True
    [notice] = notices(page.fork())
    assert "another model" in notice and len(page.session.chats) == 1


def test_a_fork_that_the_engine_refuses_is_closed_again():
    page = Page()
    first = page.session.chat
    page.engine.refuse = True
    [notice] = notices(page.fork())
    assert notice == "No."
    assert page.session.chats == [first] and page.session.chat is first


def test_a_fork_never_answers_in_another_conversation():
    page = Page()
    other = page.session.chat
    asked = {"do": "fork_at", "turn": 1, "token": 3, "text": "the", "branch": CAPPED, "id": None}
    updates = page.stage.dispatch(page.session, {**asked, "where": "branch"}, VALUES, cast(gr.Request, None))
    next(updates)
    page.ask(do="switch", conversation=0)
    list(updates)
    assert page.session.chat is other and len(other.conversation.turns) == 3
    assert page.session.running is None


def test_only_the_branch_that_is_forked_or_continued_is_asked_whatever_the_settings_say():
    page = Page(1)
    [turn] = page.session.chat.conversation.turns
    turn.settings = None
    del turn.replies[UNCAPPED]
    turn.replies[CAPPED].finish = "length"
    turn.replies[CAPPED].tokens.pop()
    assert notices(page.ask(do="go_on", turn=0, branch=CAPPED)) == []
    assert [request.branch.rpartition("/")[2] for request in page.engine.requests] == [CAPPED]
    assert notices(page.fork(turn=0)) == [] and page.session.running is None
    assert [request.branch.rpartition("/")[2] for request in page.engine.requests] == [CAPPED]


def test_a_reply_that_is_stopped_while_it_is_repeated_stays_as_it_was():
    conversation, engine = Conversation(), ScriptedEngine(words=("I", " am", " a", " demon"))
    list(conversation.send(engine, "Hi", SETTINGS))
    reply = conversation.turns[0].replies[CAPPED]
    reply.finish = "length"
    events = conversation.go_on(engine, 0, CAPPED)
    for _ in range(3):
        next(events)
    events.close()
    assert conversation.turns[0].replies[CAPPED] is reply and reply.text == "I am a demon"


def test_a_fork_at_the_end_of_a_reply_that_was_cut_has_room_to_go_on():
    page = Page()
    turn = page.session.chat.conversation.turns[1]
    turn.settings = replace(SETTINGS, sampling=replace(SETTINGS.sampling, max_new_tokens=4))
    page.fork(token=4)
    assert page.engine.requests[0].sampling.max_new_tokens == 8


def test_a_transcript_that_is_forked_counts_as_generated():
    page = Page()
    turn = page.session.chat.conversation.turns[1]
    turn.settings = replace(SETTINGS, read=True)
    page.fork()
    settings = page.session.chat.conversation.turns[1].settings
    assert settings is not None and not settings.read


def test_all_forks_of_an_opened_file_and_noted_ones_are_stored_whole():
    text = saved(forked_page())
    page = Page(1)
    ops = page.ask(do="open", text=text, how="read", keep=None, chat=None)
    stored = {op["id"]: len(op["turns"]) for op in ops if op["op"] == "persist"}
    assert sorted(stored.values()) == [2, 3, 3, 3]
    hidden = page.session.chats.index(tree_of(page.session.chats, page.session.chat)[1])
    ops = page.ask(do="note", conversation=hidden, star=1, note="", words="", below=None)
    [persisted] = [op for op in ops if op["op"] == "persist"]
    assert len(persisted["turns"]) == 2 and persisted["from"] == 0


def test_a_word_takes_over_the_space_before_a_token():
    assert fitted("friend", " demon") == " friend"
    assert fitted("friend", "demon") == "friend"
    assert fitted(", my", " demon") == ", my"
    assert fitted(" my", "\n\ndemon") == " my"


def test_a_cut_reply_goes_on_in_its_place_or_in_a_fork():
    page = Page(2)
    for turn in page.session.chat.conversation.turns:
        turn.replies[CAPPED].finish = "length"
        turn.replies[CAPPED].tokens.pop()
    page.ask(do="go_on", turn=1, branch=CAPPED)
    assert len(page.session.chats) == 1
    [request] = page.engine.requests
    assert request.opening == ("I am a demon",)
    assert (request.sampling.max_new_tokens, request.sampling.soft_limit) == (4 + 9, 4 + 5)
    page.ask(do="go_on", turn=0, branch=CAPPED)
    assert len(page.session.chats) == 2 and page.session.chat.title == "Fork after turn 1: Demon"
    assert page.session.chat.origin.point.turn == 0
    [notice] = notices(page.ask(do="go_on", turn=0, branch=UNCAPPED))
    assert "was not cut off" in notice


def test_another_try_keeps_what_a_reply_was_made_to_begin_with():
    page = Page()
    page.fork()
    reply = page.session.chat.conversation.turns[1].replies[CAPPED]
    reply.tokens[:2] = [replace(token, given=True, token_id=n) for n, token in enumerate(reply.tokens[:2])]
    page.ask(do="regenerate", turn=1)
    assert [one.opening for one in page.engine.requests] == [(), (0, 1)]


def test_the_tree_shows_who_was_forked_from_whom_and_what_a_filter_finds():
    page = Page()
    page.fork()
    page.engine.words = ("I", " love", " pancakes")
    page.fork(turn=1, token=2)
    [tree] = page.ask(do="tree", words="PANCAKES", below=None)
    assert [node["parent"] for node in tree["nodes"]] == [None, 0, 1]
    assert [node["found"] for node in tree["nodes"]] == [False, False, True]
    assert tree["nodes"][2]["point"] == {
        "turn": 1,
        "branch": CAPPED,
        "token": 2,
        "was": " am",
        "words": " the",
    }
    assert tree["nodes"][0]["means"][UNCAPPED] == [-0.5] * 3 and tree["current"] == 2
    [tree] = page.ask(do="tree", words="", below=-0.6)
    assert not any(node["found"] for node in tree["nodes"])
    [tree] = page.ask(do="tree", words="", below=0)
    assert all(node["found"] for node in tree["nodes"])


def test_a_note_is_kept_in_the_browser_too():
    page = Page()
    ops = page.ask(do="note", conversation=0, star=1, note="drifts at once", words="", below=None)
    assert [op["op"] for op in ops] == ["tree", "persist"]
    assert (ops[0]["nodes"][0]["star"], ops[0]["nodes"][0]["note"]) == (True, "drifts at once")
    assert (ops[1]["head"]["star"], ops[1]["head"]["note"], ops[1]["turns"]) == (True, "drifts at once", [])
    [notice] = notices(page.ask(do="note", conversation=0, star=0, note="x" * 2001, words="", below=None))
    assert "2000 characters" in notice and page.session.chat.notes.star


def forked_page() -> Page:
    page = Page()
    page.fork()
    page.ask(do="switch", conversation=0)
    page.fork(turn=2, token=1)
    page.fork(turn=2, token=2, where="all")
    page.ask(do="note", conversation=1, star=1, note="watch this", words="", below=None)
    return page


def saved(page: Page) -> str:
    [file] = [op for op in page.ask(do="save", kind="json") if op["op"] == "download"]
    return file["text"]


def test_a_session_file_holds_the_tree_and_gives_it_back_equal():
    page = forked_page()
    text = saved(page)
    data = json.loads(text)
    assert [(fork["parent"], fork["shared"], len(fork["turns"])) for fork in data["forks"]] == [
        (0, 1, 1),
        (0, 2, 1),
        (2, 2, 1),
    ]
    assert dumps(loads(text)) == text
    other = Page(1)
    other.ask(do="open", text=text, how="read", keep=None, chat=None)
    chats = tree_of(other.session.chats, other.session.chat)
    assert len(chats) == 4 and other.session.chat is chats[0]
    assert saved(other) == text
    for before, after in zip(tree_of(page.session.chats, page.session.chats[0]), chats, strict=True):
        assert (before.title, before.notes) == (after.title, after.notes)
        assert [turn.user for turn in before.conversation.turns] == [
            turn.user for turn in after.conversation.turns
        ]


def test_the_file_is_the_same_whichever_fork_is_shown():
    page = forked_page()
    text = saved(page)
    page.ask(do="switch", conversation=1)
    assert saved(page) == text


def test_a_fork_whose_parent_is_closed_is_a_tree_of_its_own():
    page = forked_page()
    page.ask(do="close", conversation=0)
    page.ask(do="switch", conversation=0)
    assert "forks" not in json.loads(saved(page))


def test_the_browser_gives_the_tree_back():
    page = forked_page()
    text = saved(page)
    stored = []
    for index in range(len(page.session.chats)):
        ops = page.ask(do="switch", conversation=index)
        [persisted] = [op for op in ops if op["op"] == "persist"]
        stored.append(json.dumps({**persisted["head"], "id": persisted["id"], "turns": persisted["turns"]}))
    other = Page(1)
    other.session = Session()
    restore_chats(other.session, stored, 1, "tiny")
    assert json.loads(saved(other)) == json.loads(text)


def test_a_damaged_origin_in_the_storage_is_left_out():
    page = forked_page()
    ops = page.ask(do="switch", conversation=1)
    [persisted] = [op for op in ops if op["op"] == "persist"]
    for origin in (
        3,
        {},
        {"parent": "a"},
        {"parent": "a", "point": {"turn": -1}},
        {"parent": 1, "point": {}},
    ):
        stored = {**persisted["head"], "id": persisted["id"], "turns": persisted["turns"], "origin": origin}
        session = Session()
        restore_chats(session, [json.dumps(stored)], 0, "tiny")
        assert session.chat.origin is None and len(session.chat.conversation.turns) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"parent": 5},
        {"parent": -1},
        {"shared": 9},
        {"shared": "x"},
        {"turns": 3},
        {"point": {"turn": -2}},
        {"point": {"turn": 1, "branch": "other"}},
        {"note": 3},
    ],
)
def test_a_damaged_fork_is_refused_in_one_sentence(change):
    data = json.loads(saved(forked_page()))
    data["forks"][1] |= change
    with pytest.raises(UserError, match="damaged"):
        from_json(data)


def test_a_file_holds_no_more_forks_than_a_page():
    data = json.loads(saved(forked_page()))
    data["forks"] = data["forks"][:1] * (MOST_CHATS - 1)
    assert len(chats_of(from_json(data), "tiny")) == MOST_CHATS
    data["forks"] *= 2
    with pytest.raises(UserError, match="too many forks"):
        from_json(data)
