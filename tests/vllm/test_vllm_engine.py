"""What can go wrong with vLLM alone: it dies, refuses its options, or has prompts in its cache.

The tests run vLLM itself with the default model.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from demo.axis.files import load_axis
from demo.bench.app_process import server
from demo.conversation.conversation import Conversation
from demo.conversation.settings import TurnSettings, make_cap
from demo.engine.protocol import PromptEvent, Request, Sampling, TokenEvent, WaitEvent
from demo.models.default import DEFAULT_MODEL
from demo.utils.errors import UserError
from tests.helpers.engines import HAS_VLLM, vllm_engine
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed here")


@pytest.fixture(scope="module")
def axis():
    return load_axis(DEFAULT_MODEL)


@pytest.fixture(scope="module")
def engine(axis) -> Iterator:
    with vllm_engine(None, axis) as engine:
        yield engine


def settings(axis, tokens: int) -> TurnSettings:
    cap = make_cap(axis, *axis.cap_band, axis.cap_floor)
    return TurnSettings(Sampling(temperature=0, max_new_tokens=tokens), cap)


def prompt_event(engine, branch: str, text: str, cap=None) -> PromptEvent:
    """Let the engine answer a long message; the event of its prompt."""
    messages = ({"role": "user", "content": text * 60},)
    events = list(engine.stream([Request(branch, messages, Sampling(0, max_new_tokens=4), cap)]))
    return next(event for event in events if isinstance(event, PromptEvent))


def test_cached_prompts_keep_their_projections(engine, axis):
    """Under the same cap, the same prompt comes from the cache the second time, with the same mean."""
    text, cap = "Tell me about the sea. ", make_cap(axis, *axis.cap_band, axis.cap_floor)
    first, again = prompt_event(engine, "a", text, cap), prompt_event(engine, "a", text, cap)
    uncapped = prompt_event(engine, "a", text)
    assert first.reused_tokens == 0 == uncapped.reused_tokens
    assert again.reused_tokens > 200
    assert again.user_projection == pytest.approx(first.user_projection, abs=1e-4)
    assert uncapped.user_projection != pytest.approx(first.user_projection, abs=1e-3)


def test_a_cached_prompt_without_projections_has_no_mean(engine):
    """After `forget`, vLLM still has the prompt in its cache, but its projections are gone."""
    text = "Tell me about the moon. "
    assert prompt_event(engine, "b", text).user_projection is not None
    engine.forget(["b"])
    assert prompt_event(engine, "b", text).user_projection is None


def test_requests_beyond_the_limit_wait_and_are_told_so(engine):
    """The engine runs 32 sequences at once, so the seventeenth pair waits for another to finish."""

    def answer(n: int):
        requests = [
            Request(
                f"{n}/{branch}",
                ({"role": "user", "content": f"Count to {n + 20}."},),
                Sampling(0, max_new_tokens=24),
            )
            for branch in "ab"
        ]
        return list(engine.stream(requests))

    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(answer, range(20)))
    assert any(isinstance(event, WaitEvent) for events in replies for event in events)
    for events in replies:
        ends = [e for e in events if isinstance(e, TokenEvent) and e.finish_reason is not None]
        assert len(ends) == 2
    wait_until(lambda: engine.load.running == engine.load.waiting == 0)


def test_conversation_survives_a_killed_vllm(engine, axis):
    conversation = Conversation()
    for _ in conversation.send(engine, "Hello!", settings(axis, 8)):
        pass
    first = conversation.turns[0].replies["capped"].text
    story = conversation.send(engine, "Write a very long story.", settings(axis, 800))
    for _ in range(20):
        assert isinstance(next(story), PromptEvent | TokenEvent)
    _kill_vllm()
    with pytest.raises(UserError, match="ended in the middle of this reply"):
        list(story)
    assert [turn.replies["capped"].text for turn in conversation.turns] == [first]
    with pytest.raises(UserError, match="starting again"):
        conversation.send(engine, "And now?", settings(axis, 8))
    events: list = []

    def answers() -> bool:
        try:
            events.extend(conversation.send(engine, "And now?", settings(axis, 8)))
        except UserError:
            return False
        return True

    wait_until(answers, 180)
    assert len(conversation.turns) == 2 and any(isinstance(event, TokenEvent) for event in events)
    assert conversation.turns[1].replies["capped"].finish is not None


def _kill_vllm() -> None:
    for child in psutil.Process().children(recursive=True):
        if any(sign in " ".join(child.cmdline()) for sign in ("EngineCore", "spawn_main")):
            child.kill()


@pytest.mark.parametrize("signal", ["terminate", "kill"])
def test_vllm_ends_with_the_page(signal):
    """Otherwise its processes would keep running and hold all their memory."""
    with server(("--engine", "vllm", "--kv-budget", "0.5")) as (_, pid):
        page = psutil.Process(pid)
        vllm = [child for child in page.children(recursive=True) if "VLLM" in " ".join(child.cmdline())]
        assert len(vllm) >= 2
        getattr(page, signal)()
        _, alive = psutil.wait_procs(vllm, timeout=30)
        assert alive == []


@pytest.mark.parametrize("more", [{"no_such_option": 1}, {"quantization": "nonsense"}])
def test_options_that_vllm_refuses_end_in_one_sentence(axis, more):
    with (
        pytest.raises(UserError, match="vLLM could not start smollm2-135m-instruct"),
        vllm_engine(None, axis, more=more),
    ):
        pass
