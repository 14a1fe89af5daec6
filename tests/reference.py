"""Plain reference implementations, written for reading and not for speed, that the real code is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from demo.axis import AssistantAxis
from demo.engine.protocol import Cap
from demo.models import LoadedModel


def clamp_one(h: list[float], unit: list[float], floor: float) -> list[float]:
    """Paper Eq. 1 for one vector, in Python floats:  h - v * min(<h, v> - tau, 0)."""
    gap = min(sum(a * b for a, b in zip(h, unit, strict=True)) - floor, 0.0)
    return [a - gap * b for a, b in zip(h, unit, strict=True)]


@dataclass
class CappedForward:
    """A model under plain hooks that clamp every content token of a single unpadded sequence.

    `exempt` lists the positions (in the full sequence) that the clamp leaves alone.
    """

    model: LoadedModel
    axis: AssistantAxis
    cap: Cap | None

    def __call__(self, ids: Sequence[int], exempt: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Logits [T, V] and probe-layer projections before the clamp [T], axis units, of one full forward pass."""
        seen: dict[str, Tensor] = {}
        handles = []
        content = torch.ones(len(ids), dtype=torch.bool)
        content[list(exempt)] = False
        floors = dict(zip(self.cap.layers, self.cap.floors, strict=True)) if self.cap else {}
        for index, layer in enumerate(self.model.layers):
            handles.append(layer.register_forward_hook(self._hook(index, floors.get(index), content, seen)))
        try:
            with torch.no_grad():
                logits = self.model.model(torch.tensor([list(ids)]), use_cache=False).logits[0]
        finally:
            for handle in handles:
                handle.remove()
        probe = self.axis.probe_layer
        return logits, self.axis.to_units(seen["probe"], probe)

    def _hook(self, index: int, floor: float | None, content: Tensor, seen: dict[str, Tensor]):
        direction = self.axis.direction[index]
        unit = direction / direction.norm()

        def hook(module, args, output):
            hidden = output[0] if isinstance(output, tuple) else output
            projection = (hidden[0].float() * unit).sum(-1)
            if index == self.axis.probe_layer:
                seen["probe"] = projection
            if floor is None:
                return None
            lift = torch.relu(floor - projection) * content
            changed = hidden + (lift[:, None] * unit).to(hidden.dtype)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook


def greedy(forward: CappedForward, ids: Sequence[int], exempt: Sequence[int], stops: frozenset[int], special: frozenset[int], limit: int) -> list[int]:
    """Greedy continuation with no cache at all: the whole sequence is run again for every token."""
    sequence, left_alone = list(ids), list(exempt)
    for _ in range(limit):
        token = int(forward(sequence, left_alone)[0][-1].argmax())
        if token in stops:
            break
        if token in special:
            left_alone.append(len(sequence))
        sequence.append(token)
    return sequence[len(ids) :]
