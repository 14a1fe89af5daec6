"""python -m demo.extraction.directions FOLDER: roles and components as directions beside an axis.

An extraction writes them by itself. This command makes them for an axis that has none, from its
rollouts.jsonl, which the model reads again. It also measures the floors of directions that came without, such
as imported ones.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from demo.axis.axis import AssistantAxis
from demo.axis.directions import (
    PERCENTILES,
    Direction,
    Directions,
    Kind,
    as_stored,
    component,
    components,
    cosine_with_axis,
    kept_layers,
    load_directions,
    save_directions,
)
from demo.axis.files import axis_digest, load_axis
from demo.engine.protocol import Sampling
from demo.extraction.plan import DEFAULT, PRESETS, make_plan
from demo.extraction.reading import Reader
from demo.extraction.rollouts import RolloutGenerator
from demo.extraction.texts import check_histories, read_again, read_records, text_of
from demo.extraction.vectors import HALVES, State, Vectors
from demo.models.loading import LoadedModel, load_model
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.paths import ASSETS
from demo.utils.progress import ConsoleProgress, ProgressLine

_BATCH = 64  # replies that are generated at once


@command
def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    axis = load_axis(options.folder)
    about = axis.manifest["model"]
    model = load_model(
        options.model or str(about.get("id")),
        device=options.device,
        dtype=options.dtype or str(about.get("dtype", "auto")),
        progress=ConsoleProgress(),
        base=bool(about.get("base")),
    )
    for note in axis.check_model(model):
        print(f"note: {note}")
    found = remade(model, axis, options.folder)
    save_directions(found, options.folder)
    counts = Counter(direction.kind for direction in found.values())
    print("directions: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))


def from_state(axis: AssistantAxis, state: State, vectors: Vectors) -> Directions:
    """Roles and components as directions, from the state of the axis's own extraction."""
    layers = kept_layers(axis)
    defaults = torch.stack(state.defaults)[:, list(layers)]
    found = [
        *role_directions(axis, state, vectors, layers, layers),
        *component_directions(axis, layers, defaults),
    ]
    return Directions(found, axis_digest(axis))


def remade(model: LoadedModel, axis: AssistantAxis, folder: Path) -> Directions:
    """The directions of an axis folder with roles, components and missing floors measured anew.

    Without rollouts.jsonl there is nothing to make roles from, and the default replies are generated.

    Raises:
        UserError: rollouts.jsonl is malformed, or belongs to another axis.
    """
    found, kept = load_directions(folder, axis), kept_layers(axis)
    bare = [one for one in found.values() if not one.floors and one.kind not in ("role", "component")]
    layers = tuple(sorted({*kept, *(layer for one in bare for layer in one.layers)}))
    places = [layers.index(layer) for layer in kept]
    records = read_records(folder)
    if records:
        state, _, vectors = read_again(model, axis, records, layers)
        defaults = torch.stack(state.defaults)
        found = found.replaced("role", role_directions(axis, state, vectors, kept, places))
    else:
        defaults = default_means(model, axis, folder, layers)
    found = found.replaced("component", component_directions(axis, kept, defaults[:, places]))
    for one in bare:
        own = defaults[:, [layers.index(layer) for layer in one.layers]]
        found = found.added(replace(one, floors=floors_along(one.unit, own)))
    return found


def between(
    name: str,
    kind: Kind,
    axis: AssistantAxis,
    layers: tuple[int, ...],
    ends: tuple[Tensor, Tensor],
    defaults: Tensor,
    halves: Sequence[Tensor],
    poles: tuple[str, str],
    notes: tuple[str, ...] = (),
) -> Direction:
    """The direction from one mean activation to another.

    Args:
        layers: K decoder layers.
        ends: what is 0 and what is 1 on its scale, each [K, D].
        defaults: [N, K, D], means of default replies, for the floors.
        halves: the directions [K, D] from two halves of the replies; empty where there is only one.

    Raises:
        UserError: both ends are the same.
    """
    start, end = ends
    if bool((end == start).all(-1).any()):
        raise UserError(
            f"Both sides of {name!r} are the same to the model, so there is no direction; drop it."
        )
    vector = as_stored(end - start)
    unit = normalize(vector, dim=-1)
    probe = min(range(len(layers)), key=lambda place: abs(layers[place] - axis.probe_layer))
    agreement = None
    if halves:
        one, other = halves
        agreement = float(torch.cosine_similarity(one[probe], other[probe], dim=0))
    return Direction(
        name=name,
        kind=kind,
        layers=layers,
        vector=vector,
        origin=(start * unit).sum(-1),
        floors=floors_along(unit, defaults),
        cosine=cosine_with_axis(axis, layers, vector),
        agreement=agreement,
        poles=poles,
        notes=notes,
    )


