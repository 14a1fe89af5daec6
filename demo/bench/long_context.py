"""The cost of long contexts.

`python -m demo.bench.long_context` runs one long conversation and reports time per token and memory
for every turn. `measure_prompt_lengths` times single turns with prompts of several lengths, for
`python -m demo.bench`. A decode step over a longer context costs more attention and nothing else,
and memory grows by the KV cache of the new tokens.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from demo.bench.pair import MESSAGES, Bench, add_model_options, gaps, make_bench
from demo.bench.report import write_json
from demo.conversation.conversation import Conversation
from demo.conversation.settings import BRANCHES, CAPPED
from demo.engine.forward.forward_pass import last_positions
from demo.engine.protocol import Request, Sampling, TokenEvent
from demo.models.chat_template import Message, render_chat
from demo.utils.cli import command
from demo.utils.resource_usage import resident_mib

WORDS = (32, 256, 1024, 3600)  # of a prompt

_STEPS = 16  # decode steps after each prompt
_ROUNDS = 3  # with the longest prompt only one


def measure_prompt_lengths(bench: Bench) -> list[dict[str, Any]]:
    """Time a pair with prompts of several lengths, as far as they fit the context window.

    Returns:
        For each length, medians: tokens of the prompt, seconds to the pair's first token, seconds in which
        the model's own modules read the prompt once, milliseconds of a step, and MiB of KV cache in use.
    """
    found = []
    for words in WORDS:
        if words < bench.model.context // 2:
            rounds = [_measure_prompt(bench, words) for _ in range(1 if words == WORDS[-1] else _ROUNDS)]
            found.append({name: statistics.median(one[name] for one in rounds) for name in rounds[0]})
            found[-1]["pair_vs_plain_prompt"] = found[-1]["first_token_s"] / found[-1]["plain_prompt_s"]
    return found


def _measure_prompt(bench: Bench, words: int) -> dict[str, Any]:
    text = " ".join(f"{number}" for number in range(words // 2))
    message = (Message(role="user", content=f"Which number is missing? {text}"),)
    plain_s = _plain_prompt_s(bench, message)
    sampling = Sampling(max_new_tokens=_STEPS)
    requests = [Request(f"long/{b}", message, sampling, bench.cap if b == CAPPED else None) for b in BRANCHES]
    start, times, prompt_tokens = time.perf_counter(), list[float](), 0
    for event in bench.engine.stream(requests):
        if isinstance(event, TokenEvent):
            prompt_tokens = prompt_tokens or event.position
            if event.branch == requests[1].branch:
                times.append(time.perf_counter())
    kv_bytes = bench.engine.load.kv_bytes
    bench.engine.forget([request.branch for request in requests])
    steps = sorted(gaps(times))
    return {
        "prompt_tokens": prompt_tokens,
        "first_token_s": times[0] - start,
        "plain_prompt_s": plain_s,
        "step_ms": 1e3 * steps[len(steps) // 2],
        "kv_mib": kv_bytes / 2**20,
    }


@torch.inference_mode()
def _plain_prompt_s(bench: Bench, messages: Sequence[Message]) -> float:
    """Seconds in which the model's own modules read one prompt, as at the start of `generate`."""
    model = bench.plain
    ids = torch.tensor([render_chat(model.tokenizer, messages).ids], device=model.device)
    start = time.perf_counter()
    kept = last_positions(ids.shape[1], 1, model.device)
    int(model.model(ids, logits_to_keep=kept).logits[0, -1].argmax())
    return time.perf_counter() - start


def measure_turns(bench: Bench, turns: int) -> list[dict[str, float]]:
    """Run one conversation and print the figures of every turn as it ends.

    Returns:
        For each turn: median milliseconds of a step of the pair, milliseconds to the first token,
        tokens in the context, MiB of the prefix cache, and MiB of resident memory.
    """
    conversation, found = Conversation(), []
    for turn in range(turns):
        times = bench.pair_turn(conversation, MESSAGES[turn % len(MESSAGES)])
        cached = [bench.engine.prefix_cache.get(conversation.branch_id(branch)) for branch in BRANCHES]
        figures = {
            "turn": turn + 1,
            "step_ms": statistics.median(gaps(times[1:])) * 1e3,
            "first_token_ms": (times[1] - times[0]) * 1e3,
            "context_tokens": max(len(entry.ids) for entry in cached if entry),
            "kv_mib": bench.engine.prefix_cache.nbytes / 2**20,
            "resident_mib": resident_mib(),
        }
        print("  ".join(f"{name} {value:8.1f}" for name, value in figures.items()), flush=True)
        found.append(figures)
    return found


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one long conversation turn by turn."""
    parser = argparse.ArgumentParser(prog="python -m demo.bench.long_context", description=__doc__)
    add_model_options(parser)
    parser.add_argument("--turns", type=int, default=20, help="default: %(default)s")
    options = parser.parse_args(arguments)
    figures = measure_turns(make_bench(options), options.turns)
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    raise SystemExit(main())
