"""Another conversation beside the one that is shown: what the stage gets of it, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import gradio as gr
import pytest

from demo.conversation.session_file import Recording
from demo.page.comparison import compared_op, same_axis
from demo.page.recordings import chat_of, open_shipped, shipped
from demo.page.session import Chat, Session
from demo.page.viewer import Viewer
from demo.plots.marks import PlotMarks
from tests.unit.test_turn_settings import Visit


def ops(viewer: Viewer, session: Session, **request: Any) -> list[dict[str, Any]]:
    """The operations with which the page without a model answers."""
    answers = viewer.dispatch(session, request, None, cast(gr.Request, None))
    return [op for answer in answers if answer.stage for op in json.loads(answer.stage)["ops"]]


def notice(found: list[dict[str, Any]]) -> str:
    assert [op["op"] for op in found] == ["notice"]
    return str(found[0]["text"])


@pytest.fixture
def recordings() -> tuple[Recording, Recording]:
    one, other = shipped()[:2]
    return open_shipped(one), open_shipped(other)


def test_the_page_without_a_model_compares_two_recordings(recordings):
    session, viewer = Session(), Viewer(None)
    chats = [chat_of(recording, "") for recording in recordings]
    for chat in chats:
        session.show(chat)
    assert session.overview()["turns"] == [len(recording.turns) for recording in recordings]
    [op] = ops(viewer, session, do="compare", conversation=chats[0].id)
    turns = recordings[0].turns
    assert (op["op"], op["id"], op["title"]) == ("compared", chats[0].id, recordings[0].title)
    assert [turn["user"] for turn in op["turns"]] == [turn.user for turn in turns]
    for sent, turn in zip(op["turns"], turns, strict=True):
        assert set(sent["branches"]) == set(turn.replies)
        for branch, reply in turn.replies.items():
            data = sent["branches"][branch]
            shown = [token["t"] for token in data["tokens"] if not token.get("s")]
            assert "".join(shown) == "".join(token.text for token in reply.tokens if not token.special)
            acted = sum("k" in token or "z" in token for token in data["tokens"])
            assert (data["mean"], data["fired"]) == (round(reply.mean, 4), acted)
            assert all(set(token) <= {"t", "s", "r", "k", "z"} for token in data["tokens"])
    assert session.chat is chats[1], "the conversation that is shown stays shown"


def test_live_conversations_are_compared_with_their_settings():
    visit = Visit().say("Hello").new_chat().say("Good day").say("And now?")
    first, second = visit.session.chats
    handlers = visit.handlers
    recordings = [handlers.recording(chat, visit.values) for chat in (first, second)]
    op = compared_op(first, recordings[0], recordings[1])
    assert (op["model"], op["same_axis"]) == ("tiny", True)
    assert [turn["user"] for turn in op["turns"]] == ["Hello"]
    assert op["turns"][0]["settings"]["temperature"] == visit.values.temperature
    assert "live" not in op["turns"][0]
    assert visit.session.overview()["turns"] == [1, 2]


def test_a_reply_that_is_being_written_is_marked():
    visit = Visit().say("Hello").new_chat().say("Good day")
    first, second = (visit.handlers.recording(chat, visit.values) for chat in visit.session.chats)
    first.turns[0].replies["capped"].finish = None
    assert compared_op(visit.session.chats[0], first, second)["turns"][0]["live"] is True


@pytest.mark.parametrize("conversation", ["gone", ""])
def test_a_conversation_that_is_not_open_is_refused_in_one_sentence(conversation, recordings):
    session, viewer = Session(), Viewer(recordings[0])
    viewer.open(session)
    assert "no longer open" in notice(ops(viewer, session, do="compare", conversation=conversation))
    stranger = Session()
    stranger.show(chat_of(recordings[1], ""))
    found = ops(viewer, session, do="compare", conversation=stranger.chat.id)
    assert "no longer open" in notice(found), "the conversations of other visitors are out of reach"


def test_a_conversation_without_turns_is_refused(recordings):
    empty = Chat()
    nothing = replace(recordings[0], turns=[])
    with pytest.raises(Exception, match="without turns"):
        compared_op(empty, nothing, recordings[0])
    with pytest.raises(Exception, match="without turns"):
        compared_op(empty, recordings[0], nothing)


def test_axes_differ_by_model_layer_zones_or_roles(recordings):
    one = recordings[0]
    assert same_axis(one, recordings[1]) and same_axis(one, replace(one, title="Other", map={}))
    marks: PlotMarks = one.marks
    others = [
        replace(one, model="other"),
        replace(one, marks=replace(marks, probe_layer=marks.probe_layer + 1)),
        replace(one, marks=replace(marks, zones=replace(cast(Any, marks.zones), low=-1.0))),
        replace(one, map={**one.map, "roles": one.map["roles"][1:]}),
    ]
    assert [same_axis(one, other) for other in others] == [False] * len(others)
    cap_off = replace(one, marks=replace(marks, floor=None, floor_name=None, cap_layers=None))
    assert same_axis(one, cap_off), "another cap is not another axis"
    assert same_axis(one, replace(one, marks=replace(marks, zones=None))), (
        "an earlier version measured no zones"
    )
