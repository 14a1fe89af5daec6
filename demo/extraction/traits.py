"""python -m demo.extraction.traits --model SPEC --axis DIR: how 240 traits lie to the Assistant Axis.

A trait's vector is the mean activation of replies under a prompt for the trait minus that of replies under a
prompt for its opposite, to the same questions (arXiv 2601.10387, section 3). Positive figures lie on the
Assistant's side. The traits become further directions beside the axis, too.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.axis.components import pca
from demo.axis.directions import FILE, Direction, kept_layers, load_directions, save_directions
from demo.axis.files import axis_digest
from demo.axis.store import axis_of, home_of
from demo.extraction.directions import between, default_means
from demo.extraction.judge import NoJudge
from demo.extraction.plan import Plan, Rollout
from demo.extraction.report_plots import write_trait_map
from demo.extraction.run import Generate, Settings, gather, suitable_batch, work_folder
from demo.extraction.vectors import HALVES, State
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel, load_model
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.markdown import markdown_table
from demo.utils.paths import ASSETS
from demo.utils.progress import ConsoleProgress
from demo.utils.statistics import spearman

JSON, REPORT, PICTURE = "traits.json", "traits.md", "traits.svg"
SIDES = ("positive", "negative")

# Per trait and side, and per reply. Short replies to many questions tell traits apart better than long ones
# to few: replies to two questions differ more than the tokens of one reply.
_QUESTIONS, _TOKENS = 72, 24
LEAST_ORDER = 0.8  # of Spearman over two halves of the questions; below, the order is largely chance

_KINDS = 6  # of questions, which come in turn, so that a half must hold whole rounds


@dataclass(frozen=True, slots=True)
class Trait:
    """How a trait lies to the axis, at its probe layer.

    Attributes:
        cosine: of the trait's vector with the axis; positive on the Assistant's side.
        shift: of the projection from the opposite to the trait, in axis units.
        agreement: cosine of the vectors from two halves of the questions.
        component: place, in axis units, on the first principal component of all trait vectors without their
            parts along the axis. Its sign has no meaning.
    """

    name: str
    cosine: float
    shift: float
    agreement: float
    component: float


@dataclass(frozen=True)
class Measured:
    """What the rollouts of the traits give.

    Attributes:
        traits: the most Assistant-like first.
        halves: Spearman's rank correlation of their shifts over two halves of the questions.
        questions: how many each side of a trait answered.
        directions: each trait as a direction from its opposite to itself.
    """

    traits: Sequence[Trait]
    halves: float
    questions: int
    directions: Sequence[Direction]

    @property
    def verdict(self) -> str:
        """Whether the order of the traits can be trusted, as a sentence.

        The number of questions that would do is the Spearman-Brown prophecy (Spearman 1910, Brown 1910).
        """
        order = (
            f"The order of the traits by shift, from two halves of the questions: Spearman {self.halves:.2f}"
        )
        if self.halves >= LEAST_ORDER:
            return f"{order} (wanted: at least {LEAST_ORDER:g})."
        advice = "ask more questions"
        if self.halves > 0:
            longer = LEAST_ORDER * (1 - self.halves) / (self.halves * (1 - LEAST_ORDER))
            round_of = 2 * _KINDS
            advice = f"about {math.ceil(self.questions * longer / round_of) * round_of} questions would do"
        return (
            f"{order} (wanted: at least {LEAST_ORDER:g}). **It depends largely on chance**, with "
            f"{self.questions} questions; {advice}."
        )


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
    load_directions(out, axis)  # raises UserError now and not after the rollouts
    plan = trait_plan(options.questions, options.max_new_tokens)
    state = measure_traits(model, out, plan)
    found = traits_of(
        state, plan, axis, default_means(model, axis, home.folder if home else out, kept_layers(axis))
    )
    save_directions(load_directions(out, axis).replaced("trait", found.directions), out)
    write(out, model, axis, found)
    shutil.rmtree(work_of(model, plan, out), ignore_errors=True)
    print(f"{found.verdict.replace('**', '')} Wrote {out / JSON}, {REPORT} and {FILE}.")


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


def measure_traits(model: LoadedModel, out: Path, plan: Plan, generate: Generate | None = None) -> State:
    """Generate the rollouts, or go on with them. What is done stays in `work_of`."""
    return gather(model, plan, _settings(model, plan), NoJudge(), work_of(model, plan, out), generate)


def work_of(model: LoadedModel, plan: Plan, out: Path) -> Path:
    """The folder of the rollouts until the traits have been written."""
    return work_folder(model, plan, _settings(model, plan), NoJudge(), out)


def _settings(model: LoadedModel, plan: Plan) -> Settings:
    return Settings(batch=suitable_batch(model, plan.max_new_tokens))


def traits_of(state: State, plan: Plan, axis: AssistantAxis, defaults: Tensor) -> Measured:
    """The traits on the axis, from the rollouts of `plan`.

    Args:
        defaults: [N, K, D], means of default replies at the K layers that are kept, for the floors.
    """
    probe = axis.probe_layer
    unit, norm = axis.unit[probe], float(axis.norm[probe])
    names = [group.removesuffix(f" {SIDES[0]}") for group in plan.roles if group.endswith(SIDES[0])]
    whole = torch.stack([vector_of(state, name)[probe] for name in names])
    halves = [torch.stack([vector_of(state, name, (half,))[probe] for name in names]) for half in HALVES]
    shifts = (whole @ unit / norm).tolist()
    cosines = torch.cosine_similarity(whole, unit[None], dim=-1).tolist()
    agreements = torch.cosine_similarity(halves[0], halves[1], dim=-1).tolist()
    rows = zip(names, cosines, shifts, agreements, _places(whole, unit, norm), strict=True)
    traits = [Trait(name, *(round(value, 4) for value in values)) for name, *values in rows]
    order = float(spearman(*((half @ unit).double() for half in halves)))
    directions = [_direction(state, name, axis, defaults) for name in sorted(names)]
    return Measured(
        sorted(traits, key=lambda trait: -trait.shift), order, len(plan.questions["extract"]), directions
    )


def _places(vectors: Tensor, unit: Tensor, norm: float) -> list[float]:
    """`Trait.component` of trait vectors [N, D]."""
    beside = vectors - (vectors @ unit)[:, None] * unit
    first = pca(beside, beside[0], 1).directions
    return [0.0] * len(vectors) if not len(first) else ((beside - beside.mean(0)) @ first[0] / norm).tolist()


def _direction(state: State, name: str, axis: AssistantAxis, defaults: Tensor) -> Direction:
    """A trait as a direction from the replies under its opposite's prompt to those under its own."""
    layers = kept_layers(axis)
    where, shown = list(layers), name.replace("_", " ")
    return between(
        shown,
        "trait",
        axis,
        layers,
        (_side(state, name, SIDES[1])[where], _side(state, name, SIDES[0])[where]),
        defaults,
        [vector_of(state, name, (half,))[where] for half in HALVES],
        (f"the opposite of {shown}", shown),
    )


