"""Drawing the next tokens, with the same random numbers for every row that has the same seed.

A token is drawn with the Gumbel-max trick: argmax of log p + g, where g is one Gumbel variate per vocabulary entry.
Two rows with the same seed see the same g at the same step, so they draw the same token wherever their
distributions allow it, and what differs between the replies is the cap, not luck. All rows are drawn for at once, and what one row
draws depends on no other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from demo.engine.protocol import Sampling

# Top-p almost never reaches past this many tokens; where it does, all of the vocabulary is sorted.
_CANDIDATES = 256


@dataclass(frozen=True, slots=True)
class SamplingStep:
    """How one row draws. step: number of the token in its reply, from 0; seen: ids under the repetition penalty; barred: ids
    that cannot be drawn."""

    sampling: Sampling
    step: int
    seen: Collection[int] = ()
    barred: Sequence[int] = ()


# A room of visitors draws in one step with as many seeds as there are conversations.
@lru_cache(maxsize=128)
def uniform_noise(seed: int, step: int, vocabulary: int) -> Tensor:
    """One uniform variate per vocabulary entry, [V] float32 on the CPU: a function of seed and decode step alone."""
    # 64-bit golden-ratio mixing keeps (seed, step) and (seed + 1, step - 1) apart.
    generator = torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + step) % 2**63)
    return torch.rand(vocabulary, generator=generator)


def gumbel(uniform: Tensor) -> Tensor:
    """Gumbel variates from uniform ones."""
    return -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))


@torch.inference_mode()
def sample_batch(logits: Tensor, rows: Sequence[SamplingStep]) -> tuple[list[int], list[float]]:
    """Every row's next token id, and that token's probability at temperature 1 before penalty and bars.

    logits [B, V] of any float dtype, not changed.
    """
    plain = logits.float()
    shaped = _barred(_penalised(plain, rows), rows)
    warm = [index for index, row in enumerate(rows) if row.sampling.temperature > 0]
    if len(warm) == len(rows):
        tokens = _drawn(shaped, rows)
    else:
        tokens = shaped.argmax(-1)
        if warm:
            tokens[warm] = _drawn(shaped[warm], [rows[index] for index in warm])
    # log_softmax, not logsumexp: that takes many times as long where logits are far apart, as chat models' are.
    probability = plain.log_softmax(-1).gather(-1, tokens[:, None])[:, 0].exp()
    # One transfer for both: on a GPU each one waits for the device. Ids below 2^24 are exact in float32.
    both = torch.stack([tokens.to(torch.float64), probability.to(torch.float64)]).tolist()
    return [int(token) for token in both[0]], both[1]


def _penalised(logits: Tensor, rows: Sequence[SamplingStep]) -> Tensor:
    """CTRL repetition penalty (Keskar et al. 2019): logits of seen tokens shrink toward unlikely."""
    penalised = [
        (index, row) for index, row in enumerate(rows) if row.sampling.repetition_penalty != 1 and row.seen
    ]
    if not penalised:
        return logits
    lines = torch.tensor([index for index, row in penalised for _ in row.seen], device=logits.device)
    ids = torch.tensor([token for _, row in penalised for token in row.seen], device=logits.device)
    rates = [row.sampling.repetition_penalty for _, row in penalised for _ in row.seen]
    rate = torch.tensor(rates, device=logits.device)
    chosen = logits[lines, ids]
    changed = torch.where(chosen > 0, chosen / rate, chosen * rate)
    return logits.index_put((lines, ids), changed)


def _barred(logits: Tensor, rows: Sequence[SamplingStep]) -> Tensor:
    barred = [(index, token) for index, row in enumerate(rows) for token in row.barred]
    if not barred:
        return logits
    lines, ids = torch.tensor(barred, device=logits.device).T
    return logits.index_put((lines, ids), logits.new_tensor(float("-inf")))


def _drawn(logits: Tensor, rows: Sequence[SamplingStep], candidates: int = _CANDIDATES) -> Tensor:
    """Ids drawn from the nucleus of each row, [B]: the smallest set of most likely tokens whose probabilities reach top-p."""
    device, vocabulary = logits.device, logits.shape[-1]
    scaled = logits / torch.tensor([row.sampling.temperature for row in rows], device=device)[:, None]
    log_p, tokens = scaled.log_softmax(-1).topk(min(candidates, vocabulary))
    mass_before = log_p.exp().cumsum(-1) - log_p.exp()
    keep = mass_before < torch.tensor([row.sampling.top_p for row in rows], device=device)[:, None]
    noise = [
        uniform_noise(row.sampling.seed, row.step, vocabulary)[ids]
        for row, ids in zip(rows, tokens.cpu(), strict=True)
    ]
    score = (log_p + gumbel(torch.stack(noise)).to(device)).masked_fill(~keep, float("-inf"))
    drawn = tokens.gather(-1, score.argmax(-1, keepdim=True))[:, 0]
    if tokens.shape[-1] < vocabulary and bool(keep[:, -1].any()):
        wide = keep[:, -1].nonzero()[:, 0].tolist()
        drawn[wide] = _drawn(logits[wide], [rows[index] for index in wide], vocabulary)
    return drawn


def draw(logits: Tensor, sampling: Sampling, step: int, seen: Collection[int] = ()) -> int:
    """The next token id of a single row; logits [V]."""
    return sample_batch(logits[None], [SamplingStep(sampling, step, seen)])[0][0]
