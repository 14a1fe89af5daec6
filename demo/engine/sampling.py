"""Drawing the next token, with the same random numbers for every row that has the same seed.

A token is drawn with the Gumbel-max trick: argmax of log p + g, where g is one Gumbel variate per vocabulary entry.
Two rows with the same seed see the same g at the same step, so they draw the same token wherever their
distributions allow it, and what differs between the replies is the cap, not luck.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import torch
from torch import Tensor

from demo.engine.protocol import Sampling

# Top-p almost never reaches past this many tokens; where it does, all of the vocabulary is sorted.
_CANDIDATES = 256


@lru_cache(maxsize=16)
def uniform_noise(seed: int, step: int, vocabulary: int) -> Tensor:
    """One uniform variate per vocabulary entry, [V] float32 on the CPU: a function of seed and decode step alone."""
    # 64-bit golden-ratio mixing keeps (seed, step) and (seed + 1, step - 1) apart.
    generator = torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + step) % 2**63)
    return torch.rand(vocabulary, generator=generator)


def gumbel(uniform: Tensor) -> Tensor:
    """Gumbel variates from uniform ones."""
    return -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))


def penalise(logits: Tensor, seen: Collection[int], penalty: float) -> Tensor:
    """CTRL repetition penalty (Keskar et al. 2019): logits [V] of `seen` tokens shrink toward unlikely."""
    if penalty == 1 or not seen:
        return logits
    index = torch.tensor(sorted(seen), device=logits.device)
    chosen = logits[index]
    return logits.index_copy(0, index, torch.where(chosen > 0, chosen / penalty, chosen * penalty))


def draw(logits: Tensor, sampling: Sampling, step: int, seen: Collection[int] = ()) -> int:
    """The next token id of one row.

    logits [V] of any float dtype; step: number of the token in its reply, from 0; seen: ids under the repetition
    penalty.
    """
    logits = penalise(logits.float(), seen, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return int(logits.argmax())
    scaled = logits / sampling.temperature
    tokens, log_p = _nucleus(scaled, sampling.top_p)
    noise = gumbel(uniform_noise(sampling.seed, step, logits.shape[-1])[tokens.cpu()])
    return int(tokens[(log_p + noise.to(logits.device)).argmax()])


def _nucleus(scaled: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The smallest set of most likely tokens whose probabilities reach top_p: ids and log probabilities."""
    log_total = scaled.logsumexp(-1)
    for count in (min(_CANDIDATES, scaled.shape[-1]), scaled.shape[-1]):
        top, tokens = scaled.topk(count)
        log_p = top - log_total
        mass_before = log_p.exp().cumsum(-1) - log_p.exp()
        keep = mass_before < top_p
        if not bool(keep[-1]) or count == scaled.shape[-1]:
            break
    return tokens[keep], log_p[keep]
