"""Long prompts and long contexts: time to read one, time per step over it, and what it takes of memory."""

from __future__ import annotations

import time
from typing import Any

from demo.bench.pair import Bench, gaps
from demo.engine.protocol import Message, Request, Sampling, TokenEvent
from demo.turns import BRANCHES, CAPPED

WORDS = (32, 256, 1024, 3072)
_STEPS = 16


def contexts(bench: Bench) -> list[dict[str, Any]]:
    """One row per length: tokens of the prompt; seconds until the pair's first token; ms of a step; MiB of KV cache held."""
    return [_context(bench, words) for words in WORDS if words < bench.model.context // 2]


def _context(bench: Bench, words: int) -> dict[str, Any]:
    text = " ".join(f"{number}" for number in range(words // 2))
    message = (Message(role="user", content=f"Which number is missing? {text}"),)
    sampling = Sampling(max_new_tokens=_STEPS)
    requests = [Request(f"long/{b}", message, sampling, bench.cap if b == CAPPED else None) for b in BRANCHES]
    start, times, prompt = time.perf_counter(), list[float](), 0
    for event in bench.engine.stream(requests):
        if isinstance(event, TokenEvent):
            prompt = prompt or event.position
            if event.branch == requests[1].branch:
                times.append(time.perf_counter())
    held = bench.engine.load.kv_bytes / 2**20
    bench.engine.forget([request.branch for request in requests])
    steps = sorted(gaps(times))
    return {
        "prompt_tokens": prompt,
        "first_token_s": times[0] - start,
        "step_ms": 1e3 * steps[len(steps) // 2],
        "kv_mib": held,
    }
