"""Further directions of a model beside its Assistant Axis: traits, roles, components, and a user's own.

They lie in the file directions.safetensors in the folder of the axis. A direction has a scale of its own, on
which its two poles are 0 and 1. A trait runs from the replies under its opposite's prompt to those under its
own; a role from the default Assistant to the role; a component from the average role on, with the length of
the axis as its unit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import normalize

from demo.axis.axis import AssistantAxis, Number
from demo.axis.files import axis_digest
from demo.utils.errors import UserError

FILE = "directions.safetensors"

Kind = Literal["trait", "role", "component", "imported", "pairs"]

KINDS: tuple[Kind, ...] = get_args(Kind)

# Percentiles of the default-Assistant replies' means. Each has its mirror image, so that a direction can be
# held from either side.
PERCENTILES = ("p05", "p25", "p50", "p75", "p95")

MOST_DIRECTIONS = 2000

_FORMAT = 1
_MOST_BYTES = 1024**3
_MOST_CHARACTERS = {"name": 80, "poles": 300, "notes": 700}
_MOST_NOTES = 10
_ADVICE = "make the directions again, or remove the file"


@dataclass(frozen=True)
class Direction:
    """A direction besides the Assistant Axis, at K decoder layers. Tensors are float32 on the CPU.

    Attributes:
        name: Unique among the directions of an axis, as it is shown, such as "sycophantic" or "PC1".
        layers: The K decoder layers, in order.
        vector: [K, D], raw units, one unit of its own scale long: it leads from 0 to 1.
        origin: [K], the raw projection that is 0 on its scale.
        floors: Name of a percentile -> [K], raw units: that percentile of the means of default-Assistant
            replies along the direction. Either all of `PERCENTILES`, or empty.
        cosine: With the axis at the probe layer, or at the layer nearest to it that the direction has.
        agreement: Cosine of the directions from two halves of the replies, at that layer; None if unknown.
        poles: What 0 and 1 stand for, in words.
        notes: Sentences for the reader, such as which gate it fails.
    """

    name: str
    kind: Kind
    layers: tuple[int, ...]
    vector: Tensor
    origin: Tensor
    floors: dict[str, Tensor]
    cosine: float
    agreement: float | None
    poles: tuple[str, str]
    notes: tuple[str, ...] = ()

    @cached_property
    def norm(self) -> Tensor:
        """The length of one unit per layer, [K], raw units."""
        return self.vector.norm(dim=-1)

    @cached_property
    def unit(self) -> Tensor:
        """Unit vectors, [K, D]."""
        return self.vector / self.norm[:, None]

    def index(self, layer: int) -> int:
        """Where a decoder layer stands in the tensors. Raises UserError for a layer it does not have."""
        if layer not in self.layers:
            raise UserError(
                f"The direction {self.name!r} has no vector at layer {layer}; choose one of "
                f"{', '.join(map(str, self.layers))}."
            )
        return self.layers.index(layer)

    def to_units(self, raw: Number, layer: int) -> Number:
        """Convert a raw projection at a decoder layer to the direction's own scale. Raises UserError."""
        place = self.index(layer)
        return (raw - float(self.origin[place])) / float(self.norm[place])

    def floor(self, name: str, layer: int, upward: bool = True) -> float:
        """A floor at a decoder layer, raw units.

        Args:
            name: A percentile, such as "p25".
            upward: True to keep the projection from falling: the floor is along `unit`. False to keep it from
                rising: the floor is along -unit. There a default reply's projection has the other sign, so
                that the 25th percentile of -direction is the negative of the 75th of the direction.

        Raises:
            UserError: There is no such floor, or no such layer.
        """
        stored = name if upward or name not in PERCENTILES else PERCENTILES[-1 - PERCENTILES.index(name)]
        if stored not in self.floors:
            raise UserError(
                f"There is no floor {name!r} along {self.name!r}; "
                + (f"choose one of {', '.join(self.floors)}." if self.floors else "it has none.")
            )
        value = float(self.floors[stored][self.index(layer)])
        return value if upward else -value


class Directions(Mapping[str, Direction]):
    """Directions by name, in order.

    Attributes:
        axis: Digest of the axis that they were made beside, see `axis_digest`.
    """

    def __init__(self, directions: Iterable[Direction], axis: str) -> None:
        """Raises UserError: two directions have the same name, or there are too many."""
        self.axis = axis
        self._named: dict[str, Direction] = {}
        for direction in directions:
            if direction.name in self._named:
                raise UserError(f"Two directions are called {direction.name!r}; choose another name.")
            self._named[direction.name] = direction
        if len(self._named) > MOST_DIRECTIONS:
            raise UserError(
                f"These are {len(self._named)} directions, more than {MOST_DIRECTIONS}; leave some out."
            )

    def __getitem__(self, name: str) -> Direction:
        return self._named[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)

    def of(self, kind: Kind) -> list[Direction]:
        """The directions of one kind."""
        return [direction for direction in self.values() if direction.kind == kind]

    def replaced(self, kind: Kind, directions: Iterable[Direction]) -> Directions:
        """The same, with these in place of all directions of one kind. Raises UserError."""
        others = [direction for direction in self.values() if direction.kind != kind]
        return Directions([*others, *directions], self.axis)

    def added(self, direction: Direction) -> Directions:
        """The same with one more, which takes the place of one with its name and kind. Raises UserError."""
        same = (direction.name, direction.kind)
        others = [other for other in self.values() if (other.name, other.kind) != same]
        return Directions([*others, direction], self.axis)


