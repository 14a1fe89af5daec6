"""python -m demo.evaluation.scenarios: measure what each guided scenario shows, over several seeds.

Every script runs to its end with every seed, uncapped and under the axis's own cap, with the page's
sampling. All seeds and both branches are sequences of one batch. `demo.evaluation.scenario_figures`
defines the figures. Projections are in axis units.
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
from demo.conversation.turns import Reply, Turn
from demo.engine.protocol import Cap, Engine, Request, Sampling, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.evaluation.scenario_figures import CLAIMS, Figures, claims_made, figures_of, script_digest
from demo.models.chat_template import Message
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel, load_model
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.progress import ProgressLine

MEASURED = SCENARIOS.with_name("measured.json")

FORMAT = 1

FEWEST_SEEDS = 2  # a standard deviation needs two

COMMAND = "python -m demo.evaluation.scenarios --write"


@dataclass(frozen=True)
class Setup:
    """How scripts are run.

    Attributes:
        seeds: One per conversation. Every turn uses the same seed (the page adds the turn's
            number).
        tokens: Maximum length of a reply.
    """

    engine: Engine
    cap: Cap
    seeds: tuple[int, ...]
    tokens: int


@dataclass(frozen=True)
class Script:
    """What is said in one conversation of a batch, and the seed of all its turns."""

    scenario: Scenario
    seed: int


def play(
    scenario: Scenario, setup: Setup, on_turn: Callable[[int], None] = lambda turn: None
) -> list[Conversation]:
    """Run the scenario to its end, in one conversation per seed.

    Args:
        on_turn: Called with the number of each turn before it runs.
    """
    scripts = [Script(scenario, seed) for seed in setup.seeds]
    return play_together(setup.engine, setup.cap, scripts, setup.tokens, on_turn)


def play_together(
    engine: Engine, cap: Cap, scripts: Sequence[Script], tokens: int, on_turn: Callable[[int], None]
) -> list[Conversation]:
    """Run scripts of the same length side by side, each uncapped and capped. See `play`."""
    talks = [Conversation() for _ in scripts]
    for number in range(len(scripts[0].scenario.turns)):
        on_turn(number)
        _play_turn(engine, cap, scripts, talks, tokens)
    engine.forget([talk.branch_id(branch) for talk in talks for branch in BRANCHES])
    return talks


def _play_turn(
    engine: Engine, cap: Cap, scripts: Sequence[Script], talks: Sequence[Conversation], tokens: int
) -> None:
    """Run one turn of all conversations as one batch.

    `Conversation.send` would make a batch of every conversation, which takes several times as long.
    """
    requests, replies = [], {}
    for talk, script in zip(talks, scripts, strict=True):
        scenario, text = script.scenario, script.scenario.turns[len(talk.turns)]
        settings = TurnSettings(
            Sampling(max_new_tokens=tokens, seed=script.seed), cap, scenario.system_prompt
        )
        turn = Turn(text, {branch: Reply(tokens) for branch in BRANCHES}, settings)
        for branch, reply in turn.replies.items():
            history = talk.messages(branch, scenario.system_prompt)
            messages = (*history, Message(role="user", content=text))
            own = cap if branch == CAPPED else None
            requests.append(Request(talk.branch_id(branch), messages, settings.sampling, own))
            replies[talk.branch_id(branch)] = reply
        talk.turns.append(turn)
    with closing(engine.stream(requests)) as events:
        for event in events:
            if isinstance(event, TokenEvent):
                _add(replies[event.branch], event)


def _add(reply: Reply, event: TokenEvent) -> None:
    reply.finish = event.finish_reason
    if event.token_id is not None:
        reply.add(event.token)


def measure(scenarios: Sequence[Scenario], setup: Setup) -> dict[str, Figures]:
    """Measure the scenarios in order and print each line as soon as it is known.

    Returns:
        Scenario id -> figures.
    """
    progress, results = ProgressLine("scenarios"), {}
    turns, done = sum(len(s.turns) for s in scenarios), 0
    print(header())
    for scenario in scenarios:

        def on_turn(turn: int, scenario: Scenario = scenario, before: int = done) -> None:
            progress.update((before + turn) / turns, f"({scenario.id}, turn {turn + 1})")

        results[scenario.id] = figures_of(play(scenario, setup, on_turn))
        done += len(scenario.turns)
        print(line(scenario.id, results[scenario.id]), flush=True)
    progress.update(1.0)
    return results


COLUMNS = ("first", "last", "fall", "lowest", "capped last", "gap", "sd", "above", "fired", "same")


def header() -> str:
    return f"{'scenario':22}" + "".join(f"{name:>12}" for name in COLUMNS)


def line(name: str, figures: Figures) -> str:
    """One line of the printed table: axis units with a sign, shares in percent."""
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
    """A sentence for each scenario that does not show what it claims, or one saying that all do.

    Args:
        fresh: Scenario id -> figures.
        made: Scenario id -> name of its claim.
    """
    missed = [
        f"{name} does not show {made[name]!r}: {CLAIMS[made[name]].says}."
        for name, figures in fresh.items()
        if not CLAIMS[made[name]].holds(figures)
    ]
    return missed or ["Every scenario shows what it claims."]


def about(model: LoadedModel, axis: AssistantAxis, setup: Setup) -> dict[str, Any]:
    """What the figures depend on besides the scripts."""
    sampling = Sampling()
    return {
        "format": FORMAT,
        "command": COMMAND,
        "model": model.spec,
        "dtype": model.dtype_name,
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


def stored_entries(path: Path, conditions: dict[str, Any]) -> dict[str, Any]:
    """The figures stored in `path`, which stay when only some scenarios are measured again.

    Args:
        conditions: The result of `about`.

    Raises:
        UserError: They were measured under other conditions. One file must not mix conditions.
    """
    if not path.is_file():
        return {}
    remedy = f"measure every scenario again: {COMMAND}"
    stored = read_object(path, remedy)
    entries = stored.pop("scenarios", None)
    if stored != conditions or not isinstance(entries, dict):
        raise UserError(
            f"{path} was measured with another model, axis, number format, seeds or tokens; {remedy}."
        )
    return entries


def document(
    conditions: dict[str, Any], scenarios: Sequence[Scenario], fresh: dict[str, Figures], kept: dict[str, Any]
) -> dict[str, Any]:
    """The content of measured.json, in the order of scenarios.json and without removed scenarios."""
    entries = {}
    for scenario in scenarios:
        if scenario.id in fresh:
            entries[scenario.id] = {"script": script_digest(scenario), **fresh[scenario.id].as_json()}
        elif scenario.id in kept:
            entries[scenario.id] = kept[scenario.id]
    return {**conditions, "scenarios": entries}


def chosen(scenarios: Sequence[Scenario], only: Sequence[str]) -> list[Scenario]:
    """The scenarios with the ids in `only`, or all. Raises UserError for an unknown id."""
    unknown = sorted(set(only) - {scenario.id for scenario in scenarios})
    if unknown:
        known = ", ".join(scenario.id for scenario in scenarios)
        raise UserError(f"There is no scenario {unknown[0]!r}; choose among {known}.")
    return [scenario for scenario in scenarios if not only or scenario.id in only]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.evaluation.scenarios", description=__doc__)
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="model name, local folder or hub id (default: %(default)s)")
    add("--axis", help="axis folder or slug (default: the model's)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    # Axes are extracted in float32, so the floors fit, and the results are the same on every
    # machine. The page uses the number format in which its machine is fast.
    add("--dtype", default="float32", help="auto, float32, bfloat16 or float16 (default: %(default)s)")
    add("--seeds", type=int, default=10, help="number of seeds, counted from 1 (default: %(default)s)")
    add("--tokens", type=int, default=64, help="maximum length of a reply (default: %(default)s)")
    add("--only", action="append", default=[], metavar="ID", help="measure this scenario; may be repeated")
    add("--json", type=Path, help="also write the figures to this file")
    add("--write", action="store_true", help=f"store the figures in {MEASURED.name}")
    return parser.parse_args(arguments)


@command
def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if options.seeds < FEWEST_SEEDS:
        raise UserError(f"Measure at least {FEWEST_SEEDS} seeds, not {options.seeds}.")
    scenarios = load_scenarios()
    wanted = chosen(scenarios, options.only)
    Sampling(max_new_tokens=options.tokens)  # rejects an invalid number before the model is loaded
    model = load_model(options.model, device=options.device, dtype=options.dtype)
    axis = load_axis(options.axis or model.slug)
    for note in axis.check_model(model):
        print(f"note: {note}", file=sys.stderr)
    cap = make_cap(axis, *axis.cap_band, axis.cap_floor)
    seeds = tuple(range(1, options.seeds + 1))
    setup = Setup(TransformersEngine(model, axis), cap, seeds, options.tokens)
    conditions = about(model, axis, setup)
    kept = stored_entries(MEASURED, conditions) if options.write and options.only else {}
    fresh = measure(wanted, setup)
    for sentence in verdicts(fresh, claims_made()):
        print(sentence)
    content = document(conditions, scenarios, fresh, kept)
    for path in filter(None, (options.json, MEASURED if options.write else None)):
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
