"""Principal components of the role vectors, coordinates along them, and the persona map drawn from them.

Role vectors are centred first: raw ones nearly coincide (arXiv 2601.10387, section 2). With few
rollouts per role PC1 is partly noise, so it is also computed from two independent halves of the
rollouts: in the covariance of one half's vectors with the other's, noise averages out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.axis.gates import ASSISTANT_WORDS, axis_words

NO_MAP = (
    "There is no map for this axis, because it was saved without the principal components of its roles; "
    "extract it again to get one."
)

MARKS = "Large marks: this turn’s replies; small: earlier turns."

LOOSE_COSINE = 0.6  # below this cosine, left and right on the map are no longer a good guide to the axis

_ROUNDING = 1e-9  # a variance below this share of the first component's is rounding error

_MAX_UNITS = 1e6  # axis units; larger numbers are not drawn


@dataclass(frozen=True)
class Pca:
    """Principal components of role vectors.

    Attributes:
        directions: [k, D], unit vectors, each with the sign that makes the axis point along it.
        shares: [R], each component's share of the variance, largest first.
    """

    directions: Tensor
    shares: Tensor

    def needed_for(self, share: float) -> int:
        """How many components together hold this share of the variance."""
        return int((self.shares.cumsum(0) < share - 1e-6).sum()) + 1


@dataclass(frozen=True, slots=True)
class Components:
    """Converts residual streams to coordinates along the components. Both tensors are on one device.

    Attributes:
        rows: [3, D] float32, principal components divided by the length of an axis unit.
        origin: [3] float32, the mean role vector's product with `rows`.
    """

    rows: Tensor
    origin: Tensor

    def place(self, hidden: Tensor) -> Tensor:
        """Convert residual streams at the probe layer, [B, D] of any float dtype, to coordinates.

        Returns [B, 3], float32, in axis units.
        """
        rows, origin = self.rows.to(hidden.device), self.origin.to(hidden.device)
        return torch.addmm(origin, hidden.float(), rows.T, beta=-1)


def pca(vectors: Tensor, toward: Tensor, count: int = 3) -> Pca:
    """Centred PCA of role vectors.

    It uses the Gram matrix [R, R], because D may be thousands.

    Args:
        vectors: [R, D].
        toward: [D], the axis, which fixes each component's sign: plus is the Assistant's side.
        count: How many components to return. Fewer are returned where the rest would be rounding error.
    """
    centred = (vectors - vectors.mean(0)).double()
    variances, mixes = torch.linalg.eigh(centred @ centred.T)
    variances, mixes = variances.clamp(min=0).flip(0), mixes.flip(1)
    count = min(count, int((variances > _ROUNDING * variances[0]).sum()))
    directions = torch.nn.functional.normalize(mixes[:, :count].T @ centred, dim=-1).float()
    shares = variances / variances.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return Pca(_turned(directions, toward), shares.float())


def common_component(one: Tensor, other: Tensor, toward: Tensor) -> Tensor:
    """PC1 of what two independent estimates [R, D] of the same role vectors share, a unit vector [D].

    It is the leading eigenvector of their symmetrised cross-covariance, computed within the span of all
    2R vectors, so that D may be large. `toward` [D] is the axis, which fixes its sign.
    """
    one, other = one - one.mean(0), other - other.mean(0)
    basis = torch.linalg.qr(torch.cat([one, other]).T).Q
    cross = (one @ basis).T @ (other @ basis)
    values, vectors = torch.linalg.eigh(cross + cross.T)
    return _turned((basis @ vectors[:, values.argmax()])[None], toward)[0]


def subspace_cosine(directions: Tensor, unit: Tensor) -> float:
    """Length of a unit vector's projection on the span of orthonormal `directions` [k, D], at most 1."""
    return float((directions @ unit).norm())


