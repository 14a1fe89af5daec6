"""python -m demo.bench.engine_load: many conversations at once on one engine, and transformers' own continuous batching beside it.

All pairs arrive within one second, each from a thread of its own, with different prompts of about 64 tokens. Beside it runs
`generate_batch` with as many rows, uncapped and with nothing read: what batching alone costs in that library. Rounds take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from demo.axis.files import load_axis
from demo.bench.pair import MESSAGES, add_model_options
from demo.conversation.settings import make_cap
from demo.engine.protocol import Request, Sampling, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.models.chat_template import Message, render_chat
from demo.models.loading import load_model
from demo.utils.errors import UserError
from demo.utils.resource_usage import resident_mib

PAIRS = (1, 2, 4, 8, 16, 32)

ARRIVE_S = 1.0

Figures = dict[str, float]


def prompt(number: int) -> tuple[Message, ...]:
    """A message of its own for each visitor, so that nothing but the template is shared."""
    own = " ".join(MESSAGES[(number + step) % len(MESSAGES)] for step in range(2))
    return (Message(role="user", content=f"Visitor {number} asks: {own}"),)


def visit(
    engine: TransformersEngine, number: int, sampling: Sampling, delay: float
) -> tuple[float, list[float]]:
    """One pair: when it came, and when each of its steps was seen."""
    axis = engine.axis
    cap, branches = make_cap(axis, *axis.cap_band, axis.cap_floor), (f"{number}/u", f"{number}/c")
    time.sleep(delay)
    start, times = time.perf_counter(), list[float]()
    requests = [Request(b, prompt(number), sampling, c) for b, c in zip(branches, (None, cap), strict=True)]
    for event in engine.stream(requests):
        if isinstance(event, TokenEvent) and event.branch == branches[1]:
            times.append(time.perf_counter())
    engine.forget(branches)
    return start, times


def crowd(engine: TransformersEngine, pairs: int, sampling: Sampling) -> Figures:
    """So many pairs at once. Seconds and tokens per second; a pair's step gives two tokens."""
    with ThreadPoolExecutor(pairs) as pool:
        visits = list(
            pool.map(lambda number: visit(engine, number, sampling, ARRIVE_S * number / pairs), range(pairs))
        )
    first = [times[0] - start for start, times in visits]
    steps = [(times[-1] - times[0]) / (len(times) - 1) for _, times in visits]
    span = max(times[-1] for _, times in visits) - min(start for start, _ in visits)
    return {
        "tokens_per_s": 2 * sum(len(times) for _, times in visits) / span,
        "first_token_p50_s": statistics.median(first),
        "first_token_p95_s": _p95(first),
        "step_p50_ms": 1e3 * statistics.median(steps),
        "step_p95_ms": 1e3 * _p95(steps),
    }


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, round(0.95 * len(values)))]


def library(engine: TransformersEngine, pairs: int, sampling: Sampling) -> Figures:
    """transformers' continuous batching, twice as many rows as pairs, greedy, all there from the start."""
    model, tokens = engine.model, sampling.max_new_tokens
    inputs = [render_chat(model.tokenizer, prompt(number // 2)).ids for number in range(2 * pairs)]
    config = ContinuousBatchingConfig(
        page_size=32,
        num_blocks=2 * pairs * (2 + (max(map(len, inputs)) + tokens) // 32),
        max_batch_tokens=512,
        allow_block_sharing=False,  # an uncapped and a capped row must not share theirs
        use_cuda_graph=False,
    )
    generation = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
    start = time.perf_counter()
    batch: Any = model.model
    found = batch.generate_batch(
        inputs, generation_config=generation, continuous_batching_config=config, warmup=False
    )
    said = sum(len(output.generated_tokens) for output in found.values())
    return {"tokens_per_s": said / (time.perf_counter() - start)}


def run(engine: TransformersEngine, counts: Sequence[int], tokens: int, rounds: int) -> dict[str, Any]:
    """Medians over the rounds, per number of pairs."""
    sampling = Sampling(max_new_tokens=tokens)
    crowd(engine, 2, Sampling(max_new_tokens=4))
    found: dict[str, list[Figures]] = {}
    for number in range(rounds):
        for pairs in counts:
            print(f"round {number + 1}: {pairs} pairs", file=sys.stderr, flush=True)
            found.setdefault(f"{pairs}", []).append(crowd(engine, pairs, sampling))
            ours = found[f"{pairs}"][-1]
            ours["library_tokens_per_s"] = library(engine, pairs, sampling)["tokens_per_s"]
    medians = {
        pairs: {name: statistics.median(one[name] for one in figures) for name in figures[0]}
        for pairs, figures in found.items()
    }
    ratios = {}
    if "1" in medians and "16" in medians:
        ratios["room16_vs_one"] = medians["16"]["tokens_per_s"] / medians["1"]["tokens_per_s"]
    return {"pairs": medians, **ratios, "resident_mib": resident_mib()}


def make_engine(options: argparse.Namespace) -> TransformersEngine:
    model = load_model(options.model, device=options.device, dtype=options.dtype)
    axis = load_axis(options.axis or model.slug)
    axis.check_model(model)
    return TransformersEngine(model, axis, fixed_length=True, own_thread=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.bench.engine_load", description=__doc__)
    add_model_options(parser)
    parser.add_argument("--pairs", type=int, nargs="+", default=list(PAIRS), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=2, help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        with ThreadPoolExecutor(1) as apart:  # as app.py does: this thread must not compute
            engine = apart.submit(make_engine, options).result()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    figures = run(engine, options.pairs, options.tokens, options.rounds)
    figures["about"] = {"forward": engine.forward.name, "dtype": engine.model.dtype_reason, "threads": torch.get_num_threads()}  # fmt: skip
    text = json.dumps(figures, indent=1) + "\n"
    if options.json:
        Path(options.json).write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
