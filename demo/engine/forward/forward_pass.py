"""One forward pass of the engine: what each row runs in it, and what it showed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.capping import AxisHooks, LayerSteering
from demo.engine.kv_cache import KVCache
from demo.engine.protocol import Cap, Coordinates, Steer, as_coordinates
from demo.models.loading import LoadedModel


@dataclass(slots=True)
class Chunk:
    """What one row runs in a pass: `ids` after the `start` tokens that its slot holds.

    exempt: per token, whether the clamp leaves it alone; last: whether the logits after the last token are wanted; prompt: whether
    these are tokens of a prompt, not the one that was drawn last.
    """

    slot: int
    start: int
    ids: Sequence[int]
    exempt: Sequence[bool]
    cap: Cap | None = None
    steer: Steer | None = None
    last: bool = True
    prompt: bool = True
    floors: dict[int, float] = field(init=False)

    def __post_init__(self) -> None:
        self.floors = {} if self.cap is None else dict(zip(self.cap.layers, self.cap.floors, strict=True))

    @property
    def end(self) -> int:
        return self.start + len(self.ids)


@dataclass(frozen=True, slots=True)
class ChunkReading:
    """What a pass showed of one part, axis units. before: projection at the probe layer of each of its tokens; of its last
    token: after the clamp, what each layer of its cap added, and its place on the persona map."""

    before: list[float]
    after: float
    corrections: dict[int, float]
    coordinates: Coordinates | None


class ForwardPass(Protocol):
    """Runs parts through the model. Whatever the way, a row's numbers do not depend on the other rows' content."""

    name: str

    def run(self, parts: Sequence[Chunk], slots: KVCache) -> tuple[Tensor, list[ChunkReading]]:
        """Logits [P, V] of the parts with `last`, in order, and what was seen of every part. The slots then hold the
        parts' tokens."""
        ...


class Probe:
    """Makes the hooks of a pass from what its parts ask for, and axis units from what they saw."""

    def __init__(
        self, model: LoadedModel, axis: AssistantAxis, place: Callable[[Tensor], Tensor] | None
    ) -> None:
        """place: reads more off the probe layer, see `AxisHooks`."""
        self.axis, self.place = axis, place
        self._layers = model.layers
        self._unit = axis.unit.to(model.device)

    def hooks(
        self, parts: Sequence[Chunk], repeat: Sequence[int], exempt: Sequence[Sequence[bool]]
    ) -> AxisHooks:
        """Hooks for a batch [B, T] in which part p fills `repeat[p]` rows; exempt [B, T]."""
        floors = {
            layer: torch.tensor(_spread((part.floors.get(layer, float("-inf")) for part in parts), repeat))
            for layer in sorted({layer for part in parts for layer in part.floors})
        }
        steering = {}
        for layer in {part.steer.layer for part in parts if part.steer}:
            alphas = (p.steer.alpha if p.steer and p.steer.layer == layer else 0.0 for p in parts)
            steering[layer] = LayerSteering(self.axis.direction[layer], torch.tensor(_spread(alphas, repeat)))
        probe = self.axis.probe_layer
        hooks = AxisHooks(self._layers, self._unit, probe, floors, steering, place=self.place)
        hooks.exempt = torch.tensor(exempt)
        return hooks

    def readings(self, hooks: AxisHooks, parts: Sequence[Chunk]) -> list[ChunkReading]:
        """Per part, from hooks whose [B, T] holds the parts' tokens one after the other."""
        reading, axis, probe = hooks.reading(), self.axis, self.axis.probe_layer
        layers = list(hooks.capped_layers)
        ends = torch.tensor([len(part.ids) for part in parts]).cumsum(0)
        before = axis.to_units(reading.before.flatten().cpu(), probe).tolist()
        last = ends.to(reading.after.device) - 1
        # One transfer for all: on a GPU each one waits for the device.
        seen = torch.cat(
            [reading.after.flatten()[last, None], reading.lifts.flatten(0, 1)[last]], dim=-1
        ).cpu()
        after = axis.to_units(seen[:, 0], probe).tolist()
        lifts = (seen[:, 1:] / axis.norm[layers]).tolist()
        every = len(reading.places) == len(before)  # a place of each token, or of the last ones only
        places = (reading.places[last] if every else reading.places).tolist()
        return [
            ChunkReading(
                before[end - len(part.ids) : end],
                after[index],
                {
                    layer: lift
                    for layer, lift in zip(layers, lifts[index], strict=True)
                    if layer in part.floors
                },
                as_coordinates(places[index]),
            )
            for index, (part, end) in enumerate(zip(parts, ends.tolist(), strict=True))
        ]


def _spread(values: Iterable[float], repeat: Sequence[int]) -> list[float]:
    return [value for value, times in zip(values, repeat, strict=True) for _ in range(times)]