def probe_components(axis: AssistantAxis, device: torch.device | str = "cpu") -> Components | None:
    """The components at the axis's probe layer; None for an axis that was saved without them."""
    if axis.pca is None:
        return None
    probe = axis.probe_layer
    rows = axis.pca[:, probe] / axis.norm[probe]
    return Components(rows.to(device), (rows @ axis.role_mean[probe]).to(device))


def default_place(axis: AssistantAxis) -> tuple[float, float, float] | None:
    """Coordinates of the default Assistant; None for an axis that was saved without components.

    Because it lies at 1 along the axis, these are also the cosines between the components and the axis.
    """
    components = probe_components(axis)
    if components is None:
        return None
    x, y, z = components.place(axis.default_mean[axis.probe_layer, None])[0].tolist()
    return x, y, z


def persona_map(axis: AssistantAxis) -> dict[str, Any]:
    """The fixed part of the persona map, as JSON values in axis units at the probe layer.

    Returns:
        {"missing": sentence} for an axis that has no map; else a dict with
        roles: [name, [PC1, PC2, PC3], projection] of each role;
        default: the default Assistant's coordinates (the average role's are 0, 0, 0);
        variance: each component's share of the roles' variance, or an empty list;
        notes: sentences for the reader.
    """
    default, roles = default_place(axis), _roles(axis)
    if default is None or not roles:
        return {"missing": NO_MAP}
    variance = _variance(axis)
    return {
        "roles": roles,
        "default": [round(value, 4) for value in default],
        "variance": variance,
        "notes": [explanation(len(roles), variance, axis_words(axis.manifest).up), *_caution(default), MARKS],
    }


def explanation(roles: int, variance: Sequence[float], up: str = ASSISTANT_WORDS.up) -> str:
    """Explain the map to a first-time reader. `variance` holds the shares of PC1 to PC3, or is empty.

    `up` names the axis's upper end.
    """
    held = ""
    if variance:
        shares = [f"{share:.0%}" for share in variance]
        held = f" PC1, PC2 and PC3 hold {shares[0]}, {shares[1]} and {shares[2]} of the differences."
    side = "the Assistant’s side" if up == ASSISTANT_WORDS.up else f"the side of the model’s {up} replies"
    return (
        f"Each dot is one of {roles} roles that the model was asked to play; dots are near each other if the "
        f"model’s inner states are alike. Right is {side}.{held}"
    )


def _turned(directions: Tensor, toward: Tensor) -> Tensor:
    """The same directions [k, D], each with the sign that gives it a non-negative product with `toward`."""
    signs = torch.where(directions @ toward < 0, -1.0, 1.0)
    return directions * signs[:, None]


def _caution(default: Sequence[float]) -> list[str]:
    """A warning where PC1 does not follow the axis. `default`: cosines between components and axis."""
    if default[0] >= LOOSE_COSINE:
        return []
    return [
        f"PC1 follows the axis (the arrow) only loosely here, cosine {default[0]:.2f}: "
        "trust colour more than left and right."
    ]


def _roles(axis: AssistantAxis) -> list[list[Any]]:
    """The manifest's roles as [name, place, projection]; entries that cannot be drawn are left out."""
    roles, entries = [], axis.manifest.get("roles")
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        name, projection, place = entry.get("name"), entry.get("projection"), entry.get("pc")
        if isinstance(name, str) and _numbers([projection], 1) and _numbers(place, 3):
            roles.append([name, place, projection])
    return roles


def _variance(axis: AssistantAxis) -> list[float]:
    entry = axis.manifest.get("pca")
    shares = entry.get("explained_variance") if isinstance(entry, dict) else None
    shares = shares[:3] if isinstance(shares, list) else None
    return [round(share, 4) for share in shares] if shares is not None and _numbers(shares, 3) else []


def _numbers(values: object, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        # Integers of an untrusted file may be larger than any float.
        and all(isinstance(value, int | float) and abs(value) < _MAX_UNITS for value in values)
    )
