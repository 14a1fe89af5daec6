"""Copying, merging and splitting the cache objects of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import cache_utils
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer


def _known(*names: str) -> tuple[type, ...]:
    """The classes of these names that this version of transformers has."""
    return tuple(kind for name in names if (kind := getattr(cache_utils, name, None)) is not None)


_LINEAR = _known("LinearAttentionCacheLayerMixin")
_PLACEHOLDERS = _known("DummyLayer")  # of layers that keep nothing

# The kinds of layer cache that sequences of different lengths can share. Their tensors are either states
# [batch, ...] or keys and values [batch, heads, tokens, head_dim].
_MERGEABLE = (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    *_known(
        "LinearAttentionLayer",
        "LinearAttentionAndFullAttentionLayer",
        "LinearAttentionAndSlidingWindowAttentionLayer",
    ),
    *_PLACEHOLDERS,
)


# Where a model's output carries its cache, newest name first.
_NAMES = ("cache", "past_key_values", "cache_params", "state")


def cache_in(output: object) -> Any:
    """The cache in a model's output; None when there is none."""
    return next((found for name in _NAMES if (found := getattr(output, name, None)) is not None), None)


def keeps_keys_and_values(cache: Any) -> bool:
    """Whether all that a cache keeps are one key and one value a token, so that it can be cut anywhere.

    Layers without attention, and layers that use another layer's keys and values, keep nothing.
    """
    layers: list[Any] = getattr(cache, "layers", None) or []
    plain = (DynamicLayer, DynamicSlidingWindowLayer, *_PLACEHOLDERS)
    return bool(layers) and all(type(layer) in plain for layer in layers)


def can_merge(cache: object) -> bool:
    """Whether sequences of different lengths can share this cache."""
    return isinstance(cache, Cache) and all(type(layer) in _MERGEABLE for layer in cache.layers)


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors that a cache object holds."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for one in value.values() for tensor in tensors_of(one)]
    if isinstance(value, list | tuple):
        return [tensor for one in value for tensor in tensors_of(one)]
    return tensors_of(vars(value)) if _is_cache(value) else []


def cloned_cache(value: Any) -> Any:
    """A copy of a cache object that shares no tensor with it."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return type(value)((key, cloned_cache(one)) for key, one in value.items())
    if isinstance(value, list | tuple):
        return type(value)(cloned_cache(one) for one in value)
    if not _is_cache(value):
        return value
    other = copy(value)
    for name, one in vars(value).items():
        setattr(other, name, cloned_cache(one))
    return other


def _is_cache(value: object) -> bool:
    """Whether a value is a cache or a part of one, rather than a module or a configuration."""
    known = (CacheLayerMixin, Cache, *_LINEAR, *_PLACEHOLDERS)
    return isinstance(value, known) or "Cache" in type(value).__name__


def merged_cache(caches: Sequence[Cache], lengths: Sequence[int]) -> Cache:
    """One cache for several sequences, the shorter ones padded on the left."""
    whole = copy(caches[0])
    whole.layers = [
        _merged_layer(layers, lengths) for layers in zip(*(one.layers for one in caches), strict=True)
    ]
    return whole


def _merged_layer(layers: Sequence[Any], lengths: Sequence[int]) -> Any:
    whole = copy(layers[0])
    if isinstance(whole, _LINEAR):
        for name in ("conv_states", "recurrent_states"):
            states = [getattr(part, name) for part in layers]
            setattr(
                whole,
                name,
                {
                    key: None if one is None else torch.cat([state[key] for state in states])
                    for key, one in states[0].items()
                },
            )
    if isinstance(whole, DynamicLayer) and whole.is_initialized:
        whole.keys, whole.values = (
            _padded_left([getattr(part, name) for part in layers]) for name in ("keys", "values")
        )
        if isinstance(whole, DynamicSlidingWindowLayer):
            whole.cumulative_length = max(lengths)
    return whole


def _padded_left(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors [1, heads, tokens, head_dim] as one [N, heads, most tokens, head_dim]."""
    most = max(tensor.shape[-2] for tensor in tensors)
    return torch.cat([functional.pad(tensor, (0, 0, most - tensor.shape[-2], 0)) for tensor in tensors])


def taken_cache(cache: Cache, index: int, length: int, longest: int) -> Cache:
    """The cache of one sequence of a merged one, without its padding."""
    own = copy(cache)
    own.layers = [_taken_layer(layer, index, length, longest) for layer in cache.layers]
    return own


def _taken_layer(layer: Any, index: int, length: int, longest: int) -> Any:
    own = copy(layer)
    if isinstance(own, _LINEAR):
        for name in ("conv_states", "recurrent_states"):
            states = getattr(layer, name)
            setattr(
                own,
                name,
                {k: None if one is None else one[index : index + 1].clone() for k, one in states.items()},
            )
    if isinstance(own, DynamicLayer) and own.is_initialized:
        kept = layer.keys.shape[-2] - (longest - length)
        if isinstance(own, DynamicSlidingWindowLayer):
            kept = min(length, layer.sliding_window - 1)
            own.cumulative_length = length
        first = layer.keys.shape[-2] - kept
        own.keys = layer.keys[index : index + 1, :, first:].clone()
        own.values = layer.values[index : index + 1, :, first:].clone()
    return own
