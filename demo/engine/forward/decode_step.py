"""A decode step: one token of every sequence of a batch, with the clamp after every decoder layer.

The step reads and writes fixed buffers, so that it can be captured as a CUDA graph. All that differs between
two steps lies in these buffers: tokens, positions, cache slots, the addresses of the KV cache, and a floor
for each sequence and layer, which is -inf where there is no cap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from demo.engine.forward.blocks import Block, Decoder, Norm
from demo.engine.forward.forward_pass import Chunk, ChunkReading, Probe
from demo.engine.kv_cache import KVCache

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class StepInputs:
    """Where the B tokens of a step belong.

    Attributes:
        ids, slots, positions: [B] int64. A row that only fills up the batch has slot -1 and position 0.
        table: [2 * L + 2] int64: the addresses of every layer's keys, then of every layer's values, and how
            many numbers lie between two slots, and between two heads, of any of them.
    """

    ids: Tensor
    slots: Tensor
    positions: Tensor
    table: Tensor


@dataclass(frozen=True, slots=True)
class Tap:
    """What is read and done after one decoder layer.

    Attributes:
        unit: [D] float32, see `capping.clamp`.
        floors: [B] float32, raw; -inf where nothing is clamped.
        pushes: [B] float32, raw: what steering adds along `unit`.
        projections, lifts: [B] float32, raw, as in `capping.Clamped`. The step writes them.
    """

    unit: Tensor
    floors: Tensor
    pushes: Tensor
    projections: Tensor
    lifts: Tensor


class Kernels(Protocol):
    """The operations of a step that have no fast equivalent in torch."""

    def residual(
        self, x: Tensor, delta: Tensor | None, norm: Norm, out: Tensor | None, tap: Tap | None
    ) -> tuple[Tensor, Tensor]:
        """Add to the residual stream, then steer, read and clamp it as `tap` says.

        Args:
            x, delta: [B, D].
            out: where to put the residual stream; None for a new tensor.

        Returns:
            The residual stream and its norm, [B, D] each.
        """
        ...

    def attend(
        self,
        decoder: Decoder,
        block: Block,
        layer: int,
        states: Tensor,
        cos: Tensor,
        sin: Tensor,
        at: StepInputs,
    ) -> Tensor:
        """Store the new keys and values in the cache, and attend to each sequence's own columns.

        Args:
            states: [B, (heads + 2 * kv_heads) * head_size], queries, keys and values before their norms and
                rotary embedding.
            cos, sin: [B, head_size].

        Returns:
            [B, heads * head_size].
        """
        ...


@dataclass(frozen=True, slots=True)
class StepOutputs:
    """Results of a step.

    Attributes:
        logits: [B, V].
        seen: [1 + L + P, B] float32: the projection at the probe layer before the clamp, each layer's lift,
            and the P coordinates. One tensor, because each transfer waits for the GPU.
    """

    logits: Tensor
    seen: Tensor


class DecodeStep:
    """The step for batches of up to `most` sequences, and its buffers.

    Attributes:
        streams: [L, most, D], the residual stream after every decoder layer.
    """

    def __init__(
        self, decoder: Decoder, probe: Probe, kernels: Kernels, most: int, taps: bool = True
    ) -> None:
        """taps: False to leave out readings, steering and clamp, for comparison."""
        self._decoder, self._probe, self._kernels = decoder, probe, kernels
        self._most, self._taps = most, taps
        weight, layers = decoder.norm.weight, len(decoder.blocks)
        device, pinned = weight.device, weight.device.type == "cuda"
        # Copies to a GPU are made from memory that does not move, which the host can fill as an array.
        self._integers_host = torch.zeros(3 * most + 2 * layers + 2, dtype=torch.long, pin_memory=pinned)
        self._floats_host = torch.zeros((2, layers, most), pin_memory=pinned)
        self._floats_host[0] = _NEVER
        self._integers = self._integers_host.to(device)
        self._floats = self._floats_host.to(device)
        self._found = torch.zeros((2, layers, most), device=device)
        self.streams = torch.zeros((layers, most, weight.shape[0]), dtype=weight.dtype, device=device)
        self._acting: list[object] = []

    def fill(self, chunks: Sequence[Chunk], rows: int, cache: KVCache) -> None:
        """Put the chunks' single tokens into the buffers, as a batch of `rows` sequences."""
        spare = [0] * (rows - len(chunks))
        table = self._integers_host.numpy()
        for index, values in enumerate(
            (
                [chunk.ids[0] for chunk in chunks] + spare,
                [chunk.slot for chunk in chunks] + [-1] * len(spare),
                [chunk.start for chunk in chunks] + spare,
            )
        ):
            table[index * self._most : index * self._most + rows] = values
        table[3 * self._most :] = self._addresses(cache)
        self._integers.copy_(self._integers_host, non_blocking=True)
        acting: list[object] = [(chunk.cap, chunk.also, chunk.steer, chunk.exempt[0]) for chunk in chunks]
        if acting != self._acting:  # the floors are the same from one token to the next
            self._fill_floats(chunks)
            self._acting = acting

    def _fill_floats(self, chunks: Sequence[Chunk]) -> None:
        floors, pushes = self._floats_host.numpy()
        floors[:], pushes[:] = _NEVER, 0.0
        for row, chunk in enumerate(chunks):
            if chunk.exempt[0]:
                continue
            floors[list(chunk.floors), row] = list(chunk.floors.values())
            if chunk.steer is not None:
                layer = chunk.steer.layer
                pushes[layer, row] = chunk.steer.alpha * float(self._probe.axis.norm[layer])
        self._floats.copy_(self._floats_host, non_blocking=True)

    def _addresses(self, cache: KVCache) -> list[int]:
        """The content of `StepInputs.table`."""
        decoder, layers = self._decoder, cache.layers
        empty = self.streams.new_empty((decoder.kv_heads, 0, decoder.head_size))
        for layer in layers:
            layer.allocate_like(empty, empty)
        first = layers[0].keys
        return [
            *(layer.keys.data_ptr() for layer in layers),
            *(layer.values.data_ptr() for layer in layers),
            first.stride(0),
            first.stride(1),
        ]

    def run(self, rows: int) -> StepOutputs:
        """Run the first `rows` rows of the buffers."""
        decoder, kernels = self._decoder, self._kernels
        ids, slots, positions = (self._integers[n * self._most :][:rows] for n in range(3))
        at = StepInputs(ids, slots, positions, self._integers[3 * self._most :])
        x = decoder.embed(ids)
        cos, sin = (c[0] for c in decoder.rotary(x[None], positions[None]))
        x, normed = kernels.residual(x, None, decoder.blocks[0].before_attention, None, None)
        norms = [*(block.before_attention for block in decoder.blocks[1:]), decoder.norm]
        for index, (block, following) in enumerate(zip(decoder.blocks, norms, strict=True)):
            states = block.query_key_value(normed)
            attended = block.out(kernels.attend(decoder, block, index, states, cos, sin, at))
            x, normed = kernels.residual(x, attended, block.before_mlp, None, None)
            gate, up = block.gate_up(normed).chunk(2, dim=-1)
            delta = block.down(functional.silu(gate).mul_(up))
            tap = self._tap(index, rows) if self._taps else None
            x, normed = kernels.residual(x, delta, following, self.streams[index, :rows], tap)
        return StepOutputs(decoder.head(normed), self._seen(rows))

    def _tap(self, layer: int, rows: int) -> Tap:
        unit = self._probe.unit[layer]
        floors, pushes = self._floats[:, layer, :rows]
        projections, lifts = self._found[:, layer, :rows]
        return Tap(unit, floors, pushes, projections, lifts)

    def _seen(self, rows: int) -> Tensor:
        probe, place = self._probe.axis.probe_layer, self._probe.place
        projections, lifts = self._found[:, :, :rows]
        places = () if place is None else (place(self.streams[probe, :rows]).T,)
        return torch.cat([projections[probe, None], lifts, *places])

    def readings(self, outputs: StepOutputs, chunks: Sequence[Chunk]) -> list[ChunkReading]:
        """The reading of each chunk, and what its recorder receives."""
        self._record(chunks)
        axis, layers, count = self._probe.axis, len(self._decoder.blocks), len(chunks)
        seen = outputs.seen.cpu()[:, :count]
        raw, lifts = seen[0], seen[1 : 1 + layers]
        coordinates, along, states = self._probe.beside.parts(seen[1 + layers :].T)
        before, after = (
            axis.to_units(one, axis.probe_layer).tolist() for one in (raw, raw + lifts[axis.probe_layer])
        )
        corrections = (lifts / axis.norm[:, None]).T.tolist()
        return [
            ChunkReading(
                [before[row]],
                after[row],
                {layer: corrections[row][layer] for layer in sorted(chunk.floors)},
                coordinates[row],
                along=along[row],
                state=states[row],
            )
            for row, chunk in enumerate(chunks)
        ]

    def _record(self, chunks: Sequence[Chunk]) -> None:
        """Give recorders the residual streams of the step."""
        if all(chunk.recorder is None for chunk in chunks):
            return
        hooks = self._probe.hooks(chunks, [1] * len(chunks), [chunk.exempt for chunk in chunks])
        if hooks.record is not None:
            lifts = self._found[1, :, : len(chunks), None]
            for layer, stream in enumerate(self.streams[:, : len(chunks), None]):
                hooks.record(layer, stream, lifts[layer] if layer in hooks.floors else None)
