"""Builds a further direction beside an axis from a file of a steering library.

Unlike that of an axis, its sign is taken from the file as it is: the vector points to what its name says, and
only the user knows whether that is true.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.functional import normalize

from demo.axis.axis import AssistantAxis
from demo.axis.directions import Direction, as_stored, check_text, cosine_with_axis, kept_layers
from demo.axis.importer.by_layer import read_by_layer
from demo.axis.importer.floors import spans
from demo.utils.errors import UserError


def import_direction(
    path: Path, axis: AssistantAxis, name: str | None = None, key: str | None = None, layer: int | None = None
) -> Direction:
    """Read a direction, at the layers that are kept of `axis`, or at all that it has if it has none of them.

    Args:
        name: how it is called; None for the entry or the file's name.
        key, layer: see `read_by_layer`.

    Raises:
        UserError: the file is malformed, or its vectors do not fit the axis.
    """
    name = name or (key or path.stem).replace("_", " ").strip()
    try:
        check_text(name, "name")
    except ValueError as error:
        raise UserError(f"This direction needs another name ({error}); give --name.") from error
    read = read_by_layer(path, key, layer)
    vectors, hidden = read.of_model(axis.layers), axis.direction.shape[1]
    sizes = {vector.shape[0] for vector in vectors.values()}
    if sizes != {hidden} or max(vectors) >= axis.layers or (read.matrix and len(vectors) != axis.layers):
        have = f"size {', '.join(map(str, sorted(sizes)))} at layers {spans(vectors)}"
        raise UserError(
            f"{path} has vectors of {have}, but the axis is {axis.layers} layers of {hidden}, so they are "
            "not of the same model; give another file."
        )
    kept = [one for one in kept_layers(axis) if one in vectors]
    layers = tuple(kept or sorted(vectors))
    vector = as_stored(torch.stack([vectors[one] for one in layers]))
    # An imported axis without anchors does not know where its default Assistant lies.
    anchored = axis.manifest.get("anchors", True)
    start = axis.default_mean[list(layers)] * (1.0 if anchored else 0.0)
    embeddings = read.matrix and len(read.vectors) == axis.layers + 1
    return Direction(
        name=name,
        kind="imported",
        layers=layers,
        vector=vector,
        origin=(start * normalize(vector, dim=-1)).sum(-1),
        floors={},
        cosine=cosine_with_axis(axis, layers, vector),
        agreement=None,
        poles=(
            "the default Assistant" if anchored else "a projection of 0",
            f"one length of the vector toward {name}",
        ),
        notes=(
            f"Sign and length are those of the file {_shown(path.name)}.",
            *(["The first row of its matrix was taken for the embeddings."] if embeddings else []),
        ),
    )


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)[:100]
