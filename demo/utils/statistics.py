"""Statistics of outcomes and scores: bootstrap intervals, agreement, AUC and rank correlation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

RESAMPLES = 4000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its bootstrap 95% interval (percentile method, Efron 1979)."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float | None]:
        """The three numbers, rounded to 5 digits; None for one that is not finite."""
        parts = {"value": self.value, "low": self.low, "high": self.high}
        return {name: round(part, 5) if math.isfinite(part) else None for name, part in parts.items()}


def bootstrap(
    pairs: Sequence[tuple[float, float]],
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> Estimate:
    """Estimate a statistic of the means of paired outcomes, with its interval.

    The two outcomes of a pair share prompt and seed, so pairs are resampled as a whole. A resample
    whose statistic is not a number, such as a relative fall from a rate of 0, is left out.

    Args:
        pairs: First and second outcome of each pair.
        statistic: Maps the means of the first and of the second outcome, arrays [R], to values [R].
        groups: The group of each pair. Groups are resampled first, then pairs within each group that was
            drawn (two-stage bootstrap, Davison & Hinkley 1997, section 3.8), because pairs of a group are
            alike. None: pairs alone.
        seed: Of the resampling.
    """
    data = np.asarray(pairs, dtype=float)
    generator = np.random.default_rng(seed)
    if groups is None:
        means = data[generator.integers(0, len(data), (RESAMPLES, len(data)))].mean(axis=1)
    else:
        means = _means_over_groups(data, groups, generator)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistic(means[:, 0], means[:, 1])
        whole = statistic(data[:, 0].mean()[None], data[:, 1].mean()[None])[0]
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return Estimate(float(whole), float(low), float(high))


def _means_over_groups(data: np.ndarray, groups: Sequence[str], generator: np.random.Generator) -> np.ndarray:
    """The means [RESAMPLES, 2] of data [n, 2] in resamples of its groups, and of the pairs within them.

    Instead of drawing pair by pair, it draws how often each comes: a group of m pairs that was drawn k times
    gives k * m draws among its m pairs, which is a multinomial count.
    """
    members = [np.flatnonzero(np.asarray(groups) == name) for name in dict.fromkeys(groups)]
    drawn = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), RESAMPLES)
    sums, counts = np.zeros((RESAMPLES, 2)), np.zeros((RESAMPLES, 1))
    for times, own in zip(drawn.T, members, strict=True):
        often = generator.multinomial(times * len(own), np.full(len(own), 1 / len(own)))
        sums += often @ data[own]
        counts += often.sum(axis=1, keepdims=True)
    return sums / counts


def difference(pairs: Sequence[tuple[float, float]]) -> Estimate:
    """Mean of the second outcomes minus mean of the first ones."""
    return bootstrap(pairs, lambda first, second: second - first)


def smallest_difference(changed: float, pairs: int, power: float = 0.8) -> float:
    """The smallest difference of two paired rates that would be told from 0.

    A two-sided McNemar test at 5% finds a true difference of this size with probability `power`.
    Solved for the difference from the sample size of Connor (1987), "Sample size for testing
    differences in proportions for the paired-sample design", Biometrics 43:
    n d^2 = (z_a sqrt(c) + z_b sqrt(c - d^2))^2.

    Args:
        changed: Share of the pairs whose two outcomes differ, c.
        pairs: Number of pairs, n.
        power: Sets z_b, its normal quantile; z_a is that of 97.5%.

    Returns:
        d, as a share. A difference cannot exceed the share of changed pairs: with few pairs d does,
        which says that no difference would be found as reliably.
    """
    at_level, at_power = NormalDist().inv_cdf(0.975), NormalDist().inv_cdf(power)
    root = math.sqrt(max(0.0, pairs - at_level**2 + at_power**2))
    return math.sqrt(changed) * (math.sqrt(pairs) * at_level + at_power * root) / (pairs + at_power**2)


def relative_fall(pairs: Sequence[tuple[float, float]], groups: Sequence[str] | None = None) -> Estimate:
    """How much lower the second rate is, as a share of the first: 1 - second / first; may be negative.

    Args:
        groups: The group of each pair, see `bootstrap`.
    """
    return bootstrap(pairs, lambda first, second: 1 - second / first, groups)


def cohen_kappa(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Agreement beyond chance of two yes-or-no judges (Cohen 1960): 1 is perfect, 0 is chance."""
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    agreed = float((a == b).mean())
    chance = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    return (agreed - chance) / (1 - chance) if chance < 1 else 1.0


def kappa_interval(first: Sequence[bool], second: Sequence[bool], seed: int = 0) -> Estimate:
    """Cohen's kappa with its interval, by bootstrap over what both have judged."""
    data = np.asarray([first, second], dtype=bool)
    resamples = np.random.default_rng(seed).integers(0, data.shape[1], (RESAMPLES, data.shape[1]))
    a, b = data[:, resamples]  # [R, n] each
    agreed, rate_a, rate_b = (a == b).mean(1), a.mean(1), b.mean(1)
    chance = rate_a * rate_b + (1 - rate_a) * (1 - rate_b)
    # Where chance alone would always agree, kappa is 1, as in `cohen_kappa`.
    values = np.divide(agreed - chance, 1 - chance, out=np.ones_like(agreed), where=chance < 1)
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(cohen_kappa(first, second), float(low), float(high))


def auc(above: Sequence[float] | np.ndarray, below: Sequence[float] | np.ndarray) -> float:
    """Area under the ROC curve: the share of pairs in which the score from `above` is the higher one.

    Ties count half. NaN where one side is empty.
    """
    high, low = np.asarray(above, dtype=float)[:, None], np.asarray(below, dtype=float)[None, :]
    if not (high.size and low.size):
        return math.nan
    return float((high > low).mean() + 0.5 * (high == low).mean())


def spearman(one: Tensor, other: Tensor) -> Tensor:
    """Spearman's rank correlation of two samples [n]; ties share their mean rank. Returns a scalar tensor."""
    return torch.corrcoef(torch.stack([_ranks(one), _ranks(other)]))[0, 1]


def _ranks(values: Tensor) -> Tensor:
    _, places, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).to(torch.float64)
    return (ends - (counts - 1) / 2)[places]
