"""From gathered rollouts to an axis: direction, components, floors, roles, gates (arXiv 2601.10387, sections 2 and 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from demo.axis.axis import FLOOR_NAMES, AssistantAxis
from demo.axis.components import Pca, pca
from demo.axis.gates import gate
from demo.extraction.layer_table import LayerTable, auc_by_role_adherence, choose_probe, layer_table
from demo.extraction.plan import FOLDS, Plan
from demo.extraction.sweep import Trial
from demo.extraction.vectors import ALL, Cast, State, Vectors
from demo.utils.errors import UserError


@dataclass(frozen=True)
class Built:
    """An axis, the evidence for it per layer, its AUC by strength of uptake, and the cap settings that were tried (first without a cap; may be empty)."""

    axis: AssistantAxis
    table: LayerTable
    by_uptake: Sequence[tuple[float, int, float]] = ()
    trials: tuple[Trial, ...] = ()


def choose_cast(vectors: Vectors, plan: Plan, least: int) -> Cast:
    """The roles that count: at least `least` rollouts taken up. UserError when hardly any role was."""
    roles = vectors.taken_up(least)
    if len(roles) < max(2, len(plan.roles) // 10):
        raise UserError(
            f"Only {len(roles)} of {len(plan.roles)} roles were taken up in {least} rollouts or more, so this model "
            "ignores its role prompts and an axis would only measure that there is a system prompt; to build it from "
            "every rollout all the same, run again with --keep-all."
        )
    return vectors.cast(roles)


def fold_axes(cast: Cast, plan: Plan) -> Tensor:
    """FOLDS axes, each without one fold of the roles, as (unit / norm, origin) pairs: [FOLDS, L, D + 1].

    A mean [L, D] extended by a 1 and multiplied in gives axis units at every layer.
    """
    rows = []
    for fold in range(FOLDS):
        others = [index for index, role in enumerate(cast.roles) if plan.fold(role) != fold]
        role_mean = cast.vectors[others or slice(None)].mean(0)
        direction = cast.default_mean - role_mean
        scaled = direction / (direction**2).sum(-1, keepdim=True)
        rows.append(torch.cat([scaled, -(role_mean * scaled).sum(-1, keepdim=True)], dim=-1))
    return torch.stack(rows)


def build(state: State, plan: Plan, cast: Cast, vectors: Vectors, run: dict[str, Any]) -> Built:
    """The axis before its cap was chosen: band and gates for it are filled in by `with_cap`. run: manifest entries."""
    parts = [pca(cast.vectors[:, layer], cast.direction[layer]) for layer in range(cast.direction.shape[0])]
    table = layer_table(state, plan, vectors, cast, parts)
    probe = choose_probe(table)
    axis = AssistantAxis(cast.direction, cast.role_mean, cast.default_mean, {}, {})
    defaults = (torch.stack(state.defaults) * axis.unit).sum(-1)
    floors = {name: torch.quantile(defaults, int(name[1:]) / 100, dim=0) for name in FLOOR_NAMES}
    span = torch.quantile(defaults[:, probe], torch.tensor([0.05, 0.95])).tolist()
    manifest = {
        "format": 1,
        "model": run.pop("model"),
        "probe_layer": probe,
        "cap": {"layers": list(default_band(axis.layers)), "floor": "p25"},
        "default_range": [round(axis.to_units(value, probe), 4) for value in span],
        "roles": _roles(axis, state, plan, vectors, cast, parts[probe], probe),
        **run,
        "pca": {
            "explained_variance": [round(share, 5) for share in parts[probe].shares[:10].tolist()],
            "components_for_70_percent": parts[probe].needed_for(0.7),
            "cos_pc1": round(float(table.cos_pc1[probe]), 4),
        },
        "published_convention": _published_convention(state),
        "gates": _gates(table, probe),
        "exempt_special_tokens": True,
    }
    components = torch.stack([_padded(part.directions) for part in parts], dim=1)
    return Built(
        AssistantAxis(cast.direction, cast.role_mean, cast.default_mean, floors, manifest, pca=components),
        table,
        auc_by_role_adherence(state, plan, probe),
    )


def with_cap(built: Built, layers: tuple[int, int], floor: str, trials: tuple[Trial, ...], how: str) -> Built:
    """The same axis with its cap chosen. how: by what, for the manifest."""
    manifest = dict(built.axis.manifest)
    manifest["cap"] = {"layers": list(layers), "floor": floor, "chosen_by": how}
    if trials:
        chosen = next(trial for trial in trials if trial.layers == layers and trial.floor == floor)
        manifest["gates"] = manifest["gates"] | {
            "fluency": gate("fluency", chosen.fluency(trials[0])),
            "sameness": gate("sameness", chosen.same),
        }
        manifest["sweep"] = [
            {key: _rounded(value) for key, value in asdict(trial).items()} for trial in trials
        ]
    return replace(built, axis=replace(built.axis, manifest=manifest), trials=trials)


def default_band(layers: int) -> tuple[int, int]:
    """Capped layers where nothing better is known: depth .60 to .86, as the band that works on 30 layers (18-25)."""
    return round(0.6 * layers), max(round(0.6 * layers), round(26 / 30 * layers) - 1)


def _gates(table: LayerTable, probe: int) -> dict[str, dict[str, Any]]:
    values = {
        "split_half": table.split_half,
        "cos_pc1": table.cos_pc1.abs(),
        "default_above_roles": table.default_above,
        "auc": table.auc,
    }
    return {name: gate(name, float(column[probe])) for name, column in values.items()}


def _published_convention(state: State) -> dict[str, list[float]]:
    """Floors as the published code names them, axis units per layer: "p0.25" is the 25th percentile of role-wardness over
    all rollouts, kept or not, and so the 75th of Assistant-ness. Over held-out rollouts, each on an axis without its role."""
    values = [
        value if value.ndim == 1 else value.mean(0) for group in state.held_out.values() for value in group
    ]
    if not values:
        return {}
    stacked = torch.stack(values)
    return {
        f"p{share:g}": [round(value, 4) for value in torch.quantile(stacked, 1 - share, dim=0).tolist()]
        for share in (0.01, 0.25, 0.5, 0.75)
    }


def _roles(
    axis: AssistantAxis, state: State, plan: Plan, vectors: Vectors, cast: Cast, part: Pca, probe: int
) -> list[dict[str, Any]]:
    """One entry a role, lowest first.

    projection and pc are over all of a role's rollouts: which of them were taken up is itself a choice by how far they are
    from the default, and would move sober roles most. played: projection of the role vector that went into the axis.
    """
    everyone = Vectors(state, plan, ALL)
    entries = []
    for role in plan.roles:
        counts = role in cast.roles
        rollouts = everyone.kept(role)
        if not rollouts:
            continue
        vector = everyone.vector(role)[probe]
        played = float(vectors.vector(role)[probe] @ axis.unit[probe]) if counts else None
        centred = (vector - cast.role_mean[probe]) / axis.norm[probe]
        entries.append(
            {
                "name": role,
                "n": rollouts,
                "kept": vectors.kept(role),
                "counts": counts,
                "projection": round(axis.to_units(float(vector @ axis.unit[probe]), probe), 4),
                "played": None if played is None else round(axis.to_units(played, probe), 4),
                "pc": [round(value, 4) for value in _padded(part.directions @ centred).tolist()],
            }
        )
    return sorted(entries, key=lambda entry: entry["projection"])


def _padded(values: Tensor) -> Tensor:
    """[k, ...] -> [3, ...] with zeros, for a sample of so few roles that there are fewer than three components."""
    return torch.cat([values, values.new_zeros((3 - len(values), *values.shape[1:]))])


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
