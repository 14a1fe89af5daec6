"""A fault of one sequence ends that sequence in one sentence. The others go on, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from demo.conversation.conversation import Conversation
from demo.conversation.session_file import from_json, reply_json
from demo.conversation.settings import CAPPED, UNCAPPED, TurnSettings
from demo.engine.kv_cache import open_all
from demo.engine.protocol import Cap, Request, Sampling, TokenEvent
from demo.engine.sequence import TokenSequence
from demo.engine.transformers_engine import TransformersEngine
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis
from tests.helpers.faults import forward_replaced
from tests.helpers.tiny_models import tiny_llama

LENGTH = 8


@pytest.fixture(scope="module")
def tiny(model):
    return tiny_llama(model)


@pytest.fixture(scope="module")
def axis(tiny):
    return random_axis(len(tiny.layers), tiny.hidden_size, 1, (1, 2))


@pytest.fixture
def engine(tiny, axis):
    return TransformersEngine(tiny, axis, fixed_length=True)


def settings() -> TurnSettings:
    return TurnSettings(Sampling(temperature=0, max_new_tokens=LENGTH), Cap((1,), (0.5,)))


def readings_of(events) -> dict[str, list[tuple[int | None, float | None]]]:
    found: dict[str, list[tuple[int | None, float | None]]] = {}
    for event in events:
        if isinstance(event, TokenEvent):
            found.setdefault(event.branch, []).append((event.token_id, event.token.before))
    return found


def poisoned(engine, is_victim: Callable[[str], bool], after: int = 3):
    """A forward pass that gives NaN logits to some branches from their `after`-th token on."""
    run, batch = engine.forward.run, engine.scheduler.batch

    def broken(chunks, cache):
        logits, readings = run(chunks, cache)
        logits = logits.clone()  # tensors of inference mode cannot be changed outside it
        sequences = {sequence.slot: sequence for sequence in batch.sequences}
        wanted = [chunk for chunk in chunks if chunk.last]
        for own, chunk in zip(logits, wanted, strict=True):
            sequence = sequences[chunk.slot]
            if is_victim(sequence.request.branch) and len(sequence.generated) >= after:
                own.fill_(float("nan"))
        return logits, readings

    return broken


def test_nan_in_one_branch_ends_that_reply_and_the_other_goes_on(engine):
    clean = readings_of(Conversation().send(engine, "Hello there", settings()))
    conversation = Conversation()
    with forward_replaced(engine, poisoned(engine, lambda branch: branch.endswith(f"/{CAPPED}"))):
        found = readings_of(conversation.send(engine, "Hello there", settings()))
    assert found[UNCAPPED] == clean[UNCAPPED]
    reply = conversation.turns[0].replies[CAPPED]
    assert reply.finish == "failed" and "NaN" in reply.fault and reply.fault.count(". ") == 0
    assert conversation.turns[0].replies[UNCAPPED].finish == "length"
    # The conversation goes on, and the slot that held NaN harms nobody.
    events = readings_of(conversation.send(engine, "Again", settings()))
    assert len(events[CAPPED]) == LENGTH and all(value == value for _, value in events[CAPPED])


def test_a_failed_reply_is_saved_with_its_sentence(engine):
    conversation = Conversation()
    with forward_replaced(engine, poisoned(engine, lambda branch: branch.endswith(f"/{CAPPED}"))):
        list(conversation.send(engine, "Hello there", settings()))
    data = reply_json(conversation.turns[0].replies[CAPPED])
    branches = {UNCAPPED: data, CAPPED: data}
    file = {
        "format": "persona-drift-session",
        "version": 1,
        "model": "x",
        "marks": {"probe_layer": 1},
        "turns": [{"user": "Hello there", "branches": branches}],
    }
    reply = from_json(file).turns[0].replies[CAPPED]
    assert (reply.finish, reply.fault) == ("failed", conversation.turns[0].replies[CAPPED].fault)


@pytest.mark.parametrize("steps", [1, 3])
def test_nothing_is_kept_of_a_reply_that_is_stopped_before_its_nan_is_seen(engine, monkeypatch, steps):
    request = Request("stopped", ({"role": "user", "content": "Hello there"},), Sampling(max_new_tokens=9))
    cleared: list[int] = []
    clear = engine.scheduler.batch._cache.clear
    monkeypatch.setattr(
        engine.scheduler.batch._cache, "clear", lambda slot: (cleared.append(slot), clear(slot))
    )
    with forward_replaced(engine, poisoned(engine, lambda branch: True, after=max(steps - 2, 0))):
        stream = engine.stream([request])
        for _ in range(steps):
            next(stream)
        stream.close()
    assert cleared == [0] and engine.load.running == 0
    assert engine.prefix_cache.get("stopped") is None


def test_when_all_branches_fail_the_turn_is_removed(engine):
    conversation = Conversation()
    with (
        forward_replaced(engine, poisoned(engine, lambda branch: True)),
        pytest.raises(UserError, match="NaN"),
    ):
        list(conversation.send(engine, "Hello there", settings()))
    assert conversation.turns == [] and engine.load.running == 0


def test_an_exception_in_one_sequence_ends_that_sequence_only(engine, monkeypatch):
    clean = readings_of(Conversation().send(engine, "Hello there", settings()))
    make = TokenSequence.token_event

    def token_event(self, reading):
        if self.request.branch.endswith(f"/{CAPPED}") and len(self.generated) == 2:
            raise ValueError("a fault of this sequence")
        return make(self, reading)

    monkeypatch.setattr(TokenSequence, "token_event", token_event)
    conversation = Conversation()
    found = readings_of(conversation.send(engine, "Hello there", settings()))
    assert found[UNCAPPED] == clean[UNCAPPED]
    assert conversation.turns[0].replies[CAPPED].finish == "failed"
    assert engine.load.running == 0


def two_started(engine, first: str):
    """Two conversations, `good` and `bad`, their streams by id, and the first event of each.

    Whoever is first has the first slots; the other one's change when it fails.
    """
    good, bad = Conversation(), Conversation()
    order = (good, bad) if first == "good" else (bad, good)
    streams = {id(one): one.send(engine, "Hello there", settings()) for one in order}
    return good, bad, streams, {name: next(stream) for name, stream in streams.items()}


@pytest.mark.parametrize("first", ["good", "bad"])
def test_nan_in_one_conversation_leaves_the_readings_of_another_alone(engine, first):
    clean = readings_of(Conversation().send(engine, "Hello there", settings()))
    good, bad, streams, events = two_started(engine, first)
    with forward_replaced(engine, poisoned(engine, lambda branch: branch.startswith(bad.id))):
        with pytest.raises(UserError, match="NaN"):
            list(streams[id(bad)])
        rest = list(streams[id(good)])
    assert readings_of([events[id(good)], *rest]) == clean
    assert bad.turns == [] and engine.load.running == 0


@pytest.mark.parametrize("first", ["good", "bad"])
def test_an_exception_in_the_pass_of_one_conversation_leaves_another_alone(engine, first):
    clean = readings_of(Conversation().send(engine, "Hello there", settings()))
    good, bad, streams, events = two_started(engine, first)
    run, batch = engine.forward.run, engine.scheduler.batch

    def broken(chunks, cache):
        branches = {sequence.slot: sequence.request.branch for sequence in batch.sequences}
        if any(branches[chunk.slot].startswith(bad.id) for chunk in chunks):
            raise RuntimeError("a fault of this conversation")
        return run(chunks, cache)

    with forward_replaced(engine, broken):
        with pytest.raises(RuntimeError):
            list(streams[id(bad)])
        rest = list(streams[id(good)])
    assert readings_of([events[id(good)], *rest]) == clean
    assert bad.turns == [] and engine.load.running == 0


def test_nan_while_reading_ends_the_reading_in_one_sentence(engine):
    messages = ({"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello there"})
    request = Request("read", messages)
    clean = [token for chunk in engine.read(request) for token in chunk]
    layer = engine.model.layers[1]
    matrix = layer.mlp.down_proj if hasattr(layer, "mlp") else None
    assert matrix is not None
    plain = TransformersEngine(engine.model, engine.axis, fused=False)
    hook = matrix.register_forward_hook(lambda module, args, output: output * float("nan"))
    try:
        with pytest.raises(UserError, match="NaN"):
            list(plain.read(request))
    finally:
        hook.remove()
    assert [token for chunk in engine.read(request) for token in chunk] == clean
    assert [t.text for chunk in plain.read(request) for t in chunk] == [t.text for t in clean]


def test_an_emptied_slot_holds_no_nan(engine):
    cache = engine.forward.new_cache()
    open_all(cache, [8, 8])
    shelf, row = cache.at(1)
    assert row == 1
    layer = shelf.layers[0]
    layer.allocate_like(torch.zeros(2, 1, 4), torch.zeros(2, 1, 4))
    layer.keys[1] = float("nan")
    layer.keys[0] = 1.0
    cache.clear(1)
    assert bool((layer.keys[1] == 0).all()) and bool((layer.keys[0] == 1).all())
