"""Evidence per decoder layer: how well the axis separates, how stable it is, and what the components say."""

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
    """Each [L]. norm: length of an axis unit; auc_choice, auc: default against held-out roles' rollouts on held-out
    questions, on the roles that choose the probe layer and on the others; auc_same_question: as auc, each role rollout
    against default ones to its own question; auc_unfiltered: as auc, with rollouts that ignored their role; split_half:
    cosine of the axes from two halves of the rollouts with the same questions; cos_pc1: |cosine| of the axis with PC1 of
    the role vectors; cos_common: the same with the PC1 that both halves share; pc1_halves: |cosine| of the halves' own
    PC1s; pc1_share: of the variance; default_above: share of roles below the default; cos_unfiltered: cosine with the axis
    that takes every rollout for role-play; published_order: Spearman's correlation of the roles' places, each by all its
    rollouts, with the published order, NaN with fewer than three roles in common."""

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
    """parts: the components of the cast's vectors, one a layer."""
    everyone = Vectors(state, plan, ALL)
    layers = range(cast.direction.shape[0])
    unit = cast.direction / cast.direction.norm(dim=-1, keepdim=True)
    halves = _halves(vectors, unit)
    return LayerTable(
        norm=cast.direction.norm(dim=-1),
        auc_choice=held_out_auc(state, plan, ("kept",), choosing=True),
        auc=held_out_auc(state, plan, ("kept",), choosing=False),
        auc_same_question=held_out_auc(state, plan, ("kept",), choosing=False, same_question=True),
        auc_unfiltered=held_out_auc(state, plan, ALL, choosing=False),
        split_half=halves.axes,
        cos_pc1=torch.stack([parts[layer].directions[0] @ unit[layer] for layer in layers]),
        cos_common=halves.common,
        pc1_halves=halves.components,
        pc1_share=torch.stack([part.shares[0] for part in parts]),
        default_above=((cast.vectors * unit).sum(-1) < (cast.default_mean * unit).sum(-1)).float().mean(0),
        cos_unfiltered=torch.cosine_similarity(
            cast.direction, everyone.cast(everyone.taken_up(1)).direction, dim=-1
        ),
        published_order=_published_order(everyone.cast(everyone.taken_up(1)), unit),
    )


def _published_order(everyone: Cast, unit: Tensor) -> Tensor:
    published = published_order()
    both = [index for index, role in enumerate(everyone.roles) if role in published]
    if len(both) < 3:
        return unit.new_full((len(unit),), float("nan"))
    theirs = torch.tensor([published[everyone.roles[index]] for index in both], dtype=torch.float64)
    places = (everyone.vectors[both] * unit).sum(-1).double()
    return torch.stack([spearman(places[:, layer], theirs) for layer in range(len(unit))]).float()


@dataclass(frozen=True)
class Halves:
    """Two halves of the rollouts against each other, each [L], NaN where hardly any role is in both. axes: cosine of their
    axes; components: |cosine| of their PC1s; common: cosine of the axis with the PC1 they share."""

    axes: Tensor
    components: Tensor
    common: Tensor


