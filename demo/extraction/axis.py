"""Build an axis from an extraction's rollouts: direction, components, floors, roles and gates.

The method is that of arXiv 2601.10387, sections 2 and 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from demo.axis.axis import FLOOR_NAMES, AssistantAxis
from demo.axis.components import Pca
from demo.axis.gates import gate
from demo.extraction.controls import order_certainty
from demo.extraction.layer_table import LayerTable, auc_by_role_adherence
from demo.extraction.plan import FOLDS, Plan
from demo.extraction.sweep import Trial
from demo.extraction.variants import choose_variant, compared, components_of, variants_of
from demo.extraction.vectors import ALL, Cast, State, Vectors, direction_of
from demo.utils.errors import UserError


@dataclass(frozen=True)
class Built:
    """An axis and the measurements behind it.

    Attributes:
        table: Measurements per layer.
        auc_by_adherence: AUC by role adherence, see `auc_by_role_adherence`.
        trials: Settings of the cap that were tried, the first without a cap; empty without a sweep.
    """

    axis: AssistantAxis
    table: LayerTable
    auc_by_adherence: Sequence[tuple[float, int, float]] = ()
    trials: tuple[Trial, ...] = ()


def choose_cast(vectors: Vectors, plan: Plan, least: int) -> Cast:
    """The roles that count: those that the model played in at least `least` rollouts.

    Raises:
        UserError: Hardly any role counts.
    """
    roles = vectors.roles_with(least)
    if len(roles) < max(2, len(plan.roles) // 10):
        raise UserError(
            f"The model played only {len(roles)} of {len(plan.roles)} roles in {least} rollouts or more, "
            "so an axis would mostly measure that there is a system prompt; to build it from every "
            "rollout anyway, run the command again with --keep-all."
        )
    return vectors.cast(roles)


def fold_axes(cast: Cast, plan: Plan) -> Tensor:
    """FOLDS axes, each made without one fold of the roles, as (unit / norm, -origin / norm) rows.

    The product of a row with a mean [L, D] that is extended by a 1 gives axis units at every layer.

    Returns:
        Shape [FOLDS, L, D + 1].
    """
    rows = []
    for fold in range(FOLDS):
        others = [index for index, role in enumerate(cast.roles) if plan.fold(role) != fold]
        role_mean = cast.vectors[others or slice(None)].mean(0)
        direction = direction_of(cast.default_mean, role_mean, cast.variance)
        scaled = direction / (direction**2).sum(-1, keepdim=True)
        rows.append(torch.cat([scaled, -(role_mean * scaled).sum(-1, keepdim=True)], dim=-1))
    return torch.stack(rows)


def build(state: State, plan: Plan, cast: Cast, vectors: Vectors, run: dict[str, Any]) -> Built:
    """Build the axis without its final cap.

    The cap is the default band until `with_cap` sets it, together with the gates that depend on it.

    Args:
        run: Manifest entries that describe the run. Its "model" is removed and comes first in the
            manifest.
    """
    variants = variants_of(state, plan, vectors, cast)
    chosen = choose_variant(*variants)
    state, vectors, cast, table, probe = chosen.state, chosen.vectors, chosen.cast, chosen.table, chosen.probe
    # The map is drawn in the model's own coordinates, whichever axis is chosen.
    parts = components_of(cast)
    axis = AssistantAxis(cast.direction, cast.role_mean, cast.default_mean, {}, {})
    defaults = (torch.stack(state.defaults) * axis.unit).sum(-1)
    floors = {name: torch.quantile(defaults, int(name[1:]) / 100, dim=0) for name in FLOOR_NAMES}
    roles = _role_entries(axis, state, plan, vectors, cast, parts[probe], probe)
    span = torch.quantile(defaults[:, probe], torch.tensor([0.05, 0.95])).tolist()
    manifest = {
        "format": 1,
        "model": run.pop("model"),
        "probe_layer": probe,
        "cap": {"layers": list(default_band(axis.layers)), "floor": "p25"},
        "variant": chosen.name,
        "variants": compared(variants),
        "default_range": [round(axis.to_units(value, probe), 4) for value in span],
        "roles": roles,
        **run,
        "pca": {
            "explained_variance": [round(share, 5) for share in parts[probe].shares[:10].tolist()],
            "components_for_70_percent": parts[probe].needed_for(0.7),
            "cos_pc1": round(float(table.cos_pc1[probe]), 4),
        },
        "published_convention": _published_convention(state),
        "gates": _gates(table, probe, roles),
        "exempt_special_tokens": True,
    }
    components = torch.stack([_padded(part.directions) for part in parts], dim=1)
    return Built(
        AssistantAxis(cast.direction, cast.role_mean, cast.default_mean, floors, manifest, pca=components),
        table,
        auc_by_role_adherence(state, plan, probe),
    )


def with_cap(built: Built, layers: tuple[int, int], floor: str, trials: tuple[Trial, ...], how: str) -> Built:
    """The same axis with its cap set.

    Args:
        trials: The settings that were tried, which must include the chosen one; empty without a
            sweep.
        how: What chose the cap, for the manifest.
    """
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
    """First and last capped layer before a sweep: depth .60 to .86, as 18-25 works on 30 layers."""
    return round(0.6 * layers), max(round(0.6 * layers), round(26 / 30 * layers) - 1)


def _gates(table: LayerTable, probe: int, roles: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    values = {
        "split_half": float(table.split_half[probe]),
        "cos_pc1": float(table.cos_pc1[probe].abs()),
        "default_above_roles": float(table.default_above[probe]),
        "role_order": order_certainty(roles),
        "auc": float(table.auc[probe]),
    }
    return {name: gate(name, value) for name, value in values.items()}


def _published_convention(state: State) -> dict[str, list[float]]:
    """Floors as the published code names them, in axis units per layer.

    "p0.25" is the 25th percentile of role-wardness over all rollouts, whether they adhere to their
    role or not. On our scale, which points toward the Assistant, it is the 75th. Measured over
    held-out rollouts, each on an axis made without its role.
    """
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


def _role_entries(
    axis: AssistantAxis, state: State, plan: Plan, vectors: Vectors, cast: Cast, part: Pca, probe: int
) -> list[dict[str, Any]]:
    """One manifest entry per role, the lowest projection first.

    "projection" and "pc" are over all of a role's rollouts. The judge keeps rollouts that are far
    from the default, so its selection would move roles close to the default most. "played" is the
    projection of the role vector in the axis, None for a role that does not count.
    """
    unfiltered = Vectors(state, plan, ALL)
    entries = []
    for role in plan.roles:
        counts = role in cast.roles
        rollouts = unfiltered.kept(role)
        if not rollouts:
            continue
        vector = unfiltered.vector(role)[probe]
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
    """Extend [k, ...] to [3, ...] with zeros. Very few roles have fewer than three components."""
    return torch.cat([values, values.new_zeros((3 - len(values), *values.shape[1:]))])


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
