"""Two ways to make an axis from the same rollouts, and which of them is kept.

In some models, such as Gemma's, a few coordinates of the residual stream are far larger than all others and
dominate means, components and axis. The standardised axis divides by the variance of each coordinate, see
`direction_of`, and its components are those of coordinates divided by their standard deviations. The plain
axis, which is the paper's, is kept unless the standardised one separates held-out replies clearly better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from demo.axis.components import Pca, pca
from demo.extraction.layer_table import LayerTable, choose_probe, layer_table
from demo.extraction.plan import Plan
from demo.extraction.vectors import Cast, State, Vectors

VariantName = Literal["plain", "standardised"]

# The standardised axis must gain so much in AUC on the roles and rollouts that choose. A smaller gain would
# not be worth an axis that others cannot compare with theirs.
LEAST_GAIN = 0.03

_LARGEST = 10  # coordinates


@dataclass(frozen=True)
class Variant:
    """One way to make the axis, with its measurements.

    Attributes:
        state: with the held-out projections on this axis.
        probe: the decoder layer that would be its probe layer.
    """

    name: VariantName
    state: State
    vectors: Vectors
    cast: Cast
    table: LayerTable
    probe: int

    @property
    def auc_choice(self) -> float:
        """AUC on the roles and rollouts that choose; 0 where it is not known."""
        return float(self.table.auc_choice[self.probe].nan_to_num(0.0))


def variants_of(state: State, plan: Plan, vectors: Vectors, cast: Cast) -> tuple[Variant, Variant]:
    """The plain axis and the standardised one.

    Args:
        vectors, cast: of the plain axis.
    """
    weighted = Vectors(state, plan, vectors.verdicts, state.variance(vectors.verdicts))
    return (
        _measured("plain", state, plan, vectors, cast),
        _measured("standardised", state.on_standardised_axes(), plan, weighted, weighted.cast(cast.roles)),
    )


def _measured(name: VariantName, state: State, plan: Plan, vectors: Vectors, cast: Cast) -> Variant:
    table = layer_table(state, plan, vectors, cast, components_of(cast.in_own_coordinates()))
    return Variant(name, state, vectors, cast, table, choose_probe(table))


def components_of(cast: Cast) -> list[Pca]:
    """The principal components of the roles at every decoder layer."""
    return [pca(cast.vectors[:, layer], toward) for layer, toward in enumerate(cast.direction)]


def choose_variant(plain: Variant, standardised: Variant) -> Variant:
    """The standardised axis where it separates clearly better, otherwise the plain one."""
    gain = standardised.auc_choice - plain.auc_choice
    return standardised if gain >= LEAST_GAIN else plain


def compared(variants: Sequence[Variant]) -> dict[str, dict[str, Any]]:
    """The manifest's comparison: what each variant measures at its own probe layer.

    `cos_plain` is the cosine with the plain axis, `largest` the share of the squared axis in its largest
    coordinates, and `largest_variance` that of the variance of rollout means, before any division.
    """
    plain, weighted = variants
    assert weighted.vectors.variance is not None
    found: dict[str, dict[str, Any]] = {}
    for one in variants:
        direction, probe = one.cast.direction[one.probe], one.probe
        values = {
            "auc_choice": one.table.auc_choice[probe],
            "auc": one.table.auc[probe],
            "split_half": one.table.split_half[probe],
            "cos_pc1": one.table.cos_pc1[probe].abs(),
            "pc1_share": one.table.pc1_share[probe],
            "cos_plain": torch.cosine_similarity(direction, plain.cast.direction[probe], dim=0),
            "largest": largest_share(direction**2),
            "largest_variance": largest_share(weighted.vectors.variance[probe]),
        }
        rounded = {key: round(float(value), 4) for key, value in values.items() if bool(value == value)}
        found[one.name] = {"probe_layer": probe} | dict.fromkeys(values) | rounded
    return found


def largest_share(values: Tensor, count: int = _LARGEST) -> Tensor:
    """The share of the sum of non-negative values [D] that the largest of them hold, a scalar."""
    return values.topk(min(count, len(values))).values.sum() / values.sum()
