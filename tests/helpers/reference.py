"""Plain reference implementations, written for reading and not for speed, that the real code is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.engine.protocol import Cap
from demo.models.loading import LoadedModel


def clamp_one(h: list[float], unit: list[float], floor: float) -> list[float]:
    """Paper Eq. 1 for one vector, in Python floats:  h - v * min(<h, v> - tau, 0)."""
    gap = min(sum(a * b for a, b in zip(h, unit, strict=True)) - floor, 0.0)
    return [a - gap * b for a, b in zip(h, unit, strict=True)]


@dataclass
class CappedForward:
    """A model under plain hooks that clamp every content token of a single unpadded sequence.

    `exempt` lists the positions (in the full sequence) that the clamp leaves alone. `after` [T, D] is the probe layer's
    residual stream of the last call, after the clamp there.
    """

    model: LoadedModel
    axis: AssistantAxis
    cap: Cap | None
    after: Tensor | None = None

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
        self.after = seen["after"]
        return logits, self.axis.to_units(seen["probe"], probe)

    def _hook(self, index: int, floor: float | None, content: Tensor, seen: dict[str, Tensor]):
        direction = self.axis.direction[index]
        unit = direction / direction.norm()

        def hook(module, args, output):
            hidden = output[0] if isinstance(output, tuple) else output
            projection = (hidden[0].float() * unit).sum(-1)
            if index == self.axis.probe_layer:
                seen["probe"] = projection
            changed = hidden
            if floor is not None:
                lift = torch.relu(floor - projection) * content
                changed = hidden + (lift[:, None] * unit).to(hidden.dtype)
            if index == self.axis.probe_layer:
                seen["after"] = changed[0]
            if floor is None:
                return None
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook


def coordinates(hidden: Tensor, axis: AssistantAxis) -> list[float]:
    """Where one residual stream [D] at the probe layer lies on the roles' components, axis units, in Python floats."""
    probe = axis.probe_layer
    assert axis.pca is not None
    length = sum(value * value for value in axis.direction[probe].tolist()) ** 0.5
    centred = [a - b for a, b in zip(hidden.tolist(), axis.role_mean[probe].tolist(), strict=True)]
    return [
        sum(a * b for a, b in zip(centred, row.tolist(), strict=True)) / length for row in axis.pca[:, probe]
    ]


def capped_generate(
    model: LoadedModel,
    axis: AssistantAxis,
    cap: Cap | None,
    ids: Sequence[int],
    exempt: Sequence[int],
    limit: int,
) -> list[int]:
    """Greedy reply of one branch by plain `model.generate` with hooks; the end-of-turn token is included."""
    special = torch.tensor(model.tokenizer.all_special_ids)
    content = torch.ones(len(ids), dtype=torch.bool)
    content[list(exempt)] = False
    now: dict[str, Tensor] = {}

    def look(module, args, kwargs):
        step = kwargs["input_ids"][0]
        now["content"] = content if len(step) == len(ids) else ~torch.isin(step, special)

    handles = [model.model.register_forward_pre_hook(look, with_kwargs=True)]
    floors = dict(zip(cap.layers, cap.floors, strict=True)) if cap else {}
    for index, floor in floors.items():
        unit = axis.direction[index] / axis.direction[index].norm()

        def clamp(module, args, output, unit=unit, floor=floor):
            hidden = output[0] if isinstance(output, tuple) else output
            lift = torch.relu(floor - (hidden * unit).sum(-1)) * now["content"]
            changed = hidden + lift[..., None] * unit
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handles.append(model.layers[index].register_forward_hook(clamp))
    try:
        prompt = torch.tensor([list(ids)])
        out = model.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=limit,
            pad_token_id=0,
        )
    finally:
        for handle in handles:
            handle.remove()
    return out[0, len(ids) :].tolist()
