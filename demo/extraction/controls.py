"""Check what the axis measures besides the Assistant: system prompts, reply length, sampling noise.

The second part compares the order of the roles on the axis with the published order of another
model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.axis.components import pca, subspace_cosine
from demo.extraction.plan import BARE, DEFAULT, NEUTRAL, Plan
from demo.extraction.vectors import HALVES, State, Vectors, direction_of
from demo.utils.json_files import read_object
from demo.utils.paths import ASSETS
from demo.utils.statistics import spearman


@dataclass(frozen=True)
class Controls:
    """Control measurements at the probe layer.

    Projections are in axis units: 0 = average role, 1 = default.

    Attributes:
        default_gap: Distance between the means of two random halves of the default rollouts.
        prompts: Default system prompt -> mean of the replies under it.
        neutral: Mean of the replies under long system prompts without a persona, None without such
            replies.
        bare: The same under system prompts of a few words that say next to nothing.
        template_shift: How far the system prompt that the chat template writes by itself moves the
            replies: mean without a system prompt - `bare`. None if it writes none.
        cos_full_length: Cosine of the axis with the one made only from replies cut off at the
            length limit, which are equally long; None when a side has no such replies.
        tokens: Side -> mean reply length in tokens.
        inside: Number of principal components (1, 3 and 10) -> length of the unit axis's projection
            onto them.
    """

    default_gap: float
    prompts: dict[str, float]
    neutral: float | None
    bare: float | None
    template_shift: float | None
    cos_full_length: float | None
    tokens: dict[str, float]
    inside: dict[str, float]


def controls(axis: AssistantAxis, state: State, plan: Plan, vectors: Vectors) -> Controls:
    """Measure all controls of an extracted axis."""
    probe, unit = axis.probe_layer, axis.unit[axis.probe_layer]

    def projection(mean: Tensor) -> float:
        return axis.to_units(float(mean[probe] @ unit), probe)

    first, second = (state.mean(f"{DEFAULT}/{half}") for half in HALVES)
    cast = vectors.cast([role["name"] for role in axis.manifest["roles"] if role["counts"]])
    directions = pca(cast.vectors[:, probe], unit, 10).directions
    prompts = {prompt: projection(mean) for prompt, mean in _means_by_prompt(state, plan).items()}
    bare = projection(state.mean(BARE)) if state.count(BARE) else None
    injected = bare is not None and "" in prompts and axis.manifest.get("template_system_prompt")
    return Controls(
        default_gap=abs(projection(first) - projection(second)),
        prompts=prompts,
        neutral=projection(state.mean(NEUTRAL)) if state.count(NEUTRAL) else None,
        bare=bare,
        template_shift=prompts[""] - bare if injected and bare is not None else None,
        cos_full_length=_cosine_at_full_length(state, axis, vectors.verdicts),
        tokens=_mean_lengths(state, plan),
        inside={str(count): subspace_cosine(directions[:count], unit) for count in (1, 3, 10)},
    )


def _means_by_prompt(state: State, plan: Plan) -> dict[str, Tensor]:
    """Default system prompt -> mean of its replies to extraction questions, [L, D]."""
    records = [r for r in state.texts if r["group"] == DEFAULT and r["split"] == "extract" and r["tokens"]]
    found: dict[str, list[Tensor]] = defaultdict(list)
    for record, mean in zip(records, state.defaults, strict=True):
        found[record["system"]].append(mean)
    return {prompt: torch.stack(found[prompt]).mean(0) for prompt in plan.default_prompts if prompt in found}


def _cosine_at_full_length(state: State, axis: AssistantAxis, verdicts: Sequence[str]) -> float | None:
    keys = [f"full length/{side}" for side in (DEFAULT, "role")]
    if not all(state.count(key) for key in keys):
        return None
    variance = state.variance(verdicts) if axis.manifest["variant"] == "standardised" else None
    direction = direction_of(state.mean(keys[0]), state.mean(keys[1]), variance)[axis.probe_layer]
    return float(torch.cosine_similarity(direction, axis.unit[axis.probe_layer], dim=0))


def _mean_lengths(state: State, plan: Plan) -> dict[str, float]:
    lengths: dict[str, list[int]] = defaultdict(list)
    for record in state.texts:
        if record["split"] == "extract":
            lengths["role" if plan.rollouts[record["index"]].is_role else DEFAULT].append(record["tokens"])
    return {side: sum(values) / len(values) for side, values in lengths.items()}


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Spearman's rho with the bounds of its 95% bootstrap interval.

    Attributes:
        roles: Number of roles that both orders contain; the bootstrap resamples them.
    """

    rho: float
    low: float
    high: float
    roles: int


def published_order() -> dict[str, float]:
    """Role -> published projection on the axis of Qwen3-32B, layer 32. The file names its source."""
    return dict(read_object(ASSETS / "published_roles.json", "restore it from the repository")["projection"])


def compare(
    roles: Sequence[dict[str, Any]], published: dict[str, float], resamples: int = 2000
) -> RankCorrelation | None:
    """Correlate the manifest's role entries with published projections.

    Returns:
        None when the two have fewer than three roles in common.
    """
    both = [(role["projection"], published[role["name"]]) for role in roles if role["name"] in published]
    if len(both) < 3:
        return None
    ours, theirs = torch.tensor(both, dtype=torch.float64).T
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(both), (resamples, len(both)), generator=generator)
    samples = torch.stack([spearman(ours[pick], theirs[pick]) for pick in picks])
    low, high = torch.quantile(samples, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return RankCorrelation(float(spearman(ours, theirs)), low, high, len(both))


def order_certainty(roles: Sequence[dict[str, Any]]) -> float:
    """The lower bound of the 95% interval of the correlation with the published order, for a quality gate.

    NaN where too few roles are at hand.
    """
    found = compare(roles, published_order())
    return float("nan") if found is None else found.low
