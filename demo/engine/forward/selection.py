"""The choice of an engine's forward pass: the fastest one that computes what the model computes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers.cache_utils import DynamicCache

from demo.engine.forward.cache_objects import cache_in, can_merge, keeps_keys_and_values
from demo.engine.forward.cuda_graphs import GraphForward, fits_graphs
from demo.engine.forward.forward_pass import Chunk, ForwardPass, Probe
from demo.engine.forward.fused_cpu import FusedForward, fits
from demo.engine.forward.modules import ModuleForward
from demo.engine.forward.own_cache import OwnCacheForward
from demo.engine.forward.self_test import fault_of, reference_of, text_tokens
from demo.models.loading import LoadedModel
from demo.space import on_zerogpu
from demo.utils.errors import UserError, first_sentence

log = logging.getLogger(__name__)

_PROBE_TOKENS = 24

Maker = Callable[[LoadedModel, Probe], ForwardPass]

# How to make the pass chosen for a model: two engines on one model must compute the same bits, and a model's
# matrices need to be laid out only once. A maker must not hold the model, which would then never be freed.
_CHOSEN: WeakKeyDictionary[nn.Module, dict[tuple[bool, bool], Maker]] = WeakKeyDictionary()


def choose_forward(
    model: LoadedModel, probe: Probe, fused: bool = True, reproducible: bool = False
) -> ForwardPass:
    """The fastest forward pass that passes the self-test.

    Args:
        fused: False for transformers' own modules even where there is a faster pass.
        reproducible: choose without timing, so that every process on this machine computes the same bits.

    Raises:
        UserError: The model cannot be served right. The sentence says why.
    """
    if on_zerogpu():  # there is no GPU yet, so nothing can be run before a visitor's first message
        return next(makers(model, fused=False, reproducible=True))(model, probe)
    chosen = _CHOSEN.setdefault(model.model, {})
    if model.eight_bit and fused and not fits(model):
        raise UserError(
            f"int8 is for models that are built like Llama, Mistral, Qwen 2 or Qwen 3, not for "
            f"{model.architecture}: leave out --dtype."
        )
    # Nothing is timed below float32, and all numbers of rows are alike.
    reproducible = reproducible and (model.dtype == torch.float32 or model.eight_bit)
    key = fused, reproducible
    with model.turn:
        if key not in chosen:
            chosen[key] = first_right(model, probe, makers(model, fused, reproducible))
    return chosen[key](model, probe)


def first_right(model: LoadedModel, probe: Probe, possible: Iterator[Maker]) -> Maker:
    """How to make the first of the possible passes that passes the self-test.

    Raises:
        UserError: None does.
    """
    fault, reference = "it has no cache that can be copied", None
    for make in possible:
        try:
            reference = reference or reference_of(model, probe.axis)
        except Exception as error:  # models that need more than text can raise errors of any kind
            fault = first_sentence(error) or type(error).__name__
            break
        candidate = make(model, probe)
        found = fault_of(reference, candidate)
        if found is None:
            return _later(make, candidate)
        fault = found
        # That a cache is of another kind is a fact; a faster pass that computes something else is a fault.
        level = logging.WARNING if isinstance(candidate, FusedForward | GraphForward) else logging.INFO
        log.log(level, "%s: not used: %s", candidate.name, fault)
    raise UserError(
        f"{model.spec} ({model.architecture}) did not pass the self-test ({fault}): choose another model."
    )


def _later(make: Maker, candidate: ForwardPass) -> Maker:
    """How to make the chosen pass for the next engine. Passes with matrices of their own share them."""
    if isinstance(candidate, FusedForward):
        return partial(_again, candidate)
    if isinstance(candidate, GraphForward):
        return partial(GraphForward, decoder=candidate.decoder)
    return make


def _again(fused: FusedForward, model: LoadedModel, probe: Probe) -> ForwardPass:
    """The same fused pass for another axis."""
    return fused.with_probe(probe)


def makers(model: LoadedModel, fused: bool, reproducible: bool) -> Iterator[Maker]:
    """How to make the passes that may suit a model, best first."""
    if fused and fits(model):
        yield lambda model, probe: FusedForward(model, probe, reproducible)
    if fused and fits_graphs(model):
        yield GraphForward
    cache = cache_of(model)
    if cache is None:
        return
    if keeps_keys_and_values(cache):
        yield partial(ModuleForward, cache_layers=max(len(model.layers), len(cache.layers)))
    for continues in (True, False):
        for merge in (True, False) if can_merge(cache) else (False,):
            yield partial(OwnCacheForward, merge=merge, continues=continues)


@torch.inference_mode()
def cache_of(model: LoadedModel) -> Any:
    """The cache that the model makes for a text of two tokens; None when it makes none.

    Raises:
        UserError: The model cannot read the text.
    """
    if on_zerogpu():
        return DynamicCache(config=model.model.config.get_text_config(decoder=True))
    ids = torch.tensor([text_tokens(model, 2)], device=model.device)
    try:
        output = model.model(input_ids=ids, use_cache=True)
    except Exception as error:  # models that need more than text can raise errors of any kind
        raise UserError(
            f"{model.spec} ({model.architecture}) cannot read plain text ({first_sentence(error)}): "
            "choose another model."
        ) from error
    return cache_in(output)


@torch.inference_mode()
def memory_of(model: LoadedModel, forward: ForwardPass) -> tuple[int, int]:
    """Bytes that the cache holds of one token, and of a sequence of any length, measured on a short text."""
    if on_zerogpu():
        return model.token_bytes, 0
    if isinstance(forward, OwnCacheForward):
        sizes = []
        for count in (_PROBE_TOKENS // 2, _PROBE_TOKENS):
            own = forward.new_cache()
            forward.run([Chunk(0, 0, text_tokens(model, count), [True] * count)], own)
            sizes.append(own.nbytes)
        per_token = (sizes[1] - sizes[0]) // (_PROBE_TOKENS - _PROBE_TOKENS // 2)
        return per_token, max(sizes[1] - per_token * _PROBE_TOKENS, 0)
    cache = forward.new_cache()
    cache.open(0, 1)
    forward.run([Chunk(0, 0, text_tokens(model, 2), [True] * 2)], cache)
    return cache.nbytes // cache.columns_of([1]), 0


def difference(model: LoadedModel, one: ForwardPass, other: ForwardPass) -> float:
    """The largest difference between the logits of two passes, as a share of the largest logit.

    Both read a short text and then one more token.
    """
    ids = text_tokens(model, _PROBE_TOKENS)
    logits = []
    for forward in (one, other):
        cache = forward.new_cache()
        cache.open(0, _PROBE_TOKENS)
        first, _ = forward.run([Chunk(0, 0, ids[:-1], [True] * (len(ids) - 1))], cache)
        second, _ = forward.run([Chunk(0, len(ids) - 1, ids[-1:], [True], prompt=False)], cache)
        logits.append(torch.cat([first, second]).float())
    return float((logits[0] - logits[1]).abs().max() / logits[1].abs().max())
