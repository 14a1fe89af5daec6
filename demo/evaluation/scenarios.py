"""python -m demo.evaluation.scenarios: measure what each guided scenario shows, over several seeds.

Every script runs to its end as on the page: uncapped and under the axis's own cap, with the page's sampling,
from the scenario's own seed, and from ten others for the shares. It runs in each number format in which the
page runs on common machines. The other seeds are sequences of one batch.
`demo.evaluation.scenario_figures` defines the figures. Projections are in axis units.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from demo.axis.axis import AssistantAxis
from demo.axis.files import axis_digest
from demo.axis.store import axis_of
from demo.conversation.conversation import Conversation
from demo.conversation.scenarios import MEASURED, Scenario, load_scenarios
from demo.conversation.settings import BRANCHES, CAPPED, PAGE_SAMPLING, TurnSettings, own_cap
from demo.conversation.turns import Reply, Turn
from demo.engine.protocol import Cap, Engine, Request, Sampling, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.evaluation.scenario_figures import CLAIMS, Measurement, measurement_of, script_digest
from demo.models.chat_template import Message
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel, load_model
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.progress import ProgressLine

FORMAT = 2

DTYPES = ("float32", "bfloat16")

FEWEST_SEEDS = 2  # a standard deviation needs two

# Clear of the scenarios' own seeds, and of the turns that follow.
SEEDS_APART = 100

COMMAND = "python -m demo.evaluation.scenarios --write"


@dataclass(frozen=True)
class Setup:
    """How scripts are run.

    Attributes:
        seeds: One per conversation, besides the one from the scenario's own seed.
        sampling: That of every reply, but for the seed.
    """

    engine: Engine
    cap: Cap
    seeds: tuple[int, ...]
    sampling: Sampling = PAGE_SAMPLING


@dataclass(frozen=True)
class Script:
    """What is said in one conversation of a batch.

    Attributes:
        seed: That of the first turn.
        step: Added with each turn; the page adds 1.
    """

    scenario: Scenario
    seed: int
    step: int = 0


def play(
    scenario: Scenario, setup: Setup, on_turn: Callable[[int], None] = lambda turn: None
) -> list[Conversation]:
    """Run the scenario to its end, in one conversation from its own seed and one per seed of the setup.

    The first runs alone, as on the page: a wide pass may round otherwise, and other words follow. The others
    are one batch.

    Args:
        on_turn: Called with the number of each turn before it runs.
    """
    own, *others = (Script(scenario, seed, 1) for seed in (scenario.seed, *setup.seeds))
    talks = play_together(setup.engine, setup.cap, [own], setup.sampling, lambda turn: None)
    return talks + play_together(setup.engine, setup.cap, others, setup.sampling, on_turn)


def play_together(
    engine: Engine, cap: Cap, scripts: Sequence[Script], sampling: Sampling, on_turn: Callable[[int], None]
) -> list[Conversation]:
    """Run scripts of the same length side by side, each uncapped and capped. See `play`.

    Args:
        sampling: That of every reply, but for the seed.
    """
    talks = [Conversation() for _ in scripts]
    for number in range(len(scripts[0].scenario.turns)):
        on_turn(number)
        _play_turn(engine, cap, scripts, talks, sampling)
    engine.forget([talk.branch_id(branch) for talk in talks for branch in BRANCHES])
    return talks


def _play_turn(
    engine: Engine, cap: Cap, scripts: Sequence[Script], talks: Sequence[Conversation], sampling: Sampling
) -> None:
    """Run one turn of all conversations as one batch.

    `Conversation.send` would make a batch of every conversation, which takes several times as long.
    """
    requests, replies = [], {}
    for talk, script in zip(talks, scripts, strict=True):
        scenario, text = script.scenario, script.scenario.turns[len(talk.turns)]
        seed = script.seed + script.step * len(talk.turns)
        settings = TurnSettings(replace(sampling, seed=seed), cap, scenario.system_prompt)
        turn = Turn(text, {branch: Reply(sampling.max_new_tokens) for branch in BRANCHES}, settings)
        for branch, reply in turn.replies.items():
            history = talk.messages(branch, scenario.system_prompt)
            messages = (*history, Message(role="user", content=text))
            own = cap if branch == CAPPED else None
            first = talk.turns[0].replies[branch].state if talk.turns else None
            requests.append(Request(talk.branch_id(branch), messages, settings.sampling, own, first=first))
            replies[talk.branch_id(branch)] = reply
        talk.turns.append(turn)
    with closing(engine.stream(requests)) as events:
        for event in events:
            if isinstance(event, TokenEvent):
                _add(replies[event.branch], event)


def _add(reply: Reply, event: TokenEvent) -> None:
    reply.finish, reply.state, reply.shift = event.finish_reason, event.state, event.shift
    if event.token_id is not None:
        reply.add(event.token)


def measure(
    scenarios: Sequence[Scenario], setup: Setup, record: Callable[[Scenario, list[Conversation]], None]
) -> dict[str, Measurement]:
    """Measure the scenarios in order and print each line as soon as it is known.

    Args:
        record: Receives the conversations of each scenario.

    Returns:
        Scenario id -> figures.
    """
    progress, results = ProgressLine("scenarios"), {}
    turns, done = sum(len(s.turns) for s in scenarios), 0
    print(header())
    for scenario in scenarios:

        def on_turn(turn: int, scenario: Scenario = scenario, before: int = done) -> None:
            progress.update((before + turn) / turns, f"({scenario.id}, turn {turn + 1})")

        talks = play(scenario, setup, on_turn)
        record(scenario, talks)
        results[scenario.id] = measurement_of(scenario, talks)
        done += len(scenario.turns)
        print(line(scenario.id, results[scenario.id]), flush=True)
    progress.update(1.0)
    return results


COLUMNS = (
    "first",
    "last",
    "fall",
    "lowest",
    "capped last",
    "gap",
    "sd",
    "above",
    "fired",
    "same",
    "holds",
    "sign",
    "capped",
)


def header() -> str:
    return f"{'scenario':22}" + "".join(f"{name:>12}" for name in COLUMNS)


def line(name: str, measurement: Measurement) -> str:
    """One line of the printed table: axis units with a sign, shares in percent."""
    f, sign = measurement.seeds, measurement.sign
    units = (f.uncapped[0], f.uncapped[-1], f.fall, f.lowest, f.capped[-1], f.gap)
    shares = (
        f.above,
        f.fired,
        f.same,
        measurement.holds,
        *(() if sign is None else (sign[b] for b in BRANCHES)),
    )
    return (
        f"{name:22}"
        + "".join(f"{value:+12.2f}" for value in units)
        + f"{f.gap_sd:12.2f}"
        + "".join(f"{value:12.0%}" for value in shares)
    )


def verdicts(fresh: dict[str, Measurement], scenarios: Sequence[Scenario]) -> list[str]:
    """A sentence for everything that a scenario says and does not show, or one saying that all do."""
    missed = []
    for scenario in scenarios:
        found = fresh[scenario.id]
        for where, figures in (("over seeds", found.seeds), ("at its own seed", found.own)):
            if not CLAIMS[scenario.shows].holds(figures):
                says = CLAIMS[scenario.shows].says
                missed.append(f"{scenario.id} does not show {scenario.shows!r} {where}: {says}.")
        if scenario.sign is not None and not (found.own_sign or (False,))[0]:
            missed.append(f"{scenario.id}: at its own seed no uncapped reply {scenario.sign.says}.")
    return missed or ["Every scenario shows what it claims."]


def about(model: LoadedModel, axis: AssistantAxis, setup: Setup) -> dict[str, Any]:
    """What the figures depend on besides the scripts and the number format."""
    sampling = {name: value for name, value in asdict(setup.sampling).items() if name != "seed"}
    return {
        "format": FORMAT,
        "command": COMMAND,
        "model": model.slug,
        "axis": {
            "digest": axis_digest(axis),
            "probe_layer": axis.probe_layer,
            "cap_layers": list(axis.cap_band),
            "floor": axis.cap_floor,
            **({} if axis.cap_only_below is None else {"only_below": axis.cap_only_below}),
        },
        "sampling": sampling,
        "seeds": list(setup.seeds),
    }


def stored_entries(path: Path, conditions: dict[str, Any], strict: bool = True) -> dict[str, dict[str, Any]]:
    """Number format -> scenario id -> the figures stored in `path`.

    Args:
        conditions: The result of `about`.
        strict: False to drop figures that were measured under other conditions.

    Raises:
        UserError: They were measured under other conditions. One file must not mix conditions.
    """
    if not path.is_file():
        return {}
    remedy = f"measure every scenario again: {COMMAND}"
    stored = read_object(path, remedy)
    entries = stored.pop("measured", None)
    if stored == conditions and isinstance(entries, dict):
        return entries
    if not strict:
        return {}
    raise UserError(f"{path} was measured with another model, axis, seeds or sampling; {remedy}.")


def document(
    conditions: dict[str, Any],
    fresh: dict[str, dict[str, Measurement]],
    kept: dict[str, dict[str, Any]],
    load: Callable[[str], Sequence[Scenario]] = lambda dtype: load_scenarios(dtype=dtype),
) -> dict[str, Any]:
    """The content of measured.json, in the order of scenarios.json and without removed scenarios.

    Args:
        fresh: Number format -> scenario id -> new figures.
        kept: The result of `stored_entries`.
        load: The scenarios of a number format, in order.
    """
    measured = {}
    for dtype in DTYPES:
        new, old = fresh.get(dtype, {}), kept.get(dtype, {})
        entries = {
            one.id: {"script": script_digest(one), **new[one.id].as_json()} if one.id in new else old[one.id]
            for one in load(dtype)
            if one.id in new or one.id in old
        }
        if entries:
            measured[dtype] = entries
    return {**conditions, "measured": measured}


def transcript(scenario: Scenario, talks: Sequence[Conversation]) -> str:
    """What was said, for a reader who judges the words."""
    lines = [f"# {scenario.id}", scenario.system_prompt]
    for number, text in enumerate(scenario.turns):
        lines += ["", f"## {number + 1}. {text}"]
        for talk in talks:
            turn = talk.turns[number]
            seed = turn.settings.sampling.seed if turn.settings else ""
            for branch, reply in turn.replies.items():
                mean = "" if reply.mean is None else f"{reply.mean:+.2f}"
                lines.append(f"- seed {seed}, {branch}, {mean}, {reply.finish}: {reply.text.strip()!r}")
    return "\n".join(lines) + "\n"


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
    add("--dtype", choices=DTYPES, help="measure in this number format alone (default: in both)")
    add("--seeds", type=int, default=10, help="number of other seeds (default: %(default)s)")
    add("--only", action="append", default=[], metavar="ID", help="measure this scenario; may be repeated")
    add("--json", type=Path, help="also write the figures to this file")
    add("--texts", type=Path, help="write what was said to this file")
    add("--write", action="store_true", help=f"store the figures in {MEASURED.name}")
    return parser.parse_args(arguments)


@command
def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if options.seeds < FEWEST_SEEDS:
        raise UserError(f"Measure at least {FEWEST_SEEDS} seeds, not {options.seeds}.")
    chosen(load_scenarios(), options.only)  # rejects an unknown id before a model is loaded
    seeds = tuple(SEEDS_APART * number for number in range(1, options.seeds + 1))
    fresh, conditions, texts = {}, {}, []

    def record(scenario: Scenario, talks: list[Conversation]) -> None:
        texts.append(transcript(scenario, talks))

    for dtype in (options.dtype,) if options.dtype else DTYPES:
        wanted = chosen(load_scenarios(dtype=dtype), options.only)
        model = load_model(options.model, device=options.device, dtype=dtype)
        axis = axis_of(options.axis, model)[0]
        for note in axis.check_model(model):
            print(f"note: {note}", file=sys.stderr)
        cap = own_cap(axis)
        setup = Setup(TransformersEngine(model, axis), cap, seeds)
        conditions = about(model, axis, setup)
        if options.write and options.only:
            stored_entries(MEASURED, conditions)  # refuses before the work
        print(f"{model.slug} in {dtype}")
        texts.append(f"{dtype}\n")
        fresh[dtype] = measure(wanted, setup, record)
        for sentence in verdicts(fresh[dtype], wanted):
            print(sentence)
    if options.texts:
        options.texts.write_text("\n".join(texts), encoding="utf-8")
    content = document(conditions, fresh, stored_entries(MEASURED, conditions, strict=False))
    for path in filter(None, (options.json, MEASURED if options.write else None)):
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
