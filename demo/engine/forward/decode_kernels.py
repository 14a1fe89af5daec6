"""The GPU kernels of a decode step, in Triton.

One adds to the residual stream, steers, clamps, reads and normalises; the others are the attention. They
find the KV cache by addresses and sizes in a tensor, so a CUDA graph outlives every cache that it has read.
Each has the formulas of `demo.capping` and of transformers' modules.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from demo.engine.forward.blocks import Block, Decoder, Norm
from demo.engine.forward.decode_step import StepInputs, Tap

_COLUMNS = 64  # of the KV cache, read at once
_LEAST_ROWS = 16  # of a product on the tensor cores

# Enough programs to fill a GPU: where there are fewer sequences, several programs share one.
_PROGRAMS, _MOST_SPLITS = 512, 16


@triton.jit
def _residual(
    x,
    delta,
    out,
    weight,
    normed,
    unit,
    floors,
    pushes,
    projections,
    lifts,
    width,
    epsilon,
    BLOCK: tl.constexpr,
    ADDS: tl.constexpr,
    TAPS: tl.constexpr,
):
    """One row of the batch: x + delta, steered and clamped where TAPS, and its norm."""
    dtype = normed.dtype.element_ty
    row, d = tl.program_id(0), tl.arange(0, BLOCK)
    inside = d < width
    value = tl.load(x + row * width + d, inside, other=0.0).to(tl.float32)
    if ADDS:
        value += tl.load(delta + row * width + d, inside, other=0.0).to(tl.float32)
        value = value.to(dtype).to(tl.float32)
    if TAPS:
        direction = tl.load(unit + d, inside, other=0.0)
        push = tl.load(pushes + row)
        steered = (value + push * direction).to(dtype).to(tl.float32)
        value = tl.where(push != 0, steered, value)
        projection = tl.sum(value * direction, axis=0)
        lift = tl.maximum(tl.load(floors + row) - projection, 0.0)
        lifted = (value + lift * direction).to(dtype).to(tl.float32)
        value = tl.where(lift > 0, lifted, value)
        tl.store(projections + row, projection)
        tl.store(lifts + row, lift)
    tl.store(out + row * width + d, value.to(dtype), inside)
    scaled = value * tl.rsqrt(tl.sum(value * value, axis=0) / width + epsilon)
    factor = tl.load(weight + d, inside, other=0.0).to(tl.float32)
    tl.store(normed + row * width + d, (scaled.to(dtype).to(tl.float32) * factor).to(dtype), inside)


@triton.jit
def _rotated(states, row, inside, d, cos, sin, weight, epsilon, SIZE: tl.constexpr, NORMS: tl.constexpr):
    """Heads [N, SIZE] at the offsets `row` [N, 1], normalised where NORMS, with their rotary embedding."""
    dtype = states.dtype.element_ty
    other = tl.where(d < SIZE // 2, d + SIZE // 2, d - SIZE // 2)
    value = tl.load(states + row + d[None, :], inside, other=0.0).to(tl.float32)
    swapped = tl.load(states + row + other[None, :], inside, other=0.0).to(tl.float32)
    if NORMS:
        scale = tl.rsqrt(tl.sum(value * value, axis=1) / SIZE + epsilon)[:, None]
        factor = tl.load(weight + d, d < SIZE, other=0.0).to(tl.float32)[None, :]
        value = ((value * scale).to(dtype).to(tl.float32) * factor).to(dtype).to(tl.float32)
        factor = tl.load(weight + other, d < SIZE, other=0.0).to(tl.float32)[None, :]
        swapped = ((swapped * scale).to(dtype).to(tl.float32) * factor).to(dtype).to(tl.float32)
    signed = tl.where(d < SIZE // 2, -1.0, 1.0)[None, :] * swapped
    return (value * cos[None, :] + signed * sin[None, :]).to(dtype)


@triton.jit(do_not_specialize=["layer", "layers"])
def _attend(
    states,
    cos,
    sin,
    slots,
    positions,
    table,
    layer,
    layers,
    query_weight,
    key_weight,
    epsilon,
    scale,
    sums,
    peaks,
    totals,
    GROUP: tl.constexpr,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
    NORMS: tl.constexpr,
):
    """A share of one sequence's columns, for one key head and the GROUP query heads that share it.

    The first share also stores the new key and value. It takes them from `states`, so that no program reads
    what another one writes.
    """
    dtype = states.dtype.element_ty
    batch, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    kv_heads, splits = tl.num_programs(1), tl.num_programs(2)
    d, g, c = tl.arange(0, BLOCK), tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    in_head, in_group = d < SIZE, g < GROUP
    slot, position = tl.load(slots + batch), tl.load(positions + batch)
    cosine = tl.load(cos + batch * SIZE + d, in_head, other=0.0).to(tl.float32)
    sine = tl.load(sin + batch * SIZE + d, in_head, other=0.0).to(tl.float32)
    first = batch * kv_heads * (GROUP + 2)  # in heads
    query = _rotated(
        states,
        (first + head * GROUP + g)[:, None] * SIZE,
        in_group[:, None] & in_head[None, :],
        d,
        cosine,
        sine,
        query_weight,
        epsilon,
        SIZE,
        NORMS,
    )
    # An address from a table says nothing of its alignment, without which each number is loaded by itself.
    element = tl.pointer_type(dtype)
    keys = tl.multiple_of(tl.load(table + layer).to(element), 16)
    values = tl.multiple_of(tl.load(table + layers + layer).to(element), 16)
    of_slot, of_head = tl.load(table + 2 * layers), tl.load(table + 2 * layers + 1)
    start = tl.multiple_of(tl.maximum(slot, 0) * of_slot + head * of_head, 16)
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    summed = tl.zeros((ROWS, BLOCK), tl.float32)
    if split == 0:
        only = tl.zeros((1,), tl.int32)
        at_key = (only + first + kv_heads * GROUP + head)[:, None] * SIZE
        inside = (only == 0)[:, None] & in_head[None, :]
        new_key = _rotated(states, at_key, inside, d, cosine, sine, key_weight, epsilon, SIZE, NORMS)
        new_value = tl.load(states + at_key + kv_heads * SIZE + d[None, :], inside, other=0.0)
        stored = inside & (slot >= 0)
        place = start + position * SIZE + d[None, :]
        tl.store(keys + place, new_key, stored)
        tl.store(values + place, new_value, stored)
        peak = tl.sum(query.to(tl.float32) * new_key.to(tl.float32), axis=1) * scale
        total += 1.0
        summed += new_value.to(tl.float32)
    share = tl.cdiv(tl.cdiv(position, COLUMNS), splits) * COLUMNS
    for begin in range(split * share, tl.minimum((split + 1) * share, position), COLUMNS):
        column = begin + c
        seen = column < position
        at = start + column[:, None] * SIZE + d[None, :]
        inside = seen[:, None] & in_head[None, :]
        key = tl.load(keys + at, inside, other=0.0)
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        score = tl.where(seen[None, :], score, float("-inf"))
        higher = tl.maximum(peak, tl.max(score, axis=1))
        weight = tl.exp(score - higher[:, None])
        kept = tl.exp(peak - higher)
        value = tl.load(values + at, inside, other=0.0)
        total = total * kept + tl.sum(weight, axis=1)
        summed = summed * kept[:, None] + tl.dot(weight.to(dtype), value, input_precision="ieee")
        peak = higher
    place = ((batch * kv_heads + head) * GROUP + g) * splits + split
    tl.store(peaks + place, peak, in_group)
    tl.store(totals + place, total, in_group)
    tl.store(sums + place[:, None] * SIZE + d[None, :], summed, in_group[:, None] & in_head[None, :])


@triton.jit(do_not_specialize=["splits"])
def _merge(sums, peaks, totals, out, splits, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """The attention of one head from its shares. The first share is never empty."""
    head, d = tl.program_id(0), tl.arange(0, BLOCK)
    peak = tl.load(peaks + head * splits)
    total = tl.load(totals + head * splits)
    summed = tl.load(sums + head * splits * SIZE + d, d < SIZE, other=0.0)
    for split in range(1, splits):
        place = head * splits + split
        own = tl.load(peaks + place)
        higher = tl.maximum(peak, own)
        kept, added = tl.exp(peak - higher), tl.exp(own - higher)
        total = total * kept + tl.load(totals + place) * added
        summed = summed * kept + tl.load(sums + place * SIZE + d, d < SIZE, other=0.0) * added
        peak = higher
    tl.store(out + head * SIZE + d, (summed / total).to(out.dtype.element_ty), d < SIZE)


class TritonKernels:
    """See `decode_step.Kernels`."""

    def residual(
        self, x: Tensor, delta: Tensor | None, norm: Norm, out: Tensor | None, tap: Tap | None
    ) -> tuple[Tensor, Tensor]:
        """See `decode_step.Kernels`."""
        rows, width = x.shape
        out = torch.empty_like(x) if out is None else out
        normed = torch.empty_like(x)
        taps = (None,) * 5 if tap is None else (tap.unit, tap.floors, tap.pushes, tap.projections, tap.lifts)
        block = triton.next_power_of_2(width)
        _residual[(rows,)](
            x,
            delta,
            out,
            norm.weight,
            normed,
            *taps,
            width,
            norm.epsilon,
            BLOCK=block,
            ADDS=delta is not None,
            TAPS=tap is not None,
            num_warps=min(max(block // 512, 1), 8),
        )
        return out, normed

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
        """See `decode_step.Kernels`."""
        rows, size, kv_heads = len(states), decoder.head_size, decoder.kv_heads
        splits = min(max(_PROGRAMS // (rows * kv_heads), 1), _MOST_SPLITS)
        sums = states.new_empty((rows, decoder.heads, splits, size), dtype=torch.float32)
        peaks, totals = (sums.new_empty(sums.shape[:3]) for _ in range(2))
        norms = block.query_norm is not None and block.key_norm is not None
        group, padded = decoder.heads // kv_heads, max(triton.next_power_of_2(size), 16)
        _attend[(rows, kv_heads, splits)](
            states,
            cos,
            sin,
            at.slots,
            at.positions,
            at.table,
            layer,
            len(decoder.blocks),
            block.query_norm.weight if block.query_norm else None,
            block.key_norm.weight if block.key_norm else None,
            block.query_norm.epsilon if block.query_norm else 0.0,
            size**-0.5,
            sums,
            peaks,
            totals,
            GROUP=group,
            SIZE=size,
            ROWS=max(triton.next_power_of_2(group), _LEAST_ROWS),
            BLOCK=padded,
            COLUMNS=_COLUMNS,
            NORMS=norms,
        )
        out = states.new_empty((rows, decoder.heads * size))
        _merge[(rows * decoder.heads,)](sums, peaks, totals, out, splits, SIZE=size, BLOCK=padded)
        return out