def _halves(vectors: Vectors, unit: Tensor) -> Halves:
    roles = vectors.taken_up(1, [(half,) for half in HALVES])
    if len(roles) < 2:
        unknown = unit.new_full((len(unit),), float("nan"))
        return Halves(unknown, unknown, unknown)
    one, other = (vectors.cast(roles, (half,)) for half in HALVES)
    rows = []
    for layer, toward in enumerate(unit):
        first, second = one.vectors[:, layer], other.vectors[:, layer]
        ours, theirs = (pca(values, toward, 1).directions[0] for values in (first, second))
        rows.append((float((ours @ theirs).abs()), float(common_component(first, second, toward) @ toward)))
    components, common = torch.tensor(rows).T
    return Halves(torch.cosine_similarity(one.direction, other.direction, dim=-1), components, common)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A held-out reply: the question it answers, its uptake score (None for the default side) and its projections."""

    question: str
    uptake: float | None
    projections: Tensor


def held_out_auc(
    state: State,
    plan: Plan,
    verdicts: Sequence[str],
    *,
    choosing: bool,
    same_question: bool = False,
    least_uptake: float = -float("inf"),
) -> Tensor:
    """P(a default rollout lies above a role rollout) per layer, [L], on questions and roles the axis never saw.

    Every role is scored on an axis made without its fold. Every other role and default rollout is for choosing the probe
    layer, the rest are for testing it. same_question: compare replies to the same question only, so that what is asked does
    not blur who answers; least_uptake: role rollouts with this score or more only. NaN where a side is empty.
    """
    part = slice(0 if choosing else 1, None, 2)
    held_out = _held_out(state)
    defaults = held_out.get(DEFAULT, [])[part]
    wins: list[Tensor] = []
    for role in plan.roles[part]:
        fold = plan.fold(role)
        for below in chain.from_iterable(held_out.get(f"{role}/{verdict}", ()) for verdict in verdicts):
            if below.uptake is not None and below.uptake < least_uptake:
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
    """How the held-out AUC at `layer` grows with how clearly a role is played: for the upper 100%, 50%, 25% and 10% of role
    rollouts by uptake score, that score, their number on the testing side, and their AUC."""
    held_out = _held_out(state)
    roles = [reply for role in plan.roles[1::2] for v in ALL for reply in held_out.get(f"{role}/{v}", ())]
    scores = sorted(reply.uptake for reply in roles if reply.uptake is not None)
    rows = []
    for share in (1.0, 0.5, 0.25, 0.1) if scores else ():
        least = scores[min(len(scores) - 1, round((1 - share) * len(scores)))]
        auc = held_out_auc(state, plan, ALL, choosing=False, least_uptake=least)
        rows.append((least, sum(score >= least for score in scores), float(auc[layer])))
    return rows


def _held_out(state: State) -> dict[str, list[HeldOut]]:
    """The state's held-out projections with what is known of each reply."""
    known: dict[str, list[tuple[str, float | None]]] = defaultdict(list)
    for record in state.texts:
        if record["split"] == "held_out" and record["tokens"]:
            verdict = f"/{'kept' if record['kept'] else 'ignored'}" if "kept" in record else ""
            known[record["group"] + verdict].append((record["question"], record.get("uptake")))
    return {
        key: [HeldOut(*about, value) for about, value in zip(known[key], values, strict=True)]
        for key, values in state.held_out.items()
    }


def pairwise_wins(above: Tensor, below: Tensor) -> Tensor:
    """For each value of `below` [m, L] the share of `above` [n, L] that is greater, ties half: [m, L]. Its mean is the AUC."""
    greater = (above[:, None] > below[None]).float() + 0.5 * (above[:, None] == below[None]).float()
    return greater.mean(0)


def choose_probe(table: LayerTable) -> int:
    """The layer at which default and role rollouts separate best, on the held-out rollouts meant for choosing, among the
    layers whose axis is sound: the same from both halves, the roles' main direction of difference, the default above them.

    Separation alone picks badly: a layer can tell the sides apart by something that other questions or other roles do not
    show, and then its axis differs between halves. Where no layer passes every such gate, those that pass most count. The
    first sixth and the last tenth of the layers are left out: they sit close to tokens in and tokens out.
    """
    layers = len(table.auc_choice)
    inner = range(layers // 6, layers - layers // 10)
    columns = (("split_half", table.split_half), ("cos_pc1", table.cos_pc1.abs()),
               ("default_above_roles", table.default_above))  # fmt: skip
    sound = {layer: sum(passes(name, float(values[layer])) for name, values in columns) for layer in inner}
    best = max(sound.values())
    return max(
        (layer for layer in inner if sound[layer] == best),
        key=lambda layer: float(table.auc_choice[layer].nan_to_num(0.0)),
    )
