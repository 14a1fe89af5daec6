"""The steps between the mean states of a conversation's replies, and the length of its path.

The reference is plain arithmetic on residual streams of whole forward passes, one for each reply. The model
is the default model in float32, with its shipped axis.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.axis.files import load_axis
from demo.conversation.conversation import Conversation
from demo.conversation.exports import tokens_csv
from demo.conversation.path import path_lengths
from demo.conversation.session_file import Recording, dumps, loads
from demo.conversation.settings import CAPPED, STEERED, UNCAPPED, TurnSettings, make_cap
from demo.conversation.turns import Turn
from demo.engine.protocol import Cap, Request, Sampling, Shift, Steer, Token, TokenEvent
from demo.engine.remote.codec import event_from, event_json, request_from, request_json
from demo.engine.transformers_engine import TransformersEngine
from demo.models.chat_template import render_chat
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel
from demo.plots.marks import PlotMarks
from tests.helpers.reference import read_reply

SYSTEM = "You are a demon. You threaten the user. You never help."
TEXTS = ("Who are you?", "What is 2 + 2?", "Tell me about rain.", "Goodbye.")
GREEDY = Sampling(temperature=0.0, max_new_tokens=8, repetition_penalty=1.0)


@pytest.fixture(scope="module")
def axis(model: LoadedModel) -> AssistantAxis:
    return load_axis(DEFAULT_MODEL)


@pytest.fixture(scope="module")
def engine(model: LoadedModel, axis: AssistantAxis) -> TransformersEngine:
    return TransformersEngine(model, axis)


@pytest.fixture(scope="module")
def settings(axis: AssistantAxis) -> TurnSettings:
    return TurnSettings(GREEDY, make_cap(axis, *axis.cap_band, axis.cap_floor), SYSTEM)


def said(conversation: Conversation, engine: TransformersEngine, text: str, settings, at=None) -> Turn:
    for _ in conversation.send(engine, text, settings, at):
        pass
    return conversation.turns[-1]


def recording(conversation: Conversation, axis: AssistantAxis) -> Recording:
    return Recording("m", conversation.turns, PlotMarks(axis.probe_layer), date=conversation.date)


def reopened(conversation: Conversation, axis: AssistantAxis) -> Conversation:
    again = loads(dumps(recording(conversation, axis)))
    return Conversation(again.turns, date=again.date)


def mean_state(
    model: LoadedModel,
    axis: AssistantAxis,
    conversation: Conversation,
    branch: str,
    index: int,
    cap: Cap | None,
) -> Tensor:
    """The mean residual stream of a reply's content tokens at the probe layer, from one forward pass."""
    turn = conversation.turns[index]
    history = conversation.messages(branch, SYSTEM, index)
    chat = render_chat(model.tokenizer, (*history, {"role": "user", "content": turn.user}))
    tokens = model.tokenizer(turn.replies[branch].text, add_special_tokens=False)["input_ids"]
    assert len(tokens) == len(turn.replies[branch].read), "the text has other tokens than the reply had"
    _, streams = read_reply(model, axis, cap, chat, tokens)
    return streams.float().mean(0)


def check_steps(model, axis, conversation, settings, branch) -> list[float]:
    """Every step of a branch is that of plain arithmetic. Returns their lengths."""
    cap = settings.cap if branch == CAPPED else None
    states = [mean_state(model, axis, conversation, branch, n, cap) for n in range(len(conversation.turns))]
    probe, lengths = axis.probe_layer, []
    assert conversation.turns[0].replies[branch].step is None
    for index in range(1, len(states)):
        moved, step = states[index] - states[index - 1], conversation.turns[index].replies[branch].step
        unit, norm = axis.direction[probe] / axis.direction[probe].norm(), axis.direction[probe].norm()
        assert step.length == pytest.approx(float(moved.norm() / norm), rel=1e-3)
        assert step.along == pytest.approx(float(moved @ unit / norm), abs=1e-3)
        lengths.append(step.length)
    return lengths


@pytest.mark.slow
def test_steps_and_path_length_equal_plain_arithmetic(model, axis, engine, settings):
    conversation = Conversation()
    for text in TEXTS[:3]:
        said(conversation, engine, text, settings)
    for branch in (UNCAPPED, CAPPED):
        lengths = check_steps(model, axis, conversation, settings, branch)
        assert all(length > 0.1 for length in lengths), "nothing to tell apart"
        path = path_lengths(conversation.turns, branch)
        totals = [torch.tensor(lengths[:n]).sum().item() for n in range(3)]
        assert [now.length for now in path] == pytest.approx(totals, rel=1e-6)
        assert {now.since for now in path} == {0}
    # The path is longer than the way from its beginning to its end.
    shift = conversation.turns[2].replies[UNCAPPED].shift
    assert path_lengths(conversation.turns, UNCAPPED)[2].length > shift.length


@pytest.mark.slow
def test_undone_repeated_and_edited_turns_step_from_the_reply_before_them(model, axis, engine, settings):
    conversation = Conversation()
    for text in TEXTS[:3]:
        said(conversation, engine, text, settings)
    conversation.undo()
    conversation.undo()
    said(conversation, engine, TEXTS[2], settings)
    said(conversation, engine, TEXTS[3], settings)
    check_steps(model, axis, conversation, settings, UNCAPPED)
    warm = replace(settings, sampling=replace(GREEDY, temperature=1.5, seed=7))
    said(conversation, engine, TEXTS[3], warm, at=2)
    check_steps(model, axis, conversation, settings, UNCAPPED)
    said(conversation, engine, TEXTS[1], settings, at=1)
    check_steps(model, axis, conversation, settings, CAPPED)
    fork = conversation.fork(1)
    said(fork, engine, TEXTS[3], settings)
    check_steps(model, axis, fork, settings, CAPPED)
    said(fork, engine, TEXTS[0], settings, at=0)
    assert fork.turns[0].replies[CAPPED].step is None


