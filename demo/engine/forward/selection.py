"""The choice of an engine's forward pass.

It is the fused one where that computes the same as transformers' own modules, and else the modules.
"""

from __future__ import annotations

import logging
from weakref import WeakKeyDictionary

import torch
from torch import nn

from demo.engine.forward.forward_pass import Chunk, ForwardPass, Probe
from demo.engine.forward.fused_cpu import FusedForward, fits
from demo.engine.forward.modules import ModuleForward
from demo.engine.kv_cache import KVCache
from demo.models.loading import LoadedModel

log = logging.getLogger(__name__)

# The largest difference allowed, as a share of the largest logit. The default model's figures are in
# docs/speed.md.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
_PROBE_TOKENS = 24
# Fused passes by model: two engines on one model must compute the same bits, and its matrices need to be
# laid out only once.
_FUSED: WeakKeyDictionary[nn.Module, dict[bool, FusedForward | None]] = WeakKeyDictionary()


def choose_forward(
    model: LoadedModel, probe: Probe, fused: bool = True, reproducible: bool = False
) -> ForwardPass:
    """The fastest forward pass that reproduces the model's own logits.

    Args:
        fused: False for transformers' own modules even where there is a faster pass.
        reproducible: choose without timing, so that every process on this machine computes the same bits.
    """
    modules = ModuleForward(model, probe)
    if not fused or not fits(model):
        return modules
    passes = _FUSED.setdefault(model.model, {})
    if reproducible not in passes:
        passes[reproducible] = checked(FusedForward(model, probe, reproducible), modules, model)
    chosen = passes[reproducible]
    return modules if chosen is None else chosen.with_probe(probe)


def checked(candidate: FusedForward, modules: ForwardPass, model: LoadedModel) -> FusedForward | None:
    """The candidate, or None when its logits differ from those of the model's own modules."""
    error = difference(model, candidate, modules)
    if error <= TOLERANCE.get(model.dtype, 0.0):
        return candidate
    log.warning("the fused forward pass differs by %.2g and is not used", error)
    return None


def difference(model: LoadedModel, one: ForwardPass, other: ForwardPass) -> float:
    """The largest difference between the logits of two passes, as a share of the largest logit.

    Both run a random prompt and then one more token.
    """
    generator = torch.Generator().manual_seed(0)
    count = min(len(model.tokenizer), model.model.config.vocab_size)
    ids = torch.randint(count, (_PROBE_TOKENS,), generator=generator).tolist()
    logits = []
    for forward in (one, other):
        cache = KVCache(len(model.layers))
        cache.reserve(1, _PROBE_TOKENS)
        first, _ = forward.run([Chunk(0, 0, ids[:-1], [True] * (len(ids) - 1))], cache)
        second, _ = forward.run([Chunk(0, len(ids) - 1, ids[-1:], [True], prompt=False)], cache)
        logits.append(torch.cat([first, second]).float())
    return float((logits[0] - logits[1]).abs().max() / logits[1].abs().max())
