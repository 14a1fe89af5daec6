"""The interface of a forward pass: the chunks that it runs, and the readings that it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.capping import AxisHooks, LayerSteering
from demo.engine.kv_cache import SequenceCache
from demo.engine.protocol import Cap, Coordinates, Steer, as_coordinates
from demo.models.loading import LoadedModel


class ActivationRecorder(Protocol):
    """Collects the residual stream of chosen tokens at every decoder layer."""

    def record(self, layer: int, hidden: Tensor, lift: Tensor | None, rows: Tensor) -> None:
        """Record the residual stream after decoder layer `layer`.

        Args:
            hidden: [N, D], in the model's dtype, on its device.
            lift: [N] float32, raw units: what the clamp added; None where the layer has no cap in this pass.
            rows: [N] int64, on the same device: each token's row in the recorder, from `Chunk.rows`.
        """
        ...


@dataclass(slots=True)
class Chunk:
    """What one sequence runs in a forward pass: `ids` after the `start` tokens that its cache slot holds.

    Attributes:
        exempt: per token, whether the clamp leaves it alone.
        last: whether the logits after the last token are wanted.
        prompt: whether these are tokens of a prompt, not the one that was sampled last.
        recorder: collects the residual stream of the tokens.
        rows: per token, its row in the recorder; -1 for a token that is not recorded. Empty without a
            recorder.
        floors: decoder layer -> raw floor, from `cap`.
    """

    slot: int
    start: int
    ids: Sequence[int]
    exempt: Sequence[bool]
    cap: Cap | None = None
    steer: Steer | None = None
    last: bool = True
    prompt: bool = True
    recorder: ActivationRecorder | None = None
    rows: Sequence[int] = ()
    floors: dict[int, float] = field(init=False)

    def __post_init__(self) -> None:
        self.floors = {} if self.cap is None else dict(zip(self.cap.layers, self.cap.floors, strict=True))

    @property
    def end(self) -> int:
        return self.start + len(self.ids)


@dataclass(frozen=True, slots=True)
class ChunkReading:
    """The readings of one chunk, axis units.

    Attributes:
        before: projection of each token at the probe layer, before the clamp.
        after: projection of the last token there, after the clamp.
        corrections: what each layer of the chunk's cap added to the last token.
        coordinates: place of the last token on the persona map.
    """

    before: list[float]
    after: float
    corrections: dict[int, float]
    coordinates: Coordinates | None


class ForwardPass(Protocol):
    """Runs chunks through the model. A sequence's results do not depend on the content of the others."""

    name: str

    def new_cache(self) -> SequenceCache:
        """An empty cache of the kind that `run` uses."""
        ...

    def with_probe(self, probe: Probe) -> ForwardPass:
        """The same pass with another probe, for another axis."""
        ...

    def run(self, chunks: Sequence[Chunk], cache: SequenceCache) -> tuple[Tensor, list[ChunkReading]]:
        """Run all chunks; their tokens are in the cache afterwards.

        Returns:
            Logits [P, V] of the chunks with `last`, in order, and the reading of every chunk.
        """
        ...


class Probe:
    """Makes the hooks of a forward pass from its chunks, and converts the hooks' readings to axis units."""

    def __init__(
        self, model: LoadedModel, axis: AssistantAxis, place: Callable[[Tensor], Tensor] | None
    ) -> None:
        """place: an additional reading at the probe layer, see `AxisHooks`."""
        self.axis, self.place = axis, place
        self._layers = model.layers
        self._device = model.device
        self.unit = axis.unit.to(model.device)

    def hooks(
        self, chunks: Sequence[Chunk], repeat: Sequence[int], exempt: Sequence[Sequence[bool]]
    ) -> AxisHooks:
        """Hooks for a batch [B, T] in which chunk c fills `repeat[c]` rows.

        Args:
            exempt: [B, T], whether neither cap nor steering acts on a token.
        """
        floors = {
            layer: torch.tensor(_spread((c.floors.get(layer, float("-inf")) for c in chunks), repeat))
            for layer in sorted({layer for chunk in chunks for layer in chunk.floors})
        }
        steering = {}
        for layer in {chunk.steer.layer for chunk in chunks if chunk.steer}:
            alphas = (c.steer.alpha if c.steer and c.steer.layer == layer else 0.0 for c in chunks)
            steering[layer] = LayerSteering(self.axis.direction[layer], torch.tensor(_spread(alphas, repeat)))
        probe = self.axis.probe_layer
        hooks = AxisHooks(self._layers, self.unit, probe, floors, steering, place=self.place)
        hooks.exempt = torch.tensor(exempt)
        hooks.record = self._recording(chunks)
        return hooks

    def _recording(self, chunks: Sequence[Chunk]) -> Callable[[int, Tensor, Tensor | None], None] | None:
        """A function that makes one call per layer and recorder; None when nothing is recorded."""
        found: dict[int, tuple[ActivationRecorder, list[int], list[int]]] = {}
        first = 0
        for chunk in chunks:
            if chunk.recorder is not None:
                _, tokens, rows = found.setdefault(id(chunk.recorder), (chunk.recorder, [], []))
                kept = [(first + n, row) for n, row in enumerate(chunk.rows) if row >= 0]
                tokens += [token for token, _ in kept]
                rows += [row for _, row in kept]
            first += len(chunk.ids)
        wanted = [
            (recorder, torch.tensor(tokens, device=self._device), torch.tensor(rows, device=self._device))
            for recorder, tokens, rows in found.values()
            if tokens
        ]
        if not wanted:
            return None

        def record(layer: int, hidden: Tensor, lift: Tensor | None) -> None:
            flat = hidden.flatten(0, 1)
            for recorder, tokens, rows in wanted:
                lifted = None if lift is None else lift.flatten()[tokens]
                recorder.record(layer, flat[tokens], lifted, rows)

        return record

    def readings(self, hooks: AxisHooks, chunks: Sequence[Chunk]) -> list[ChunkReading]:
        """The reading of each chunk, from hooks whose [B, T] holds the chunks' tokens in order."""
        reading, axis, probe = hooks.reading(), self.axis, self.axis.probe_layer
        layers = list(hooks.capped_layers)
        ends = torch.tensor([len(chunk.ids) for chunk in chunks]).cumsum(0)
        before = axis.to_units(reading.before.flatten().cpu(), probe).tolist()
        last = ends.to(reading.after.device) - 1
        # A single transfer, because each transfer from a GPU waits for the device.
        seen = torch.cat([reading.after.flatten()[last, None], reading.lifts.flatten(0, 1)[last]], dim=-1)
        seen = seen.cpu()
        after = axis.to_units(seen[:, 0], probe).tolist()
        lifts = (seen[:, 1:] / axis.norm[layers]).tolist()
        of_every_token = len(reading.places) == len(before)  # else of the last tokens only
        places = (reading.places[last] if of_every_token else reading.places).tolist()
        return [
            ChunkReading(
                before[end - len(chunk.ids) : end],
                after[index],
                {n: lift for n, lift in zip(layers, lifts[index], strict=True) if n in chunk.floors},
                as_coordinates(places[index]),
            )
            for index, (chunk, end) in enumerate(zip(chunks, ends.tolist(), strict=True))
        ]


def _spread(values: Iterable[float], repeat: Sequence[int]) -> list[float]:
    return [value for value, times in zip(values, repeat, strict=True) for _ in range(times)]
