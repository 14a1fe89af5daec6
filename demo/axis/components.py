"""Principal components of the role vectors, and how far they are this model's and not the sample's.

Role vectors are centred first: raw ones nearly coincide (arXiv 2601.10387, section 2). PC1 of few rollouts a role is
partly noise, so it is also computed from two independent halves of the rollouts: in the covariance of one half's vectors
with the other's, noise averages out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from demo.axis.axis import AssistantAxis

# A share of the first component's variance below this is rounding.
_FLAT = 1e-9


@dataclass(frozen=True)
class Pca:
    """directions [k, D], unit, each turned so that the axis points along it; shares [R]: of the variance, largest first."""

    directions: Tensor
    shares: Tensor

    def needed_for(self, share: float) -> int:
        """How many components hold this share of the variance."""
        return int((self.shares.cumsum(0) < share - 1e-6).sum()) + 1


def pca(vectors: Tensor, toward: Tensor, count: int = 3) -> Pca:
    """Centred PCA of role vectors [R, D]. toward [D]: the axis, which fixes each component's sign: plus is Assistant-ward.

    Through the Gram matrix [R, R], because D may be thousands. Components without variance to speak of are rounding, not
    directions, and are left out, so fewer than `count` may come back.
    """
    centred = (vectors - vectors.mean(0)).double()
    variances, mixes = torch.linalg.eigh(centred @ centred.T)
    variances, mixes = variances.clamp(min=0).flip(0), mixes.flip(1)
    count = min(count, int((variances > _FLAT * variances[0]).sum()))
    directions = torch.nn.functional.normalize(mixes[:, :count].T @ centred, dim=-1).float()
    shares = variances / variances.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return Pca(_turned(directions, toward), shares.float())


def common_component(one: Tensor, other: Tensor, toward: Tensor) -> Tensor:
    """PC1 of what two independent estimates [R, D] of the same role vectors share, unit, [D].

    The leading eigenvector of their symmetrised cross-covariance, found within the span of all 2R vectors, so that D may
    be large.
    """
    one, other = one - one.mean(0), other - other.mean(0)
    basis = torch.linalg.qr(torch.cat([one, other]).T).Q
    cross = (one @ basis).T @ (other @ basis)
    values, vectors = torch.linalg.eigh(cross + cross.T)
    return _turned((basis @ vectors[:, values.argmax()])[None], toward)[0]


def subspace_cosine(directions: Tensor, unit: Tensor) -> float:
    """Length of a unit vector's part within the span of orthonormal `directions` [k, D]: 1 when it lies inside."""
    return float((directions @ unit).norm())


def _turned(directions: Tensor, toward: Tensor) -> Tensor:
    signs = torch.where(directions @ toward < 0, -1.0, 1.0)
    return directions * signs[:, None]


@dataclass(frozen=True, slots=True)
class Components:
    """rows [3, D] float32: principal components over the length of an axis unit; origin [3] float32: what the mean
    role vector gives under them. Both on one device."""

    rows: Tensor
    origin: Tensor

    def place(self, hidden: Tensor) -> Tensor:
        """Residual streams [B, D] of any float dtype at the probe layer -> coordinates [B, 3] float32, axis units."""
        rows, origin = self.rows.to(hidden.device), self.origin.to(hidden.device)
        return torch.addmm(origin, hidden.float(), rows.T, beta=-1)


def probe_components(axis: AssistantAxis, device: torch.device | str = "cpu") -> Components | None:
    """The components at the axis's probe layer; None for an axis that was saved without them."""
    if axis.pca is None:
        return None
    probe = axis.probe_layer
    rows = axis.pca[:, probe] / axis.norm[probe]
    return Components(rows.to(device), (rows @ axis.role_mean[probe]).to(device))


def default_place(axis: AssistantAxis) -> tuple[float, float, float] | None:
    """Where the default Assistant lies. As its distance along the axis is 1, these are also the cosines between each
    component and the axis."""
    components = probe_components(axis)
    if components is None:
        return None
    x, y, z = components.place(axis.default_mean[axis.probe_layer, None])[0].tolist()
    return x, y, z


NO_MAP = (
    "There is no map for this axis, because it was saved without the principal components of its roles; "
    "extract it again to get one."
)

MARKS = "Large marks: this turn’s replies; small: earlier turns."

# Below this cosine a reader who looks only at left and right would be misled.
LOOSE_COSINE = 0.6

_FAR = 1e6  # axis units


def persona_map(axis: AssistantAxis) -> dict[str, Any]:
    """The still part of the map as JSON values; {"missing": sentence} when the axis has none.

    roles: [name, [PC1, PC2, PC3], projection] each; default: the default Assistant's place. The average role lies at
    0, 0, 0. Everything is in axis units at the probe layer. variance: each component's share of the roles' variance,
    may be empty. notes: sentences for the reader.
    """
    default, roles = default_place(axis), _roles(axis)
    if default is None or not roles:
        return {"missing": NO_MAP}
    variance = _variance(axis)
    return {
        "roles": roles,
        "default": [round(value, 4) for value in default],
        "variance": variance,
        "notes": [explanation(len(roles), variance), *_caution(default), MARKS],
    }


def explanation(roles: int, variance: Sequence[float]) -> str:
    """The map for someone who has never seen one. variance: shares of PC1 to PC3, or empty."""
    held = ""
    if variance:
        shares = [f"{share:.0%}" for share in variance]
        held = f" PC1, PC2 and PC3 hold {shares[0]}, {shares[1]} and {shares[2]} of the differences."
    return (
        f"Each dot is one of {roles} roles the model was asked to play, near each other if its inner states are "
        f"alike; right is the Assistant’s side.{held}"
    )


def _caution(default: Sequence[float]) -> list[str]:
    """default: also the cosines between the components and the axis."""
    if default[0] >= LOOSE_COSINE:
        return []
    return [
        f"PC1 follows the axis (the arrow) only loosely here, cosine {default[0]:.2f}: "
        "trust colour more than left and right."
    ]


def _roles(axis: AssistantAxis) -> list[list[Any]]:
    """Entries of the manifest that can be drawn; others are left out."""
    roles, entries = [], axis.manifest.get("roles")
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        name, projection, place = entry.get("name"), entry.get("projection"), entry.get("pc")
        if isinstance(name, str) and _numbers([projection], 1) and _numbers(place, 3):
            roles.append([name, place, projection])
    return roles


def _variance(axis: AssistantAxis) -> list[float]:
    pca = axis.manifest.get("pca")
    shares = pca.get("explained_variance") if isinstance(pca, dict) else None
    shares = shares[:3] if isinstance(shares, list) else None
    return [round(share, 4) for share in shares] if shares is not None and _numbers(shares, 3) else []


def _numbers(values: object, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        # Beyond this a number is no place on a map, and whole numbers may be larger than any float.
        and all(isinstance(value, int | float) and abs(value) < _FAR for value in values)
    )
