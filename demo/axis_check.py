"""Whether an axis holds together: shapes, finiteness, layer numbers, and a manifest that speaks only of what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from demo.errors import UserError

if TYPE_CHECKING:
    from demo.axis import AssistantAxis

_FAR = 1e6  # axis units: nothing that is a reading lies beyond


def check_axis(axis: AssistantAxis, where: object, cure: str = "extract the axis again") -> None:
    """Shapes, finiteness and layer numbers: a bad axis must fail here, not in the middle of a reply.

    Raises UserError with one sentence that names `where` and ends with what to do (`cure`).
    """
    shape, layers = axis.direction.shape, axis.direction.shape[0]
    same = axis.direction.ndim == 2 and axis.role_mean.shape == shape == axis.default_mean.shape
    if (
        not same
        or any(floor.shape != (layers,) for floor in axis.floors.values())
        or (axis.pca is not None and axis.pca.shape != (3, *shape))
    ):
        raise UserError(f"The tensors in {where} do not fit together (direction is {tuple(shape)}); {cure}.")
    values = [axis.direction, axis.role_mean, axis.default_mean]
    values += [] if axis.pca is None else [axis.pca]
    # -inf is a floor too: none at this layer.
    floors_fit = all(bool((floor < torch.inf).all()) for floor in axis.floors.values())
    if not floors_fit or not all(torch.isfinite(v).all() for v in values) or bool((axis.norm == 0).any()):
        raise UserError(f"The axis in {where} holds NaN, infinite or zero directions or floors; {cure}.")
    if not axis.floors:
        raise UserError(f"The axis in {where} has no floors, so there is nothing to cap at; {cure}.")
    _check_manifest(axis, where, cure)


def _check_manifest(axis: AssistantAxis, where: object, cure: str) -> None:
    """The manifest speaks only of layers and floors that the tensors have."""
    layers, model, notes = axis.layers, axis.manifest["model"], axis.manifest.get("notes", [])
    try:
        probe, (first, last), floor = axis.probe_layer, axis.cap_band, axis.cap_floor
        low, high = axis.default_range or (0.0, 1.0)
        fits = (
            -_FAR < low < high < _FAR
            and 0 <= probe < layers
            and 0 <= first <= last < layers
            and floor in axis.floors
        )
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"The manifest of {where} has a malformed entry ({error!r}); {cure}.") from error
    if not isinstance(model, dict) or not isinstance(notes, list):
        raise UserError(f"The manifest of {where} has a malformed 'model' or 'notes'; {cure}.")
    if not fits:
        raise UserError(
            f"The manifest of {where} names layers or a floor that the axis does not have ({layers} layers); {cure}."
        )
    if not set(range(first, last + 1)) <= set(axis.floor_layers(floor)):
        raise UserError(
            f"The axis in {where} caps layers {first} to {last}, but {floor} has no floor at some of them; {cure}."
        )
