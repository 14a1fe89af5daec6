"""From gathered rollouts to an axis: direction, floors, probe layer, gates (arXiv 2601.10387, sections 2 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from demo.axis import FLOOR_NAMES, AssistantAxis
from demo.extraction.plan import DEFAULT, Plan
from demo.extraction.state import HALVES, State

# Thresholds a trustworthy axis should meet; the report shows each beside its number.
GATES = {"split_half": 0.95, "cos_pc1": 0.6, "default_above_roles": 0.9, "auc": 0.9}


@dataclass(frozen=True)
class LayerTable:
    """Evidence per layer, each [L]. auc_sample: default against role rollouts the axis was made from; auc_held_out:
    the same on roles and questions it never saw; split_half: cosine of two axes from halves of the questions;
    cos_pc1: |cosine| with the first principal component of the role vectors; default_above: share of role vectors
    below the default mean."""

    norm: Tensor
    auc_sample: Tensor
    auc_held_out: Tensor
    split_half: Tensor
    cos_pc1: Tensor
    pc1_share: Tensor
    default_above: Tensor


@dataclass(frozen=True)
class Built:
    """An axis without its manifest's model entry, and the evidence for it."""

    axis: AssistantAxis
    table: LayerTable


def build(
    state: State,
    plan: Plan,
    band: tuple[int, int] | None,
    floor: str,
    model: dict[str, Any],
    run: dict[str, Any],
) -> Built:
    """Make the axis. `band`: capped layers, first and last inclusive, or None for `default_band`; `model` and `run`
    go into the manifest as they are."""
    role_vectors = torch.stack([state.vector(role) for role in plan.extract_roles])
    role_mean, default_mean = role_vectors.mean(0), state.vector(DEFAULT)
    bare = AssistantAxis(default_mean - role_mean, role_mean, default_mean, {}, {}, role_vectors)
    defaults = _project(bare, state.kept[f"extract/{DEFAULT}"])
    floors = {name: torch.quantile(defaults, int(name[1:]) / 100, dim=0) for name in FLOOR_NAMES}
    table = _table(bare, state, plan)
    probe = choose_probe(table)
    first, last = band or default_band(bare.layers)
    manifest = {
        "format": 1,
        "model": model,
        "probe_layer": probe,
        "cap": {"layers": [first, last], "floor": floor},
        "roles": _roles(bare, state, plan, probe),
        **run,
        "pca": {
            "explained_variance": _pca(role_vectors[:, probe])[1][:10].tolist(),
            "cos_pc1": float(table.cos_pc1[probe]),
        },
        "gates": _gates(table, probe),
        "exempt_special_tokens": True,
    }
    axis = AssistantAxis(bare.direction, role_mean, default_mean, floors, manifest, role_vectors)
    return Built(axis, table)


def default_band(layers: int) -> tuple[int, int]:
    """Capped layers where nothing better is known: depth .60 to .86, as the band that works on 30 layers (18-25)."""
    return round(0.6 * layers), max(round(0.6 * layers), round(26 / 30 * layers) - 1)


def choose_probe(table: LayerTable) -> int:
    """The layer at which default and role rollouts of the extraction set separate best; held-out data plays no part.

    The first sixth and the last tenth of the layers are left out: they sit close to tokens in and tokens out.
    """
    layers = len(table.auc_sample)
    inner = range(layers // 6, layers - layers // 10)
    return max(inner, key=lambda layer: float(table.auc_sample[layer]))


def auc(above: Tensor, below: Tensor) -> Tensor:
    """P(a value of `above` > one of `below`), ties half: [n, L], [m, L] -> [L]."""
    wins = (above[:, None] > below[None]).float() + 0.5 * (above[:, None] == below[None]).float()
    return wins.mean((0, 1))


def _project(axis: AssistantAxis, means: Sequence[Tensor]) -> Tensor:
    """Raw projections of rollout means at every layer: n x [L, D] -> [n, L]."""
    return (torch.stack(list(means)) * axis.unit).sum(-1)


def _pca(vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centred PCA of role vectors [R, D]: components [k, D], explained variance shares [k], coordinates [R, k]."""
    centred = vectors - vectors.mean(0)
    u, s, v = torch.linalg.svd(centred, full_matrices=False)
    return v, s**2 / (s**2).sum(), u * s


def _table(axis: AssistantAxis, state: State, plan: Plan) -> LayerTable:
    assert axis.role_vectors is not None
    pieces = [_pca(axis.role_vectors[:, layer])[:2] for layer in range(axis.layers)]
    halves = [
        state.vector(DEFAULT, half)
        - torch.stack([state.vector(role, half) for role in plan.extract_roles]).mean(0)
        for half in HALVES
    ]

    def rollouts(split: str, groups: Sequence[str]) -> Tensor:
        return _project(axis, [mean for group in groups for mean in state.kept.get(f"{split}/{group}", [])])

    roles = (axis.role_vectors * axis.unit).sum(-1)
    return LayerTable(
        norm=axis.norm,
        auc_sample=auc(rollouts("extract", [DEFAULT]), rollouts("extract", plan.extract_roles)),
        auc_held_out=auc(rollouts("held_out", [DEFAULT]), rollouts("held_out", plan.held_out_roles)),
        split_half=torch.cosine_similarity(halves[0], halves[1], dim=-1),
        cos_pc1=torch.stack([(v[0] @ unit).abs() for (v, _), unit in zip(pieces, axis.unit, strict=True)]),
        pc1_share=torch.stack([share[0] for _, share in pieces]),
        default_above=(roles < (axis.default_mean * axis.unit).sum(-1)).float().mean(0),
    )


def _roles(axis: AssistantAxis, state: State, plan: Plan, probe: int) -> list[dict[str, Any]]:
    assert axis.role_vectors is not None
    raw = axis.role_vectors[:, probe] @ axis.unit[probe]
    coordinates = _pca(axis.role_vectors[:, probe])[2][:, :3]
    entries = [
        {
            "name": role,
            "n": state.rollouts(role),
            "projection": round(axis.to_units(float(raw[index]), probe), 4),
            "pc": [round(value, 3) for value in coordinates[index].tolist()],
        }
        for index, role in enumerate(plan.extract_roles)
    ]
    return sorted(entries, key=lambda entry: entry["projection"])


def _gates(table: LayerTable, probe: int) -> dict[str, dict[str, Any]]:
    values = {
        "split_half": table.split_half,
        "cos_pc1": table.cos_pc1,
        "default_above_roles": table.default_above,
        "auc": table.auc_held_out,
    }
    return {
        name: {
            "value": round(float(column[probe]), 4),
            "threshold": GATES[name],
            "passed": bool(column[probe] >= GATES[name]),
        }
        for name, column in values.items()
    }
