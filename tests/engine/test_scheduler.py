"""Many visitors on one engine: who gets in, who waits, and that nobody notices the others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event as CancelFlag

import pytest
import torch

from demo.conversation.settings import make_cap
from demo.engine.kv_cache import LayerCache, rounded_up
from demo.engine.protocol import PromptEvent, Request, Sampling, TokenEvent, WaitEvent
from demo.engine.scheduler import _AHEAD
from demo.engine.transformers_engine import TransformersEngine
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis

PROBE, BAND = 17, (14, 20)
TOPICS = (
    "the sea",
    "a small red bicycle",
    "tax law",
    "why bread rises in a warm kitchen",
    "cats",
    "the moon",
)


@pytest.fixture(scope="module")
def axis(model: LoadedModel):
    return random_axis(len(model.layers), model.hidden_size, PROBE, BAND)


def pair(axis, name: str, topic: str, limit: int = 10, floor: str = "p50") -> list[Request]:
    """An uncapped and a capped row, greedy."""
    message = ({"role": "user", "content": f"Tell me about {topic}."},)
    sampling = Sampling(temperature=0, max_new_tokens=limit)
    return [Request(f"{name}/u", message, sampling), Request(f"{name}/c", message, sampling, make_cap(axis, *BAND, floor))]  # fmt: skip


def said(events) -> dict[str, list[int | None]]:
    """Token ids by branch."""
    found: dict[str, list[int | None]] = {}
    for event in events:
        if isinstance(event, TokenEvent):
            found.setdefault(event.branch, []).append(event.token_id)
    return found


class Passes:
    """Notes what every forward pass of an engine ran."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.prompt_tokens: list[int] = []
        self.decoding: list[int] = []
        self.held: list[int] = []
        running = engine._scheduler._running
        run = running.run

        def noted(work):
            prompts = [part for row, part in work if row.pending is None]
            self.prompt_tokens.append(sum(len(part.ids) for part in prompts))
            self.decoding.append(len(work) - len(prompts))
            found = run(work)
            self.held.append(engine.load.kv_bytes)
            return found

        running.run = noted


@pytest.mark.parametrize("own_thread", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_everyone_gets_what_they_would_get_alone(model, axis, own_thread):
    """Arriving one after the other, of different lengths and floors, one of them cancelled, one closed midway."""
    names = {f"{i}": topic for i, topic in enumerate(TOPICS)}
    alone = {}
    for name, topic in names.items():
        single = TransformersEngine(model, axis)
        alone |= said(
            single.stream(pair(axis, name, topic, 8 + int(name), "p25" if int(name) % 2 else "p75"))
        )
    engine = TransformersEngine(model, axis, own_thread=own_thread)

    def visit(name: str) -> dict[str, list[int | None]]:
        requests = pair(axis, name, names[name], 8 + int(name), "p25" if int(name) % 2 else "p75")
        return said(engine.stream(requests))

    def leave() -> None:
        stream = engine.stream(pair(axis, "leaves", "a long story", 60))
        for _ in range(9):
            next(stream)
        stream.close()

    def stop() -> list[int | None]:
        flag, got = CancelFlag(), []
        for event in engine.stream(pair(axis, "stops", "a longer story", 60), flag):
            got.append(event)
            if len(got) == 9:
                flag.set()
        return got

    with ThreadPoolExecutor(8) as pool:
        leaving, stopping = pool.submit(leave), pool.submit(stop)
        together = {}
        for found in pool.map(visit, names):
            together |= found
        leaving.result()
        assert [event.finish_reason for event in stopping.result()[-2:]] == ["cancelled"] * 2
    assert together == alone
    assert engine.load.running == 0


def test_slots_can_be_counted_while_they_are_made_and_made_again_where_memory_ended():
    class Head:
        shape = (1, 2, 1, 4)

        def __init__(self, layer: LayerCache, room: bool = True) -> None:
            self.layer, self.room = layer, room

        def new_zeros(self, shape: tuple[int, ...]) -> torch.Tensor:
            assert self.layer.nbytes == 0
            if not self.room:
                raise MemoryError
            return torch.zeros(shape)

    layer = LayerCache()
    layer.reserve(3, 32)
    with pytest.raises(MemoryError):
        layer.like(Head(layer), Head(layer, room=False))
    layer.fit(0, 0)
    layer.reserve(3, 32)
    layer.like(Head(layer), Head(layer))
    assert layer.nbytes == 2 * 3 * 2 * 32 * 4 * 4


def test_a_long_prompt_holds_nobody_up(model, axis):
    """While it is read, a chunk at a time, those who decode get a token in every pass."""
    engine = TransformersEngine(model, axis)
    engine._scheduler._room = engine._scheduler._room.__class__(8, 2**31, model.token_bytes, 32)
    passes = Passes(engine)
    first = engine.stream(pair(axis, "first", "cats", 40))
    for _ in range(4):
        next(first)
    start = len(passes.prompt_tokens)
    message = ({"role": "user", "content": "word " * 300},)
    second = engine.stream([Request("long", message, Sampling(temperature=0, max_new_tokens=2))])
    assert isinstance(next(second), PromptEvent)
    during = slice(start, len(passes.prompt_tokens))
    assert len(passes.prompt_tokens[during]) >= 10
    assert all(tokens <= 32 for tokens in passes.prompt_tokens[during])
    # The first reader takes nothing meanwhile, so it pauses in the end: a slow reader does not slow the others either.
    ran = passes.decoding[during]
    assert ran[: _AHEAD - 2] == [2] * min(len(ran), _AHEAD - 2)
    assert len(said(first)["first/u"]) >= 38, "nothing of it was lost"


def test_who_does_not_fit_waits_and_is_told_for_whom(model, axis):
    engine = TransformersEngine(model, axis, rows=4)
    streams = [engine.stream(pair(axis, name, topic, 6)) for name, topic in zip("abcd", TOPICS, strict=False)]
    firsts = [next(stream) for stream in streams]
    assert [type(event) for event in firsts] == [PromptEvent, PromptEvent, WaitEvent, WaitEvent]
    assert [event.ahead for event in firsts[2:]] == [1, 2]
    assert engine.load.running == 4 and engine.load.waiting == 4
    for stream in streams[:2]:
        list(stream)
    rest = list(streams[3])
    assert any(isinstance(event, PromptEvent) for event in rest) and said(rest)
    flag = CancelFlag()
    flag.set()
    assert [event.finish_reason for event in engine.stream(pair(axis, "e", "x"), flag)] == ["cancelled"] * 2


def test_the_memory_bound_holds_and_what_never_fits_is_refused(model, axis):
    columns = rounded_up(60)
    budget = 5 * columns * model.token_bytes
    engine = TransformersEngine(model, axis, kv_budget=budget)
    passes = Passes(engine)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: said(engine.stream(pair(axis, n, TOPICS[int(n)], 10))), "012345"))
    assert passes.held and max(passes.held) <= budget
    with pytest.raises(UserError, match=r"KV cache .* --kv-budget\."):
        list(engine.stream(pair(axis, "long", "cats", 900)))
    assert said(engine.stream(pair(axis, "after", "cats", 3)))


