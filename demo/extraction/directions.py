"""python -m demo.extraction.directions FOLDER: roles and components as directions beside an axis.

An extraction writes them by itself. This command makes them for an axis that has none, from its
rollouts.jsonl, which the model reads again. It also measures the floors of directions that came without, such
as imported ones.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from demo.extraction.plan import DEFAULT, PRESETS, Plan, Rollout, make_plan
from demo.extraction.reading import Reader
from demo.extraction.rollouts import Reply, RolloutGenerator, Text
from demo.extraction.vectors import ALL, HALVES, KEPT, Judged, State, Vectors, check_histories, history_of
from demo.models.chat_template import Message, render_chat
from demo.models.loading import LoadedModel, load_model
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.paths import ASSETS
from demo.utils.progress import ConsoleProgress, ProgressLine
from demo.utils.resource_usage import give_memory_back

ROLLOUTS = "rollouts.jsonl"

SAME_AXIS = 0.99  # least cosine of an axis from the replies, read again, with the stored one

_BATCH = 64  # replies that are read or generated at once


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
        check_histories(axis.manifest, records)
        verdicts = ALL if axis.manifest.get("uptake", {}).get("keep_all") else KEPT
        state, plan = read_again(model, records, layers, verdicts)
        standardised = axis.manifest.get("variant") == "standardised"
        vectors = Vectors(state, plan, verdicts, state.variance(verdicts) if standardised else None)
        _check_same(axis, vectors, layers.index(axis.probe_layer), folder)
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
        texts = [
            reply_text(model, rollout.messages, record["reply"])
            for rollout, record in zip(_rollouts(records), records, strict=True)
        ]
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


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The rollouts that the axis in this folder was made from, in order; none where it has no rollouts.jsonl.

    Raises:
        UserError: the file is malformed.
    """
    path = folder / ROLLOUTS
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
        wanted = [record for record in records if record["split"] == "extract"]
        for record in wanted:
            for key in ("group", "system", "question", "reply"):
                if not isinstance(record[key], str):
                    raise TypeError(f"{key} is no text")
            history_of(record)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{path} holds no rollouts ({error}); extract the axis again.") from error
    return wanted


def read_again(
    model: LoadedModel, records: Sequence[dict[str, Any]], layers: Sequence[int], verdicts: Sequence[str]
) -> tuple[State, Plan]:
    """The state of an extraction from its replies, which the model reads again, at K layers.

    Args:
        verdicts: which role rollouts count; the others are not read.

    Returns:
        A state whose tensors are [K, D], and the plan that its records refer to, with the same halves as the
        extraction's.
    """
    rollouts, reader, state = _rollouts(records), Reader(model), State()
    progress = ProgressLine("reading replies")
    counted = [
        (rollout, record)
        for rollout, record in zip(rollouts, records, strict=True)
        if not rollout.is_role or record.get("kept", True) or tuple(verdicts) == ALL
    ]
    for start in range(0, len(counted), _BATCH):
        progress.update(start / len(counted))
        part = counted[start : start + _BATCH]
        texts = [reply_text(model, rollout.messages, record["reply"]) for rollout, record in part]
        means = iter(reader.means([text for text in texts if text.reply], layers))
        for (rollout, record), text in zip(part, texts, strict=True):
            mean = next(means) if text.reply else torch.zeros(len(layers), model.hidden_size)
            reply = Reply(rollout, record["reply"], tuple(text.reply), mean, ())
            state.add(Judged(reply, record.get("uptake"), bool(record.get("kept", True))), limit=0)
        give_memory_back()
    progress.update(1.0)
    roles = tuple(dict.fromkeys(rollout.group for rollout in rollouts if rollout.is_role))
    questions = tuple(dict.fromkeys(rollout.text for rollout in rollouts))
    return state, Plan(tuple(rollouts), roles, {}, {"extract": questions}, (), (), 0, 0)


def reply_text(model: LoadedModel, messages: Sequence[Message], reply: str) -> Text:
    """A reply in tokens, as the chat template has it, after the prompt that it answers."""
    prompt = render_chat(model.tokenizer, messages).ids
    said: Message = {"role": "assistant", "content": reply}
    chat = render_chat(model.tokenizer, [*messages, said], reply_next=False)
    own = [token for token, owner in zip(chat.ids, chat.owner, strict=True) if owner == len(messages)]
    return Text(prompt, own)


def _rollouts(records: Iterable[dict[str, Any]]) -> list[Rollout]:
    """The rollouts of an extraction by its records, renumbered."""
    questions: dict[str, int] = {}
    roles: dict[str, int] = {}
    turns: Counter[str] = Counter()
    samples: Counter[tuple[str, str, str]] = Counter()
    found = []
    for index, record in enumerate(records):
        group, system, text = record["group"], record["system"], record["question"]
        number = questions.setdefault(text, len(questions))
        sample, turn = samples[group, system, text], turns[group]
        # As `plan.make_plan` assigns the halves.
        half = sample if group == DEFAULT else roles.setdefault(group, len(roles)) // 2 + turn
        history = history_of(record)
        found.append(
            Rollout(index, group, "extract", number, half % len(HALVES), sample, system, text, history)
        )
        samples[group, system, text] += 1
        turns[group] += 1
    return found


def _default_mean(state: State, halves: Sequence[int]) -> Tensor | None:
    keys = [f"{DEFAULT}/{half}" for half in halves]
    return state.mean(*keys) if state.count(*keys) else None


def _check_same(axis: AssistantAxis, vectors: Vectors, place: int, folder: Path) -> None:
    """Check that the replies give the stored axis at its probe layer. Raises UserError."""
    roles = [entry["name"] for entry in axis.manifest["roles"] if entry.get("counts")]
    missing = [role for role in roles if not vectors.kept(role)]
    cosine = -1.0
    if roles and not missing:
        direction = vectors.cast(roles).direction[place]
        cosine = float(torch.cosine_similarity(direction, axis.direction[axis.probe_layer], dim=0))
    if cosine < SAME_AXIS:
        raise UserError(
            f"The replies in {folder / ROLLOUTS}, read by this model, do not give the axis beside them "
            f"(cosine {cosine:.2f}); give --model and --dtype of the extraction, or extract the axis again."
        )
    print(f"the axis from the replies, read again, and the stored one: cosine {cosine:.4f}")


def _trait_names() -> set[str]:
    traits = read_object(ASSETS / "traits.json", "restore it from the repository")["traits"]
    return {trait["name"] for trait in traits}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.extraction.directions", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of an axis")
    parser.add_argument("--model", help="local folder or hub id (default: the model that the axis names)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument("--dtype", help="auto, float32, bfloat16 or float16 (default: that of the axis)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
