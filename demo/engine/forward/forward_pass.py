"""The interface of a forward pass: the chunks that it runs, and the readings that it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from demo.axis.axis import AssistantAxis
from demo.axis.components import Components
from demo.axis.directions import Direction
from demo.capping import AxisHooks, LayerCap, LayerSteering
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
        also: a second cap.
        floors: decoder layer -> raw floor, from the caps along the axis.
        further: the caps along other directions.
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
    also: Cap | None = None
    floors: dict[int, float] = field(init=False)
    further: tuple[Cap, ...] = field(init=False)

    def __post_init__(self) -> None:
        caps = [cap for cap in (self.cap, self.also) if cap is not None]
        self.floors = {layer: floor for cap in caps if not cap.direction for layer, floor in _floors(cap)}
        self.further = tuple(cap for cap in caps if cap.direction)

    @property
    def leaves_the_axis(self) -> bool:
        """Whether it is capped or steered along another direction than the axis."""
        return bool(self.further) or (self.steer is not None and bool(self.steer.direction))

    @property
    def end(self) -> int:
        return self.start + len(self.ids)


@dataclass(frozen=True, slots=True)
class ChunkReading:
    """The readings of one chunk, axis units.

    Attributes:
        before: projection of each token at the probe layer, before the clamp.
        after: projection of the last token there, after the clamp.
        corrections: what each layer of the chunk's cap added to the last token, in units of its direction.
        coordinates: place of the last token on the persona map.
        also: what the chunk's second cap added to it, the sum over the layers, in units of its direction.
        along: projections of the last token along the probe's further directions, each in its own units.
        state: [D] float32 on the CPU, the last token's residual stream at the probe layer, after the caps;
            None where the probe does not keep it.
    """

    before: list[float]
    after: float
    corrections: dict[int, float]
    coordinates: Coordinates | None
    also: float = 0.0
    along: list[float] = field(default_factory=list)
    state: Tensor | None = None


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


class Beside:
    """What is read at the probe layer beside the projection on the axis, with one product for all of it.

    Attributes:
        names: of the K further directions.
        coordinates: 3 where the axis has components, else 0.
        states: whether the residual stream itself is read too.
    """

    def __init__(
        self,
        layer: int,
        components: Components | None = None,
        directions: Mapping[str, Direction] | None = None,
        states: bool = False,
    ) -> None:
        """layer: the probe layer. Directions without a vector there are left out."""
        read = {name: one for name, one in (directions or {}).items() if layer in one.layers}
        self.names, self.states = tuple(read), states
        self.coordinates = 0 if components is None else 3
        rows = [] if components is None else [*components.rows.cpu()]
        origins = [] if components is None else components.origin.cpu().tolist()
        for one in read.values():
            at = one.index(layer)
            rows.append(one.unit[at] / one.norm[at])
            origins.append(float(one.origin[at] / one.norm[at]))
        self._rows = torch.stack(rows) if rows else None
        self._origins = torch.tensor(origins)

    @property
    def width(self) -> int:
        """How many numbers are read: coordinates and directions."""
        return self.coordinates + len(self.names)

    def read(self, hidden: Tensor) -> Tensor:
        """Coordinates and projections along the directions, [N, width] float32, of residual streams [N, D].

        Each number is in units of its own direction.
        """
        if self._rows is None:
            return hidden.new_zeros((len(hidden), 0), dtype=torch.float32)
        if self._rows.device != hidden.device:
            self._rows, self._origins = self._rows.to(hidden.device), self._origins.to(hidden.device)
        return torch.addmm(self._origins, hidden.float(), self._rows.T, beta=-1)

    def place(self, hidden: Tensor) -> Tensor:
        """`read`, followed by the residual stream itself where `states`: [N, width] or [N, width + D]."""
        found = self.read(hidden)
        return torch.cat([found, hidden.float()], dim=-1) if self.states else found

    def parts(self, found: Tensor) -> tuple[list[Coordinates | None], list[list[float]], list[Tensor | None]]:
        """Per row of `place`'s result, on the CPU: coordinates, projections along the directions, state."""
        numbers = found[:, : self.width].tolist()
        return (
            [as_coordinates(row[: self.coordinates]) for row in numbers],
            [row[self.coordinates :] for row in numbers],
            list(found[:, self.width :]) if self.states else [None] * len(numbers),
        )