def test_a_long_conversation_that_has_ended_gives_its_room_back(model, axis):
    budget = 2 * rounded_up(320) * model.token_bytes
    engine = TransformersEngine(model, axis, kv_budget=budget)
    passes = Passes(engine)
    long = engine.stream(pair(axis, "long", "cats", 270))
    assert isinstance(next(long), PromptEvent)
    short = [engine.stream(pair(axis, name, topic, 6)) for name, topic in zip("abc", TOPICS, strict=False)]
    assert [type(next(stream)) for stream in short] == [WaitEvent] * 3
    long.close()
    events = [list(stream) for stream in short]
    assert all(said(found) for found in events)
    assert max(passes.held) <= budget
    assert max(passes.decoding) == 6, (
        "all three at once: they would not fit into slots as long as the long one's"
    )


def test_what_is_the_same_is_read_once(model, axis):
    engine = TransformersEngine(model, axis)
    passes = Passes(engine)
    message = ({"role": "user", "content": "Tell me about the sea."},)
    rows = [Request(f"same#{n}", message, Sampling(max_new_tokens=3, seed=n)) for n in range(6)]
    prompts = [event for event in engine.stream(rows) if isinstance(event, PromptEvent)]
    length = prompts[0].prompt_tokens
    assert sum(passes.prompt_tokens) == length + 5, "the others run their last token only, for its logits"
    again = next(iter(engine.stream([Request("another visitor", message, Sampling(max_new_tokens=2))])))
    assert again.reused_tokens == length - 1
    system = ({"role": "system", "content": "You are a pirate."}, *message)
    other = next(iter(engine.stream([Request("other", system, Sampling(max_new_tokens=2))])))
    assert other.reused_tokens < 10, "only what really begins alike"


def test_a_failing_pass_is_told_to_all_it_served_and_the_next_one_works(model, axis, monkeypatch):
    engine = TransformersEngine(model, axis)
    streams = [engine.stream(pair(axis, name, "cats", 8)) for name in "ab"]
    for stream in streams:
        next(stream)

    def broken(parts, slots):
        raise RuntimeError("broken on purpose")

    run = engine.forward.run
    monkeypatch.setattr(
        engine._scheduler._running, "_forward", type("Broken", (), {"run": staticmethod(broken)})
    )
    for stream in streams:
        with pytest.raises(RuntimeError, match="broken on purpose"):
            list(stream)
    monkeypatch.undo()
    assert engine.load.running == 0 and engine.forward.run == run
    assert said(engine.stream(pair(axis, "a", "cats", 4)))


def test_forgetting_a_branch_that_still_runs_leaves_nothing(model, axis):
    engine = TransformersEngine(model, axis)
    stream = engine.stream(pair(axis, "a", "cats", 8))
    next(stream)
    engine.forget(["a/u", "a/c"])
    list(stream)
    assert engine.store.nbytes == 0
