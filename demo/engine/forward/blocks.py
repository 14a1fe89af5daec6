"""The decoder of the Llama family as a list of blocks, for the passes that do not run transformers' modules.

The blocks use the model's own weights. Matrices with the same input are joined, so that they are one product.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from demo.engine.forward.products import Product, ReadBackLinear, laid_out_part
from demo.models.loading import LoadedModel

# Architectures of exactly these pre-norm blocks. Qwen 3 also normalises queries and keys.
FAMILY = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


class ProductMaker(Protocol):
    """Makes the product with a matrix. See `products.Products`."""

    @property
    def keeps_weights(self) -> bool: ...

    @property
    def frees_weights(self) -> bool: ...

    def __call__(self, weight: Tensor, bias: Tensor | None = None) -> Product: ...


@dataclass(frozen=True, slots=True)
class Norm:
    """transformers' RMSNorm: the mean square in float32, the weight in the model's dtype."""

    weight: Tensor
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        x32 = x.float()
        scale = x32.square().mean(-1, keepdim=True).add_(self.epsilon).rsqrt_()
        # New memory costs more than the arithmetic, so it is used again wherever that is possible. A float32
        # input is the residual stream itself, which must stay.
        scaled = x32 * scale if x32 is x else x32.mul_(scale).to(x.dtype)
        return scaled.mul_(self.weight)


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


@dataclass(frozen=True, slots=True)
class Decoder:
    """All that a pass needs of a model. It does not hold the model itself.

    Attributes:
        rotary: transformers' module that makes the cosines and sines of positions.
        norm: the one before the head.
        head: hidden states to logits.
        heads, kv_heads, head_size: of attention.
        vocabulary: number of logits.
    """

    embed: nn.Embedding
    rotary: Any
    blocks: list[Block]
    norm: Norm
    head: Product
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int


def decoder_of(model: LoadedModel, products: ProductMaker) -> Decoder:
    """The decoder of a model that `is_of_family`. Its modules may lose their matrices, see `ProductMaker`."""
    text: Any = model.model.model
    config, first = model.model.config, text.layers[0].self_attn
    blocks = [_block(layer, products) for layer in model.layers]
    head: nn.Linear = model.model.get_output_embeddings()
    product, vocabulary = products(head.weight, head.bias), head.weight.shape[0]
    tied = head.weight is text.embed_tokens.weight
    laid_out = laid_out_part(product)
    if products.frees_weights and not tied and laid_out is not None:
        model.model.set_output_embeddings(ReadBackLinear(laid_out, slice(None), head.bias))
    return Decoder(
        text.embed_tokens,
        text.rotary_emb,
        blocks,
        _norm(text.norm),
        product,
        config.num_attention_heads,
        config.num_key_value_heads,
        int(first.head_dim),
        vocabulary,
    )


def is_of_family(model: LoadedModel) -> bool:
    """Whether the model is made of these blocks."""
    config = model.model.config
    return (
        type(model.model).__name__ in FAMILY
        and getattr(config, "hidden_act", None) == "silu"
        and getattr(config, "sliding_window", None) is None
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    )


def _norm(module: Any) -> Norm:
    return Norm(module.weight, module.variance_epsilon)


def _block(layer: Any, products: ProductMaker) -> Block:
    attention, mlp = layer.self_attn, layer.mlp
    return Block(
        _norm(layer.input_layernorm),
        _joined(attention, ("q_proj", "k_proj", "v_proj"), products),
        _norm(attention.q_norm) if hasattr(attention, "q_norm") else None,
        _norm(attention.k_norm) if hasattr(attention, "k_norm") else None,
        _joined(attention, ("o_proj",), products),
        _norm(layer.post_attention_layernorm),
        _joined(mlp, ("gate_proj", "up_proj"), products),
        _joined(mlp, ("down_proj",), products),
    )


def _joined(parent: nn.Module, names: Sequence[str], products: ProductMaker) -> Product:
    """One product for several matrices with the same input.

    The matrices are kept once where that is possible: the modules' own become views of the joined matrix, or
    the modules read theirs back from the product.
    """
    modules = [getattr(parent, name) for name in names]
    weight = modules[0].weight if len(modules) == 1 else torch.cat([module.weight for module in modules])
    bias = None
    if modules[0].bias is not None:
        bias = torch.cat([module.bias for module in modules])
    product = products(weight, bias)
    laid_out = laid_out_part(product)
    ends = list(itertools.accumulate((module.weight.shape[0] for module in modules), initial=0))
    parts = [slice(first, end) for first, end in itertools.pairwise(ends)]
    for name, module, rows in zip(names, modules, parts, strict=True):
        if products.frees_weights and laid_out is not None:
            setattr(parent, name, ReadBackLinear(laid_out, rows, module.bias))
        elif products.keeps_weights and isinstance(module, nn.Linear):
            module.weight = nn.Parameter(weight[rows], requires_grad=False)
    return product
