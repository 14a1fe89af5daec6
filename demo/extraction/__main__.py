"""python -m demo.extraction --model SPEC --out DIR: extract the Assistant Axis of a chat model."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from demo.axis import AXES_DIR, FLOOR_NAMES
from demo.errors import UserError
from demo.extraction.plan import make_plan
from demo.extraction.run import Settings, extract
from demo.models import DEFAULT_MODEL, load_model


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        band = _band(options.cap_layers)
        model = load_model(options.model, device=options.device, dtype=options.dtype, progress=_say)
        out = options.out or AXES_DIR / model.slug
        plan = make_plan(model.slug.split("-")[0], roles=options.roles, questions=options.questions)
        settings = Settings(
            max_new_tokens=options.max_new_tokens,
            seed=options.seed,
            batch=options.batch,
            band=band,
            floor=options.floor,
            command=shlex.join(["python", "-m", "demo.extraction", *(arguments or sys.argv[1:])]),
        )
        built = extract(model, plan, settings, out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    gates = built.axis.manifest["gates"]
    for name, gate in gates.items():
        print(
            f"{name:22} {gate['value']:7.3f}  needs {gate['threshold']:.2f}  {'pass' if gate['passed'] else 'MISS'}"
        )
    print(f"probe layer {built.axis.probe_layer}; wrote {out / 'axis.safetensors'}, axis.json and report.md")
    if options.json:
        options.json.write_text(
            json.dumps({"probe_layer": built.axis.probe_layer, "gates": gates}, indent=1) + "\n"
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.extraction", description=__doc__)
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="model name, local folder or hub id (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="folder to write (default: axes/<model>)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--roles", type=_count, help="use only the first so many roles of each split")
    parser.add_argument("--questions", type=_count, help="use only the first so many questions of each split")
    parser.add_argument("--max-new-tokens", type=_count, default=Settings.max_new_tokens)
    parser.add_argument("--batch", type=_count, default=Settings.batch, help="rollouts that run together")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument(
        "--cap-layers", help="capped layers as FIRST-LAST, e.g. 18-25 (default: depth .60 to .86)"
    )
    parser.add_argument("--floor", choices=FLOOR_NAMES, default=Settings.floor)
    parser.add_argument("--json", type=Path, help="also write the gates as JSON")
    return parser


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
    return first, last


def _say(message: str, fraction: float | None) -> None:
    print(message if fraction is None else f"{message}: {fraction:.0%}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
