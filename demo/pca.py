"""Principal components of the role vectors, and how far they are this model's and not the sample's.

Role vectors are centred first: raw ones nearly coincide (arXiv 2601.10387, section 2). PC1 of few rollouts a role is
partly noise, so it is also computed from two independent halves of the rollouts: in the covariance of one half's vectors
with the other's, noise averages out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# A share of the first component's variance below this is rounding.
_FLAT = 1e-9


@dataclass(frozen=True)
class Pca:
    """directions [k, D], unit, each turned so that the axis points along it; shares [R]: of the variance, largest first."""

    directions: Tensor
    shares: Tensor

    def needed_for(self, share: float) -> int:
        """How many components hold this share of the variance."""
        return int((self.shares.cumsum(0) < share - 1e-6).sum()) + 1


def pca(vectors: Tensor, toward: Tensor, count: int = 3) -> Pca:
    """Centred PCA of role vectors [R, D]. toward [D]: the axis, which fixes each component's sign: plus is Assistant-ward.

    Through the Gram matrix [R, R], because D may be thousands. Components without variance to speak of are rounding, not
    directions, and are left out, so fewer than `count` may come back.
    """
    centred = (vectors - vectors.mean(0)).double()
    variances, mixes = torch.linalg.eigh(centred @ centred.T)
    variances, mixes = variances.clamp(min=0).flip(0), mixes.flip(1)
    count = min(count, int((variances > _FLAT * variances[0]).sum()))
    directions = torch.nn.functional.normalize(mixes[:, :count].T @ centred, dim=-1).float()
    shares = variances / variances.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return Pca(_turned(directions, toward), shares.float())


def common_component(one: Tensor, other: Tensor, toward: Tensor) -> Tensor:
    """PC1 of what two independent estimates [R, D] of the same role vectors share, unit, [D].

    The leading eigenvector of their symmetrised cross-covariance, found within the span of all 2R vectors, so that D may
    be large.
    """
    one, other = one - one.mean(0), other - other.mean(0)
    basis = torch.linalg.qr(torch.cat([one, other]).T).Q
    cross = (one @ basis).T @ (other @ basis)
    values, vectors = torch.linalg.eigh(cross + cross.T)
    return _turned((basis @ vectors[:, values.argmax()])[None], toward)[0]


def subspace_cosine(directions: Tensor, unit: Tensor) -> float:
    """Length of a unit vector's part within the span of orthonormal `directions` [k, D]: 1 when it lies inside."""
    return float((directions @ unit).norm())


def _turned(directions: Tensor, toward: Tensor) -> Tensor:
    signs = torch.where(directions @ toward < 0, -1.0, 1.0)
    return directions * signs[:, None]
