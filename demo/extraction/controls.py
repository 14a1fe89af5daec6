"""Does the axis measure the Assistant, or something that merely goes with it: a system prompt, a reply's length, luck?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.axis.components import pca, subspace_cosine
from demo.extraction.plan import DEFAULT, NEUTRAL, Plan
from demo.extraction.vectors import HALVES, State, Vectors
from demo.utils.json_files import read_object
from demo.utils.paths import ASSETS
from demo.utils.statistics import spearman


@dataclass(frozen=True)
class Controls:
    """At the probe layer, axis units (0 = average role, 1 = default) unless said otherwise.

    default_gap: between the means of two random halves of the default rollouts; prompts: mean of default replies by
    system prompt; neutral: mean of replies under long system prompts without a persona; cos_full_length: cosine of the
    axis with the one from replies cut off at the length limit alone, so of equal length, None when a side has none;
    tokens: mean reply length by side; inside: length
    of the unit axis's part within the first 1, 3 and 10 components."""

    default_gap: float
    prompts: dict[str, float]
    neutral: float | None
    cos_full_length: float | None
    tokens: dict[str, float]
    inside: dict[str, float]


def controls(axis: AssistantAxis, state: State, plan: Plan, vectors: Vectors) -> Controls:
    probe, unit = axis.probe_layer, axis.unit[axis.probe_layer]

    def place(mean: Tensor) -> float:
        return axis.to_units(float(mean[probe] @ unit), probe)

    first, second = (state.mean(f"{DEFAULT}/{half}") for half in HALVES)
    cast = vectors.cast([role["name"] for role in axis.manifest["roles"] if role["counts"]])
    directions = pca(cast.vectors[:, probe], unit, 10).directions
    return Controls(
        default_gap=abs(place(first) - place(second)),
        prompts={prompt: place(mean) for prompt, mean in _by_prompt(state, plan).items()},
        neutral=place(state.mean(NEUTRAL)) if state.count(NEUTRAL) else None,
        cos_full_length=_full_length(state, unit, probe),
        tokens=_lengths(state, plan),
        inside={str(count): subspace_cosine(directions[:count], unit) for count in (1, 3, 10)},
    )


def _by_prompt(state: State, plan: Plan) -> dict[str, Tensor]:
    """Default system prompt -> mean of its replies to extraction questions, [L, D]."""
    records = [r for r in state.texts if r["group"] == DEFAULT and r["split"] == "extract" and r["tokens"]]
    found: dict[str, list[Tensor]] = defaultdict(list)
    for record, mean in zip(records, state.defaults, strict=True):
        found[record["system"]].append(mean)
    return {prompt: torch.stack(found[prompt]).mean(0) for prompt in plan.default_prompts if prompt in found}


def _full_length(state: State, unit: Tensor, probe: int) -> float | None:
    keys = [f"full length/{side}" for side in (DEFAULT, "role")]
    if not all(state.count(key) for key in keys):
        return None
    difference = (state.mean(keys[0]) - state.mean(keys[1]))[probe]
    return float(torch.cosine_similarity(difference, unit, dim=0))


def _lengths(state: State, plan: Plan) -> dict[str, float]:
    lengths: dict[str, list[int]] = defaultdict(list)
    for record in state.texts:
        if record["split"] == "extract":
            lengths["role" if plan.rollouts[record["index"]].is_role else DEFAULT].append(record["tokens"])
    return {side: sum(values) / len(values) for side, values in lengths.items()}


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