def kept_layers(axis: AssistantAxis) -> tuple[int, ...]:
    """The layers at which directions are kept, so that the file stays small: probe layer and cap band."""
    first, last = axis.cap_band
    return tuple(sorted({axis.probe_layer, *range(first, last + 1)}))


def as_stored(vector: Tensor) -> Tensor:
    """Vectors [..., D] as a file gives them back, with units rounded to float16.

    Origins and floors are to be measured along these, because a few coordinates of a residual stream may be
    so large that the rounding moves a projection.
    """
    norm = vector.norm(dim=-1, keepdim=True)
    return normalize((vector / norm).half().float(), dim=-1) * norm


def cosine_with_axis(axis: AssistantAxis, layers: tuple[int, ...], vector: Tensor) -> float:
    """`Direction.cosine` of vectors [K, D] at these layers."""
    nearest = min(layers, key=lambda layer: abs(layer - axis.probe_layer))
    return float(torch.cosine_similarity(vector[layers.index(nearest)], axis.direction[nearest], dim=0))


def components(axis: AssistantAxis) -> list[Direction]:
    """The principal components of the roles at all layers, without floors; those that the axis has."""
    layers = tuple(range(axis.layers))
    if axis.pca is None:
        return []
    # Very few roles have fewer components, and zeros instead.
    count = int((axis.pca.norm(dim=-1) > 0).all(-1).sum())
    return [component(axis, number, layers) for number in range(count)]


def component(axis: AssistantAxis, number: int, layers: tuple[int, ...]) -> Direction:
    """Principal component `number` of the roles, counted from 0, at some layers, without floors."""
    assert axis.pca is not None
    places = list(layers)
    vector = as_stored(axis.pca[number, places] * axis.norm[places, None])
    return Direction(
        name=f"PC{number + 1}",
        kind="component",
        layers=layers,
        vector=vector,
        origin=(axis.role_mean[places] * normalize(vector, dim=-1)).sum(-1),
        floors={},
        cosine=cosine_with_axis(axis, layers, vector),
        agreement=None,
        poles=("the average role", f"one axis unit along principal component {number + 1} of the roles"),
    )


def load_directions(folder: Path, axis: AssistantAxis) -> Directions:
    """The further directions in the folder of an axis; none without a file.

    The file is checked like a stranger's: sizes, shapes, numbers and names.

    Raises:
        UserError: It is malformed, or was made beside another axis.
    """
    path, digest = folder / FILE, axis_digest(axis)
    if not path.is_file():
        return Directions((), digest)
    if path.stat().st_size > _MOST_BYTES:
        raise UserError(f"{path} holds more than {_MOST_BYTES // 1024**3} GiB of directions; {_ADVICE}.")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if about["format"] != _FORMAT:
            raise UserError(f"{path} has a format that this program does not read; update the program.")
        if about["axis"] != digest:
            raise UserError(f"{path} was made beside another axis; {_ADVICE}.")
        return Directions(_from_rows(about["directions"], tensors, axis), digest)
    except UserError:
        raise
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} holds no sound directions ({error}); {_ADVICE}.") from error


def all_directions(axis: AssistantAxis, folder: Path | None) -> Directions:
    """The directions in the folder of an axis, and its principal components, for those not in the file.

    Raises:
        UserError: The file is malformed, or was made beside another axis.
    """
    found = Directions((), axis_digest(axis)) if folder is None else load_directions(folder, axis)
    missing = [one for one in components(axis) if one.name not in found]
    return Directions([*found.values(), *missing], found.axis)


