"""python -m demo.bench.engine_load: load test of one engine, beside continuous batching by transformers.

All pairs arrive within one second, each from a thread of its own, with different prompts of about
64 tokens. For comparison, transformers' `generate_batch` runs as many sequences, uncapped and with
no projections read: what batching alone costs in that library. The two take turns. Some pairs also run
with and without one pair beside them whose prompt is long.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from demo.axis.store import axis_of
from demo.bench.pair import MESSAGES, add_model_options
from demo.bench.report import write_json
from demo.conversation.settings import own_cap
from demo.engine.forward.forward_pass import usual_strides
from demo.engine.protocol import Request, Sampling, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.models.chat_template import Message, render_chat
from demo.models.loading import load_model
from demo.utils.cli import command
from demo.utils.resource_usage import resident_mib

PAIRS = (1, 2, 4, 8, 16, 32)

ARRIVAL_S = 1.0  # all pairs arrive within this time

# Words of the long prompt, most tokens of the replies to it, and how many short pairs run beside it.
_LONG_WORDS, _LONG_REPLY, _BESIDE = 800, 1500, 8
_MOST_TOKENS = 5  # of one of these words: three digits, and what may surround them

Figures = dict[str, float]


def make_engine(options: argparse.Namespace) -> TransformersEngine:
    """Load model and axis into an engine with a thread of its own. Raises UserError."""
    model = load_model(options.model, device=options.device, dtype=options.dtype)
    axis = axis_of(options.axis, model)[0]
    axis.check_model(model)
    return TransformersEngine(model, axis, kv_budget=None, fixed_length=True, own_thread=True)


def visitor_prompt(number: int) -> tuple[Message, ...]:
    """A different message for each visitor, so that prompts share nothing but the template."""
    own = " ".join(MESSAGES[(number + step) % len(MESSAGES)] for step in range(2))
    return (Message(role="user", content=f"Visitor {number} asks: {own}"),)


def engine_load(engine: TransformersEngine, pairs: int, sampling: Sampling) -> Figures:
    """Run `pairs` pairs at once on this engine.

    Returns:
        Tokens per second over both replies of all pairs; median and 95th percentile of the seconds
        to a pair's first token and of the milliseconds of a step, which gives a pair two tokens.
    """
    with ThreadPoolExecutor(pairs) as pool:
        runs = list(
            pool.map(
                lambda number: _run_pair(engine, number, sampling, ARRIVAL_S * number / pairs), range(pairs)
            )
        )
    first = [times[0] - start for start, times in runs]
    steps = [(times[-1] - times[0]) / (len(times) - 1) for _, times in runs]
    span = max(times[-1] for _, times in runs) - min(start for start, _ in runs)
    return {
        "tokens_per_s": 2 * sum(len(times) for _, times in runs) / span,
        "first_token_p50_s": statistics.median(first),
        "first_token_p95_s": _p95(first),
        "step_p50_ms": 1e3 * statistics.median(steps),
        "step_p95_ms": 1e3 * _p95(steps),
    }


def _run_pair(
    engine: TransformersEngine, number: int, sampling: Sampling, delay: float
) -> tuple[float, list[float]]:
    """Run one pair after a delay. Returns the time of its arrival and of each of its steps."""
    axis = engine.axis
    cap, branches = own_cap(axis), (f"{number}/u", f"{number}/c")
    time.sleep(delay)
    start, times = time.perf_counter(), list[float]()
    requests = [
        Request(b, visitor_prompt(number), sampling, c) for b, c in zip(branches, (None, cap), strict=True)
    ]
    for event in engine.stream(requests):
        if isinstance(event, TokenEvent) and event.branch == branches[1]:
            times.append(time.perf_counter())
    engine.forget(branches)
    return start, times


@contextmanager
def _long_chat(engine: TransformersEngine) -> Iterator[int]:
    """One pair with a long prompt, which has been read, decodes beside the `with` block.

    Yields:
        The number of tokens in the prompt.
    """
    text = " ".join(f"{number}" for number in range(_LONG_WORDS))
    message = (Message(role="user", content=f"Which number is missing? {text}"),)
    sampling = Sampling(max_new_tokens=_LONG_REPLY)
    caps = {"long/u": None, "long/c": own_cap(engine.axis)}
    decoding, enough, tokens = Event(), Event(), list[int]()

    def read() -> None:
        requests = [Request(branch, message, sampling, cap) for branch, cap in caps.items()]
        for event in engine.stream(requests, cancel=enough):
            if isinstance(event, TokenEvent):
                tokens.append(event.position)
                decoding.set()

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        while not decoding.wait(0.1) and not reading.done():
            pass
        try:
            yield tokens[0] if tokens else 0
        finally:
            ended = reading.done()
            enough.set()
            reading.result()
            engine.forget(list(caps))
    if ended:
        raise RuntimeError("The long reply ended before the short ones: nothing was measured beside it.")


def _beside_a_long_chat(engine: TransformersEngine, sampling: Sampling, rounds: int) -> Figures:
    """Steps of short pairs alone and beside one pair with a long prompt: medians of milliseconds."""
    alone, beside, prompts = list[float](), list[float](), list[int]()
    for _ in range(rounds):
        alone.append(engine_load(engine, _BESIDE, sampling)["step_p50_ms"])
        with _long_chat(engine) as prompt_tokens:
            prompts.append(prompt_tokens)
            beside.append(engine_load(engine, _BESIDE, sampling)["step_p50_ms"])
    alone_ms, beside_ms = statistics.median(alone), statistics.median(beside)
    return {
        "pairs": _BESIDE,
        "prompt_tokens": prompts[0],
        "alone_ms": alone_ms,
        "beside_ms": beside_ms,
        "beside_vs_alone": beside_ms / alone_ms,
    }


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, round(0.95 * len(values)))]


def library_load(engine: TransformersEngine, pairs: int, sampling: Sampling) -> Figures:
    """Run transformers' continuous batching: two greedy sequences per pair, all there at the start."""
    model, tokens = engine.model, sampling.max_new_tokens
    inputs = [render_chat(model.tokenizer, visitor_prompt(number // 2)).ids for number in range(2 * pairs)]
    config = ContinuousBatchingConfig(
        page_size=32,
        num_blocks=2 * pairs * (2 + (max(map(len, inputs)) + tokens) // 32),
        max_batch_tokens=512,
        allow_block_sharing=False,  # an uncapped and a capped sequence must not share theirs
        use_cuda_graph=False,
    )
    generation = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
    start = time.perf_counter()
    batch: Any = model.model
    with usual_strides(model):
        outputs = batch.generate_batch(
            inputs, generation_config=generation, continuous_batching_config=config, warmup=False
        )
    generated = sum(len(output.generated_tokens) for output in outputs.values())
    return {"tokens_per_s": generated / (time.perf_counter() - start)}


def run(engine: TransformersEngine, counts: Sequence[int], tokens: int, rounds: int) -> dict[str, Any]:
    """Run the load test with each number of pairs in `counts`. Returns medians over the rounds."""
    sampling = Sampling(max_new_tokens=tokens)
    engine_load(engine, 2, Sampling(max_new_tokens=4))  # warm-up
    found: dict[str, list[Figures]] = {}
    for number in range(rounds):
        for pairs in counts:
            print(f"round {number + 1}: {pairs} pairs", file=sys.stderr, flush=True)
            own = engine_load(engine, pairs, sampling)
            own["library_tokens_per_s"] = library_load(engine, pairs, sampling)["tokens_per_s"]
            found.setdefault(f"{pairs}", []).append(own)
    medians = {
        pairs: {name: statistics.median(one[name] for one in figures) for name in figures[0]}
        for pairs, figures in found.items()
    }
    ratios = {}
    if "1" in medians and "16" in medians:
        ratios["pairs16_vs_one"] = medians["16"]["tokens_per_s"] / medians["1"]["tokens_per_s"]
    figures = {"pairs": medians, **ratios}
    if engine.model.context >= _MOST_TOKENS * _LONG_WORDS + _LONG_REPLY:
        figures["long_chat"] = _beside_a_long_chat(engine, sampling, rounds)
    return {**figures, "resident_mib": resident_mib()}


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the load test and print its figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m demo.bench.engine_load", description=__doc__)
    add_model_options(parser)
    parser.add_argument(
        "--pairs", type=int, nargs="+", default=list(PAIRS), help="at once (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=2, help="default: %(default)s")
    options = parser.parse_args(arguments)
    # On a thread that ends, as in app.py: a thread that has computed keeps helper threads that slow
    # the engine's down.
    with ThreadPoolExecutor(1) as apart:
        engine = apart.submit(make_engine, options).result()
    figures = run(engine, options.pairs, options.tokens, options.rounds)
    figures["about"] = {
        "forward": engine.forward.name,
        "dtype": engine.model.dtype_reason,
        "threads": torch.get_num_threads(),
    }
    if options.json:
        write_json(options.json, figures)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    raise SystemExit(main())
