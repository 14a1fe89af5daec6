"""Random axes for tests in which the directions do not have to mean anything."""

from __future__ import annotations

from dataclasses import replace

import torch

from demo.axis.axis import AssistantAxis


def random_axis(
    layers: int, hidden: int, probe: int, band: tuple[int, int], model_id: str = "test", seed: int = 0
) -> AssistantAxis:
    """An axis with random directions."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(layers, hidden, generator=generator)
    role_mean = torch.randn(layers, hidden, generator=generator)
    spread = torch.linspace(-1, 1, 4)[:, None] * direction.norm(dim=-1)
    manifest = {
        "format": 1,
        "model": {"id": model_id},
        "probe_layer": probe,
        "cap": {"layers": list(band), "floor": "p25"},
    }
    floors = dict(zip(("p05", "p25", "p50", "p75"), spread, strict=True))
    return AssistantAxis(direction, role_mean, role_mean + direction, floors, manifest)


def with_components(axis: AssistantAxis, seed: int = 1) -> AssistantAxis:
    """The same axis with three random orthonormal components per layer, their signs toward the Assistant."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(axis.layers, axis.direction.shape[1], 3, generator=generator)
    rows = torch.linalg.qr(random).Q.permute(2, 0, 1)
    toward = (rows * axis.direction).sum(-1, keepdim=True)
    return replace(axis, pca=torch.where(toward < 0, -rows, rows).contiguous())
