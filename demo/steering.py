"""Steering for comparison with capping: add a multiple of the axis to the residual stream, whatever its projection.

The paper steers along the axis to show that it is causal (arXiv 2601.10387, section on steering):  h <- h + alpha * axis.
Unlike the clamp it moves every token, also those that are where they should be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def push(hidden: Tensor, direction: Tensor, alpha: Tensor, exempt: Tensor | None = None) -> Tensor:
    """h + alpha * direction, one alpha per row.

    hidden [B, T, D], any float dtype; direction [D] float32, the unnormalised axis of this layer, toward the Assistant, so
    that alpha [B] float32 is in axis units; exempt [B, T] bool, True where nothing is added. The arithmetic is float32;
    rows whose alpha is 0 and exempt positions come back bit for bit.
    """
    amount = alpha[:, None].expand(hidden.shape[:2])
    if exempt is not None:
        amount = amount.masked_fill(exempt, 0.0)
    pushed = (hidden.float() + amount[..., None] * direction).to(hidden.dtype)
    return torch.where((amount != 0)[..., None], pushed, hidden)


@dataclass(frozen=True, slots=True)
class Push:
    """Steering at one decoder layer of a batch: direction [D], alpha [B], as in `push`; alpha 0 for rows without it."""

    direction: Tensor
    alpha: Tensor

    def apply(self, hidden: Tensor, exempt: Tensor | None) -> Tensor:
        return push(hidden, self.direction.to(hidden.device), self.alpha.to(hidden.device), exempt)

    def select(self, rows: Sequence[int]) -> Push:
        """The same for these rows only."""
        return replace(self, alpha=self.alpha[list(rows)])
