"""Rates, differences and their uncertainty. Plain arithmetic on paired outcomes, no model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
        """None where there is no number, as in a relative fall from a rate of 0."""
        parts = {"value": self.value, "low": self.low, "high": self.high}
        return {name: round(part, 5) if math.isfinite(part) else None for name, part in parts.items()}


def bootstrap(
    pairs: Sequence[tuple[float, float]],
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    seed: int = 0,
) -> Estimate:
    """Interval of a statistic of the means of paired outcomes. Pairs are drawn together: they share prompt and seed.

    statistic: means of the first and of the second outcome, arrays [R] -> [R]; where it is not a number, as a relative
    fall from a rate of 0, that resample is left out.
    """
    data = np.asarray(pairs, dtype=float)
    rows = np.random.default_rng(seed).integers(0, len(data), (RESAMPLES, len(data)))
    means = data[rows].mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistic(means[:, 0], means[:, 1])
        whole = statistic(data[:, 0].mean()[None], data[:, 1].mean()[None])[0]
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return Estimate(float(whole), float(low), float(high))


def difference(pairs: Sequence[tuple[float, float]]) -> Estimate:
    """Second minus first mean."""
    return bootstrap(pairs, lambda first, second: second - first)


def relative_fall(pairs: Sequence[tuple[float, float]]) -> Estimate:
    """By which part of the first rate the second is lower: 1 - second / first; negative where it is higher."""
    return bootstrap(pairs, lambda first, second: 1 - second / first)


def cohen_kappa(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Agreement beyond chance of two yes-or-no judges (Cohen 1960): 1 is perfect, 0 is chance."""
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    agreed = float((a == b).mean())
    chance = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    return (agreed - chance) / (1 - chance) if chance < 1 else 1.0


def spearman(one: Tensor, other: Tensor) -> Tensor:
    """Pearson correlation of the ranks of two samples [n]; ties share their mean rank."""
    return torch.corrcoef(torch.stack([_ranks(one), _ranks(other)]))[0, 1]


def _ranks(values: Tensor) -> Tensor:
    _, places, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).to(torch.float64)
    return (ends - (counts - 1) / 2)[places]
