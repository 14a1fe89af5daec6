"""Conversations and the updates for the page, with an engine whose replies are known."""

from __future__ import annotations

import copy
import json

import pytest

from demo.conversation.conversation import Conversation
from demo.conversation.scenarios import load_scenarios
from demo.conversation.settings import BRANCHES, CAPPED, UNCAPPED
from demo.engine.protocol import Sampling
from demo.page.session import Session
from demo.page.updates import Updates, notice_op, reset_op, turn_op
from demo.utils.errors import UserError
from tests.helpers.scripted import SETTINGS, ScriptedEngine


def test_each_branch_sees_its_own_replies_and_both_see_the_same_user_messages():
    conversation, engine = Conversation(), ScriptedEngine()
    list(conversation.send(engine, "Hi", SETTINGS))
    conversation.turns[0].replies[CAPPED].tokens.pop(1)
    list(conversation.send(engine, "Again", SETTINGS))
    by_branch = {request.branch.rpartition("/")[2]: request for request in engine.requests}
    assert [m["content"] for m in by_branch[UNCAPPED].messages] == ["Be kind.", "Hi", "Hello there!", "Again"]
    assert [m["content"] for m in by_branch[CAPPED].messages] == ["Be kind.", "Hi", "Hello!", "Again"]
    assert by_branch[UNCAPPED].cap is None


def test_means_and_counts_are_over_content_tokens():
    conversation = Conversation()
    list(conversation.send(ScriptedEngine(), "Hi", SETTINGS))
    capped, uncapped = conversation.turns[0].replies[CAPPED], conversation.turns[0].replies[UNCAPPED]
    assert (uncapped.mean, uncapped.fired, len(uncapped.read)) == (pytest.approx(-0.5), 0, 3)
    assert (capped.mean, capped.fired, capped.user_projection) == (pytest.approx((0 - 0.5 + 0) / 3), 2, 0.25)
    assert capped.finish == "stop"


def test_a_refused_or_failed_turn_changes_nothing():
    conversation = Conversation()
    list(conversation.send(ScriptedEngine(), "Hi", SETTINGS))
    before = json.dumps(reset_op(conversation, {}))
    with pytest.raises(UserError):
        conversation.send(ScriptedEngine(refuse=True), "Hi", SETTINGS)
    with pytest.raises(UserError, match="Write a message"):
        conversation.send(ScriptedEngine(), " \n", SETTINGS)
    with pytest.raises(RuntimeError):
        list(conversation.send(ScriptedEngine(fail_after=1), "Hi", SETTINGS))
    assert json.dumps(reset_op(conversation, {})) == before


def test_a_closed_turn_keeps_the_tokens_so_far():
    conversation = Conversation()
    events = conversation.send(ScriptedEngine(), "Hi", SETTINGS)
    for _ in range(4):
        next(events)
    events.close()
    assert [conversation.turns[0].replies[branch].finish for branch in BRANCHES] == ["cancelled"] * 2
    assert conversation.turns[0].replies[UNCAPPED].text == "Hello"


def test_updates_add_up_to_the_whole_turn():
    conversation = Conversation()
    updates = Updates(conversation)
    values = []
    for event in conversation.send(ScriptedEngine(), "Hi", SETTINGS):
        updates.add_events([event])
        values.append(json.loads(updates.take()))
    sequence = [value["seq"] for value in values]
    assert sequence == sorted(set(sequence)), "the numbers of the values do not increase"
    tokens: dict[str, list] = {branch: [] for branch in BRANCHES}
    ends = {}
    for op in (op for value in values for op in value["ops"]):
        if op["op"] == "tokens":
            # A reset in between then brings no token twice.
            assert op["at"] == len(tokens[op["branch"]])
            tokens[op["branch"]] += op["tokens"]
        elif op["op"] == "turn_end":
            ends[op["branch"]] = op
    whole = turn_op(conversation, 0)["data"]["branches"]
    for branch in BRANCHES:
        assert tokens[branch] == whole[branch]["tokens"]
        for key in ("finish", "mean", "fired", "count", "limit"):
            assert ends[branch][key] == whole[branch][key]


def test_a_reset_during_a_turn_marks_the_turn_as_live():
    conversation = Conversation()
    events = conversation.send(ScriptedEngine(), "Hi", SETTINGS)
    for _ in range(4):
        next(events)
    assert reset_op(conversation, {})["turns"][0]["live"]
    list(events)
    assert "live" not in reset_op(conversation, {})["turns"][0]


def test_updates_hold_no_markup_that_gradio_would_inspect():
    conversation = Conversation()
    list(conversation.send(ScriptedEngine(words=("<script>alert(1)</script>",)), "<script>", SETTINGS))
    updates = Updates(conversation)
    updates.add(turn_op(conversation, 0))
    text = updates.take()
    assert "<" not in text and json.loads(text)["ops"][0]["data"]["user"] == "<script>"


def test_lone_surrogates_are_replaced_in_updates():
    updates = Updates(Conversation())
    updates.add(notice_op("half an emoji \ud83d, a whole one 👩, and é"))
    sent = json.loads(updates.take().encode())
    assert sent["ops"][0]["text"] == "half an emoji \ufffd, a whole one 👩, and é"


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"top_p": 1.5},
        {"max_new_tokens": 0},
        {"seed": -1},
        {"repetition_penalty": 0.5},
    ],
)
def test_sampling_out_of_range_is_refused(bad):
    with pytest.raises(UserError):
        Sampling(**bad)


def test_visitors_do_not_share_a_session():
    page = Session()
    page.chat.script = ("left over",)
    visitors = [copy.deepcopy(page) for _ in range(2)]
    first, second = (visitor.chat for visitor in visitors)
    assert first.conversation is not second.conversation
    assert first.conversation.id != second.conversation.id
    assert first.script == second.script == () and visitors[0].chats is not visitors[1].chats


def test_scenarios_load_and_a_malformed_file_is_refused(tmp_path):
    assert len(load_scenarios()) >= 5
    (tmp_path / "x.json").write_text('{"scenarios": [{"id": 1}]}')
    with pytest.raises(UserError, match="cannot be read as scenarios"):
        load_scenarios(tmp_path / "x.json")


def test_a_turn_that_was_stopped_before_its_first_token_is_not_part_of_the_history():
    conversation = Conversation()
    events = conversation.send(ScriptedEngine(), "Hi", SETTINGS)
    next(events)
    events.close()
    list(conversation.send(ScriptedEngine(), "Hello?", SETTINGS))
    list(conversation.send(ScriptedEngine(()), "Well?", SETTINGS))
    said = [message["content"] for message in conversation.messages(CAPPED)]
    assert said == ["Hello?", "Hello there!", "Well?", ""], "only an empty reply of the model's own stays"
