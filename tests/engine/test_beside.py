"""What is read beside a reply: its words without the cap, other directions, and the shift of its mean state.

The references are separate readings of the finished chat, and plain arithmetic on recorded residual streams.
The model is the default model in float32, with its shipped axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.axis.directions import PERCENTILES, Direction
from demo.axis.files import load_axis
from demo.conversation.conversation import Conversation
from demo.conversation.session_file import Recording, dumps, loads
from demo.conversation.settings import CAPPED, UNCAPPED, TurnSettings, direction_cap, make_cap
from demo.engine.prefix_cache import plain_branch
from demo.engine.protocol import Cap, Event, Request, Sampling, Shift, Steer, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.models.chat_template import Message, render_chat
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError
from tests.helpers.reference import CappedForward

DEMON: Message = {"role": "system", "content": "You are a demon. You threaten the user. You never help."}
EYES: Message = {"role": "user", "content": "I can see your eyes in the dark. What do you want?"}
GREEDY = Sampling(temperature=0.0, max_new_tokens=14, repetition_penalty=1.0)


@pytest.fixture(scope="module")
def axis(model: LoadedModel) -> AssistantAxis:
    return load_axis(DEFAULT_MODEL)


@pytest.fixture(scope="module")
def cap(axis: AssistantAxis) -> Cap:
    return make_cap(axis, *axis.cap_band, axis.cap_floor)


def direction(axis: AssistantAxis, name: str, seed: int, level: float) -> Direction:
    """A random direction at the capped layers, whose floors all lie `level` units above its origin."""
    generator = torch.Generator().manual_seed(seed)
    first, last = axis.cap_band
    layers = tuple(range(first, last + 1))
    vector = torch.randn(len(layers), axis.direction.shape[1], generator=generator)
    vector *= (axis.norm[list(layers)] / vector.norm(dim=-1))[:, None]
    norm = vector.norm(dim=-1)
    origin = (axis.default_mean[list(layers)] * vector / norm[:, None]).sum(-1)
    floors = dict.fromkeys(PERCENTILES, origin + level * norm)
    return Direction(
        name=name,
        kind="trait",
        layers=layers,
        vector=vector,
        origin=origin,
        floors=floors,
        cosine=0.0,
        agreement=None,
        poles=("low", "high"),
    )


@pytest.fixture(scope="module")
def directions(axis: AssistantAxis) -> dict[str, Direction]:
    return {"warm": direction(axis, "warm", 1, 0.5), "far": direction(axis, "far", 2, -1e6)}


@pytest.fixture(
    scope="module", params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["fused", "modules"]
)
def engine(request, model: LoadedModel, axis: AssistantAxis, directions) -> TransformersEngine:
    return TransformersEngine(model, axis, fused=request.param, directions=directions)


class Streams:
    """Records the residual streams of generated content tokens at one layer, [T, D] per request."""

    def __init__(self, layer: int) -> None:
        self.layer, self.found = layer, {}

    def record(self, layer: int, hidden: Tensor, lift: Tensor | None, rows: Tensor) -> None:
        if layer == self.layer:
            for row, state in zip(rows.tolist(), hidden.float(), strict=True):
                self.found.setdefault(row, []).append(state)


def tokens_of(events: Sequence[Event], branch: str) -> list[TokenEvent]:
    return [e for e in events if isinstance(e, TokenEvent) and e.branch == branch]


def test_the_plain_reading_equals_a_separate_reading_over_two_turns(engine, axis, cap):
    """The words are those of the capped branch; the reading is the unsteered model's, to 1e-3."""
    settings = TurnSettings(GREEDY, cap, DEMON["content"], plain=True)
    conversation = Conversation()
    for text in (EYES["content"], "And if I run?"):
        for _ in conversation.send(engine, text, settings):
            pass
    for index, turn in enumerate(conversation.turns):
        history = conversation.messages(CAPPED, settings.system_prompt, index)
        reply = turn.replies[CAPPED]
        chat = (
            *history,
            {"role": "user", "content": turn.user},
            {"role": "assistant", "content": reply.text},
        )
        read = [token for chunk in engine.read(Request("r", chat)) for token in chunk]
        own = [token.before[axis.probe_layer] for token in read if token.message == len(chat) - 1]
        live = [token for token in reply.tokens if not token.special and token.before is not None]
        assert [token.plain for token in live] == pytest.approx(own[: len(live)], abs=1e-3)
        assert any(abs(token.plain - token.after) > 0.05 for token in live), "nothing to tell apart"
        assert all(token.plain is None for token in turn.replies[UNCAPPED].tokens)