def save_directions(directions: Directions, folder: Path) -> None:
    """Write directions.safetensors into the folder of their axis.

    A row of its tensors is one direction at one layer, R in all: "unit" [R, D] float16; "norm", "origin" and
    "floor_<percentile>" [R] float32, with zeros for directions without floors. The metadata entry "about" is
    JSON with the other attributes of each direction, in the order of the rows.

    Raises:
        UserError: Writing failed. A file that was there before is then intact.
    """
    listed, part = list(directions.values()), folder / f".{FILE}.part"
    if not listed:
        (folder / FILE).unlink(missing_ok=True)
        return
    tensors = {
        "unit": torch.cat([one.unit for one in listed]).half(),
        "norm": torch.cat([one.norm for one in listed]).float(),
        "origin": torch.cat([one.origin for one in listed]).float(),
    }
    for name in PERCENTILES:
        rows = [one.floors.get(name, torch.zeros(len(one.layers))) for one in listed]
        tensors[f"floor_{name}"] = torch.cat(rows).float()
    about = {"format": _FORMAT, "axis": directions.axis, "directions": [_entry(one) for one in listed]}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(about, ensure_ascii=False, allow_nan=False)
        # Written here and not by the library, which lets nobody else read its files.
        part.write_bytes(save(tensors, metadata={"about": text}))
        os.replace(part, folder / FILE)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise UserError(
            f"{folder / FILE} cannot be written ({error}): free some space or choose another folder."
        ) from error


def _entry(direction: Direction) -> dict[str, Any]:
    return {
        "name": direction.name,
        "kind": direction.kind,
        "layers": list(direction.layers),
        "cosine": round(direction.cosine, 4),
        "agreement": None if direction.agreement is None else round(direction.agreement, 4),
        "poles": list(direction.poles),
        "notes": list(direction.notes),
        "floors": bool(direction.floors),
    }


def _from_rows(entries: Any, tensors: dict[str, Tensor], axis: AssistantAxis) -> Iterator[Direction]:
    """The directions in a file. Raises ValueError and the like, where it is malformed."""
    if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_DIRECTIONS:
        raise ValueError(f"not a list of 1 to {MOST_DIRECTIONS} directions")
    layers = [_layers(entry, axis.layers) for entry in entries]
    rows, hidden = sum(map(len, layers)), axis.direction.shape[1]
    numbers = ("norm", "origin", *(f"floor_{name}" for name in PERCENTILES))
    for name, shape in (("unit", (rows, hidden)), *((name, (rows,)) for name in numbers)):
        tensor = tensors[name]
        if tuple(tensor.shape) != shape or tensor.dtype not in (torch.float16, torch.float32):
            raise ValueError(f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}, not of {shape}")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds NaN or infinite numbers")
    vector, start = normalize(tensors["unit"].float(), dim=-1) * tensors["norm"].float()[:, None], 0
    lengths = vector.norm(dim=-1)
    if not bool(((lengths > 0) & torch.isfinite(lengths)).all()):
        raise ValueError("a direction has no length")
    for entry, own in zip(entries, layers, strict=True):
        part = slice(start, start + len(own))
        floors = (
            {name: tensors[f"floor_{name}"][part].float() for name in PERCENTILES} if entry["floors"] else {}
        )
        yield _checked(entry, own, vector[part], tensors["origin"][part].float(), floors)
        start = part.stop


def _layers(entry: Any, count: int) -> tuple[int, ...]:
    layers = entry["layers"]
    if not isinstance(layers, list) or not layers or not all(type(layer) is int for layer in layers):
        raise ValueError("layers are not a list of numbers")
    if layers != sorted(set(layers)) or not 0 <= layers[0] <= layers[-1] < count:
        raise ValueError(f"layers are not in order, or not among the {count} of the axis")
    return tuple(layers)


def _checked(
    entry: dict[str, Any], layers: tuple[int, ...], vector: Tensor, origin: Tensor, floors: dict[str, Tensor]
) -> Direction:
    """The direction, with its texts and numbers checked. Raises ValueError or LookupError."""
    low, high = entry["poles"]
    check_text(entry["name"], "name")
    for pole in (low, high):
        check_text(pole, "poles")
    notes = entry["notes"]
    if not isinstance(notes, list) or len(notes) > _MOST_NOTES:
        raise ValueError("notes are not a short list")
    for note in notes:
        check_text(note, "notes")
    if entry["kind"] not in KINDS:
        raise ValueError(f"the kind {str(entry['kind'])[:40]!r} is unknown")
    cosine, agreement = entry["cosine"], entry["agreement"]
    for value in (cosine, 0.0 if agreement is None else agreement):
        if not isinstance(value, int | float) or not -1.001 <= value <= 1.001:
            raise ValueError("a cosine does not lie between -1 and 1")
    return Direction(
        name=entry["name"],
        kind=entry["kind"],
        layers=layers,
        vector=vector,
        origin=origin,
        floors=floors,
        cosine=float(cosine),
        agreement=agreement,
        poles=(low, high),
        notes=tuple(notes),
    )


def check_text(text: object, what: Literal["name", "poles", "notes"]) -> None:
    """Raise ValueError for a text that cannot be shown: not one short line."""
    most = _MOST_CHARACTERS[what]
    if (
        not isinstance(text, str)
        or not 1 <= len(text) <= most
        or not text.isprintable()
        or text != text.strip()
    ):
        raise ValueError(f"{what}: {str(text)[:40]!r} is not a line of at most {most} characters")
