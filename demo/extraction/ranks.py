"""Does this model order the roles as a published one does? Spearman's rank correlation with its bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from demo.extraction.plan import ASSETS
from demo.jsonfile import read_object


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Spearman's rho over `roles` roles both sides have, with the bounds of its 95% bootstrap interval over roles."""

    rho: float
    low: float
    high: float
    roles: int


def published_order() -> dict[str, float]:
    """Role -> projection on the axis of Qwen3-32B, layer 32; the file names its source."""
    return dict(read_object(ASSETS / "published_roles.json", "restore it from the repository")["projection"])


def compare(
    roles: Sequence[dict[str, Any]], published: dict[str, float], draws: int = 2000
) -> RankCorrelation | None:
    """Our manifest's role entries against published projections; None with fewer than three roles in common."""
    both = [(role["projection"], published[role["name"]]) for role in roles if role["name"] in published]
    if len(both) < 3:
        return None
    ours, theirs = torch.tensor(both, dtype=torch.float64).T
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(both), (draws, len(both)), generator=generator)
    samples = torch.stack([spearman(ours[pick], theirs[pick]) for pick in picks])
    low, high = torch.quantile(samples, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return RankCorrelation(float(spearman(ours, theirs)), low, high, len(both))


def spearman(one: Tensor, other: Tensor) -> Tensor:
    """Pearson correlation of the ranks of two samples [n]; ties share their mean rank."""
    return torch.corrcoef(torch.stack([_ranks(one), _ranks(other)]))[0, 1]


def _ranks(values: Tensor) -> Tensor:
    _, places, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).to(torch.float64)
    return (ends - (counts - 1) / 2)[places]
