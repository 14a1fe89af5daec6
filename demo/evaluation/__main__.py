"""python -m demo.evaluation: measure whether capping works on a model and what it costs.

The command writes evaluation.json, evaluation.md and pictures beside the axis. A run that was
interrupted resumes when the command is run again.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from demo.axis.axis import AssistantAxis
from demo.axis.files import axis_digest
from demo.axis.store import Home, axis_of, home_of
from demo.evaluation import COMMAND, NAME
from demo.evaluation.answers import ResultCache
from demo.evaluation.attempts import Attempt
from demo.evaluation.brought import FORMATS, PERSONAS, digest, read_attempts
from demo.evaluation.capability import read_set
from demo.evaluation.case_scoring import CASE_LABELS, case_scorer
from demo.evaluation.comparisons import NEEDS, PARTS, candidates, work
from demo.evaluation.judge import ModelJudge, judged_scorer, model_judge
from demo.evaluation.report import write_report
from demo.evaluation.results import brought_figures, choose, results_of, set_figures
from demo.evaluation.samples import (
    Sample,
    samples_of,
    samples_of_attempts,
    samples_of_set,
    write_lines,
    write_logs,
)
from demo.evaluation.scoring import LABELS, Scorer, built_in_scorer, remote_scorer
from demo.evaluation.study import QUICK, SMALL, Size, Study
from demo.extraction.add_gates import is_extracted, plan_of, save_with_report, with_cap_gates
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel, load_model
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.paths import EVALUATION_ASSETS

_NOTHING_TO_CHOOSE = (
    "The sweep has no cap to try, because this axis has none of the percentiles that it tries as floors: "
    "leave out --choose and --only sweep, or extract an axis with python -m demo.extraction."
)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    options, started = _parser().parse_args(arguments), time.monotonic()
    try:
        model = load_model(options.model, device=options.device, dtype=options.dtype)
        axis = axis_of(options.axis, model)[0]
        for note in axis.check_model(model):
            print(f"note: {note}", file=sys.stderr, flush=True)
        out = options.out or _default_folder(home_of(options.axis, model), options.quick)
        size = QUICK if options.quick else SMALL if options.small else Size()
        size = replace(size, seeds=options.seeds or size.seeds)
        figures = measure(model, axis, size, options, out)
    except KeyboardInterrupt:
        print("\nInterrupted; run the same command again to resume.", file=sys.stderr)
        return 130
    minutes = (time.monotonic() - started) / 60
    written = write_report(out, figures, options.json)
    print(f"wrote {', '.join(str(path) for path in written)}; this run took {minutes:.1f} min")
    return 0


def measure(
    model: LoadedModel, axis: AssistantAxis, size: Size, options: argparse.Namespace, out: Path
) -> dict[str, Any]:
    """Measure the parts that were asked for.

    Returns:
        Their figures, with those of other parts from an earlier report.

    Raises:
        UserError: A file or endpoint cannot be used. Finished results are kept.
    """
    brought = [(name, read_attempts(name, path, options.personas)) for name, path in options.attempts]
    if len(dict(brought)) < len(brought):
        raise UserError("--attempts takes one file of each format; put the prompts of several into one.")
    # Before anything is written.
    remote = remote_scorer(options.judge_url, options.judge_model) if options.judge_url else None
    about = _about(model, axis, size, options.seed)
    size_name = "quick" if options.quick else "small" if options.small else "full"
    cache = ResultCache(out / ".evaluation" / f"{size_name}.jsonl", about)
    judges = [
        model_judge(load_model(name, device=options.device, dtype=options.dtype)) for name in options.judge
    ]
    wanted = [*options.only, *itertools.chain(*(NEEDS.get(part, ()) for part in options.only))]
    parts = [part for part in PARTS if not wanted or part in wanted]
    case = case_scorer(model, judges, cache) if "cases" in parts else None
    study = Study(model, axis, size, options.seed, cache, remote or _scorer(model, judges, cache), case)
    if "sweep" in parts and not candidates(study, 0.0):
        if options.choose or "sweep" in options.only:
            raise UserError(_NOTHING_TO_CHOOSE)
        parts.remove("sweep")
    cache.plan(work(study, parts))
    raw: dict[str, Any] = {}
    for part in parts:
        raw[part] = PARTS[part](study)
        if part == "sweep" and options.choose:
            settings = results_of({"sweep": raw[part]}, study)["sweep"]
            study.axis = axis = _stored(with_choice(axis, settings), model, out)
    scorer = study.scorer.name if study.scorer else None
    about |= {"cap": study.cap_name, "probe_layer": axis.probe_layer, "scorer": scorer}
    earlier = stored_figures(out, about) if options.only else {}
    figures = {**earlier, "about": about, **results_of(raw, study)}
    samples = samples_of(raw, study) + _measure_files(study, brought, options.sets, figures)
    if options.samples is not None:
        write_lines(options.samples, samples, about)
    if options.inspect is not None:
        write_logs(options.inspect, samples, about)
    return figures


def _scorer(model: LoadedModel, judges: Sequence[ModelJudge], cache: ResultCache) -> Scorer[Attempt]:
    """The built-in scorer, with the judges that were asked for. Raises UserError if one cannot be used."""
    return judged_scorer(model, judges, cache) if judges else built_in_scorer(model)


def _measure_files(
    study: Study,
    brought: Sequence[tuple[str, Sequence[Attempt]]],
    sets: Sequence[tuple[str, Path]],
    figures: dict[str, Any],
) -> list[Sample]:
    """Measure what came in the user's own files, and add its figures to `figures`.

    Args:
        brought: attempts by the name of their format.
        sets: files of questions by name.

    Returns:
        The replies.
    """
    samples: list[Sample] = []
    for name, attempts in brought:
        replies = study.susceptibility(attempts, f"brought/{name}/{digest(attempts)}")
        scorer = study.scorer.name if study.scorer else None
        figures.setdefault("brought", {})[name] = brought_figures(replies, attempts, scorer)
        samples += samples_of_attempts(name, attempts, replies)
    for name, path in sets:
        items = read_set(name, path)
        answers = study.capability(items, f"set/{name}")
        figures.setdefault("sets", {})[name] = set_figures(answers)
        samples += samples_of_set(name, items, answers)
    return samples


def stored_figures(out: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The figures of an earlier report in `out`; empty without one.

    Raises:
        UserError: They were measured with other settings. One report must not mix settings.
    """
    if not (out / NAME).is_file():
        return {}
    stored = read_object(out / NAME, f"run {COMMAND} without --only")
    if stored.get("about") != about:
        raise UserError(
            f"{out / NAME} was measured with other settings or data; finished results are kept, so run the "
            "command without --only, or give another folder with --out."
        )
    return stored