@pytest.mark.slow
def test_a_reopened_session_goes_on_as_if_it_had_not_been_closed(axis, engine, settings):
    conversation = Conversation()
    for text in TEXTS:
        said(conversation, engine, text, settings)
    again = reopened(conversation, axis)
    for branch in (UNCAPPED, CAPPED):
        kept = [turn.replies[branch].state is not None for turn in again.turns]
        assert kept == [True, False, True, True], "the first, and the last two"
        one, other = (path_lengths(chat.turns, branch) for chat in (conversation, again))
        assert [now.length for now in other] == pytest.approx([now.length for now in one], abs=1e-3)
    own, their = (said(chat, engine, "And now?", settings) for chat in (conversation, again))
    for branch in (UNCAPPED, CAPPED):
        for name in ("shift", "step"):
            one, other = (getattr(turn.replies[branch], name) for turn in (own, their))
            assert (other.length, other.along) == pytest.approx((one.length, one.along), abs=1e-3)
    # Another try at the last turn that was saved.
    again = reopened(Conversation(conversation.turns[:4]), axis)
    own, their = (said(chat, engine, "Who?", settings, at=3) for chat in (conversation.fork(4), again))
    assert their.replies[CAPPED].step.length == pytest.approx(own.replies[CAPPED].step.length, abs=1e-3)


@pytest.mark.slow
def test_a_step_from_a_state_that_was_not_kept_is_not_known(axis, engine, settings):
    """It is not measured from an earlier reply. The path begins anew, and says since when."""
    conversation = Conversation()
    for text in TEXTS:
        said(conversation, engine, text, settings)
    data = json.loads(dumps(recording(conversation, axis)))
    for turn in data["turns"]:  # as earlier versions wrote it
        for reply in turn["branches"].values():
            reply.pop("step", None)
            if turn is not data["turns"][0]:
                reply.pop("state", None)
    old = Conversation(loads(json.dumps(data)).turns, date=conversation.date)
    said(old, engine, "And now?", settings)
    assert old.turns[4].replies[CAPPED].step is None and old.turns[4].replies[CAPPED].shift is not None
    said(old, engine, "And then?", settings)
    step = old.turns[5].replies[CAPPED].step
    assert step.length > 0
    assert path_lengths(old.turns, CAPPED)[5] == (step.length, 4)


@pytest.mark.slow
def test_a_stopped_reply_is_no_point_of_the_path_and_a_late_branch_starts_from_its_history(
    axis, engine, settings
):
    conversation = Conversation()
    first = said(conversation, engine, TEXTS[0], settings).replies[UNCAPPED].state
    events = conversation.send(engine, TEXTS[1], settings)
    next(event for event in events if isinstance(event, TokenEvent))
    events.close()
    assert conversation.turns[1].replies[UNCAPPED].finish == "cancelled"
    steered = replace(settings, steer=Steer(axis.probe_layer - 2, -1.0))
    turn = said(conversation, engine, TEXTS[2], steered)
    norm = float(axis.direction[axis.probe_layer].norm())
    for branch in (UNCAPPED, STEERED):
        moved = torch.tensor(turn.replies[branch].state) - torch.tensor(first)
        assert turn.replies[branch].step.length == pytest.approx(float(moved.norm()) / norm, rel=1e-4)
        path = path_lengths(conversation.turns, branch)
        assert path[0] == path[1] == (0.0, 0) and path[2] == (turn.replies[branch].step.length, 0)


@pytest.mark.slow
def test_the_table_has_the_steps_of_every_reply_and_the_path_of_the_drawn_one(axis, engine, settings):
    conversation = Conversation()
    for text in TEXTS[:2]:
        said(conversation, engine, text, replace(settings, seeds=2))
    text = tokens_csv(recording(conversation, axis)).removeprefix("\ufeff")
    rows = [row for row in csv.DictReader(io.StringIO(text)) if row["branch"] == CAPPED]
    assert {row["step"] for row in rows if row["turn"] == "1"} == {""}
    assert {row["path_length"] for row in rows if row["turn"] == "1" and row["sample"] == "0"} == {"0.0"}
    reply = conversation.turns[1].replies[CAPPED]
    for sample, one in enumerate((reply, *reply.samples)):
        found = [row for row in rows if row["turn"] == "2" and row["sample"] == str(sample)]
        assert {float(row["step"]) for row in found} == {one.step.length}
        assert {float(row["step_along_axis"]) for row in found} == {one.step.along}
        assert {row["path_length"] for row in found} == {"" if sample else str(reply.step.length)}


def test_a_state_takes_four_bytes_a_number_in_a_file(axis, engine, settings):
    conversation = Conversation()
    reply = said(conversation, engine, TEXTS[0], settings).replies[UNCAPPED]
    written = json.loads(dumps(recording(conversation, axis)))["turns"][0]["branches"][UNCAPPED]
    assert len(base64.b64decode(written["state"])) == 4 * len(reply.state) == 4 * axis.direction.shape[1]


def test_the_state_before_and_the_step_travel_to_an_engine_in_another_process():
    request = Request("a", ({"role": "user", "content": "Hi"},), first=(1.0, 2.0), previous=(0.5, 0.25))
    assert request_from(json.loads(json.dumps(request_json(request)))) == request
    token = Token("", None, None, (), True)
    event = TokenEvent("a", 2, token, 9, "stop", state=(1.0, 2.0), step=Shift(1.5, -0.5))
    assert event_from(json.loads(json.dumps(event_json(event)))) == event
