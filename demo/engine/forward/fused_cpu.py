"""The decoder of the Llama family in few operations, for CPUs.

There a small model spends most of a decode step between its matrix products. This forward pass uses the same
weights and formulas as transformers' modules, but one product for queries, keys and values, one for gate and
up, no padding, no repeated keys in attention, and masks that are made once per pass.
`selection.choose_forward` uses it only for models whose logits it reproduces.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo.engine.forward.blocks import Block, decoder_of, is_of_family
from demo.engine.forward.forward_pass import Chunk, ChunkReading, Probe
from demo.engine.forward.products import Products, ReadBackLinear
from demo.engine.kv_cache import KVCache, LayerCache, SequenceCache, rounded_up, visible_columns
from demo.models.loading import LoadedModel

# torch sums attention over fewer queries than this in another order. The last tokens of a prompt would get
# other bits than the same tokens in the middle of a chunk, so short chunks are padded to this length.
_LEAST_QUERIES = 8

# The same for heads that share keys, so that a reply's tokens get the bits that they would get in a prompt.
_LEAST_GROUP = 4

# One more call of attention takes about as long as so many columns of a slot.
_CALL_COLUMNS = 512


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring slots of similar length. The attention of their sampled tokens is computed at once.

    Attributes:
        slots: which ones.
        columns: so many columns are attended to.
        mask: [slots, 1, 1, columns], see `visible_columns`.
    """

    slots: slice
    columns: int
    mask: Tensor


@dataclass(slots=True)
class Layout:
    """Where the N tokens of a pass belong. The pass holds its chunks in order.

    Attributes:
        slots, positions: [N], slot and column of every token.
        single: indices in the pass of the sampled tokens.
        single_slots: their slots.
        spans: all slots up to the last of these.
        longer: chunks of prompts, each with the index of its first token and its mask [tokens, columns].
        in_order: whether the pass begins with the sampled tokens of slots 0, 1, 2, …, all of them.
    """

    slots: Tensor
    positions: Tensor
    single: Tensor
    single_slots: Tensor
    spans: list[Span]
    longer: list[tuple[Chunk, int, Tensor]]
    in_order: bool


class FusedForward:
    """The fused forward pass. See `forward_pass.ForwardPass`.

    Attributes:
        vocabulary: number of logits.
    """

    def __init__(self, model: LoadedModel, probe: Probe, reproducible: bool = False) -> None:
        """reproducible: see `Products`."""
        self._probe = probe
        matrices = [m for m in model.model.modules() if isinstance(m, nn.Linear | ReadBackLinear)]
        total = sum(m.weight.nbytes for m in matrices)
        products = Products(
            [m.weight for m in [*matrices[:56], matrices[-1]]], total, reproducible, model.eight_bit
        )
        self.name = f"fused, products {products.name}"
        self._decoder = decoder_of(model, products)
        if products.frees_weights:
            # What is left may be mapped from the model's file, and would keep all of the file in memory.
            for parameter in model.model.parameters():
                parameter.data = parameter.data.clone()
        self.vocabulary = self._decoder.vocabulary
        # Rotary embeddings swap the halves of every head and negate the second.
        self._size = self._decoder.head_size
        self._signs = torch.ones(self._size, dtype=model.dtype)
        self._signs[: self._size // 2] = -1

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return len(self._decoder.blocks)

    def new_cache(self) -> KVCache:
        """See `forward_pass.ForwardPass`."""
        return KVCache(self.layers)

    def with_probe(self, probe: Probe) -> FusedForward:
        """The same weights with another probe, for another axis."""
        other = copy(self)
        other._probe = probe
        return other

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk], cache: SequenceCache) -> tuple[Tensor, list[ChunkReading]]:
        """See `forward_pass.ForwardPass`."""
        layers = cast("KVCache", cache).layers
        counts = [len(chunk.ids) for chunk in chunks]
        hooks = self._probe.hooks(chunks, counts, [[e] for chunk in chunks for e in chunk.exempt])
        layout = _layout(chunks)
        x = self._decoder.embed(torch.tensor([token for chunk in chunks for token in chunk.ids]))
        cos, sin = (c[0, :, None] for c in self._decoder.rotary(x[None], layout.positions[None]))
        sin = sin * self._signs
        for index, (block, layer_cache) in enumerate(zip(self._decoder.blocks, layers, strict=True)):
            x = block.out(self._attend(block, layer_cache, x, cos, sin, layout)).add_(x)
            gate, up = block.gate_up(block.before_mlp(x)).chunk(2, dim=-1)
            x = block.down(functional.silu(gate).mul_(up)).add_(x)
            x = hooks.apply(index, x[:, None])[:, 0]
        ends = itertools.accumulate(counts)
        wanted = [end - 1 for chunk, end in zip(chunks, ends, strict=True) if chunk.last]
        logits = self.logits(x[wanted]) if wanted else x.new_empty((0, self.vocabulary))
        return logits, self._probe.readings(hooks, chunks)

    def logits(self, hidden: Tensor) -> Tensor:
        """The logits [N, V] after the residual streams [N, D] of the last decoder layer."""
        return self._decoder.head(self._decoder.norm(hidden))

    def _attend(
        self, block: Block, cache: LayerCache, x: Tensor, cos: Tensor, sin: Tensor, at: Layout
    ) -> Tensor:
        """The attention of x [N, D] before the output product: [N, heads * head_dim].

        Args:
            cos, sin: [N, 1, head_dim] of the rotary embeddings, the first half of `sin` negated.
        """
        states = block.query_key_value(block.before_attention(x)).view(len(x), -1, self._size)
        heads, kv_heads = self._decoder.heads, self._decoder.kv_heads
        rotated, values = states[:, : heads + kv_heads], states[:, heads + kv_heads :]
        if block.query_norm is not None and block.key_norm is not None:
            query, key = rotated.split([heads, kv_heads], dim=1)
            rotated = torch.cat([block.query_norm(query), block.key_norm(key)], dim=1)
        first_half, second_half = rotated.chunk(2, dim=-1)
        rotated = torch.cat((second_half, first_half), dim=-1).mul_(sin).add_(rotated * cos)
        query, keys = rotated[:, :heads], rotated[:, heads:]
        cache.allocate_like(keys.transpose(0, 1), values.transpose(0, 1))
        cache.keys[at.slots, :, at.positions] = keys
        cache.values[at.slots, :, at.positions] = values
        count = len(at.single)
        if at.in_order and not at.longer:
            return self._attend_single(cache, query, at).flatten(1)
        attended = query.new_empty(query.shape)
        if at.in_order:
            attended[:count] = self._attend_single(cache, query[:count], at)
        elif count:
            # Slots whose sequences do not decode in this pass are computed too; their results are not used.
            by_slot = query.new_zeros((at.spans[-1].slots.stop, *query.shape[1:]))
            by_slot[at.single_slots] = query[at.single]
            attended[at.single] = self._attend_single(cache, by_slot, at)[at.single_slots]
        for chunk, first, mask in at.longer:
            own = query[first : first + len(chunk.ids)]
            attended[first : first + len(chunk.ids)] = self._attend_chunk(cache, chunk.slot, own, mask)
        return attended.flatten(1)

    def _attend_chunk(self, cache: LayerCache, slot: int, query: Tensor, mask: Tensor) -> Tensor:
        """Attention of a prompt's chunk, [tokens, heads, head_dim]."""
        count = len(query)
        if count < len(mask):
            query = torch.cat([query, query[-1:].expand(len(mask) - count, -1, -1)])
        # Columns in whole steps: a token gets the same bits however its prompt is divided into chunks.
        keys, values = (buffer[slot, None, :, : mask.shape[1]] for buffer in (cache.keys, cache.values))
        attended = functional.scaled_dot_product_attention(
            query[None].transpose(1, 2), keys, values, attn_mask=mask, enable_gqa=True
        )
        return attended[0].transpose(0, 1)[:count]

    def _attend_single(self, cache: LayerCache, query: Tensor, at: Layout) -> Tensor:
        """Attention of one token of each slot [slots, heads, head_dim].

        Heads that share keys become queries of one head, so that no key is repeated.
        """
        groups = query.view(len(query), self._decoder.kv_heads, -1, self._size)
        count = groups.shape[2]
        if count < _LEAST_GROUP:
            groups = torch.cat([groups, groups[:, :, -1:].expand(-1, -1, _LEAST_GROUP - count, -1)], dim=2)
        parts = [
            functional.scaled_dot_product_attention(
                groups[span.slots],
                cache.keys[span.slots, :, : span.columns],
                cache.values[span.slots, :, : span.columns],
                attn_mask=span.mask,
            )
            for span in at.spans
        ]
        attended = parts[0] if len(parts) == 1 else torch.cat(parts)
        return attended[:, :, :count].reshape(query.shape)