def vector_of(state: State, name: str, halves: Sequence[int] = HALVES) -> Tensor:
    """The vector of a trait, [L, D]: mean activation for the trait minus that for its opposite.

    Raises:
        UserError: there is no reply on one of the sides.
    """
    return _side(state, name, SIDES[0], halves) - _side(state, name, SIDES[1], halves)


def _side(state: State, name: str, side: str, halves: Sequence[int] = HALVES) -> Tensor:
    """Mean activation of the replies under one of a trait's prompts, [L, D]. Raises UserError."""
    try:
        return state.mean(*(f"{name} {side}/{half}/kept" for half in halves))
    except KeyError as error:
        raise UserError(
            f"The model gave only empty replies for the trait {name}; try another model."
        ) from error


def write(out: Path, model: LoadedModel, axis: AssistantAxis, found: Measured) -> None:
    """Write the table as JSON and as Markdown with its picture into `out`."""
    content = {
        "format": 1,
        "model": {"id": model.spec, "digest": model.digest, "dtype": model.dtype_name},
        "axis": axis_digest(axis),
        "probe_layer": axis.probe_layer,
        "questions": found.questions,
        "halves": round(found.halves, 4),
        "traits": [asdict(trait) for trait in found.traits],
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / JSON).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    rows = [(trait.name.replace("_", " "), trait.shift, trait.component) for trait in found.traits]
    write_trait_map(out / PICTURE, rows)
    (out / REPORT).write_text("\n".join(_report(model, axis, found)) + "\n", encoding="utf-8")


def _report(model: LoadedModel, axis: AssistantAxis, found: Measured) -> Iterator[str]:
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
    yield found.verdict
    yield ""
    yield f"![Traits by their shift on the axis, and by what they differ in beside it]({PICTURE})"
    yield ""
    yield (
        "The picture has the shift from left to right. Upward is the first principal component of the trait "
        "vectors without their parts along the axis; which way it points has no meaning."
    )
    yield ""
    rows = [
        (trait.name.replace("_", " "), *(f"{v:+.2f}" for v in (trait.shift, trait.cosine, trait.agreement)))
        for trait in found.traits
    ]
    yield from markdown_table(("trait", "shift", "cosine with the axis", "agreement"), rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.extraction.traits", description=__doc__)
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="model name, local folder or hub id (default: %(default)s)")
    add("--axis", help="axis folder or slug (default: the model's)")
    add("--out", type=Path, help="folder for the table (default: the axis's)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    add("--dtype", default="auto", help="auto, float32, bfloat16, float16 or int8 (default: %(default)s)")
    add("--questions", type=int, default=_QUESTIONS, help="per trait and side (default: %(default)s)")
    add("--max-new-tokens", type=int, default=_TOKENS, help="of a reply (default: %(default)s)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
