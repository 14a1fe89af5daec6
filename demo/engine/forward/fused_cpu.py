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
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo.engine.forward.blocks import Block, decoder_of, is_of_family
from demo.engine.forward.forward_pass import Chunk, ChunkReading, Probe
from demo.engine.forward.layout import Layout, Prompt, Span, layout_of
from demo.engine.forward.products import Products, ReadBackLinear
from demo.engine.kv_cache import LayerCache, SequenceCache
from demo.engine.shelved_cache import ShelvedCache
from demo.models.loading import LoadedModel

# torch sums attention over fewer queries than this in another order. Heads that share keys are padded to this
# number, so that a reply's tokens get the bits that they would get in a prompt.
_LEAST_GROUP = 4


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

    def new_cache(self) -> ShelvedCache:
        """See `forward_pass.ForwardPass`."""
        return ShelvedCache(self.layers)

    def with_probe(self, probe: Probe) -> FusedForward:
        """The same weights with another probe, for another axis."""
        other = copy(self)
        other._probe = probe
        return other

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk], cache: SequenceCache) -> tuple[Tensor, list[ChunkReading]]:
        """See `forward_pass.ForwardPass`."""
        counts = [len(chunk.ids) for chunk in chunks]
        hooks = self._probe.hooks(chunks, counts, [[e] for chunk in chunks for e in chunk.exempt])
        x = self._decoder.embed(torch.tensor([token for chunk in chunks for token in chunk.ids]))
        layout = layout_of(chunks, cast("ShelvedCache", cache), x.dtype)
        cos, sin = (c[0, :, None] for c in self._decoder.rotary(x[None], layout.positions[None]))
        sin = sin * self._signs
        for index, block in enumerate(self._decoder.blocks):
            x = block.out(self._attend(block, index, x, cos, sin, layout)).add_(x)
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

    def _attend(self, block: Block, layer: int, x: Tensor, cos: Tensor, sin: Tensor, at: Layout) -> Tensor:
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
        for write in at.writes:
            cache = write.shelf.layers[layer]
            cache.allocate_like(keys.transpose(0, 1), values.transpose(0, 1))
            own_keys, own_values = (x if write.tokens is None else x[write.tokens] for x in (keys, values))
            cache.keys[write.rows, :, write.columns] = own_keys
            cache.values[write.rows, :, write.columns] = own_values
        # Heads that share keys become queries of one head, so that no key is repeated.
        groups = query.view(len(query), kv_heads, -1, self._size)
        if at.is_one_span:
            span = at.spans[0]
            return self._attend_span(span.shelf.layers[layer], span, groups).flatten(1)
        attended = query.new_empty(query.shape)
        for prompt in at.prompts:
            cache = prompt.shelf.layers[layer]
            attended[prompt.tokens] = self._attend_chunk(cache, prompt, query[prompt.tokens])
        for span in at.spans:
            found = self._attend_span(span.shelf.layers[layer], span, groups[span.tokens])
            attended[span.wanted] = found[span.decoding]
        return attended.flatten(1)

    def _attend_chunk(self, cache: LayerCache, prompt: Prompt, query: Tensor) -> Tensor:
        """Attention of a prompt's chunk, [tokens, heads, head_dim]."""
        count, mask = len(query), prompt.mask
        if count < len(mask):
            query = torch.cat([query, query[-1:].expand(len(mask) - count, -1, -1)])
        # Columns in whole steps: a token gets the same bits however its prompt is divided into chunks.
        keys, values = (x[prompt.row, None, :, : mask.shape[1]] for x in (cache.keys, cache.values))
        attended = functional.scaled_dot_product_attention(
            query[None].transpose(1, 2), keys, values, attn_mask=mask, enable_gqa=True
        )
        return attended[0].transpose(0, 1)[:count]

    def _attend_span(self, cache: LayerCache, span: Span, groups: Tensor) -> Tensor:
        """Attention of one token of each row [rows, kv_heads, group, head_dim]: [rows, heads, head_dim]."""
        count = groups.shape[2]
        if count < _LEAST_GROUP:
            groups = torch.cat([groups, groups[:, :, -1:].expand(-1, -1, _LEAST_GROUP - count, -1)], dim=2)
        attended = functional.scaled_dot_product_attention(
            groups,
            cache.keys[span.rows, :, : span.columns],
            cache.values[span.rows, :, : span.columns],
            attn_mask=span.mask,
        )
        return attended[:, :, :count].flatten(1, 2)


def fits(model: LoadedModel) -> bool:
    """Whether the model is on a CPU and made of the blocks that `FusedForward` computes."""
    return model.device.type == "cpu" and is_of_family(model)