def test_alternatives_are_those_of_the_model_and_of_the_unsteered_one(model, axis, engine, cap):
    """Compared with whole forward passes over the same tokens, with the clamp and without."""
    requests = [
        Request("u", (DEMON, EYES), GREEDY, plain=True),
        Request("c", (DEMON, EYES), GREEDY, cap, plain=True),
    ]
    events = list(engine.stream(requests))
    assert not any(event.token.plain_alternatives for event in tokens_of(events, "u")), "there is no cap"
    for branch, used, kind in (("u", None, 0), ("c", cap, 0), ("c", None, 1)):
        found = tokens_of(events, branch)
        chat = render_chat(model.tokenizer, (DEMON, EYES))
        template = [place for place, owner in enumerate(chat.owner) if owner < 0]
        ids = [*chat.ids, *(event.token_id for event in found)]
        logits, _ = CappedForward(model, axis, used)(ids, template)
        for chances, event in zip(logits[len(chat.ids) - 1 :].softmax(-1), found, strict=False):
            own = (event.token.alternatives, event.token.plain_alternatives)[kind]
            found_there = [float(chances[one.token_id]) for one in own]
            assert [one.probability for one in own] == pytest.approx(found_there, rel=5e-3)
            wanted = chances.topk(8).values.tolist()
            assert found_there == pytest.approx(wanted[: len(own)], rel=5e-3)
            assert all(chance < 0.001 * 1.005 for chance in wanted[len(own) :]), "none is left out but these"
            assert kind or own[0].token_id == event.token_id, "greedy"
            if kind == 0 and not event.token.special:
                assert own[0].text == model.tokenizer.decode([event.token_id])
    differ = [e.token for e in tokens_of(events, "c") if e.token.alternatives != e.token.plain_alternatives]
    assert len(differ) > 3, "the cap changes what comes next"


def test_reading_along_changes_no_reply(engine, cap):
    """Neither the plain reading nor further directions change a bit of what is said or read."""
    bare = [Request("u", (DEMON, EYES), GREEDY), Request("c", (DEMON, EYES), GREEDY, cap)]
    more = [replace(request, plain=True, along=("warm", "far")) for request in bare]
    without, beside = list(engine.stream(bare)), list(engine.stream(more))
    for branch in ("u", "c"):
        one, two = tokens_of(without, branch), tokens_of(beside, branch)
        assert [e.token_id for e in one] == [e.token_id for e in two]
        assert [(e.token.before, e.token.after, e.token.corrections) for e in one] == [
            (e.token.before, e.token.after, e.token.corrections) for e in two
        ]
    assert {e.branch for e in beside} == {"u", "c"}, "the plain reading has no events of its own"


def test_the_plain_reading_ends_with_its_reply_and_is_forgotten_with_it(engine, cap):
    request = Request("gone", (DEMON, EYES), GREEDY, cap, plain=True)
    stream = engine.stream([request])
    for _ in range(4):
        next(stream)
    assert engine.load.running == 1, "a sequence that only reads along is not counted as one more reply"
    stream.close()
    assert engine.load.running == 0 and not engine.scheduler.batch.sequences
    list(engine.stream([request]))
    assert plain_branch("gone") in engine.prefix_cache
    engine.forget(["gone"])
    assert "gone" not in engine.prefix_cache and plain_branch("gone") not in engine.prefix_cache


def test_projections_along_a_direction_equal_plain_arithmetic(engine, axis, directions, cap):
    streams = Streams(axis.probe_layer)
    requests = [
        Request("u", (DEMON, EYES), GREEDY, along=("warm",)),
        Request("c", (DEMON, EYES), GREEDY, cap, along=("far", "warm")),
    ]
    events = list(engine.stream(requests, recorder=streams))
    for row, (branch, names) in enumerate((("u", ["warm"]), ("c", ["far", "warm"]))):
        content = [e for e in tokens_of(events, branch) if e.token.before is not None and not e.token.special]
        for event, state in zip(content, streams.found[row], strict=True):
            for name, value in zip(names, event.token.along, strict=True):
                one = directions[name]
                at = one.index(axis.probe_layer)
                unit = one.vector[at] / one.vector[at].norm()
                wanted = (float(state @ unit) - float(one.origin[at])) / float(one.vector[at].norm())
                assert value == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("downward", [False, True])
