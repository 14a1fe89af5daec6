"""Sampling the next tokens, with the same random numbers for every sequence that has the same seed.

A token is sampled with the Gumbel-max trick: argmax of log p + g, where g is one Gumbel variate per
vocabulary entry. Two sequences with the same seed see the same g at the same step. They sample the same token
wherever their distributions allow it, so the difference between two replies is due to the cap and not to
chance. All sequences are sampled at once, but no sequence's token depends on the others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from demo.engine.protocol import MOST_ALTERNATIVES, Sampling

# A nucleus almost never holds more tokens than this. Where it does, the whole vocabulary is sorted.
_CANDIDATES = 256

# A CPU samples only so many logits at once: whole batches of a large vocabulary leave its caches, and take
# several times their memory.
_LOGITS_AT_ONCE = 1_000_000

# A CPU finds the largest logits faster among the blocks of so many that have the largest maxima.
_BLOCK = 16


@dataclass(frozen=True, slots=True)
class SamplingStep:
    """How one sequence samples its next token.

    Attributes:
        step: number of the token in its reply, from 0.
        seen: ids to which the repetition penalty applies.
        barred: ids that cannot be sampled.
        given: the token that is taken whatever the logits say; None to sample one.
    """

    sampling: Sampling
    step: int
    seen: Collection[int] = ()
    barred: Sequence[int] = ()
    given: int | None = None


# Token ids with their probabilities, the likeliest first.
Likeliest = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """What was sampled for one sequence.

    Attributes:
        token: its id.
        probability: at temperature 1, before the repetition penalty and before tokens are barred.
        likeliest: the tokens that could have come, with the same kind of probability.
    """

    token: int
    probability: float
    likeliest: Likeliest


# Sequences with the same seed are close to each other in a step, and a vector can take half a megabyte.
@lru_cache(maxsize=32)
def uniform_noise(seed: int, step: int, vocabulary: int) -> Tensor:
    """One uniform variate per vocabulary entry, [V] float32 on the CPU: a function of seed and step alone."""
    # 64-bit golden-ratio mixing keeps (seed, step) and (seed + 1, step - 1) apart.
    generator = torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + step) % 2**63)
    return torch.rand(vocabulary, generator=generator)


def gumbel(uniform: Tensor) -> Tensor:
    """Gumbel variates from uniform ones."""
    return -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))


@torch.inference_mode()
def sample_batch(logits: Tensor, steps: Sequence[SamplingStep]) -> list[Choice]:
    """Sample the next token of every sequence.

    Args:
        logits: [B, V] of any float dtype; not changed.
    """
    rows = max(1, _LOGITS_AT_ONCE // logits.shape[-1])
    if logits.device.type == "cpu" and len(steps) > rows:
        starts = range(0, len(steps), rows)
        parts = [_sample_rows(logits[start : start + rows], steps[start : start + rows]) for start in starts]
        return [choice for part in parts for choice in part]
    return _sample_rows(logits, steps)


def _sample_rows(logits: Tensor, steps: Sequence[SamplingStep]) -> list[Choice]:
    """See `sample_batch`."""
    plain = logits.float()
    shaped = penalised(plain, steps)
    shaped = _without_barred(shaped, steps, in_place=shaped is not plain)
    warm = [index for index, step in enumerate(steps) if step.sampling.temperature > 0]
    if len(warm) == len(steps):
        tokens = _sample_nucleus(shaped, steps)
    else:
        tokens = shaped.argmax(-1)
        if warm:
            tokens[warm] = _sample_nucleus(shaped[warm], [steps[index] for index in warm])
    for index, step in enumerate(steps):
        if step.given is not None:
            tokens[index] = step.given
    # log_softmax and not logsumexp, which is many times slower where logits are far apart, as in chat models.
    log_p = plain.log_softmax(-1)
    chance = log_p.gather(-1, tokens[:, None])
    most, ids = _top(log_p)
    # One transfer for all: on a GPU each transfer waits for the device. Ids are exact in float64.
    parts = tokens[:, None], chance.exp(), ids, most.exp()
    rows = torch.cat([part.to(torch.float64) for part in parts], -1)
    count = ids.shape[-1]
    return [
        Choice(int(row[0]), row[1], _pairs(row[2 : 2 + count], row[2 + count :])) for row in rows.tolist()
    ]


@torch.inference_mode()
def likeliest(logits: Tensor) -> list[Likeliest]:
    """The likeliest next tokens of every sequence and their probabilities at temperature 1; logits [B, V]."""
    most, ids = _top(logits.float().log_softmax(-1))
    rows = torch.cat([ids.to(torch.float64), most.exp().to(torch.float64)], -1).tolist()
    return [_pairs(row[: ids.shape[-1]], row[ids.shape[-1] :]) for row in rows]


def _top(log_p: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of each row of log_p [B, V] and their ids, both [B, k], k at most MOST_ALTERNATIVES."""
    return largest(log_p, min(MOST_ALTERNATIVES, log_p.shape[-1]))


def largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row of values [B, V] in descending order and their ids, both [B, count].

    They lie in the `count` blocks with the largest maxima, so a CPU need not look at the others again.
    """
    rows, blocks = values.shape[0], values.shape[1] // _BLOCK
    if values.device.type != "cpu" or blocks <= count:
        found, ids = values.topk(count)
        return found, ids
    # Block b holds every `blocks`-th value from b on: their maxima are then taken along the memory.
    maxima = values[:, : blocks * _BLOCK].view(rows, _BLOCK, blocks).amax(1)
    first = maxima.topk(count, sorted=False).indices[:, None]
    near = (first + torch.arange(_BLOCK)[:, None] * blocks).flatten(1)
    rest = torch.arange(blocks * _BLOCK, values.shape[1]).expand(rows, -1)
    ids = torch.cat([near, rest], -1)
    found, at = values.gather(-1, ids).topk(count)
    return found, ids.gather(-1, at)


def _pairs(ids: Sequence[float], chances: Sequence[float]) -> Likeliest:
    return tuple((int(token), chance) for token, chance in zip(ids, chances, strict=True))


def sample(logits: Tensor, sampling: Sampling, step: int, seen: Collection[int] = ()) -> int:
    """The next token id of a single sequence; logits [V]."""
    return sample_batch(logits[None], [SamplingStep(sampling, step, seen)])[0].token


def penalised(logits: Tensor, steps: Sequence[SamplingStep]) -> Tensor:
    """CTRL repetition penalty (Keskar et al. 2019): lower the logits [B, V] of seen tokens."""
    found = [
        (index, step)
        for index, step in enumerate(steps)
        if step.sampling.repetition_penalty != 1 and step.seen
    ]
    if not found:
        return logits
    batch = torch.tensor([index for index, step in found for _ in step.seen], device=logits.device)
    ids = torch.tensor([token for _, step in found for token in step.seen], device=logits.device)
    rates = [step.sampling.repetition_penalty for _, step in found for _ in step.seen]
    rate = torch.tensor(rates, device=logits.device)
    chosen = logits[batch, ids]
    changed = torch.where(chosen > 0, chosen / rate, chosen * rate)
    return logits.index_put((batch, ids), changed)


def _without_barred(logits: Tensor, steps: Sequence[SamplingStep], in_place: bool) -> Tensor:
    barred = [(index, token) for index, step in enumerate(steps) for token in step.barred]
    if not barred:
        return logits
    batch, ids = torch.tensor(barred, device=logits.device).T
    put = logits.index_put_ if in_place else logits.index_put
    return put((batch, ids), logits.new_tensor(float("-inf")))


def _sample_nucleus(logits: Tensor, steps: Sequence[SamplingStep], candidates: int = _CANDIDATES) -> Tensor:
    """Ids [B] sampled from each sequence's nucleus.

    The nucleus is the smallest set of likeliest tokens whose probabilities reach top-p.
    """
    device, vocabulary = logits.device, logits.shape[-1]
    scaled = logits / torch.tensor([step.sampling.temperature for step in steps], device=device)[:, None]
    log_p, tokens = largest(scaled.log_softmax(-1), min(candidates, vocabulary))
    mass_before = log_p.exp().cumsum(-1) - log_p.exp()
    keep = mass_before < torch.tensor([step.sampling.top_p for step in steps], device=device)[:, None]
    noise = [
        uniform_noise(step.sampling.seed, step.step, vocabulary)[ids]
        for step, ids in zip(steps, tokens.cpu(), strict=True)
    ]
    score = (log_p + gumbel(torch.stack(noise)).to(device)).masked_fill(~keep, float("-inf"))
    sampled = tokens.gather(-1, score.argmax(-1, keepdim=True))[:, 0]
    if tokens.shape[-1] < vocabulary and bool(keep[:, -1].any()):
        wide = keep[:, -1].nonzero()[:, 0].tolist()
        sampled[wide] = _sample_nucleus(logits[wide], [steps[index] for index in wide], vocabulary)
    return sampled
