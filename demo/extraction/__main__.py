"""python -m demo.extraction --model SPEC --out DIR: extract the Assistant Axis of a chat model."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from demo.axis.axis import FLOOR_NAMES, AssistantAxis
from demo.extraction.judge import Judge, LikelihoodJudge, NoJudge, RemoteJudge
from demo.extraction.plan import PRESETS, ROLE_PROMPTS, Preset, make_plan, usual_role_prompts
from demo.extraction.run import Settings, extract, settings_for
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel, load_model
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.paths import AXES
from demo.utils.progress import ConsoleProgress
from demo.utils.resource_usage import peak_mib


@command
def main(arguments: Sequence[str] | None = None) -> None:
    options, started = _parser().parse_args(arguments), time.monotonic()
    band = _band(options.cap_layers)
    model = load_model(
        options.model,
        device=options.device,
        dtype=options.dtype,
        progress=ConsoleProgress(),
        base=options.base,
    )
    if band is not None and band[1] >= len(model.layers):
        raise UserError(
            f"--cap-layers names layer {band[1]}, but the model has 0 to {len(model.layers) - 1}."
        )
    out = options.out or AXES / model.slug
    preset = _preset(options)
    suitable = settings_for(model, preset)
    settings = replace(
        suitable,
        seed=options.seed,
        batch=options.batch or suitable.batch,
        keep_all=options.keep_all,
        band=band,
        floor=options.floor,
        command=shlex.join(["python", "-m", "demo.extraction", *(arguments or sys.argv[1:])]),
    )
    plan = make_plan(model.slug.split("-")[0], preset, base=model.base)
    axis = extract(model, plan, settings, _judge(options, model), out).axis
    _print_summary(axis, out)
    minutes, peak = (time.monotonic() - started) / 60, peak_mib()
    print(f"this run took {minutes:.1f} min and at most {peak / 1024:.2f} GiB of memory")
    if options.json:
        content = {
            "probe_layer": axis.probe_layer,
            "cap": axis.manifest["cap"],
            "gates": axis.manifest["gates"],
            "minutes": round(minutes, 1),
            "peak_mib": round(peak),
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def _print_summary(axis: AssistantAxis, out: Path) -> None:
    for name, gate in axis.manifest["gates"].items():
        value = "none" if gate["value"] is None else f"{gate['value']:.3f}"
        print(f"{name:22} {value:>7}  needs {gate['threshold']:.2f}  {'pass' if gate['passed'] else 'MISS'}")
    first, last = axis.cap_band
    print(
        f"probe layer {axis.probe_layer}, cap {first}-{last} at {axis.cap_floor}; wrote "
        f"{out / 'axis.safetensors'}, axis.json and report.md"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.extraction", description=__doc__)
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="model name, local folder or hub id (default: %(default)s)")
    add(
        "--base",
        action="store_true",
        help="the model is a pretrained one: put chats to it as plain transcripts, whatever template it has",
    )
    add("--preset", choices=PRESETS, default="standard", help="number of rollouts (default: %(default)s)")
    add("--out", type=Path, help="folder for the axis (default: axes/<model>)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    add("--dtype", default="auto", help="auto, float32, bfloat16, float16 or int8 (default: %(default)s)")
    add("--roles", type=_count, help="number of roles (default: the preset's, as for the next three)")
    add("--questions", type=_count, help="number of extraction questions")
    add("--rollouts", type=_count, help="rollouts per role")
    add("--max-new-tokens", type=_count, help="maximum length of a rollout in tokens")
    add(
        "--role-prompts",
        choices=ROLE_PROMPTS,
        help="how roles are asked for: plain, by their instruction; strong, with a demand to stay in "
        "character; example, with that and a first reply in character (default: plain; with --base, "
        "example)",
    )
    add("--batch", type=_count, help="number of rollouts that run together (default: 128 if memory allows)")
    add("--seed", type=int, default=Settings.seed, help="seed of the random numbers (default: %(default)s)")
    add(
        "--role-adherence",
        "--uptake",
        choices=("likelihood", "none"),
        default="likelihood",
        help="how to judge whether a reply adheres to its role (default: %(default)s)",
    )
    add("--judge-url", help="judge by this OpenAI-compatible endpoint, such as http://localhost:8000/v1")
    add("--judge-model", help="model name for --judge-url; the key, if any, is read from OPENAI_API_KEY")
    add("--keep-all", action="store_true", help="count every rollout, whether it adheres to its role or not")
    add("--cap-layers", help="capped layers as FIRST-LAST, such as 18-25 (default: chosen by a sweep)")
    add("--floor", choices=FLOOR_NAMES, help="floor of the cap (default: chosen by the sweep)")
    add("--json", type=Path, help="also write the gates as JSON")
    return parser


def _preset(options: argparse.Namespace) -> Preset:
    given = {
        "roles": options.roles,
        "questions": options.questions,
        "role_rollouts": options.rollouts,
        "max_new_tokens": options.max_new_tokens,
        "role_prompts": options.role_prompts or usual_role_prompts(options.base),
    }
    return replace(
        PRESETS[options.preset], **{name: value for name, value in given.items() if value is not None}
    )


def _judge(options: argparse.Namespace, model: LoadedModel) -> Judge:
    if options.judge_url:
        if not options.judge_model:
            raise UserError("--judge-url needs --judge-model, the name of a model that the endpoint serves.")
        return RemoteJudge(options.judge_url, options.judge_model)
    return LikelihoodJudge(model) if options.role_adherence == "likelihood" else NoJudge()


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _band(text: str | None) -> tuple[int, int] | None:
    """The first and last layer named by --cap-layers. Raises UserError when they are malformed."""
    if text is None:
        return None
    try:
        first, last = (int(part) for part in text.split("-"))
    except ValueError:
        raise UserError(f"--cap-layers takes FIRST-LAST, such as 18-25, not {text!r}.") from None
    if not 0 <= first <= last:
        raise UserError(f"--cap-layers runs from a lower to a higher number, not {text!r}.")
    return first, last


if __name__ == "__main__":
    raise SystemExit(main())
