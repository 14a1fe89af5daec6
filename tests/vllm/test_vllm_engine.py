"""What vLLM alone can do wrong: die in mid-reply, refuse its options, keep prompts in its cache. Real vLLM, real default model."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
import pytest

from demo.axis.files import load_axis
from demo.bench.page_load import server
from demo.conversation.conversation import Conversation
from demo.conversation.settings import TurnSettings, make_cap
from demo.engine.protocol import PromptEvent, Request, Sampling, TokenEvent
from demo.models.default import DEFAULT_MODEL
from demo.utils.errors import UserError
from tests.helpers.engines import HAS_VLLM, by_vllm

pytestmark = pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed here")


@pytest.fixture(scope="module")
def axis():
    return load_axis(DEFAULT_MODEL)


@pytest.fixture(scope="module")
def engine(axis) -> Iterator:
    with by_vllm(None, axis) as engine:
        yield engine


def settings(axis, tokens: int) -> TurnSettings:
    cap = make_cap(axis, *axis.cap_band, axis.cap_floor)
    return TurnSettings(Sampling(temperature=0, max_new_tokens=tokens), cap)


def test_what_the_cache_holds_is_not_read_again_and_still_known(engine, axis):
    """The same long prompt twice, capped: the second time from the cache, under the same cap only, with the same mean."""
    messages = ({"role": "user", "content": "Tell me about the sea. " * 60},)
    cap = make_cap(axis, *axis.cap_band, axis.cap_floor)

    def prompt(used) -> PromptEvent:
        events = list(engine.stream([Request("a", messages, Sampling(0, max_new_tokens=4), used)]))
        return next(e for e in events if isinstance(e, PromptEvent))

    first, again, uncapped = prompt(cap), prompt(cap), prompt(None)
    assert first.reused_tokens == 0 == uncapped.reused_tokens
    assert again.reused_tokens > 200
    assert again.user_projection == pytest.approx(first.user_projection, abs=1e-4)
    assert uncapped.user_projection != pytest.approx(first.user_projection, abs=1e-3)


def test_a_mean_that_nobody_remembers_is_left_out_and_not_made_up(engine):
    messages = ({"role": "user", "content": "Tell me about the moon. " * 60},)
    for expected in (True, False):
        events = list(engine.stream([Request("b", messages, Sampling(0, max_new_tokens=2))]))
        known = next(e for e in events if isinstance(e, PromptEvent)).user_projection is not None
        assert known == expected
        engine.core.run(_forget_all(engine)).result()


async def _forget_all(engine) -> None:
    engine.desk.known.clear()


def test_a_crowd_beyond_the_rows_waits_and_is_told(engine):
    """The engine has 32 rows: the seventeenth pair waits for another to end."""
    from concurrent.futures import ThreadPoolExecutor

    from demo.engine.protocol import WaitEvent

    def one(n: int):
        requests = [
            Request(
                f"{n}/{b}",
                ({"role": "user", "content": f"Count to {n + 20}."},),
                Sampling(0, max_new_tokens=24),
            )
            for b in "ab"
        ]
        return list(engine.stream(requests))

    with ThreadPoolExecutor(20) as pool:
        explain_failure = list(pool.map(one, range(20)))
    assert any(isinstance(e, WaitEvent) for events in explain_failure for e in events)
    assert all(
        sum(isinstance(e, TokenEvent) and e.finish_reason is not None for e in events) == 2
        for events in explain_failure
    )
    time.sleep(0.3)
    assert engine.load.running == engine.load.waiting == 0


def test_killed_in_mid_reply_it_says_so_and_starts_again(engine, axis):
    conversation = Conversation()
    for _ in conversation.send(engine, "Hello!", settings(axis, 8)):
        pass
    said = conversation.turns[0].replies["capped"].text
    story = conversation.send(engine, "Write a very long story.", settings(axis, 800))
    for _ in range(20):
        assert isinstance(next(story), PromptEvent | TokenEvent)
    _kill_vllm()
    with pytest.raises(UserError, match="ended in the middle of this reply"):
        list(story)
    assert [turn.replies["capped"].text for turn in conversation.turns] == [said]
    with pytest.raises(UserError, match="starting again"):
        conversation.send(engine, "And now?", settings(axis, 8))
    deadline = time.monotonic() + 180
    while True:
        try:
            events = list(conversation.send(engine, "And now?", settings(axis, 8)))
            break
        except UserError:
            assert time.monotonic() < deadline, "it did not come back"
            time.sleep(1)
    assert len(conversation.turns) == 2 and any(isinstance(e, TokenEvent) for e in events)
    assert conversation.turns[1].replies["capped"].finish is not None


def _kill_vllm() -> None:
    for child in psutil.Process().children(recursive=True):
        if any(sign in " ".join(child.cmdline()) for sign in ("EngineCore", "spawn_main")):
            child.kill()


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_vllm_ends_with_the_page_however_that_ends(how):
    """Its processes would stay for good, with all their memory."""
    with server(("--engine", "vllm", "--kv-budget", "0.5")) as (_, pid):
        page = psutil.Process(pid)
        vllm = [child for child in page.children(recursive=True) if "VLLM" in " ".join(child.cmdline())]
        assert len(vllm) >= 2
        getattr(page, how)()
        _, alive = psutil.wait_procs(vllm, timeout=30)
        assert alive == []


@pytest.mark.parametrize("more", [{"no_such_option": 1}, {"quantization": "nonsense"}])
def test_options_that_vllm_refuses_end_in_one_sentence(axis, more):
    with (
        pytest.raises(UserError, match="vLLM could not start smollm2-135m-instruct"),
        by_vllm(None, axis, more=more),
    ):
        pass
