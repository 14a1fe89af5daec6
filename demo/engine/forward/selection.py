"""Which forward pass an engine uses: the lean one where it is known to compute the same, else transformers' own modules."""

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

# Of the largest logit. Seen on the default model: see docs/speed.md.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}

_PROBE_TOKENS = 24

# Two engines on one model must compute the same bits, and its matrices need to be laid out only once.
_LEAN: WeakKeyDictionary[nn.Module, FusedForward | None] = WeakKeyDictionary()


def choose_forward(model: LoadedModel, watch: Probe, lean: bool = True) -> ForwardPass:
    """The fastest way through this model that gives its own logits."""
    plain = ModuleForward(model, watch)
    if not lean:
        return plain
    if model.model not in _LEAN:
        _LEAN[model.model] = _checked(model, watch, plain) if fits(model) else None
    made = _LEAN[model.model]
    return plain if made is None else made.watched_by(watch)


def _checked(model: LoadedModel, watch: Probe, plain: ModuleForward) -> FusedForward | None:
    """A lean pass that was seen to give the logits of the model's own modules; None where it does not."""
    made = FusedForward(model, watch)
    error = difference(model, made, plain)
    if error <= _TOLERANCE.get(model.dtype, 0.0):
        return made
    log.warning("the lean forward pass differs by %.2g and is not used", error)
    return None


def difference(model: LoadedModel, one: ForwardPass, other: ForwardPass) -> float:
    """Largest difference between two ways' logits over the largest logit: several tokens at once, then one more alone."""
    generator = torch.Generator().manual_seed(0)
    count = len(model.tokenizer)
    ids = torch.randint(
        min(count, model.model.config.vocab_size), (_PROBE_TOKENS,), generator=generator
    ).tolist()
    found = []
    for way in (one, other):
        slots = KVCache(len(model.layers))
        slots.reserve(1, _PROBE_TOKENS)
        first, _ = way.run([Chunk(0, 0, ids[:-1], [True] * (len(ids) - 1))], slots)
        second, _ = way.run([Chunk(0, len(ids) - 1, ids[-1:], [True], prompt=False)], slots)
        found.append(torch.cat([first, second]).float())
    return float((found[0] - found[1]).abs().max() / found[1].abs().max())