def test_a_cap_along_a_direction_holds_it_and_leaves_the_rest(engine, axis, directions, downward):
    """With a floor in reach no token lies beyond it; with one out of reach not a bit changes."""
    streams, free = Streams(axis.probe_layer), Streams(axis.probe_layer)
    held = direction_cap(directions["warm"], *axis.cap_band, "p25", downward)
    list(engine.stream([Request("a", (DEMON, EYES), GREEDY)], recorder=free))
    events = list(engine.stream([Request("a", (DEMON, EYES), GREEDY, also=held)], recorder=streams))
    one, at = directions["warm"], directions["warm"].index(axis.probe_layer)
    sign = -1 if downward else 1
    values = [sign * float(state @ one.unit[at]) for state in streams.found[0]]
    floor = held.floors[held.layers.index(axis.probe_layer)]
    assert min(values) >= floor - 1e-3
    beyond = any(sign * float(state @ one.unit[at]) < floor - 1e-3 for state in free.found[0])
    assert any(e.token.also > 0 for e in tokens_of(events, "a")) or not beyond
    out_of_reach = replace(held, floors=tuple(-1e9 for _ in held.floors))
    requests = [Request("b", (DEMON, EYES), GREEDY), Request("c", (DEMON, EYES), GREEDY, also=out_of_reach)]
    budget = engine.prefix_cache.budget_bytes
    engine.prefix_cache.set_budget(0)  # both read the whole prompt, and in the same passes
    engine.prefix_cache.set_budget(budget)
    both = list(engine.stream(requests))
    without, inactive = (
        [(e.token_id, e.token.before, e.token.probability) for e in tokens_of(both, branch)]
        for branch in ("b", "c")
    )
    assert without == inactive


def test_the_floor_of_the_axis_holds_beside_a_second_cap(engine, axis, directions, cap):
    second = direction_cap(directions["warm"], *axis.cap_band, "p25", False)
    events = list(engine.stream([Request("a", (DEMON, EYES), GREEDY, cap, also=second)]))
    floor = axis.to_units(cap.floors[cap.layers.index(axis.probe_layer)], axis.probe_layer)
    tokens = [e.token for e in tokens_of(events, "a") if e.token.before is not None and not e.token.special]
    assert min(token.after for token in tokens) >= floor - 1e-3
    assert all(len(token.corrections) == len(cap.layers) for token in tokens)


def test_steering_along_a_direction_moves_it_by_alpha(engine, axis, directions):
    """At the steered layer itself, the first token's projection moves by exactly alpha units."""
    streams = Streams(axis.probe_layer)
    steer = Steer(axis.probe_layer, 2.0, "warm")
    requests = [
        Request(b, (EYES,), replace(GREEDY, max_new_tokens=1), steer=s, along=("warm",))
        for b, s in (("free", None), ("steered", steer))
    ]
    events = list(engine.stream(requests, recorder=streams))
    (free,), (steered,) = (tokens_of(events, branch) for branch in ("free", "steered"))
    assert free.token_id == steered.token_id
    assert steered.token.along[0] > free.token.along[0] + 1


def test_the_shift_equals_plain_arithmetic(engine, axis):
    streams = Streams(axis.probe_layer)
    first = tokens_of(list(engine.stream([Request("a", (DEMON, EYES), GREEDY)])), "a")[-1].state
    later = Request("b", ({"role": "user", "content": "What is 2 + 2?"},), GREEDY, first=first)
    last = tokens_of(list(engine.stream([later], recorder=streams)), "b")[-1]
    moved = torch.stack(streams.found[0]).mean(0) - torch.tensor(first)
    probe = axis.probe_layer
    assert last.shift.length == pytest.approx(float(moved.norm() / axis.norm[probe]), rel=1e-3)
    assert last.shift.along == pytest.approx(float(moved @ axis.unit[probe] / axis.norm[probe]), abs=1e-3)
    assert 0 < last.shift.share < 1
    assert last.shift.share == pytest.approx((last.shift.along / last.shift.length) ** 2)


