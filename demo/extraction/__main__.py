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

from demo.axis.axis import FLOOR_NAMES
from demo.extraction.judge import Judge, LikelihoodJudge, NoJudge, RemoteJudge
from demo.extraction.plan import PRESETS, Preset, make_plan
from demo.extraction.run import Settings, extract
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel, load_model
from demo.utils.errors import UserError
from demo.utils.paths import AXES
from demo.utils.resource_usage import peak_mib


def main(arguments: Sequence[str] | None = None) -> int:
    options, started = _parser().parse_args(arguments), time.monotonic()
    try:
        band = _band(options.cap_layers)
        model = load_model(options.model, device=options.device, dtype=options.dtype, progress=_say)
        if band is not None and band[1] >= len(model.layers):
            raise UserError(
                f"--cap-layers names layer {band[1]}, but the model has 0 to {len(model.layers) - 1}."
            )
        out = options.out or AXES / model.slug
        preset = _preset(options)
        settings = Settings(
            seed=options.seed,
            batch=options.batch,
            least=max(1, preset.role_rollouts // 4),
            keep_all=options.keep_all,
            band=band,
            floor=options.floor,
            command=shlex.join(["python", "-m", "demo.extraction", *(arguments or sys.argv[1:])]),
        )
        plan = make_plan(model.slug.split("-")[0], preset)
        built = extract(model, plan, settings, _judge(options, model), out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    gates = built.axis.manifest["gates"]
    for name, gate in gates.items():
        value = "none" if gate["value"] is None else f"{gate['value']:.3f}"
        print(f"{name:22} {value:>7}  needs {gate['threshold']:.2f}  {'pass' if gate['passed'] else 'MISS'}")
    first, last = built.axis.cap_band
    print(
        f"probe layer {built.axis.probe_layer}, cap {first}-{last} at {built.axis.cap_floor}; wrote "
        f"{out / 'axis.safetensors'}, axis.json and report.md"
    )
    minutes, peak = (time.monotonic() - started) / 60, peak_mib()
    print(f"this run took {minutes:.1f} min, at most {peak / 1024:.2f} GiB of memory")
    if options.json:
        content = {"probe_layer": built.axis.probe_layer, "cap": built.axis.manifest["cap"], "gates": gates,
                   "minutes": round(minutes, 1), "peak_mib": round(peak)}  # fmt: skip
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.extraction", description=__doc__)
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="model name, local folder or hub id (default: %(default)s)")
    add("--preset", choices=PRESETS, default="standard", help="how many rollouts (default: %(default)s)")
    add("--out", type=Path, help="folder to write (default: axes/<model>)")
    add("--device", default="auto")
    add("--dtype", default="auto")
    add("--roles", type=_count, help="this many roles, in place of the preset's number")
    add("--questions", type=_count, help="this many extraction questions")
    add("--rollouts", type=_count, help="this many rollouts a role")
    add("--max-new-tokens", type=_count, help="tokens a rollout")
    add(
        "--batch",
        type=_count,
        default=Settings.batch,
        help="rollouts that run together (default: %(default)s)",
    )
    add("--seed", type=int, default=Settings.seed)
    add(
        "--uptake",
        choices=("likelihood", "none"),
        default="likelihood",
        help="how to tell whether a role was taken up",
    )
    add("--judge-url", help="ask this OpenAI-compatible endpoint instead, such as http://localhost:8000/v1")
    add("--judge-model", help="model name for --judge-url; the key, if any, is read from OPENAI_API_KEY")
    add("--keep-all", action="store_true", help="count every rollout, whether its role was taken up or not")
    add("--cap-layers", help="capped layers as FIRST-LAST, e.g. 18-25, in place of the sweep")
    add("--floor", choices=FLOOR_NAMES, help="floor of the cap (default: chosen by the sweep)")
    add("--json", type=Path, help="also write the gates as JSON")
    return parser


def _preset(options: argparse.Namespace) -> Preset:
    given = {
        "roles": options.roles,
        "questions": options.questions,
        "role_rollouts": options.rollouts,
        "max_new_tokens": options.max_new_tokens,
    }
    return replace(
        PRESETS[options.preset], **{name: value for name, value in given.items() if value is not None}
    )


def _judge(options: argparse.Namespace, model: LoadedModel) -> Judge:
    if options.judge_url:
        if not options.judge_model:
            raise UserError("--judge-url needs --judge-model, the name the endpoint knows its model by.")
        return RemoteJudge(options.judge_url, options.judge_model)
    return LikelihoodJudge(model) if options.uptake == "likelihood" else NoJudge()


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _band(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        first, last = (int(part) for part in text.split("-"))
    except ValueError:
        raise UserError(f"--cap-layers takes FIRST-LAST, such as 18-25, not {text!r}.") from None
    if not 0 <= first <= last:
        raise UserError(f"--cap-layers runs from a lower to a higher number, not {text!r}.")
    return first, last


def _say(message: str, fraction: float | None) -> None:
    print(message if fraction is None else f"{message}: {fraction:.0%}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
