"""python -m demo.evaluation: does capping work on this model, and what does it cost? Measures, and writes the report.

Writes evaluation.json, evaluation.md and pictures beside the axis. A run that is killed goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from demo.axis.axis import AssistantAxis
from demo.axis.files import axis_digest, axis_folder, load_axis, save_axis
from demo.evaluation import COMMAND, NAME
from demo.evaluation.answers import Ledger
from demo.evaluation.capability import read_set
from demo.evaluation.report import write_report
from demo.evaluation.results import choose, results_of, set_figures
from demo.evaluation.scoring import judge_with, own_scorer
from demo.evaluation.study import PARTS, QUICK, Size, Study
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel, load_model
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.paths import EVALUATION_ASSETS


def main(arguments: Sequence[str] | None = None) -> int:
    options, started = _parser().parse_args(arguments), time.monotonic()
    try:
        model = load_model(options.model, device=options.device, dtype=options.dtype)
        axis = load_axis(options.axis or model.slug)
        for note in axis.check_model(model):
            _say(f"note: {note}")
        out = options.out or _folder_of(options.axis or model.slug, options.quick)
        size = replace(
            QUICK if options.quick else Size(), **({"seeds": options.seeds} if options.seeds else {})
        )
        figures = measure(model, axis, size, options, out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to go on", file=sys.stderr)
        return 130
    minutes = (time.monotonic() - started) / 60
    written = write_report(out, figures, options.json)
    print(f"wrote {', '.join(str(path) for path in written)}; this run took {minutes:.1f} min")
    return 0


def measure(
    model: LoadedModel, axis: AssistantAxis, size: Size, options: argparse.Namespace, out: Path
) -> dict[str, Any]:
    """All figures of the parts that were asked for. Raises UserError; what was measured by then is kept."""
    scorer = judge_with(options.judge_url, options.judge_model) if options.judge_url else own_scorer(model)
    about = _about(model, axis, size, options.seed)
    ledger = Ledger(out / ".evaluation" / ("quick.jsonl" if options.quick else "full.jsonl"), about)
    study = Study(model, axis, size, options.seed, ledger, scorer)
    parts = [part for part in PARTS if not options.only or part in options.only]
    ledger.plan(study.work(parts))
    raw: dict[str, Any] = {}
    for part in parts:
        raw[part] = getattr(study, part)()  # its method has its name
        if part == "sweep" and options.choose:
            chosen = choose(results_of({"sweep": raw[part]}, study)["sweep"])
            study.axis = axis = _store_choice(axis, out, chosen)
    about |= {"cap": study.cap_name, "probe_layer": axis.probe_layer}
    figures = {**(_reported(out, about) if options.only else {}), "about": about, **results_of(raw, study)}
    for name, path in options.sets:
        figures.setdefault("sets", {})[name] = set_figures(
            study.capability(read_set(name, path), f"set/{name}")
        )
    return figures


def _reported(out: Path, about: dict[str, Any]) -> dict[str, Any]:
    """What stands in the report of the parts that were not asked for. Raises UserError when it came from other settings,
    because one report must not mix them."""
    if not (out / NAME).is_file():
        return {}
    stored = read_object(out / NAME, f"run {COMMAND} without --only")
    if stored.get("about") != about:
        raise UserError(
            f"{out / NAME} was gathered with other settings or data; what was measured is kept, so run without --only or give "
            "another folder by --out."
        )
    return stored


def _store_choice(axis: AssistantAxis, out: Path, chosen: dict[str, Any]) -> AssistantAxis:
    """The same axis with the cap that the sweep speaks for, also on disk."""
    cap = {"layers": list(chosen["layers"]), "floor": chosen["floor"], "chosen_by": "evaluation"}
    fresh = replace(axis, manifest={**axis.manifest, "cap": cap})
    save_axis(fresh, out)
    return fresh


def _about(model: LoadedModel, axis: AssistantAxis, size: Size, seed: int) -> dict[str, Any]:
    """What the figures depend on beside the cap."""
    files = sorted(path for path in EVALUATION_ASSETS.glob("*.json") if path.name != "stance_labels.json")
    return {
        "format": 1,
        "command": COMMAND,
        "model": model.spec,
        "dtype": str(model.dtype).removeprefix("torch."),
        "axis": axis_digest(axis),
        "seed": seed,
        "size": asdict(size),
        "data": sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16],
    }


def _folder_of(where: str, quick: bool) -> Path:
    """Where the axis lies, which is where its report belongs; a quick one stands in nobody's way. Raises UserError for an axis
    that has no folder."""
    folder = axis_folder(where)
    if folder is None:
        raise UserError("This axis has no folder of its own to write a report into; give one by --out.")
    return folder / ".evaluation" / "quick" if quick else folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.evaluation", description=__doc__)
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="model name, local folder or hub id (default: %(default)s)")
    add("--axis", help="axis folder or slug (default: the model's)")
    add("--only", action="append", choices=PARTS, default=[], help="this part; may be repeated")
    add(
        "--quick", action="store_true", help="a small part of everything, within minutes, to see that it runs"
    )
    add("--seeds", type=int, help="of every attempt (default: 2)")
    add("--seed", type=int, default=1, help="the first of them (default: %(default)s)")
    add(
        "--choose",
        action="store_true",
        help="store the cap that the sweep speaks for in axis.json, and go on with it",
    )
    add("--out", type=Path, help="folder for the report (default: the axis's)")
    add("--json", type=Path, help="also write the figures to this file")
    add("--device", default="auto")
    # As axes are extracted, so that floors fit, and the same on every machine.
    add("--dtype", default="float32", help="default: %(default)s")
    add(
        "--judge-url",
        help="let this OpenAI-compatible endpoint judge replies, such as http://localhost:8000/v1",
    )
    add("--judge-model", help="model name for --judge-url; the key, if any, is read from OPENAI_API_KEY")
    add("--set", dest="sets", action="append", default=[], type=_set, metavar="NAME=PATH",
        help="also ifeval, mmlu-pro or gsm8k, from a local file as published; may be repeated")  # fmt: skip
    return parser


def _set(text: str) -> tuple[str, Path]:
    name, found, path = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError("takes NAME=PATH, such as gsm8k=test.jsonl")
    return name, Path(path)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
