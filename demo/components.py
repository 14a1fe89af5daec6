"""Where a residual stream lies among the roles: its coordinates on their first three principal components.

The components are those of the role vectors at the probe layer, centred on the mean role vector. Coordinates are given
in axis units, the same for all three: 0 is the average role, and a step of 1 is as long as the way from there to the
default Assistant.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from demo.axis import AssistantAxis


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