class Probe:
    """Makes the hooks of a forward pass from its chunks, and converts the hooks' readings to axis units.

    Attributes:
        beside: what is read at the probe layer beside the projection.
    """

    def __init__(
        self,
        model: LoadedModel,
        axis: AssistantAxis,
        beside: Beside | None = None,
        directions: Mapping[str, Direction] | None = None,
    ) -> None:
        """directions: those along which requests may cap and steer."""
        self.axis, self.beside = axis, beside or Beside(axis.probe_layer)
        self.place = self.beside.place if self.beside.width or self.beside.states else None
        self._directions = directions or {}
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
        hooks = AxisHooks(self._layers, self.unit, self.axis.probe_layer, floors, place=self.place)
        hooks.steering = self._steering(chunks, repeat)
        hooks.further = self._further(chunks, repeat)
        hooks.exempt = torch.tensor(exempt)
        hooks.record = self._recording(chunks)
        return hooks

    def _steering(self, chunks: Sequence[Chunk], repeat: Sequence[int]) -> dict[int, list[LayerSteering]]:
        """Decoder layer -> steering of the batch, for each direction."""
        found: dict[int, list[LayerSteering]] = {}
        wanted = dict.fromkeys((c.steer.layer, c.steer.direction) for c in chunks if c.steer)
        for layer, name in wanted:
            alphas = (
                c.steer.alpha if c.steer and (c.steer.layer, c.steer.direction) == (layer, name) else 0.0
                for c in chunks
            )
            along = self._directions[name] if name else None
            vector = self.axis.direction[layer] if along is None else along.vector[along.index(layer)]
            found.setdefault(layer, []).append(LayerSteering(vector, torch.tensor(_spread(alphas, repeat))))
        return found

    def _further(self, chunks: Sequence[Chunk], repeat: Sequence[int]) -> dict[int, list[LayerCap]]:
        """Decoder layer -> caps of the batch along other directions than the axis."""
        found: dict[int, list[LayerCap]] = {}
        for key, cap in {_key(cap): cap for chunk in chunks for cap in chunk.further}.items():
            along = self._directions[cap.direction]
            floors = [
                {n: f for c in chunk.further if _key(c) == key for n, f in _floors(c)} for chunk in chunks
            ]
            for layer in sorted({layer for own in floors for layer in own}):
                unit = along.unit[along.index(layer)]
                of_rows = _spread((own.get(layer, float("-inf")) for own in floors), repeat)
                found.setdefault(layer, []).append(
                    LayerCap(key, -unit if cap.downward else unit, torch.tensor(of_rows))
                )
        return found

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
        places = reading.places[last] if of_every_token else reading.places
        coordinates, along, states = self.beside.parts(places.cpu())
        results = []
        for index, (chunk, end) in enumerate(zip(chunks, ends.tolist(), strict=True)):
            on_axis = {n: lift for n, lift in zip(layers, lifts[index], strict=True) if n in chunk.floors}
            corrections, also = self._corrections(hooks, chunk, end - 1, on_axis)
            own = before[end - len(chunk.ids) : end]
            results.append(
                ChunkReading(
                    own, after[index], corrections, coordinates[index], also, along[index], states[index]
                )
            )
        return results

    def _corrections(
        self, hooks: AxisHooks, chunk: Chunk, at: int, on_axis: dict[int, float]
    ) -> tuple[dict[int, float], float]:
        """What the first cap added to a token at each layer, and the second one at all layers together.

        Args:
            at: the token's place among all tokens of the batch.
            on_axis: what a cap along the axis added.
        """
        if not chunk.further:
            return on_axis, 0.0
        found = []
        for cap in (chunk.cap, chunk.also):
            if cap is None or not cap.direction:
                found.append({} if cap is None else on_axis)
                continue
            along = self._directions[cap.direction]
            found.append(
                {
                    layer: float(hooks.further_lift(layer, _key(cap)).flatten()[at])
                    / float(along.norm[along.index(layer)])
                    for layer in cap.layers
                }
            )
        return found[0], sum(found[1].values())


def last_positions(width: int, count: int, device: torch.device) -> Tensor:
    """The last `count` of `width` positions, [count], for the argument `logits_to_keep` of a model.

    Given a number instead, transformers passes the output head a slice whose strides are those of the whole
    text. torch then expands the head's weights once for every sequence, and on a CPU in bfloat16 it copies
    them, transposed, each time: for a vocabulary of 150,000 tokens this takes longer than anything else.
    """
    return torch.arange(width - count, width, device=device)


@contextmanager
def usual_strides(model: LoadedModel) -> Iterator[None]:
    """The output head gets its input in the usual layout, for `generate`, which asks by a number.

    See `last_positions`.
    """
    head = model.model.get_output_embeddings()
    if head is None:
        yield
        return

    def usual(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(one.clone(memory_format=torch.contiguous_format) for one in inputs)

    hook = head.register_forward_pre_hook(usual)
    try:
        yield
    finally:
        hook.remove()


def _key(cap: Cap) -> str:
    """Names what a cap acts along, and from which side."""
    return f"{'-' if cap.downward else '+'}{cap.direction}"


def _floors(cap: Cap) -> Iterable[tuple[int, float]]:
    return zip(cap.layers, cap.floors, strict=True)


def _spread(values: Iterable[float], repeat: Sequence[int]) -> list[float]:
    return [value for value, times in zip(values, repeat, strict=True) for _ in range(times)]
