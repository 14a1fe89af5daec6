"""python -m demo.bench.long_context: a long conversation, turn by turn: time per token and memory.

A step over a longer context costs more attention and nothing else, and memory grows by the KV cache of the new tokens.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from demo.bench.pair import MESSAGES, Bench, add_model_options, gaps, make_bench
from demo.conversation.conversation import Conversation
from demo.conversation.settings import BRANCHES, CAPPED
from demo.engine.protocol import Request, Sampling, TokenEvent
from demo.models.chat_template import Message
from demo.utils.errors import UserError
from demo.utils.resource_usage import resident_mib


def run(bench: Bench, turns: int) -> list[dict[str, float]]:
    """One row per turn: median ms per step of the pair, context tokens, KV MiB kept, resident MiB."""
    conversation, rows = Conversation(), []
    for turn in range(turns):
        times = bench.pair_turn(conversation, MESSAGES[turn % len(MESSAGES)])
        steps = [after - before for before, after in itertools.pairwise(times[1:])]
        kept = [bench.engine.store.get(conversation.branch_id(branch)) for branch in BRANCHES]
        row = {
            "turn": turn + 1,
            "step_ms": statistics.median(steps) * 1e3,
            "first_token_ms": (times[1] - times[0]) * 1e3,
            "context_tokens": max(len(entry.ids) for entry in kept if entry),
            "kv_mib": bench.engine.store.nbytes / 2**20,
            "resident_mib": resident_mib(),
        }
        print("  ".join(f"{name} {value:8.1f}" for name, value in row.items()), flush=True)
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.bench.long_context", description=__doc__)
    add_model_options(parser)
    parser.add_argument("--turns", type=int, default=20)
    options = parser.parse_args(arguments)
    try:
        bench = make_bench(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = run(bench, options.turns)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


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


if __name__ == "__main__":
    raise SystemExit(main())