def floors_along(unit: Tensor, defaults: Tensor) -> dict[str, Tensor]:
    """Percentiles [K] of default replies' means [N, K, D] along unit vectors [K, D]; none without replies."""
    if not len(defaults):
        return {}
    along = (defaults * unit).sum(-1)
    return {name: torch.quantile(along, int(name[1:]) / 100, dim=0) for name in PERCENTILES}


def role_directions(
    axis: AssistantAxis, state: State, vectors: Vectors, layers: tuple[int, ...], places: Sequence[int]
) -> list[Direction]:
    """The roles that count, each a direction from the default Assistant to the role.

    Args:
        layers: K decoder layers.
        places: where these layers stand in the tensors of `state`.
    """
    where, traits = list(places), _trait_names()
    defaults = torch.stack(state.defaults)[:, where]
    default = {halves: _default_mean(state, halves) for halves in (HALVES, *((half,) for half in HALVES))}
    start = default[HALVES]
    assert start is not None
    found = []
    for role in sorted(entry["name"] for entry in axis.manifest["roles"] if entry.get("counts")):
        halves = [
            (vectors.vector(role, (half,)) - mean)[where]
            for half in HALVES
            if (mean := default[half,]) is not None and vectors.kept(role, (half,))
        ]
        shown = role.replace("_", " ")
        found.append(
            between(
                f"{shown} (role)" if role in traits else shown,  # the trait of that name has it already
                "role",
                axis,
                layers,
                (start[where], vectors.vector(role)[where]),
                defaults,
                halves if len(halves) == len(HALVES) else (),
                ("the default Assistant", shown),
            )
        )
    return found


def component_directions(
    axis: AssistantAxis, layers: tuple[int, ...], defaults: Tensor
) -> Iterator[Direction]:
    """The components of the axis at some layers, with floors from default replies' means [N, K, D]."""
    for number in range(len(components(axis))):
        one = component(axis, number, layers)
        yield replace(one, floors=floors_along(one.unit, defaults))


def default_means(model: LoadedModel, axis: AssistantAxis, folder: Path, layers: Sequence[int]) -> Tensor:
    """Means [N, K, D] of the axis's default replies: those in its folder, read again, or else new ones.

    Raises:
        UserError: rollouts.jsonl is malformed.
    """
    records = [record for record in read_records(folder) if record["group"] == DEFAULT]
    if records:
        check_histories(axis.manifest, records)
        texts = [text_of(model, record) for record in records]
        return Reader(model).means([text for text in texts if text.reply], layers)
    found = [torch.zeros(0, len(layers), model.hidden_size)]
    size = replace(PRESETS["standard"], role_prompts=axis.manifest.get("role_prompts", "plain"))
    plan = make_plan(model.slug.split("-")[0], size)
    asked = [rollout for rollout in plan.rollouts if rollout.split == "extract" and not rollout.is_role]
    sampling, generator = Sampling(0.7, 0.9, plan.max_new_tokens, 0, 1.0), RolloutGenerator(model)
    progress = ProgressLine("default replies")
    for start in range(0, len(asked), _BATCH):
        progress.update(start / len(asked))
        replies = generator.generate(asked[start : start + _BATCH], sampling)
        found += [reply.mean[None, list(layers)] for reply in replies if reply.tokens]
    progress.update(1.0)
    return torch.cat(found)


def _default_mean(state: State, halves: Sequence[int]) -> Tensor | None:
    keys = [f"{DEFAULT}/{half}" for half in halves]
    return state.mean(*keys) if state.count(*keys) else None


def _trait_names() -> set[str]:
    traits = read_object(ASSETS / "traits.json", "restore it from the repository")["traits"]
    return {trait["name"] for trait in traits}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.extraction.directions", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of an axis")
    parser.add_argument("--model", help="local folder or hub id (default: the model that the axis names)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument(
        "--dtype", help="auto, float32, bfloat16, float16 or int8 (default: that of the axis)"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