def _layout(chunks: Sequence[Chunk]) -> Layout:
    slots = [chunk.slot for chunk in chunks for _ in chunk.ids]
    positions = [position for chunk in chunks for position in range(chunk.start, chunk.end)]
    firsts = itertools.accumulate((len(chunk.ids) for chunk in chunks), initial=0)
    indexed = list(zip(chunks, firsts, strict=False))
    single = [(chunk, first) for chunk, first in indexed if not chunk.prompt]
    longer = [(chunk, first, _causal_mask(chunk)) for chunk, first in indexed if chunk.prompt]
    lengths = [0] * (1 + max((chunk.slot for chunk, _ in single), default=-1))
    for chunk, _ in single:
        lengths[chunk.slot] = chunk.end
    return Layout(
        torch.tensor(slots),
        torch.tensor(positions),
        torch.tensor([first for _, first in single], dtype=torch.long),
        torch.tensor([chunk.slot for chunk, _ in single], dtype=torch.long),
        _spans(lengths),
        longer,
        bool(single) and slots[: len(single)] == list(range(len(lengths))),
    )


def _spans(lengths: Sequence[int]) -> list[Span]:
    """Slots with so many tokens each, divided so that few short ones are padded to the length of a long one.

    Whoever has a long chat would otherwise make every step of all the others as slow as that chat's.
    """
    if not lengths:
        return []
    columns = [rounded_up(max(length, 1)) for length in lengths]
    firsts, widest = [0], columns[:1]
    for slot, own in enumerate(columns[1:], start=1):
        count, most = slot - firsts[-1], max(widest[-1], own)
        if (count + 1) * most > count * widest[-1] + own + _CALL_COLUMNS:
            firsts.append(slot)
            widest.append(own)
        else:
            widest[-1] = most
    ends = [*firsts[1:], len(lengths)]
    return [
        Span(slice(first, end), most, visible_columns(lengths[first:end], end - first, most))
        for first, end, most in zip(firsts, ends, widest, strict=True)
    ]


def _causal_mask(chunk: Chunk) -> Tensor:
    """[tokens, columns] bool: each token attends to those before it and to itself.

    A very short chunk is padded with copies of its last token.
    """
    columns = torch.arange(rounded_up(chunk.end))
    positions = torch.arange(chunk.start, max(chunk.end, chunk.start + _LEAST_QUERIES))
    return columns[None, :] <= positions.clamp(max=chunk.end - 1)[:, None]


def fits(model: LoadedModel) -> bool:
    """Whether the model is on a CPU and made of the blocks that `FusedForward` computes."""
    return model.device.type == "cpu" and is_of_family(model)
