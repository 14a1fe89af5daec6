"""The Assistant Axis of a model: directions, means, floors and units, and the check that an axis is sound.

direction[l] = mean activation of default-Assistant replies - mean role vector, at the output of decoder
layer l (arXiv 2601.10387, section 2). It points TOWARD the Assistant. Raw projection p = <h, unit[l]>.
Axis units are (p - p_role_mean) / ||direction[l]||: 0 is the average role, 1 is the default Assistant.
"""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from demo.axis.zones import Zones, zones_of
from demo.utils.errors import UserError

FORMAT = 1  # of axis.json

FLOOR_NAMES = ("p05", "p25", "p50", "p75")  # of an extracted axis; an imported axis has others

_MAX_UNITS = 1e6  # no genuine reading is larger, in axis units

Number = TypeVar("Number", float, Tensor)


class ModelIdentity(Protocol):
    """The facts about a model that decide whether an axis belongs to it."""

    @property
    def spec(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def layer_count(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def digest(self) -> str | None: ...
    @property
    def dtype_name(self) -> str: ...
    @property
    def base(self) -> bool: ...
    @property
    def tokenizer(self) -> Sized: ...


@dataclass(frozen=True)
class AssistantAxis:
    """An axis for one model of L decoder layers and hidden size D. All tensors are float32 on the CPU.

    Attributes:
        direction: [L, D], default mean minus role mean.
        role_mean: [L, D], mean role vector.
        default_mean: [L, D], mean activation of default-Assistant replies.
        floors: Name -> [L], raw projection units, -inf at layers without a floor. "p25" is the 25th
            percentile of default-Assistant reply means.
        manifest: The content of axis.json.
        pca: [3, L, D] or None, the first principal components of the centred role vectors of each
            layer. They are unit vectors, with signs such that the Assistant's side is positive.
    """

    direction: Tensor
    role_mean: Tensor
    default_mean: Tensor
    floors: dict[str, Tensor]
    manifest: dict[str, Any] = field(default_factory=dict)
    pca: Tensor | None = None

    @cached_property
    def norm(self) -> Tensor:
        """||direction|| per layer, [L], raw units: the length of one axis unit."""
        return self.direction.norm(dim=-1)

    @cached_property
    def unit(self) -> Tensor:
        """Unit direction toward the Assistant per layer, [L, D]."""
        return self.direction / self.norm[:, None]

    @cached_property
    def origin(self) -> Tensor:
        """Raw projection of the mean role vector per layer, [L]: 0 in axis units."""
        return (self.role_mean * self.unit).sum(-1)

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return self.direction.shape[0]

    @property
    def probe_layer(self) -> int:
        """The layer at which projections are read."""
        return int(self.manifest["probe_layer"])

    @property
    def cap_band(self) -> tuple[int, int]:
        """First and last capped layer, both inclusive."""
        first, last = self.manifest["cap"]["layers"]
        return int(first), int(last)

    @property
    def cap_floor(self) -> str:
        """Name of the floor that belongs to the cap."""
        return str(self.manifest["cap"]["floor"])

    @property
    def cap_only_below(self) -> float | None:
        """The cap acts only on replies that begin below this, axis units; None where it acts on all."""
        below = self.manifest["cap"].get("only_below")
        return None if below is None else float(below)

    def unconditional(self) -> AssistantAxis:
        """The axis with a cap that acts on every reply, for engines that cannot wait for where one begins.

        It is the one that the manifest names for this ("otherwise"); without one, the cap without its
        condition.
        """
        if self.cap_only_below is None:
            return self
        cap = self.manifest["cap"]
        other = cap.get("otherwise") or {name: cap[name] for name in ("layers", "floor")}
        return replace(self, manifest={**self.manifest, "cap": {**other, "chosen_by": cap.get("chosen_by")}})

    @property
    def default_range(self) -> tuple[float, float] | None:
        """5th and 95th percentile of default-Assistant reply means at the probe layer, axis units."""
        span = self.manifest.get("default_range")
        return None if span is None else (float(span[0]), float(span[1]))

    @property
    def zones(self) -> Zones | None:
        """Where a reply's mean at the probe layer counts as role-played, unclear or the Assistant's."""
        return zones_of(self.manifest)

    def to_units(self, raw: Number, layer: int) -> Number:
        """Convert a raw projection at `layer` to axis units (0 = average role, 1 = default Assistant)."""
        return (raw - float(self.origin[layer])) / float(self.norm[layer])

    def floor_units(self, name: str, layer: int) -> float:
        """A named floor at `layer`, in axis units; -inf where that layer has none."""
        return self.to_units(float(self.floor(name)[layer]), layer)

    def floor(self, name: str) -> Tensor:
        """A named floor for every layer, [L], raw units. Raises UserError for an unknown name."""
        if name not in self.floors:
            raise UserError(
                f"There is no floor {name!r} in this axis; choose one of {', '.join(self.floors)}."
            )
        return self.floors[name]

    def floor_layers(self, name: str) -> tuple[int, ...]:
        """The layers at which a named floor exists. Raises UserError for an unknown name."""
        return tuple(torch.isfinite(self.floor(name)).nonzero().flatten().tolist())

    def check_model(self, model: ModelIdentity) -> list[str]:
        """Check that this axis can belong to `model`.

        Returns:
            Sentences to show, such as that floors may not transfer to this checkpoint.

        Raises:
            UserError: The model has another architecture or shape.
        """
        made_for = self.manifest["model"]
        actual: dict[str, Any] = {
            "architecture": model.architecture,
            "layers": model.layer_count,
            "hidden_size": model.hidden_size,
            "vocab_size": len(model.tokenizer),
        }
        for key, value in actual.items():
            expected = made_for.get(key, value)
            if expected != value:
                raise UserError(
                    f"This axis was made for {made_for.get('id', 'another model')} ({key} {expected}) "
                    f"and cannot be used with {model.spec} ({key} {value}); "
                    "give --axis one that was extracted from this model."
                )
        notes = [str(note) for note in self.manifest.get("notes", [])]
        if "id" not in made_for:
            notes.append("The axis does not say which model it was made from: floors may not transfer.")
        elif not self._made_from(model):
            notes.append(
                f"The axis was extracted from {made_for['id']}, not from this checkpoint: "
                "floors may not transfer."
            )
        if bool(made_for.get("base")) != model.base:
            kinds = ("chats in a chat model's format", "plain transcripts (--base)")
            notes.append(
                f"The axis was made from {kinds[not model.base]}, and this model is given "
                f"{kinds[model.base]}: floors may not transfer."
            )
        dtype = made_for.get("dtype")
        if dtype and dtype != model.dtype_name:
            notes.append(
                f"The axis was extracted in {dtype}; this model runs in {model.dtype_name}, "
                "so floors may be slightly off."
            )
        return notes

    def _made_from(self, model: ModelIdentity) -> bool:
        """Whether the model has the weights that the axis was made from, as far as both sides know."""
        made_for = self.manifest["model"]
        if made_for.get("digest") and model.digest:
            return bool(made_for["digest"] == model.digest)
        revision = made_for.get("revision")
        same_revision = not revision or not model.revision or revision == model.revision
        return bool(made_for["id"] == model.spec) and same_revision


def check_axis(axis: AssistantAxis, where: object, advice: str = "extract the axis again") -> None:
    """Check shapes, finiteness and layer numbers, so that an unsound axis fails here and not during a reply.

    Args:
        axis: The axis to check.
        where: Where it comes from, for the error message.
        advice: What the user should do; the error message ends with it.

    Raises:
        UserError: The axis is unsound.
    """
    shape, layers = axis.direction.shape, axis.direction.shape[0]
    same = axis.direction.ndim == 2 and axis.role_mean.shape == shape == axis.default_mean.shape
    if (
        not same
        or any(floor.shape != (layers,) for floor in axis.floors.values())
        or (axis.pca is not None and axis.pca.shape != (3, *shape))
    ):
        raise UserError(
            f"The tensors in {where} do not fit together (direction is {tuple(shape)}); {advice}."
        )
    values = [axis.direction, axis.role_mean, axis.default_mean]
    values += [] if axis.pca is None else [axis.pca]
    # -inf is a valid floor: it stands for none at this layer.
    floors_fit = all(bool((floor < torch.inf).all()) for floor in axis.floors.values())
    if not floors_fit or not all(torch.isfinite(v).all() for v in values) or bool((axis.norm == 0).any()):
        raise UserError(f"The axis in {where} holds NaN, infinite or zero directions or floors; {advice}.")
    if not axis.floors:
        raise UserError(f"The axis in {where} has no floors, so there is nothing to cap at; {advice}.")
    _check_manifest(axis, where, advice)
    other = axis.unconditional()
    if other is not axis:
        _check_manifest(other, where, advice)


def _check_manifest(axis: AssistantAxis, where: object, advice: str) -> None:
    """Check that the manifest names only layers and floors that the tensors have. Raises UserError."""
    layers, model, notes = axis.layers, axis.manifest["model"], axis.manifest.get("notes", [])
    try:
        probe, (first, last), floor = axis.probe_layer, axis.cap_band, axis.cap_floor
        low, high = axis.default_range or (0.0, 1.0)
        below = axis.cap_only_below
        fits = (
            -_MAX_UNITS < low < high < _MAX_UNITS
            and (below is None or -_MAX_UNITS < below < _MAX_UNITS)
            and 0 <= probe < layers
            and 0 <= first <= last < layers
            and floor in axis.floors
        )
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"The manifest of {where} has a malformed entry ({error!r}); {advice}.") from error
    if not isinstance(model, dict) or not isinstance(notes, list):
        raise UserError(f"The manifest of {where} has a malformed 'model' or 'notes'; {advice}.")
    if not fits:
        raise UserError(
            f"The manifest of {where} names layers or a floor that the axis does not have ({layers} layers); "
            f"{advice}."
        )
    if not set(range(first, last + 1)) <= set(axis.floor_layers(floor)):
        raise UserError(
            f"The axis in {where} caps layers {first} to {last}, but {floor} has no floor at some of them; "
            f"{advice}."
        )