def test_a_shift_without_length_has_no_share():
    assert Shift(0.0, 0.0).share == 0.0
    assert Shift(1.0, -1.0000001).share == 1.0


@pytest.mark.parametrize(
    ("request_of", "words"),
    [
        (lambda base: replace(base, along=("nowhere",)), "no direction 'nowhere'"),
        (lambda base: replace(base, also=Cap((0,), (0.0,), "warm")), "vectors at layers"),
        (lambda base: replace(base, steer=Steer(0, 1.0, "warm")), "vectors at layers"),
    ],
)
def test_a_direction_that_is_not_there_is_refused_before_anything_runs(engine, request_of, words):
    with pytest.raises(UserError, match=words):
        engine.stream([request_of(Request("a", (EYES,), GREEDY))])


def test_a_session_file_keeps_what_was_read_beside(engine, axis, directions, cap):
    """Opened again, the session is equal in everything, and the next turn's shift starts from it."""
    also = direction_cap(directions["warm"], *axis.cap_band, "p25", True)
    settings = TurnSettings(GREEDY, cap, DEMON["content"], also=also, along=("warm", "far"), plain=True)
    conversation = Conversation()
    for text in ("Hello.", "Go on."):
        for _ in conversation.send(engine, text, settings):
            pass
    recording = Recording("model", conversation.turns, PlotMarks(axis.probe_layer))
    again = loads(dumps(recording))
    # Means are computed from the tokens, whose numbers are rounded in the file.
    assert dumps(loads(dumps(again))) == dumps(again)
    for turn, kept in zip(conversation.turns, again.turns, strict=True):
        reply, own = turn.replies[CAPPED], kept.replies[CAPPED]
        assert own.plain_mean == pytest.approx(reply.plain_mean, abs=1e-3)
        assert own.along_means == pytest.approx(reply.along_means, abs=1e-3)
        assert own.fired == reply.fired
    first, second = again.turns
    assert first.replies[CAPPED].state == pytest.approx(conversation.turns[0].replies[CAPPED].state, rel=1e-6)
    assert second.replies[CAPPED].shift.share == pytest.approx(
        conversation.turns[1].replies[CAPPED].shift.share, abs=1e-3
    )
    assert second.settings.also == also and second.settings.along == ("warm", "far")
    other = Conversation(again.turns[:1], date=conversation.date)
    for _ in other.send(engine, "Go on.", settings):
        pass
    assert other.turns[1].replies[CAPPED].shift.length == pytest.approx(
        conversation.turns[1].replies[CAPPED].shift.length, rel=1e-3
    )


def test_the_shift_of_a_conversation_starts_from_the_first_reply_that_was_not_stopped(engine, cap):
    conversation = Conversation()
    settings = TurnSettings(replace(GREEDY, max_new_tokens=3), cap, DEMON["content"])
    events = conversation.send(engine, "Hello.", settings)
    next(event for event in events if isinstance(event, TokenEvent))
    events.close()
    for text in ("Hello.", "Go on.", "And then?"):
        for _ in conversation.send(engine, text, settings):
            pass
    for branch in (UNCAPPED, CAPPED):
        replies = [turn.replies[branch] for turn in conversation.turns]
        assert [reply.state is not None for reply in replies] == [False, True, True, True]
        assert [reply.shift is not None for reply in replies] == [False, False, True, True]


def test_a_plain_reading_that_overflows_says_nothing_and_is_not_kept(engine, cap, monkeypatch):
    """The capped reply goes on without it; what is NaN must reach no other sequence."""
    run = engine.scheduler.batch.run

    def overflowing(work):
        readings = run(work)
        return [
            reading if sequence.leads or chunk.prompt else replace(reading, before=[float("nan")])
            for (sequence, chunk), reading in zip(work, readings, strict=True)
        ]

    monkeypatch.setattr(engine.scheduler.batch, "run", overflowing)
    events = list(engine.stream([Request("nan", (DEMON, EYES), GREEDY, cap, plain=True)]))
    tokens = tokens_of(events, "nan")
    assert tokens[-1].finish_reason in ("stop", "length")
    assert all(event.token.plain is None for event in tokens)
    assert "nan" in engine.prefix_cache and plain_branch("nan") not in engine.prefix_cache
