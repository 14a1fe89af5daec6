"""What the number format of the weights costs: the time of a step, and how far readings move.

The model is loaded once in each format. The one that suits the CPU answers the first message of every
scenario, uncapped and capped, greedily. Each format then reads these very replies as it would write them, a
pair at a time, so that every token has a projection and a likeliest next token in each.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.bench.pair import MESSAGES, Bench, TokenClock, gaps, make_bench
from demo.conversation.conversation import Conversation
from demo.conversation.scenarios import Scenario, load_scenarios
from demo.conversation.settings import BRANCHES, CAPPED
from demo.engine.protocol import Request, Sampling, TokenEvent
from demo.evaluation import NAME
from demo.evaluation.perplexity import own_texts, perplexity
from demo.models.chat_template import Message
from demo.models.devices import INT8
from demo.models.memory import folder_need
from demo.utils.errors import UserError
from demo.utils.json_files import read_object

REPLY_TOKENS = 48

_SMALL_BYTES = 3 * 2**29  # of weights in the usual format, so that float32 fits beside the others


@dataclass(frozen=True)
class Place:
    """One token of a reply: its projection before the clamp, axis units, and the likeliest token there."""

    projection: float
    likeliest: int


Pair = tuple[list[int], list[int]]  # the tokens of a scenario's two replies


def measure_formats(options: argparse.Namespace, repeats: int) -> dict[str, Any]:
    """Compare the number formats of the model that the options name, on a CPU.

    Returns:
        `formats`: for each the milliseconds of a step of a pair, and the perplexity of ordinary text.
        `shifts`: "a vs b" -> how far apart two formats read, see `shift_between`.
        `int8_vs_usual`: a step of a pair in int8 ÷ in the format that suits the CPU.
        `plain_step_ms`: a step of plain `generate` with one sequence in that format.
        `int8_vs_plain`: a step of a pair in int8 ÷ a step of plain `generate`.

    Raises:
        UserError: model or axis cannot be loaded.
    """
    usual = _in_format(options, "auto", plain_methods=True)
    benches = {usual.model.dtype_name: usual}
    for dtype in ("float32", INT8) if _is_small(usual) else (INT8,):
        if dtype not in benches:
            benches[dtype] = _in_format(options, dtype)
    steps, plain_steps = _steps(benches, repeats)
    step_of = {name: statistics.median(seconds) for name, seconds in steps.items()}
    plain_step = statistics.median(plain_steps)
    scenarios = load_scenarios()
    replies = [_answers(usual, scenario) for scenario in scenarios]
    read = {
        name: [_read(bench, *one) for one in zip(scenarios, replies, strict=True)]
        for name, bench in benches.items()
    }
    compared = [(INT8, usual.model.dtype_name)]
    if usual.model.dtype_name != "float32" and "float32" in benches:
        compared.append((usual.model.dtype_name, "float32"))
    return {
        "formats": {
            name: {
                "pair_step_ms": 1e3 * step_of[name],
                "perplexity": perplexity(bench.engine, None, own_texts()),
            }
            for name, bench in benches.items()
        },
        "int8_vs_usual": step_of[INT8] / step_of[usual.model.dtype_name],
        "plain_step_ms": 1e3 * plain_step,
        "int8_vs_plain": step_of[INT8] / plain_step,
        "shifts": {f"{one} vs {other}": shift_between(read[one], read[other]) for one, other in compared},
    }


def _in_format(options: argparse.Namespace, dtype: str, plain_methods: bool = False) -> Bench:
    return make_bench(argparse.Namespace(**{**vars(options), "dtype": dtype}), plain_methods)


def evaluations_of(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The main figures of evaluations that differ in the number format alone.

    Args:
        folders: each with the evaluation.json of one format.

    Returns:
        Format -> the parts `susceptibility` and `capability`, without their breakdown.

    Raises:
        UserError: one cannot be read or lacks a part, two have one format, or they differ in more than that.
    """
    reports = [read_object(folder / NAME, "evaluate with --out that folder") for folder in folders]
    kinds = [{key: value for key, value in one["about"].items() if key != "dtype"} for one in reports]
    formats = [one["about"]["dtype"] for one in reports]
    if len(set(formats)) < len(formats):
        raise UserError(
            f"Two of these evaluations are in the same format ({', '.join(formats)}): give one of each."
        )
    for folder, report, kind in zip(folders, reports, kinds, strict=True):
        if not {"susceptibility", "capability"} <= report.keys():
            raise UserError(f"{folder} lacks susceptibility or capability: evaluate both parts.")
        other = [key for key in kinds[0].keys() | kind.keys() if kinds[0].get(key) != kind.get(key)]
        if other:
            raise UserError(
                f"{folder} and {folders[0]} differ in {', '.join(sorted(other))}: evaluate with the same "
                "settings."
            )
    return dict(zip(formats, map(_main_figures, reports), strict=True))


