"""Measure the axis at every decoder layer, and choose the probe layer.

The measurements say how well the axis separates the sides, how stable it is, and how it relates to
the roles' principal components.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from demo.axis.components import Pca, common_component, pca
from demo.axis.gates import passes
from demo.extraction.controls import published_order
from demo.extraction.plan import DEFAULT, Plan
from demo.extraction.vectors import ALL, HALVES, Cast, State, Vectors
from demo.utils.statistics import spearman


@dataclass(frozen=True)
class LayerTable:
    """Measurements of the axis, each of shape [L].

    An AUC compares default rollouts with held-out roles' rollouts on held-out questions.

    Attributes:
        norm: Length of an axis unit.
        auc_choice: AUC on the roles that choose the probe layer.
        auc: AUC on the other roles.
        auc_same_question: As `auc`, with each role rollout compared only with default replies to
            its own question.
        auc_unfiltered: As `auc`, including rollouts that ignored their role.
        split_half: Cosine of the axes from two halves of the rollouts with the same questions.
        cos_pc1: Cosine of the axis with PC1 of the role vectors, which is turned toward the
            Assistant.
        cos_common: Cosine of the axis with the PC1 that both halves share, turned likewise.
        pc1_halves: |Cosine| of the two halves' own PC1s.
        pc1_share: PC1's share of the variance.
        default_above: Share of roles below the default.
        cos_unfiltered: Cosine of the axis with the one that counts every rollout as role-play.
        published_order: Spearman's correlation of the roles' projections, over all their rollouts,
            with the published order; NaN with fewer than three roles in common.
    """

    norm: Tensor
    auc_choice: Tensor
    auc: Tensor
    auc_same_question: Tensor
    auc_unfiltered: Tensor
    split_half: Tensor
    cos_pc1: Tensor
    cos_common: Tensor
    pc1_halves: Tensor
    pc1_share: Tensor
    default_above: Tensor
    cos_unfiltered: Tensor
    published_order: Tensor


def layer_table(state: State, plan: Plan, vectors: Vectors, cast: Cast, parts: Sequence[Pca]) -> LayerTable:
    """Measure every layer.

    Args:
        parts: Principal components of the cast's vectors in their own coordinates, one per layer.
    """
    unfiltered = Vectors(state, plan, ALL, vectors.variance)
    unfiltered_cast = unfiltered.cast(unfiltered.roles_with(1))
    unit = cast.direction / cast.direction.norm(dim=-1, keepdim=True)
    own = cast.in_own_coordinates().direction
    own = own / own.norm(dim=-1, keepdim=True)
    halves = _compare_halves(vectors, own)
    return LayerTable(
        norm=cast.direction.norm(dim=-1),
        auc_choice=held_out_auc(state, plan, ("kept",), choosing=True),
        auc=held_out_auc(state, plan, ("kept",), choosing=False),
        auc_same_question=held_out_auc(state, plan, ("kept",), choosing=False, same_question=True),
        auc_unfiltered=held_out_auc(state, plan, ALL, choosing=False),
        split_half=halves.axes,
        cos_pc1=torch.stack([part.directions[0] @ own[layer] for layer, part in enumerate(parts)]),
        cos_common=halves.common,
        pc1_halves=halves.components,
        pc1_share=torch.stack([part.shares[0] for part in parts]),
        default_above=((cast.vectors * unit).sum(-1) < (cast.default_mean * unit).sum(-1)).float().mean(0),
        cos_unfiltered=torch.cosine_similarity(cast.direction, unfiltered_cast.direction, dim=-1),
        published_order=_published_order_correlation(unfiltered_cast, unit),
    )


def _published_order_correlation(cast: Cast, unit: Tensor) -> Tensor:
    published = published_order()
    both = [index for index, role in enumerate(cast.roles) if role in published]
    if len(both) < 3:
        return unit.new_full((len(unit),), float("nan"))
    theirs = torch.tensor([published[cast.roles[index]] for index in both], dtype=torch.float64)
    projections = (cast.vectors[both] * unit).sum(-1).double()
    return torch.stack([spearman(projections[:, layer], theirs) for layer in range(len(unit))]).float()


@dataclass(frozen=True)
class _Halves:
    """Two halves of the rollouts compared, each [L], NaN with fewer than two roles in both.

    Attributes:
        axes: Cosine of the two axes.
        components: |Cosine| of the two PC1s.
        common: Cosine of the axis with the PC1 that both halves share.
    """

    axes: Tensor
    components: Tensor
    common: Tensor


def _compare_halves(vectors: Vectors, unit: Tensor) -> _Halves:
    """unit: the axis in the coordinates in which components are taken, [L, D]."""
    roles = vectors.roles_with(1, [(half,) for half in HALVES])
    if len(roles) < 2:
        unknown = unit.new_full((len(unit),), float("nan"))
        return _Halves(unknown, unknown, unknown)
    one, other = (vectors.cast(roles, (half,)) for half in HALVES)
    views = [half.in_own_coordinates().vectors for half in (one, other)]
    cosines = []
    for layer, toward in enumerate(unit):
        first, second = views[0][:, layer], views[1][:, layer]
        pc1, other_pc1 = (pca(values, toward, 1).directions[0] for values in (first, second))
        common = common_component(first, second, toward)
        cosines.append((float((pc1 @ other_pc1).abs()), float(common @ toward)))
    components, common_cosines = torch.tensor(cosines).T
    axes = torch.cosine_similarity(one.direction, other.direction, dim=-1)
    return _Halves(axes, components, common_cosines)


@dataclass(frozen=True, slots=True)
class _HeldOut:
    """A held-out reply.

    Attributes:
        question: The question it answers.
        adherence: The judge's score, None for the default side.
        projections: Axis units, [L] for a role and [FOLDS, L] for the default.
    """

    question: str
    adherence: float | None
    projections: Tensor


def held_out_auc(
    state: State,
    plan: Plan,
    verdicts: Sequence[str],
    *,
    choosing: bool,
    same_question: bool = False,
    least_adherence: float = -float("inf"),
) -> Tensor:
    """P(a default rollout projects higher than a role rollout).

    Questions and roles are new to the axis: every role is scored on an axis made without its fold.
    Every second role and default rollout chooses the probe layer; the others test it.

    Args:
        verdicts: Which role rollouts count.
        choosing: Whether to use the rollouts that choose the probe layer or those that test it.
        same_question: Compare only replies to the same question, so that differences between
            questions do not hide those between the sides.
        least_adherence: Leave out role rollouts with a lower score.

    Returns:
        The AUC per layer, [L]. NaN where a side is empty.
    """
    part = slice(0 if choosing else 1, None, 2)
    held_out = _held_out_replies(state)
    defaults = held_out.get(DEFAULT, [])[part]
    wins: list[Tensor] = []
    for role in plan.roles[part]:
        fold = plan.fold(role)
        for below in chain.from_iterable(held_out.get(f"{role}/{verdict}", ()) for verdict in verdicts):
            if below.adherence is not None and below.adherence < least_adherence:
                continue
            above = [
                d.projections[fold] for d in defaults if d.question == below.question or not same_question
            ]
            if above:
                wins.append(pairwise_wins(torch.stack(above), below.projections[None])[0])
    if not wins:
        return torch.full((len(next(iter(state.sums.values()))),), float("nan"))
    return torch.stack(wins).mean(0)


def auc_by_role_adherence(state: State, plan: Plan, layer: int) -> list[tuple[float, int, float]]:
    """The held-out AUC at `layer` for role rollouts with ever higher role adherence scores.

    Returns:
        For the upper 100%, 50%, 25% and 10% of the testing role rollouts by score: the lowest
        score, the number of rollouts, and the AUC.
    """
    held_out = _held_out_replies(state)
    replies = [reply for role in plan.roles[1::2] for v in ALL for reply in held_out.get(f"{role}/{v}", ())]
    scores = sorted(reply.adherence for reply in replies if reply.adherence is not None)
    rows = []
    for share in (1.0, 0.5, 0.25, 0.1) if scores else ():
        least = scores[min(len(scores) - 1, round((1 - share) * len(scores)))]
        auc = held_out_auc(state, plan, ALL, choosing=False, least_adherence=least)
        rows.append((least, sum(score >= least for score in scores), float(auc[layer])))
    return rows


def _held_out_replies(state: State) -> dict[str, list[_HeldOut]]:
    """The state's held-out projections, joined with the records of their replies."""
    known: dict[str, list[tuple[str, float | None]]] = defaultdict(list)
    for record in state.texts:
        if record["split"] == "held_out" and record["tokens"]:
            verdict = f"/{'kept' if record['kept'] else 'ignored'}" if "kept" in record else ""
            known[record["group"] + verdict].append((record["question"], record.get("uptake")))
    return {
        key: [_HeldOut(*about, value) for about, value in zip(known[key], values, strict=True)]
        for key, values in state.held_out.items()
    }