def with_choice(axis: AssistantAxis, settings: list[dict[str, Any]]) -> AssistantAxis:
    """The axis with the cap that the sweep chose.

    A conditional one comes with the best of the others, for engines that cannot do it.
    """
    chosen = choose(settings)
    cap = {"layers": list(chosen["layers"]), "floor": chosen["floor"], "chosen_by": "evaluation"}
    if chosen["only_below"] is not None:
        other = choose([own for own in settings if own["only_below"] is None])
        cap["only_below"] = chosen["only_below"]
        cap["otherwise"] = {"layers": list(other["layers"]), "floor": other["floor"]}
    return replace(axis, manifest={**axis.manifest, "cap": cap})


def _stored(axis: AssistantAxis, model: LoadedModel, out: Path) -> AssistantAxis:
    """The axis with the gates of its cap, after it was saved in `out`."""
    if is_extracted(axis):
        axis = with_cap_gates(axis, model, plan_of(axis.manifest, model))
    save_with_report(axis, out)
    return axis


def _about(model: LoadedModel, axis: AssistantAxis, size: Size, seed: int) -> dict[str, Any]:
    """What the figures depend on besides the cap."""
    folder = Path(model.spec)
    files = sorted(path for path in EVALUATION_ASSETS.glob("*.json") if path not in (LABELS, CASE_LABELS))
    return {
        "format": 1,
        "command": COMMAND,
        # A report is there to be passed on, so where the model lies on this machine is not in it.
        "model": folder.resolve().name if folder.exists() else model.spec,
        "dtype": model.dtype_name,
        "axis": axis_digest(axis),
        "seed": seed,
        "size": asdict(size),
        "data": sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16],
    }


def _default_folder(home: Home | None, quick: bool) -> Path:
    """The axis's folder; for a quick run a folder below it, which keeps the full report.

    Raises:
        UserError: The axis has no folder.
    """
    if home is None:
        raise UserError("This axis has no folder for a report; give one with --out.")
    return home.folder / ".evaluation" / "quick" if quick else home.folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.evaluation", description=__doc__)
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="model name, local folder or hub id (default: %(default)s)")
    add("--axis", help="axis folder or slug (default: the model's)")
    add(
        "--only",
        action="append",
        choices=PARTS,
        default=[],
        help="measure this part and what it needs; may be repeated",
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--quick", action="store_true", help="measure a tiny sample of everything, within minutes"
    )
    sizes.add_argument("--small", action="store_true", help="measure a seventh, for larger models")
    add("--seeds", type=int, help="seeds of every attempt (default: 1)")
    add("--seed", type=int, default=1, help="the first seed (default: %(default)s)")
    add(
        "--choose",
        action="store_true",
        help="store the cap that the sweep chooses in axis.json, and continue with it",
    )
    add("--out", type=Path, help="folder for the report (default: the axis's)")
    add("--json", type=Path, help="also write the figures to this file")
    add(
        "--samples", type=Path, metavar="FILE.jsonl", help="also write every reply to this file, one per line"
    )
    add("--inspect", type=Path, metavar="FOLDER", help="also write the replies as logs of Inspect")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    # As `python app.py`: the figures are of what people run.
    add("--dtype", default="auto", help="auto, float32, bfloat16, float16 or int8 (default: %(default)s)")
    add(
        "--judge",
        action="append",
        default=[],
        metavar="MODEL",
        help="let this chat model judge, too, beside the built-in score; may be repeated",
    )
    add("--judge-url", help="judge by this OpenAI-compatible endpoint, such as http://localhost:8000/v1")
    add("--judge-model", help="model name for --judge-url; the key, if any, is read from OPENAI_API_KEY")
    add(
        "--set",
        dest="sets",
        action="append",
        default=[],
        type=_set,
        metavar="NAME=PATH",
        help="also answer ifeval, mmlu-pro or gsm8k, from a local file as published; may be repeated",
    )
    add(
        "--attempts",
        action="append",
        default=[],
        type=_set,
        metavar="NAME=PATH",
        help=f"also try the prompts of a CSV file of yours, in the format of {' or '.join(FORMATS)}; "
        "once for each",
    )
    add(
        "--personas",
        type=int,
        default=PERSONAS,
        metavar="N",
        help="personas under which each prompt of --attempts is sent, besides alone (default: %(default)s)",
    )
    return parser


def _set(text: str) -> tuple[str, Path]:
    name, found, path = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(
            "takes NAME=PATH, such as gsm8k=test.jsonl or harmbench=behaviors.csv"
        )
    return name, Path(path)


if __name__ == "__main__":
    raise SystemExit(main())
