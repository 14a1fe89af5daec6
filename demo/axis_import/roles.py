"""What role vectors add to an imported axis: where each role stands, and the main directions in which roles differ."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from demo.axis import AssistantAxis
from demo.pca import pca

COMPONENTS = 3


def role_mean(roles: dict[str, Tensor]) -> Tensor:
    """Mean over role vectors, [L, D] float32; one at a time, because hundreds of them in float32 fill a machine."""
    total = torch.zeros_like(next(iter(roles.values())), dtype=torch.float64)
    for vector in roles.values():
        total += vector
    return (total / len(roles)).float()


def role_entries(roles: dict[str, Tensor], axis: AssistantAxis, probe: int) -> list[dict[str, Any]]:
    """Name and projection in axis units at the probe layer, lowest first, for the manifest."""
    entries = []
    for name, vector in roles.items():
        raw = float(vector[probe].float() @ axis.unit[probe])
        entries.append({"name": name, "projection": round(axis.to_units(raw, probe), 4)})
    return sorted(entries, key=lambda entry: entry["projection"])


def principal_components(roles: dict[str, Tensor], direction: Tensor) -> Tensor | None:
    """First three principal components of the centred role vectors at each layer, [3, L, D] float32.

    Unit rows, each with the sign that gives it a cosine >= 0 with `direction` [L, D]: a component's own sign means
    nothing. None where there are too few roles, or too similar ones, for three components.
    """
    layers = []
    for layer, toward in enumerate(direction):
        vectors = torch.stack([vector[layer] for vector in roles.values()]).double()
        found = pca(vectors, toward, COMPONENTS).directions
        if len(found) < COMPONENTS:
            return None
        layers.append(found)
    return torch.stack(layers, dim=1) if layers else None
