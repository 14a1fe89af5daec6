"""Which way a published vector points, decided by evidence and never by a guess.

The published axis points toward the Assistant; the published capping vectors and Neuronpedia's contrast
vectors point toward the roles. Capping along a vector of the wrong sign drives a model into its roles,
so an import without evidence is refused, and so is one whose evidence disagrees.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor

from demo.axis.published import KnownFile, Side
from demo.utils.errors import UserError

CLEAR = 0.5  # a |cosine| below this is no evidence of a direction

SAME = 0.99  # least |cosine| of axis and capping vector for the ceiling to apply; published files have 1


@dataclass(frozen=True)
class Evidence:
    """One reason to believe that the stored axis points to `side`.

    Attributes:
        what: The reason.
        side: "assistant" or "role".
        cosines: Layer -> cosine of the axis with a vector that points toward the Assistant; empty where
            the reason is not a measurement.
    """

    what: str
    side: Side
    cosines: Mapping[int, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The evidence as an entry of the manifest."""
        entry: dict[str, Any] = {"what": self.what, "points_to": self.side}
        if self.cosines:
            values = list(self.cosines.values())
            numbers = {"lowest": min(values), "median": median(values), "highest": max(values)}
            entry["cosine"] = {key: round(value, 4) for key, value in numbers.items()}
            entry["layers"] = len(values)
        return entry

    def __str__(self) -> str:
        if not self.cosines:
            return f"{self.what}: {self.side}-ward"
        values = self.cosines.values()
        return (
            f"{self.what}: {self.side}-ward (cosine {min(values):+.3f} to {max(values):+.3f}, "
            f"median {median(values):+.3f}, {len(values)} layers)"
        )


def from_means(axis: Tensor, default: Tensor, role_mean: Tensor, used: Collection[int]) -> Evidence:
    """Compare the axis with default mean - mean role vector.

    Args:
        axis: [L, D].
        default: [L, D], default mean.
        role_mean: [L, D], mean role vector.
        used: Layers that are read or capped, at which the comparison must be clear.

    Raises:
        UserError: It is not clear.
    """
    cosines = torch.cosine_similarity(axis, default - role_mean, dim=-1).tolist()
    return _measured("default_vector minus the mean of role_vectors", dict(enumerate(cosines)), used)


def from_capping(axis: Tensor, vectors: Mapping[int, Tensor]) -> Evidence:
    """Compare the axis [L, D] with capping vectors, layer -> [D]. Having ceilings, they point to the roles.

    Raises:
        UserError: The comparison is not clear at some layer.
    """
    cosines = {
        layer: float(torch.cosine_similarity(axis[layer], -vector, dim=0))
        for layer, vector in vectors.items()
    }
    return _measured("the negative of the capping vectors, which carry ceilings", cosines, cosines)


def decide(
    name: str, known: KnownFile | None, stated: Side | None, measured: Sequence[Evidence]
) -> list[Evidence]:
    """Collect the evidence and check that it agrees.

    Args:
        name: Of the source, for error messages.
        known: The published file that the source is, if it is one.
        stated: The side that the user gave.
        measured: Evidence from comparisons.

    Returns:
        All evidence, at least one item.

    Raises:
        UserError: There is no evidence, or it disagrees.
    """
    evidence = list(measured)
    if known is not None:
        evidence.append(Evidence(f"SHA-256 of {known.what}", known.side))
    found = evidence[0] if evidence else None
    for other in evidence[1:]:
        if found is not None and other.side != found.side:
            raise UserError(
                f"The files of {name} disagree about which way the axis points: {found}, but {other}; "
                "get them again."
            )
    if stated is None and found is None:
        raise UserError(
            f"Nothing in {name} shows which way it points, and capping the wrong way would drive the model "
            "away from the Assistant: give --sign assistant or --sign role, or the whole published folder."
        )
    if stated is not None and found is not None and stated != found.side:
        raise UserError(
            f"--sign {stated} contradicts the files ({found}); leave --sign out or check the files."
        )
    if stated is not None:
        evidence.append(Evidence(f"--sign {stated}", stated))
    return evidence


def check_along(direction: Tensor, vectors: Mapping[int, Tensor], layers: Collection[int]) -> None:
    """Check that capping vectors are exactly opposite to the axis, so that their ceilings apply to it.

    Args:
        direction: [L, D], toward the Assistant.
        vectors: Layer -> capping vector [D].
        layers: The layers to check; each has a vector.

    Raises:
        UserError: A vector is not opposite to the axis.
    """
    for layer in sorted(layers):
        cosine = float(torch.cosine_similarity(direction[layer], vectors[layer], dim=0))
        if cosine > -SAME:
            raise UserError(
                f"The capping vector of layer {layer} is not the axis turned around (cosine {cosine:+.3f}, "
                "not -1), so its ceiling does not fit this axis; choose another --experiment or give --caps."
            )


def _measured(what: str, cosines: Mapping[int, float], used: Collection[int]) -> Evidence:
    side: Side = "assistant" if median(cosines.values()) > 0 else "role"
    sense = 1 if side == "assistant" else -1
    worst = min(used, key=lambda layer: sense * cosines[layer])
    if sense * cosines[worst] < CLEAR:
        raise UserError(
            f"The sign of the axis is not clear from {what}: the cosine is {cosines[worst]:+.3f} at layer "
            f"{worst} and {median(cosines.values()):+.3f} in the median, so these files do not belong "
            "together; get them again."
        )
    return Evidence(what, side, cosines)
