"""What the persona map shows before anything is said: roles, the axis, and a sentence that explains them. No drawing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from demo.axis import AssistantAxis
from demo.components import default_place

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
