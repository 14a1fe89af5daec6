"""Human archetypes on an axis: where people who help lie, and where those of the spirit.

Steered toward the Assistant, pretrained models continue texts about people with helpful occupations more
often, and with religious or spiritual ones less often (arXiv 2601.10387, section on base models). Here the
same two groups of roles are looked up in the order of an axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

HELPERS = ("therapist", "coach", "consultant", "counselor", "mentor", "tutor", "teacher", "doctor")
SPIRITUAL = ("mystic", "guru", "shaman", "prophet", "oracle", "evangelist", "zealot", "witch")
ARCHETYPES = HELPERS + SPIRITUAL


@dataclass(frozen=True, slots=True)
class Standing:
    """Where groups of roles stand in an order, as mean shares of the other roles that lie below.

    Attributes:
        helpers, spiritual: of each group, 0 for the lowest role of all and 1 for the highest.
        difference: helpers - spiritual.
        low, high: bounds of its 95% bootstrap interval, which resamples the roles of both groups.
    """

    helpers: float
    spiritual: float
    difference: float
    low: float
    high: float


def shares_below(order: Mapping[str, float]) -> dict[str, float]:
    """Role -> the share of the other roles that lie below it.

    Args:
        order: Role -> projection.
    """
    names = sorted(order, key=order.__getitem__)
    return {name: place / max(1, len(names) - 1) for place, name in enumerate(names)}


def standing(order: Mapping[str, float], resamples: int = 2000) -> Standing | None:
    """Compare the two groups in an order of roles; None where fewer than three of either are in it."""
    shares = shares_below(order)
    groups = [_of(names, shares) for names in (HELPERS, SPIRITUAL)]
    if min(map(len, groups)) < 3:
        return None
    generator = torch.Generator().manual_seed(0)
    drawn = [
        group[torch.randint(len(group), (resamples, len(group)), generator=generator)].mean(1)
        for group in groups
    ]
    low, high = torch.quantile(drawn[0] - drawn[1], torch.tensor([0.025, 0.975]).double()).tolist()
    helpers, spiritual = (float(group.mean()) for group in groups)
    return Standing(helpers, spiritual, helpers - spiritual, low, high)


def _of(names: Sequence[str], shares: Mapping[str, float]) -> Tensor:
    return torch.tensor([shares[name] for name in names if name in shares], dtype=torch.float64)
