"""python -m demo.extraction.traits --model SPEC --axis DIR: how 240 traits lie to the Assistant Axis.

A trait's vector is the mean activation of replies under a prompt for the trait minus that of replies under a
prompt for its opposite, to the same questions (arXiv 2601.10387, section 3). Positive figures lie on the
Assistant's side.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.axis.files import axis_digest
from demo.axis.store import axis_of, home_of
from demo.extraction.judge import NoJudge
from demo.extraction.plan import Plan, Rollout
from demo.extraction.report import table
from demo.extraction.run import Generate, Settings, gather, suitable_batch, work_folder
from demo.extraction.vectors import HALVES, State
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel, load_model
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.paths import ASSETS
from demo.utils.progress import ConsoleProgress
from demo.utils.statistics import spearman

JSON, REPORT = "traits.json", "traits.md"
SIDES = ("positive", "negative")

_QUESTIONS, _TOKENS = 12, 48  # per trait and side; and per reply
_KINDS = 6  # of questions, which come in turn, so that a half must hold whole rounds


@dataclass(frozen=True, slots=True)
class Trait:
    """How a trait lies to the axis, at its probe layer.

    Attributes:
        cosine: of the trait's vector with the axis; positive on the Assistant's side.
        shift: of the projection from the opposite to the trait, in axis units.
        agreement: cosine of the vectors from two halves of the questions.
    """

    name: str
    cosine: float
    shift: float
    agreement: float


@command
def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    model = load_model(options.model, device=options.device, dtype=options.dtype, progress=ConsoleProgress())
    axis, _ = axis_of(options.axis, model)
    axis.check_model(model)
    home = home_of(options.axis, model)
    out = options.out or (home.folder if home else None)
    if out is None:
        raise UserError("This axis has no folder for the table; give one with --out.")
    traits, halves = measure_traits(model, axis, out, trait_plan(options.questions, options.max_new_tokens))
    write(out, model, axis, traits, halves)
    print(f"order of the traits by halves: Spearman {halves:.3f}; wrote {out / JSON} and {REPORT}")


def trait_plan(questions: int = _QUESTIONS, max_new_tokens: int = _TOKENS, assets: Path = ASSETS) -> Plan:
    """The rollouts of all traits: both sides of each answer the same questions.

    Raises:
        UserError: two halves of so many questions would not have the same kinds.
    """
    remedy = "restore it from the repository"
    traits = read_object(assets / "traits.json", remedy)["traits"]
    file = read_object(assets / "questions.json", remedy)["questions"]
    if questions < 1 or questions % (2 * _KINDS):
        raise UserError(f"--questions must be a multiple of {2 * _KINDS}, not {questions}.")
    asked = tuple(entry["text"] for entry in file if entry["split"] == "extract")[:questions]
    prompts: dict[str, tuple[str, ...]] = {
        f"{trait['name']} {side}": (trait[side],) for trait in traits for side in SIDES
    }
    rollouts = tuple(
        Rollout(index, group, "extract", number, number // _KINDS % 2, 0, prompt, asked[number])
        for index, (group, prompt, number) in enumerate(
            (group, prompt, number) for group, (prompt,) in prompts.items() for number in range(len(asked))
        )
    )
    return Plan(rollouts, tuple(prompts), prompts, {"extract": asked}, (), (), max_new_tokens, 0)


def measure_traits(
    model: LoadedModel, axis: AssistantAxis, out: Path, plan: Plan, generate: Generate | None = None
) -> tuple[list[Trait], float]:
    """Generate the rollouts, or go on with them, and measure every trait.

    Returns:
        The traits, the most Assistant-like first; and Spearman's rank correlation of their shifts over two
        halves of the questions.
    """
    settings, judge = Settings(batch=suitable_batch(model, plan.max_new_tokens)), NoJudge()
    work = work_folder(model, plan, settings, judge, out)
    state = gather(model, plan, settings, judge, work, generate)
    found = traits_of(state, plan, axis)
    shutil.rmtree(work, ignore_errors=True)
    return found


def traits_of(state: State, plan: Plan, axis: AssistantAxis) -> tuple[list[Trait], float]:
    """The traits on the axis, from the rollouts of `plan`. See `measure_traits`."""
    probe = axis.probe_layer
    unit, norm = axis.unit[probe], float(axis.norm[probe])
    names = [group.removesuffix(f" {SIDES[0]}") for group in plan.roles if group.endswith(SIDES[0])]
    whole = torch.stack([vector_of(state, name)[probe] for name in names])
    halves = [torch.stack([vector_of(state, name, (half,))[probe] for name in names]) for half in HALVES]
    shifts = (whole @ unit / norm).tolist()
    cosines = torch.cosine_similarity(whole, unit[None], dim=-1).tolist()
    agreements = torch.cosine_similarity(halves[0], halves[1], dim=-1).tolist()
    rows = zip(names, cosines, shifts, agreements, strict=True)
    traits = [Trait(name, *(round(value, 4) for value in values)) for name, *values in rows]
    order = float(spearman(*((half @ unit).double() for half in halves)))
    return sorted(traits, key=lambda trait: -trait.shift), order


def vector_of(state: State, name: str, halves: Sequence[int] = HALVES) -> Tensor:
    """The vector of a trait, [L, D]: mean activation for the trait minus that for its opposite.

    Raises:
        UserError: there is no reply on one of the sides.
    """
    try:
        positive, negative = (state.mean(*(f"{name} {side}/{h}/kept" for h in halves)) for side in SIDES)
    except KeyError as error:
        raise UserError(
            f"The model gave only empty replies for the trait {name}; try another model."
        ) from error
    return positive - negative


def write(out: Path, model: LoadedModel, axis: AssistantAxis, traits: Sequence[Trait], halves: float) -> None:
    """Write the table as JSON and as Markdown into `out`."""
    content = {
        "format": 1,
        "model": {"id": model.spec, "digest": model.digest, "dtype": model.dtype_name},
        "axis": axis_digest(axis),
        "probe_layer": axis.probe_layer,
        "halves": round(halves, 4),
        "traits": [asdict(trait) for trait in traits],
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / JSON).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (out / REPORT).write_text("\n".join(_report(model, axis, traits, halves)) + "\n", encoding="utf-8")


def _report(model: LoadedModel, axis: AssistantAxis, traits: Sequence[Trait], halves: float) -> Iterator[str]:
    yield f"# Traits of {model.slug} on its Assistant Axis"
    yield ""
    yield (
        f"Written by `python -m demo.extraction.traits`, at probe layer {axis.probe_layer}, in "
        f"{model.dtype_name}. A trait's vector is the mean activation of replies under a prompt for the "
        "trait minus that under a prompt for its opposite. *Shift* is how far it moves the projection, in "
        "axis units; positive is toward the Assistant. *Agreement* is the cosine of the vectors from two "
        "halves of the questions: a trait with little of it is mostly noise, or was not taken up."
    )
    yield ""
    yield f"The order of the traits by shift, from two halves of the questions: Spearman {halves:.2f}."
    yield ""
    rows = [
        (trait.name.replace("_", " "), *(f"{v:+.2f}" for v in (trait.shift, trait.cosine, trait.agreement)))
        for trait in traits
    ]
    yield from table(("trait", "shift", "cosine with the axis", "agreement"), rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.extraction.traits", description=__doc__)
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="model name, local folder or hub id (default: %(default)s)")
    add("--axis", help="axis folder or slug (default: the model's)")
    add("--out", type=Path, help="folder for the table (default: the axis's)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    add("--dtype", default="auto", help="auto, float32, bfloat16 or float16 (default: %(default)s)")
    add("--questions", type=int, default=_QUESTIONS, help="per trait and side (default: %(default)s)")
    add("--max-new-tokens", type=int, default=_TOKENS, help="of a reply (default: %(default)s)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
