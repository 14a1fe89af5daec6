"""Many clients on one engine: admission, waiting and memory, and batching that does not change replies."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event as CancelFlag

import pytest
import torch

from demo.conversation.settings import make_cap
from demo.engine.kv_cache import LayerCache, rounded_up
from demo.engine.protocol import Cap, Event, PromptEvent, Request, Sampling, TokenEvent, WaitEvent
from demo.engine.scheduler import chunks_at_once
from demo.engine.shelved_cache import shelf_of
from demo.engine.transformers_engine import TransformersEngine
from demo.models.loading import LoadedModel, load_model
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis
from tests.helpers.faults import forward_replaced

PROBE, BAND = 17, (14, 20)
CHUNK = 32
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
    """An uncapped and a capped sequence, greedy."""
    message = ({"role": "user", "content": f"Tell me about {topic}."},)
    sampling = Sampling(temperature=0, max_new_tokens=limit)
    cap = make_cap(axis, *BAND, floor)
    return [Request(f"{name}/u", message, sampling), Request(f"{name}/c", message, sampling, cap)]


def token_ids(events) -> dict[str, list[int | None]]:
    """Token ids by branch."""
    ids: dict[str, list[int | None]] = {}
    for event in events:
        if isinstance(event, TokenEvent):
            ids.setdefault(event.branch, []).append(event.token_id)
    return ids


class RecordedPasses:
    """Records what every forward pass of an engine ran.

    Attributes:
        prompt_tokens, decoding: how many prompt tokens and how many decoding sequences each pass ran.
        held: bytes of KV cache after each pass.
    """

    def __init__(self, engine: TransformersEngine) -> None:
        self.prompt_tokens: list[int] = []
        self.decoding: list[int] = []
        self.held: list[int] = []
        batch = engine.scheduler.batch
        run = batch.run

        def recorded(work):
            prompts = [chunk for _, chunk in work if chunk.prompt]
            self.prompt_tokens.append(sum(len(chunk.ids) for chunk in prompts))
            self.decoding.append(len(work) - len(prompts))
            readings = run(work)
            self.held.append(engine.load.kv_bytes)
            return readings

        batch.run = recorded


@pytest.mark.slow
@pytest.mark.parametrize("own_thread", [True, False])
def test_batching_does_not_change_replies(model, axis, own_thread):
    """Requests of different lengths and floors, beside one that is cancelled and one that is closed."""
    requests = [pair(axis, str(n), topic, 8 + n, "p25" if n % 2 else "p75") for n, topic in enumerate(TOPICS)]
    alone = [token_ids(TransformersEngine(model, axis).stream(own)) for own in requests]
    engine = TransformersEngine(model, axis, own_thread=own_thread)

    def answer(own: list[Request]) -> dict[str, list[int | None]]:
        return token_ids(engine.stream(own))

    def close_midway() -> None:
        stream = engine.stream(pair(axis, "closed", "a long story", 60))
        for _ in range(9):
            next(stream)
        stream.close()

    def cancel_midway() -> list[Event]:
        flag, events = CancelFlag(), []
        for event in engine.stream(pair(axis, "cancelled", "a longer story", 60), flag):
            events.append(event)
            if len(events) == 9:
                flag.set()
        return events

    with ThreadPoolExecutor(8) as pool:
        closed, cancelled = pool.submit(close_midway), pool.submit(cancel_midway)
        together = list(pool.map(answer, requests))
        closed.result()
        assert [event.finish_reason for event in cancelled.result()[-2:]] == ["cancelled"] * 2
    assert together == alone
    assert engine.load.running == 0


def test_a_layer_cache_can_be_allocated_again_after_memory_ran_out():
    layer = LayerCache()

    class FakeTensor:
        """Keys or values whose allocation may fail. The layer counts no bytes until both are allocated."""

        shape = (1, 2, 1, 4)

        def __init__(self, fails: bool = False) -> None:
            self.fails = fails

        def new_zeros(self, shape: tuple[int, ...]) -> torch.Tensor:
            assert layer.nbytes == 0
            if self.fails:
                raise MemoryError
            return torch.zeros(shape)

    layer.reserve(3, 32)
    with pytest.raises(MemoryError):
        layer.allocate_like(FakeTensor(), FakeTensor(fails=True))
    layer.resize(0, 0)
    layer.reserve(3, 32)
    layer.allocate_like(FakeTensor(), FakeTensor())
    assert layer.nbytes == 2 * 3 * 2 * 32 * 4 * 4


def test_a_long_prompt_does_not_delay_decoding_sequences(model, axis):
    """While the prompt is read in chunks, every pass also decodes one token of the other sequences."""
    engine = TransformersEngine(model, axis, chunk=CHUNK)
    passes = RecordedPasses(engine)
    first = engine.stream(pair(axis, "first", "cats", 40))
    for _ in range(4):
        next(first)
    start = len(passes.prompt_tokens)
    message = ({"role": "user", "content": "word " * 300},)
    second = engine.stream([Request("long", message, Sampling(temperature=0, max_new_tokens=2))])
    assert isinstance(next(second), PromptEvent)
    during = slice(start, len(passes.prompt_tokens))
    assert len(passes.prompt_tokens[during]) >= 10
    assert all(tokens <= CHUNK for tokens in passes.prompt_tokens[during])
    # The first client reads nothing meanwhile, so its group pauses in the end. Until then every pass decodes
    # both of its branches.
    assert passes.decoding[during][:8] == [2] * 8
    assert len(token_ids(first)["first/u"]) >= 38, "some of its tokens were lost"


def test_requests_beyond_the_capacity_wait_and_learn_how_many_come_first(model, axis):
    engine = TransformersEngine(model, axis, sequences=4)
    streams = [engine.stream(pair(axis, name, topic, 6)) for name, topic in zip("abcd", TOPICS, strict=False)]
    firsts = [next(stream) for stream in streams]
    assert [type(event) for event in firsts] == [PromptEvent, PromptEvent, WaitEvent, WaitEvent]
    assert [event.ahead for event in firsts[2:]] == [1, 2]
    assert engine.load.running == 4 and engine.load.waiting == 4
    for stream in streams[:2]:
        list(stream)
    for stream in streams[2:]:
        rest = list(stream)
        assert any(isinstance(event, PromptEvent) for event in rest) and token_ids(rest)


@pytest.mark.slow
def test_memory_stays_within_the_budget_and_a_request_beyond_it_is_refused(model, axis):
    budget = 5 * rounded_up(60) * model.token_bytes
    engine = TransformersEngine(model, axis, kv_budget=budget)
    passes = RecordedPasses(engine)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: token_ids(engine.stream(pair(axis, n, TOPICS[int(n)], 10))), "012345"))
    assert passes.held and max(passes.held) <= budget
    with pytest.raises(UserError, match=r"KV cache .* --kv-budget\."):
        list(engine.stream(pair(axis, "long", "cats", 900)))
    assert token_ids(engine.stream(pair(axis, "after", "cats", 3)))


def test_a_long_conversation_frees_its_memory_when_it_ends(model, axis):
    budget = 2 * shelf_of(320) * model.token_bytes
    engine = TransformersEngine(model, axis, kv_budget=budget)
    passes = RecordedPasses(engine)
    long = engine.stream(pair(axis, "long", "cats", 270))
    assert isinstance(next(long), PromptEvent)
    short = [engine.stream(pair(axis, name, topic, 6)) for name, topic in zip("abc", TOPICS, strict=False)]
    assert [type(next(stream)) for stream in short] == [WaitEvent] * 3
    long.close()
    assert all(token_ids(stream) for stream in short)
    assert max(passes.held) <= budget
    # All three run at once, for which slots of the long conversation's length would be too large.
    assert max(passes.decoding) == 6


def test_a_shared_prompt_is_read_once(model, axis):
    engine = TransformersEngine(model, axis)
    passes = RecordedPasses(engine)
    message = ({"role": "user", "content": "Tell me about the sea."},)
    requests = [Request(f"same#{n}", message, Sampling(max_new_tokens=3, seed=n)) for n in range(6)]
    prompts = [event for event in engine.stream(requests) if isinstance(event, PromptEvent)]
    length = prompts[0].prompt_tokens
    assert sum(passes.prompt_tokens) == length, "the others take all of it, with the logits"
    again = next(iter(engine.stream([Request("another visitor", message, Sampling(max_new_tokens=2))])))
    assert again.reused_tokens == length - 1
    system = ({"role": "system", "content": "You are a pirate."}, *message)
    other = next(iter(engine.stream([Request("other", system, Sampling(max_new_tokens=2))])))
    assert other.reused_tokens < 10, "only the common beginning is reused"


def test_a_failing_pass_ends_its_requests_and_the_next_request_works(model, axis):
    engine = TransformersEngine(model, axis)
    streams = [engine.stream(pair(axis, name, "cats", 8)) for name in "ab"]
    for stream in streams:
        next(stream)

    def broken(chunks, cache):
        raise RuntimeError("broken on purpose")

    with forward_replaced(engine, broken):
        for stream in streams:
            with pytest.raises(RuntimeError, match="broken on purpose"):
                list(stream)
    assert engine.load.running == 0
    assert token_ids(engine.stream(pair(axis, "a", "cats", 4)))


def test_a_branch_that_is_forgotten_while_it_runs_is_not_cached(model, axis):
    engine = TransformersEngine(model, axis)
    stream = engine.stream(pair(axis, "a", "cats", 8))
    next(stream)
    engine.forget(["a/u", "a/c"])
    list(stream)
    assert engine.prefix_cache.nbytes == 0


def test_many_new_prompts_are_read_in_longer_passes(model, axis):
    """Nobody waits for their next token, so a pass may take longer; each token of a pass is then faster."""
    assert [chunks_at_once(1, n) for n in (0, 1, 5)] == [4, 1, 1]
    assert [chunks_at_once(n, 2) for n in (1, 3, 4, 7, 40)] == [1, 1, 2, 3, 4]
    engine = TransformersEngine(model, axis, chunk=CHUNK)
    passes = RecordedPasses(engine)
    message = ({"role": "user", "content": "word " * 300},)
    list(engine.stream([Request("long", message, Sampling(temperature=0, max_new_tokens=2))]))
    assert max(passes.prompt_tokens) == 4 * CHUNK


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_an_inactive_cap_changes_no_bit_however_long_the_prompt_is(axis, dtype):
    """An unconditional cap acts in the prompt, too, so both prompts are read, in several passes.

    A matrix product of many rows may round differently from one of few: both must be read in the same passes.
    """
    engine = TransformersEngine(load_model(dtype=dtype, device="cpu"), axis)
    passes, inactive = RecordedPasses(engine), Cap((12, 13, 14), (-1e9,) * 3)
    sampling = Sampling(temperature=0, max_new_tokens=4)
    for words in (40, 300, 700):
        messages = ({"role": "user", "content": " ".join(str(number) for number in range(words // 2))},)
        requests = [
            Request(f"{words}/{branch}", messages, sampling, cap)
            for branch, cap in (("u", None), ("c", inactive))
        ]
        before, found = sum(passes.prompt_tokens), {}
        for event in engine.stream(requests):
            if isinstance(event, TokenEvent):
                found.setdefault(event.branch, []).append((event.token_id, event.token.probability))
        assert sum(passes.prompt_tokens) - before > 1.5 * words, "the two prompts were read as one"
        assert found[f"{words}/u"] == found[f"{words}/c"]