def pairwise_wins(above: Tensor, below: Tensor) -> Tensor:
    """For each row of `below` [m, L] the share of rows of `above` [n, L] that are greater.

    Ties count half. The mean over the rows of the result is the AUC of every layer.

    Returns:
        Shape [m, L].
    """
    greater = (above[:, None] > below[None]).float() + 0.5 * (above[:, None] == below[None]).float()
    return greater.mean(0)


# AUC: layers that separate the sides so nearly as well as the best are alike.
_NEARLY = 0.02


def choose_probe(table: LayerTable) -> int:
    """The layer that separates default and role rollouts best, among those with a sound axis.

    An axis is sound when both halves give the same one and the default lies above the roles.
    Separation alone chooses badly: a layer can separate the sides by something that other questions
    or roles do not show, and then its axis differs between the halves. If no layer passes both
    gates, those that pass most compete. Of the layers that separate nearly as well as the best, one
    whose axis is also the roles' main direction of difference is preferred. That is no gate here:
    where the first component differs between the halves, it lies near the axis at a few layers by
    chance. The first sixth and the last tenth of the layers are left out, because they are close to
    input and output tokens.
    """
    layers = len(table.auc_choice)
    inner = range(layers // 6, layers - layers // 10)
    columns = (("split_half", table.split_half), ("default_above_roles", table.default_above))
    passed = {layer: sum(passes(name, float(values[layer])) for name, values in columns) for layer in inner}
    most = max(passed.values())
    auc = {layer: float(table.auc_choice[layer].nan_to_num(0.0)) for layer in inner if passed[layer] == most}
    near = [layer for layer, value in auc.items() if value >= max(auc.values()) - _NEARLY]
    main = [layer for layer in near if passes("cos_pc1", float(table.cos_pc1[layer].abs()))]
    return max(main or near, key=auc.__getitem__)
