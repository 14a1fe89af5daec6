"""python -m demo.evaluation.scenarios: what each guided script shows, over seeds.

Every script is run to its end with every seed, uncapped and under the axis's own cap, with the page's sampling. All seeds
and both branches are rows of one batch. demo.evaluation.scenario_figures says what each figure is; projections are in axis units.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.axis.axis import AssistantAxis
from demo.axis.files import axis_digest, load_axis
from demo.conversation.conversation import Conversation
from demo.conversation.scenarios import SCENARIOS, Scenario, load_scenarios
from demo.conversation.settings import BRANCHES, CAPPED, TurnSettings, make_cap
from demo.conversation.turns import Reply, Token, Turn
from demo.engine.protocol import Cap, Engine, Request, Sampling, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.evaluation.scenario_figures import CLAIMS, Figures, claims_made, figures_of, script_digest
from demo.models.chat_template import Message
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel, load_model
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.progress import ProgressLine

MEASURED = SCENARIOS.with_name("measured.json")

FORMAT = 1

FEWEST_SEEDS = 2  # a standard deviation needs two

COMMAND = "python -m demo.evaluation.scenarios --write"


@dataclass(frozen=True)
class Setup:
    """How scripts are played. seeds: of the random numbers, one a talk, the same in every turn (the page
    adds the turn's number)."""

    engine: Engine
    cap: Cap
    seeds: tuple[int, ...]
    tokens: int


@dataclass(frozen=True)
class Part:
    """One talk of a batch: what is said in it, and the seed of its random numbers, the same in every turn."""

    scenario: Scenario
    seed: int


def play(
    scenario: Scenario, setup: Setup, told: Callable[[int], None] = lambda turn: None
) -> list[Conversation]:
    """Run the script to its end, one talk a seed. told: called with the number of each turn before it runs."""
    parts = [Part(scenario, seed) for seed in setup.seeds]
    return play_together(setup.engine, setup.cap, parts, setup.tokens, told)


def play_together(
    engine: Engine, cap: Cap, parts: Sequence[Part], tokens: int, told: Callable[[int], None]
) -> list[Conversation]:
    """Run scripts of one length side by side, each uncapped and capped."""
    talks = [Conversation() for _ in parts]
    for number in range(len(parts[0].scenario.turns)):
        told(number)
        _play_turn(engine, cap, parts, talks, tokens)
    engine.forget([talk.branch_id(branch) for talk in talks for branch in BRANCHES])
    return talks


def _play_turn(
    engine: Engine, cap: Cap, parts: Sequence[Part], talks: Sequence[Conversation], tokens: int
) -> None:
    """One turn of all talks as one batch. A turn of `Conversation.send` is a batch of its own, at several times the cost."""
    requests, replies = [], {}
    for talk, part in zip(talks, parts, strict=True):
        scenario, text = part.scenario, part.scenario.turns[len(talk.turns)]
        settings = TurnSettings(Sampling(max_new_tokens=tokens, seed=part.seed), cap, scenario.system_prompt)
        turn = Turn(text, {branch: Reply(tokens) for branch in BRANCHES}, settings)
        for branch, reply in turn.replies.items():
            said = talk.messages(branch, scenario.system_prompt)
            messages = (*said, Message(role="user", content=text))
            own = cap if branch == CAPPED else None
            requests.append(Request(talk.branch_id(branch), messages, settings.sampling, own))
            replies[talk.branch_id(branch)] = reply
        talk.turns.append(turn)
    with closing(engine.stream(requests)) as events:
        for event in events:
            if isinstance(event, TokenEvent):
                _take(replies[event.branch], event)


def _take(reply: Reply, event: TokenEvent) -> None:
    reply.finish = event.finish_reason
    if event.token_id is not None:
        before, after = event.projection, event.projection_after
        reply.add(Token(event.text, before, after, event.corrections, event.is_special))


def measure(scenarios: Sequence[Scenario], setup: Setup) -> dict[str, Figures]:
    """Figures by scenario id, in order; each row is printed once it is known."""
    progress, results = ProgressLine("scenarios"), {}
    turns, done = sum(len(s.turns) for s in scenarios), 0
    print(header())
    for scenario in scenarios:

        def told(turn: int, scenario: Scenario = scenario, before: int = done) -> None:
            progress.update((before + turn) / turns, f"({scenario.id}, turn {turn + 1})")

        results[scenario.id] = figures_of(play(scenario, setup, told))
        done += len(scenario.turns)
        print(row(scenario.id, results[scenario.id]), flush=True)
    progress.update(1.0)
    return results


COLUMNS = ("first", "last", "fall", "lowest", "capped last", "gap", "sd", "above", "fired", "same")


def header() -> str:
    return f"{'scenario':22}" + "".join(f"{name:>12}" for name in COLUMNS)


def row(name: str, figures: Figures) -> str:
    """One line of the table: axis units with a sign, shares in percent."""
    f = figures
    units = (f.uncapped[0], f.uncapped[-1], f.fall, f.lowest, f.capped[-1], f.gap)
    shares = (f.above, f.fired, f.same)
    return (
        f"{name:22}"
        + "".join(f"{value:+12.2f}" for value in units)
        + f"{f.gap_sd:12.2f}"
        + "".join(f"{value:12.0%}" for value in shares)
    )


def verdicts(fresh: dict[str, Figures], made: dict[str, str]) -> list[str]:
    """A line for each scenario that does not show what it claims, or one that says that all do."""
    missed = [
        f"{name} does not show {made[name]!r}: {CLAIMS[made[name]].says}."
        for name, figures in fresh.items()
        if not CLAIMS[made[name]].holds(figures)
    ]
    return missed or ["Every scenario shows what it claims."]


def about(model: LoadedModel, axis: AssistantAxis, setup: Setup) -> dict[str, Any]:
    """What the figures depend on beside the scripts."""
    sampling = Sampling()
    return {
        "format": FORMAT,
        "command": COMMAND,
        "model": model.spec,
        "dtype": str(model.dtype).removeprefix("torch."),
        "axis": {
            "digest": axis_digest(axis),
            "probe_layer": axis.probe_layer,
            "cap_layers": list(axis.cap_band),
            "floor": axis.cap_floor,
        },
        "sampling": {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "repetition_penalty": sampling.repetition_penalty,
        },
        "seeds": list(setup.seeds),
        "tokens": setup.tokens,
    }


def stored_entries(path: Path, told: dict[str, Any]) -> dict[str, Any]:
    """What `path` holds of other scenarios, to be kept when a few are measured again. Raises UserError when those
    figures came from other settings, because one file must not mix them."""
    if not path.is_file():
        return {}
    cure = f"measure every scenario again: {COMMAND}"
    stored = read_object(path, cure)
    entries = stored.pop("scenarios", None)
    if stored != told or not isinstance(entries, dict):
        raise UserError(
            f"{path} was measured with another model, axis, number format, seeds or tokens; {cure}."
        )
    return entries


def document(
    told: dict[str, Any], scenarios: Sequence[Scenario], fresh: dict[str, Figures], kept: dict[str, Any]
) -> dict[str, Any]:
    """The content of measured.json, in the order of scenarios.json, without scenarios that are gone."""
    entries = {}
    for scenario in scenarios:
        if scenario.id in fresh:
            entries[scenario.id] = {"script": script_digest(scenario), **fresh[scenario.id].as_json()}
        elif scenario.id in kept:
            entries[scenario.id] = kept[scenario.id]
    return {**told, "scenarios": entries}


def chosen(scenarios: Sequence[Scenario], only: Sequence[str]) -> list[Scenario]:
    """The scenarios named in `only`, or all. Raises UserError for a name that none has."""
    unknown = sorted(set(only) - {scenario.id for scenario in scenarios})
    if unknown:
        known = ", ".join(scenario.id for scenario in scenarios)
        raise UserError(f"There is no scenario {unknown[0]!r}; choose among {known}.")
    return [scenario for scenario in scenarios if not only or scenario.id in only]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.evaluation.scenarios", description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--axis", help="axis folder or slug (default: the model's)")
    parser.add_argument("--device", default="auto")
    # As axes are extracted, so that floors fit, and the same on every machine; the page takes what its machine is fast at.
    parser.add_argument("--dtype", default="float32", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=10, help="seeds 1 to this (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="longest reply (default: %(default)s)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="ID", help="this scenario; may be repeated"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--write", action="store_true", help=f"store the figures in {MEASURED.name}")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """Measure, print, and write what was asked for. Raises UserError."""
    if options.seeds < FEWEST_SEEDS:
        raise UserError(f"Measure at least {FEWEST_SEEDS} seeds, not {options.seeds}.")
    scenarios = load_scenarios()
    wanted = chosen(scenarios, options.only)
    Sampling(max_new_tokens=options.tokens)  # refuses a bad number before the model is loaded
    model = load_model(options.model, device=options.device, dtype=options.dtype)
    axis = load_axis(options.axis or model.slug)
    for note in axis.check_model(model):
        print(f"note: {note}", file=sys.stderr)
    cap = make_cap(axis, *axis.cap_band, axis.cap_floor)
    seeds = tuple(range(1, options.seeds + 1))
    setup = Setup(TransformersEngine(model, axis), cap, seeds, options.tokens)
    told = about(model, axis, setup)
    kept = stored_entries(MEASURED, told) if options.write and options.only else {}
    fresh = measure(wanted, setup)
    for line in verdicts(fresh, claims_made()):
        print(line)
    content = document(told, scenarios, fresh, kept)
    for path in filter(None, (options.json, MEASURED if options.write else None)):
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        run(_options(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