def _main_figures(report: dict[str, Any]) -> dict[str, Any]:
    attempts, capability = report["susceptibility"], report["capability"]
    return {
        "susceptibility": {
            "attempts": attempts["attempts"],
            "seeds": attempts["seeds"],
            "groups": {"all": attempts["groups"]["all"]},
        },
        "capability": {key: value for key, value in capability.items() if key != "kinds"},
    }


def _is_small(bench: Bench) -> bool:
    """Whether there is room for the model in three formats at once."""
    # Read from the files: a fused pass has taken the matrices out of the model's parameters.
    need = folder_need(Path(str(bench.model.model.name_or_path)), bench.model.dtype.itemsize)
    return need is not None and need.weights <= _SMALL_BYTES


def shift_between(
    one: Sequence[Sequence[list[Place]]], other: Sequence[Sequence[list[Place]]]
) -> dict[str, float]:
    """How far the same replies stand from each other in two formats, axis units.

    Args:
        one, other: by scenario, reply and token.

    Returns:
        Mean and largest absolute shift of a token's projection, the same of a reply's mean, the share of
        places whose likeliest token is the same, and the number of tokens.
    """
    pairs = [
        (reply, twin)
        for own, others in zip(one, other, strict=True)
        for reply, twin in zip(own, others, strict=True)
    ]
    tokens = [both for reply, twin in pairs for both in zip(reply, twin, strict=True)]
    shifts = [abs(a.projection - b.projection) for a, b in tokens]
    of_replies = [abs(_mean(reply) - _mean(twin)) for reply, twin in pairs]
    return {
        "token_shift_mean": statistics.fmean(shifts),
        "token_shift_max": max(shifts),
        "reply_shift_mean": statistics.fmean(of_replies),
        "reply_shift_max": max(of_replies),
        "greedy_same": statistics.fmean(a.likeliest == b.likeliest for a, b in tokens),
        "tokens": len(tokens),
    }


def _mean(reply: Sequence[Place]) -> float:
    return statistics.fmean(place.projection for place in reply)


def _steps(benches: dict[str, Bench], repeats: int) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of the steps of a pair in each format, and of plain `generate` in the first. All take turns."""
    found: dict[str, list[float]] = {name: [] for name in benches}
    plain, usual = list[float](), next(iter(benches.values()))
    for repeat in range(repeats + 1):
        clock = TokenClock()
        usual.generate([Message(role="user", content=MESSAGES[0])], clock)
        plain += gaps(clock.times[1:]) if repeat else []  # the first round warms up
        for name, bench in benches.items():
            conversation = Conversation()
            times = bench.pair_turn(conversation, MESSAGES[0])
            bench.engine.forget([conversation.branch_id(branch) for branch in BRANCHES])
            found[name] += gaps(times[1:]) if repeat else []
    return found, plain


def _requests(bench: Bench, scenario: Scenario, openings: Pair | None) -> list[Request]:
    """The scenario's first turn, greedily; the replies begin with these tokens."""
    system = [Message(role="system", content=scenario.system_prompt)] if scenario.system_prompt else []
    messages = (*system, Message(role="user", content=scenario.turns[0]))
    # An opening leaves room for a token.
    sampling = Sampling(temperature=0, max_new_tokens=REPLY_TOKENS + (openings is not None))
    return [
        Request(
            f"formats/{branch}",
            messages,
            sampling,
            bench.cap if branch == CAPPED else None,
            opening=() if openings is None else tuple(openings[number]),
        )
        for number, branch in enumerate(BRANCHES)
    ]


def _answers(bench: Bench, scenario: Scenario) -> Pair:
    found: dict[str, list[int]] = {}
    requests = _requests(bench, scenario, None)
    for event in bench.engine.stream(requests):
        if isinstance(event, TokenEvent) and event.token_id is not None:
            found.setdefault(event.branch, []).append(event.token_id)
    bench.engine.forget([request.branch for request in requests])
    uncapped, capped = (found[request.branch] for request in requests)
    return uncapped, capped


def _read(bench: Bench, scenario: Scenario, replies: Pair) -> list[list[Place]]:
    """Both replies as the format of `bench` reads them."""
    found: dict[str, list[Place]] = {}
    requests = _requests(bench, scenario, replies)
    for event in bench.engine.stream(requests):
        if isinstance(event, TokenEvent) and event.token.given and event.token.before is not None:
            place = Place(event.token.before, next((one.token_id for one in event.token.alternatives), -1))
            found.setdefault(event.branch, []).append(place)
    bench.engine.forget([request.branch for request in requests])
    return [found[request.branch] for request in requests]
