"""python -m demo.conversation.record SCENARIO --out FILE: run a script and save it as a session file.

The file can be watched without a model: python app.py --replay FILE.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from demo.axis.axis import AssistantAxis
from demo.axis.components import persona_map
from demo.axis.store import axis_of
from demo.conversation.conversation import Conversation
from demo.conversation.scenarios import Scenario, load_scenarios, with_measured_shares
from demo.conversation.session_file import Recording, dumps
from demo.conversation.settings import PAGE_SAMPLING, CapChoice, TurnSettings, reads_differ
from demo.engine.protocol import Engine, Sampling
from demo.engine.transformers_engine import TransformersEngine
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import load_model
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.progress import ProgressLine


def record(
    engine: Engine,
    axis: AssistantAxis,
    model_name: str,
    scenario: Scenario,
    sampling: Sampling,
    thinking: bool = False,
    dtype: str = "",
    template: str = "",
) -> Recording:
    """Run the whole script in both branches, as the page would.

    The scenario's own seed is added to the one of `sampling`, which grows by one with every turn.

    Args:
        thinking: whether the model is asked to reason before it answers.
        dtype: number format of the model's weights.
        template: digest of its chat template.
    """
    conversation, choice = Conversation(), CapChoice.of_axis(axis)
    cap, marks, progress = choice.cap(axis), choice.marks(axis), ProgressLine(scenario.title)
    for number, line in enumerate(scenario.turns):
        progress.update(number / len(scenario.turns))
        settings = TurnSettings(
            replace(sampling, seed=sampling.seed + scenario.seed + number),
            cap,
            scenario.system_prompt,
            thinking=thinking,
            marks=marks,
            dtype=dtype,
            plain=reads_differ(cap, axis),
            template=template,
        )
        for _ in conversation.send(engine, line, settings):
            pass
    progress.update(1.0)
    return Recording(
        model_name,
        conversation.turns,
        marks,
        scenario.title,
        scenario.blurb,
        scenario.system_prompt,
        persona_map(axis),
        conversation.date,
    )


@command
def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    _chosen(options, "float32")  # mistakes are reported before the model is loaded
    sampling = replace(PAGE_SAMPLING, seed=options.seed, max_new_tokens=options.tokens)
    model = load_model(options.model, device=options.device, dtype=options.dtype)
    axis = axis_of(options.axis, model)[0]
    axis.check_model(model)
    engine = TransformersEngine(model, axis)
    if options.thinking and model.thinking == "never":
        raise UserError(f"{model.slug} does not reason before it answers; leave --thinking out.")
    (scenario,) = with_measured_shares([_chosen(options, model.dtype_name)], model.slug, model.dtype_name)
    recording = record(
        engine, axis, model.slug, scenario, sampling, options.thinking, model.dtype_name, model.template
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(dumps(recording), encoding="utf-8")
    means = {branch: reply.mean for branch, reply in recording.turns[-1].replies.items()}
    last = ", ".join(f"{branch} {mean:.2f}" for branch, mean in means.items() if mean is not None)
    print(f"wrote {options.out}; last turn: {last}")


def _chosen(options: argparse.Namespace, dtype: str) -> Scenario:
    """The scenario to record, or its beginning. Raises UserError when there is no such thing."""
    scenarios = {scenario.id: scenario for scenario in load_scenarios(dtype=dtype)}
    if options.scenario not in scenarios:
        raise UserError(f"There is no scenario {options.scenario!r}; choose one of {', '.join(scenarios)}.")
    scenario = scenarios[options.scenario]
    if options.turns is not None and not 1 <= options.turns <= len(scenario.turns):
        raise UserError(f"{scenario.id} has {len(scenario.turns)} turns, not {options.turns}.")
    return replace(scenario, turns=scenario.turns[: options.turns])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.conversation.record", description=__doc__)
    parser.add_argument("scenario", help="id of a scenario in assets/presets/scenarios.json")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--seed", type=int, default=PAGE_SAMPLING.seed)
    parser.add_argument(
        "--tokens", type=int, default=PAGE_SAMPLING.max_new_tokens, help="most tokens per reply"
    )
    parser.add_argument("--turns", type=int, help="record only so many turns from the beginning")
    parser.add_argument("--thinking", action="store_true", help="let the model reason before it answers")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--axis", help="axis folder or slug (default: the model's)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
