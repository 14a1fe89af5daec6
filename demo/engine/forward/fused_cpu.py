"""The decoder of the Llama family in few operations, for CPUs, where a small model spends most of a decode step between products.

Same weights, same formulas as transformers' modules, but one product for queries, keys and values, one for gate and up,
tokens of all rows one after the other with no padding, attention by groups of heads with no repeated keys, and masks made once a pass.
`forward.choose_forward` gives it only for models that it knows and whose logits it reproduces.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo.engine.forward.forward_pass import Chunk, ChunkReading, Probe
from demo.engine.forward.products import Product, Products
from demo.engine.kv_cache import KVCache, LayerCache, rounded_up, visible
from demo.models.loading import LoadedModel

# Attention of fewer queries than this is summed in another order: the last few tokens of a prompt would get other bits than the same
# tokens in the middle of a chunk.
_LEAST_QUERIES = 8

# The same for heads that share keys: a reply's tokens get the bits that they would get as part of a prompt.
_LEAST_GROUP = 4

# Pre-norm blocks of exactly this shape; Qwen 3 also normalises queries and keys.
FAMILY = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


@dataclass(frozen=True, slots=True)
class Norm:
    """transformers' RMSNorm: the mean square in float32, the weight in the model's dtype."""

    weight: Tensor
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        x32 = x.float()
        scale = torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return self.weight * (x32 * scale).to(x.dtype)


@dataclass(frozen=True, slots=True)
class Block:
    """One decoder layer."""

    before_attention: Norm
    query_key_value: Product
    query_norm: Norm | None
    key_norm: Norm | None
    out: Product
    before_mlp: Norm
    gate_up: Product
    down: Product


@dataclass(slots=True)
class Layout:
    """Where the tokens of a pass lie: parts one after the other. single: places of tokens that were drawn, which attend all at once;
    longer: parts of prompts, with their first place and mask [tokens, columns]; whole: one token of every slot, in order."""

    slots: Tensor
    positions: Tensor
    single: Tensor
    single_slots: Tensor
    mask: Tensor
    columns: int
    longer: list[tuple[Chunk, int, Tensor]]
    whole: bool


class FusedForward:
    """See `passes.ForwardPass`."""

    def __init__(self, model: LoadedModel, watch: Probe) -> None:
        text: Any = model.model.model
        config = model.model.config
        self._watch = watch
        self._embed: nn.Embedding = text.embed_tokens
        self._rotary = text.rotary_emb
        self._norm = _norm(text.norm)
        first: Any = model.layers[0].self_attn
        self._size = int(first.head_dim)
        self._heads: int = config.num_attention_heads
        self._kv_heads: int = config.num_key_value_heads
        matrices = [m for m in model.model.modules() if type(m) is nn.Linear]
        total = sum(m.weight.nbytes for m in matrices)
        products = Products([m.weight for m in [*matrices[:56], matrices[-1]]], total)
        self.name = f"lean, products {products.name}"
        self._blocks = [_block(layer, products) for layer in model.layers]
        head: nn.Linear = model.model.get_output_embeddings()
        self._head, self._vocabulary = products(head.weight, head.bias), head.out_features

    def watched_by(self, watch: Probe) -> FusedForward:
        """The same weights, read and clamped along another axis."""
        other = copy(self)
        other._watch = watch
        return other

    @torch.inference_mode()
    def run(self, parts: Sequence[Chunk], slots: KVCache) -> tuple[Tensor, list[ChunkReading]]:
        counts = [len(part.ids) for part in parts]
        hooks = self._watch.hooks(parts, counts, [[e] for part in parts for e in part.exempt])
        layout = _layout(parts)
        x = self._embed(torch.tensor([token for part in parts for token in part.ids]))
        cos, sin = (c[0, :, None] for c in self._rotary(x[None], layout.positions[None]))
        for index, (block, cache) in enumerate(zip(self._blocks, slots.layers, strict=True)):
            x = x + block.out(self._attend(block, cache, x, cos, sin, layout))
            gate, up = block.gate_up(block.before_mlp(x)).chunk(2, dim=-1)
            x = x + block.down(functional.silu(gate) * up)
            x = hooks.apply(index, x[:, None])[:, 0]
        ends = itertools.accumulate(counts)
        wanted = [end - 1 for part, end in zip(parts, ends, strict=True) if part.last]
        logits = self._head(self._norm(x[wanted])) if wanted else x.new_empty((0, self._vocabulary))
        return logits, self._watch.readings(hooks, parts)

    def _attend(
        self, block: Block, cache: LayerCache, x: Tensor, cos: Tensor, sin: Tensor, at: Layout
    ) -> Tensor:
        """What attention gives for x [N, D], before the output product: [N, heads * head_dim]."""
        states = block.query_key_value(block.before_attention(x)).view(len(x), -1, self._size)
        turned, values = states[:, : self._heads + self._kv_heads], states[:, self._heads + self._kv_heads :]
        if block.query_norm is not None and block.key_norm is not None:
            query, key = turned.split([self._heads, self._kv_heads], dim=1)
            turned = torch.cat([block.query_norm(query), block.key_norm(key)], dim=1)
        half, other = turned.chunk(2, dim=-1)
        turned = turned * cos + torch.cat((-other, half), dim=-1) * sin
        query, keys = turned[:, : self._heads], turned[:, self._heads :]
        cache.like(keys.transpose(0, 1), values.transpose(0, 1))
        cache.keys[at.slots, :, at.positions] = keys
        cache.values[at.slots, :, at.positions] = values
        if at.whole:
            return self._attend_single(cache, query, at).flatten(1)
        found = query.new_empty(query.shape)
        if len(at.single):
            # A slot whose row is not asked for attends to something all the same, and nobody looks.
            spread = query.new_zeros((at.mask.shape[0], *query.shape[1:]))
            spread[at.single_slots] = query[at.single]
            found[at.single] = self._attend_single(cache, spread, at)[at.single_slots]
        for part, first, mask in at.longer:
            # Whole steps of columns: the same token then gets the same bits however its prompt is cut into chunks.
            keys, values = (x[part.slot, None, :, : mask.shape[1]] for x in (cache.keys, cache.values))
            own = query[first : first + len(part.ids)]
            if len(own) < len(mask):
                own = torch.cat([own, own[-1:].expand(len(mask) - len(own), -1, -1)])
            own = own[None].transpose(1, 2)
            seen = functional.scaled_dot_product_attention(own, keys, values, attn_mask=mask, enable_gqa=True)
            found[first : first + len(part.ids)] = seen[0].transpose(0, 1)[: len(part.ids)]
        return found.flatten(1)

    def _attend_single(self, cache: LayerCache, query: Tensor, at: Layout) -> Tensor:
        """Attention of one token of each slot [slots, heads, head_dim]: heads that share keys are queries of one head, so that no
        key is repeated."""
        groups = query.view(len(query), self._kv_heads, -1, self._size)
        count = groups.shape[2]
        if count < _LEAST_GROUP:
            groups = torch.cat([groups, groups[:, :, -1:].expand(-1, -1, _LEAST_GROUP - count, -1)], dim=2)
        seen = functional.scaled_dot_product_attention(
            groups,
            cache.keys[: len(query), :, : at.columns],
            cache.values[: len(query), :, : at.columns],
            attn_mask=at.mask,
        )
        return seen[:, :, :count].reshape(query.shape)


def _layout(parts: Sequence[Chunk]) -> Layout:
    slots = [part.slot for part in parts for _ in part.ids]
    positions = [place for part in parts for place in range(part.start, part.end)]
    firsts = itertools.accumulate((len(part.ids) for part in parts), initial=0)
    placed = list(zip(parts, firsts, strict=False))
    single = [(part, first) for part, first in placed if not part.prompt]
    longer = [(part, first, _causal(part)) for part, first in placed if part.prompt]
    lengths = [0] * (1 + max((part.slot for part, _ in single), default=-1))
    for part, _ in single:
        lengths[part.slot] = part.end
    columns = rounded_up(max(lengths, default=1))
    return Layout(
        torch.tensor(slots),
        torch.tensor(positions),
        torch.tensor([first for _, first in single], dtype=torch.long),
        torch.tensor([part.slot for part, _ in single], dtype=torch.long),
        visible(lengths, len(lengths), columns),
        columns,
        longer,
        slots == list(range(len(lengths))) and not longer,
    )


def _causal(part: Chunk) -> Tensor:
    """[tokens, columns] bool: each token sees what came before it, and itself. The last token stands for those that are missing in
    a very short part."""
    columns = torch.arange(rounded_up(part.end))
    places = torch.arange(part.start, max(part.end, part.start + _LEAST_QUERIES)).clamp(max=part.end - 1)
    return columns[None, :] <= places[:, None]


def _norm(module: Any) -> Norm:
    return Norm(module.weight, module.variance_epsilon)


def _block(layer: Any, products: Products) -> Block:
    attention, mlp = layer.self_attn, layer.mlp
    return Block(
        _norm(layer.input_layernorm),
        _joined([attention.q_proj, attention.k_proj, attention.v_proj], products),
        _norm(attention.q_norm) if hasattr(attention, "q_norm") else None,
        _norm(attention.k_norm) if hasattr(attention, "k_norm") else None,
        products(attention.o_proj.weight, attention.o_proj.bias),
        _norm(layer.post_attention_layernorm),
        _joined([mlp.gate_proj, mlp.up_proj], products),
        products(mlp.down_proj.weight, mlp.down_proj.bias),
    )


def _joined(modules: Sequence[nn.Linear], products: Products) -> Product:
    """One product for several matrices with the same input. The modules' own weights become parts of the joined matrix, so that
    it takes no memory of its own."""
    weight = torch.cat([module.weight for module in modules])
    bias = None
    if modules[0].bias is not None:
        bias = torch.cat([module.bias for module in modules])
    start = 0
    for module in modules:
        module.weight = nn.Parameter(weight[start : start + module.out_features], requires_grad=False)
        start += module.out_features
    return products(weight, bias)


def fits(model: LoadedModel) -> bool:
    """Whether the model is built of the blocks that `FusedForward` computes, on a CPU."""
    config = model.model.config
    return (
        model.device.type == "cpu"
        and type(model.model).__name__ in FAMILY
        and getattr(config, "hidden_act", None) == "silu"
        and getattr(config, "sliding_window", None) is None
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    )
