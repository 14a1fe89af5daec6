"""The standardised axis against plain arithmetic, on rollouts in which one coordinate dominates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.axis.axis import AssistantAxis
from demo.extraction import run as extraction
from demo.extraction.axis import build, fold_axes
from demo.extraction.plan import DEFAULT, FOLDS, Plan, Preset, Rollout, make_plan
from demo.extraction.rollouts import Reply
from demo.extraction.variants import LEAST_GAIN, choose_variant, largest_share, variants_of
from demo.extraction.vectors import ALL, KEPT, Judged, State, Vectors, direction_of, safe_variance

SIZE = Preset(
    roles=12,
    instructions=2,
    questions=6,
    role_rollouts=4,
    default_samples=2,
    held_out=2,
    max_new_tokens=4,
    sweep_questions=2,
)
LAYERS, WIDTH = 6, 24
RUN = {"model": {"id": "made up"}}


def means(plan: Plan, noise: float, offset: float, seed: int) -> dict[int, torch.Tensor]:
    """A mean [L, D] per rollout: the sides differ in coordinates 1 to 8, and coordinate 0 is mostly noise."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for rollout in plan.rollouts:
        mean = torch.randn(LAYERS, WIDTH, generator=generator)
        mean[:, 1:9] += 0.0 if rollout.is_role else 1.0
        mean[:, 0] = offset + noise * torch.randn(LAYERS, generator=generator)
        found[rollout.index] = mean
    return found


def kept(rollout: Rollout) -> bool:
    return not rollout.is_role or rollout.index % 5 > 0


def gathered(
    plan: Plan,
    noise: float,
    folder: Path,
    offset: float = 0.0,
    seed: int = 0,
    verdicts: tuple[str, ...] = ALL,
) -> tuple[State, dict[int, torch.Tensor], extraction.Settings]:
    """The state of an extraction whose rollouts are made up."""
    made = means(plan, noise, offset, seed)
    options = extraction.Settings(batch=40, least=1, keep_all=verdicts == ALL)

    class Judge:
        name, threshold = "made up", 0.5

        def scores(self, replies):
            return [float(kept(reply.rollout)) for reply in replies]

    def generate(rollouts, sampling):
        return [Reply(one, "x", (1, 2), made[one.index], (0.0, 0.0)) for one in rollouts]

    state = extraction.gather(None, plan, options, Judge(), folder, generate)  # type: ignore[arg-type]
    return state, made, options


@given(st.integers(0, 10**6), st.sampled_from([0.0, 3e3]), st.sampled_from([KEPT, ALL]))
@settings(max_examples=20, deadline=None)
def test_variances_are_those_about_the_mean_of_each_side_also_of_large_coordinates(seed, offset, verdicts):
    plan = make_plan("tiny", replace(SIZE, roles=3))
    made, state = means(plan, 1.0, offset, seed), State()
    for rollout in plan.rollouts:
        if rollout.split == "extract":
            reply = Reply(rollout, "x", (1,), made[rollout.index], (0.0,))
            state.add(Judged(reply, None, kept(rollout)), 4)
    sides = [
        [r for r in plan.rollouts if r.split == "extract" and r.group == DEFAULT],
        [r for r in plan.rollouts if r.split == "extract" and r.is_role and (verdicts == ALL or kept(r))],
    ]
    values = [np.stack([made[r.index].numpy().astype(np.float64) for r in side]) for side in sides]
    scatter = sum(((side - side.mean(0)) ** 2).sum(0) for side in values)
    expected = scatter / sum(len(side) for side in values)
    np.testing.assert_allclose(state.variance(verdicts).numpy(), expected, rtol=1e-4)


@given(st.integers(0, 10**6), st.floats(-3, 6))
@settings(max_examples=40, deadline=None)
def test_the_standardised_direction_is_that_of_a_diagonal_discriminant_in_axis_units(seed, power):
    generator = torch.Generator().manual_seed(seed)
    default, role = torch.randn(2, LAYERS, WIDTH, generator=generator)
    variance = torch.rand(LAYERS, WIDTH, generator=generator) + 0.1
    variance[:, 0] = 10.0**power
    axis = AssistantAxis(direction_of(default, role, variance), role, default, {})
    for layer in range(LAYERS):
        least = 0.01 * np.sort(variance[layer].numpy())[(WIDTH - 1) // 2]
        expected = (default - role)[layer].numpy() / np.maximum(variance[layer].numpy(), least)
        cosine = torch.cosine_similarity(axis.direction[layer], torch.tensor(expected), dim=0)
        assert float(cosine) == pytest.approx(1, abs=1e-5)
        for mean, units in ((default, 1.0), (role, 0.0)):
            raw = float(mean[layer] @ axis.unit[layer])
            assert axis.to_units(raw, layer) == pytest.approx(units, abs=1e-3)
    torch.testing.assert_close(direction_of(default, role), default - role)


def test_where_a_coordinate_dominates_the_standardised_axis_is_chosen_and_separates(tmp_path: Path):
    plan = make_plan("tiny", SIZE)
    state, made, options = gathered(plan, 40.0, tmp_path)
    vectors = Vectors(state, plan, options.verdicts)
    cast = vectors.cast(plan.roles)
    plain, standardised = variants_of(state, plan, vectors, cast)
    assert standardised.auc_choice > plain.auc_choice + LEAST_GAIN
    built = build(state, plan, cast, vectors, dict(RUN))
    manifest, axis = built.axis.manifest, built.axis
    assert manifest["variant"] == "standardised"
    found, probe = manifest["variants"], axis.probe_layer
    assert found["plain"]["largest"] > 0.9 and found["plain"]["largest_variance"] > 0.9
    assert found["standardised"]["cos_plain"] < 0.5 and found["plain"]["cos_plain"] == 1
    # Gates, floors, units and the default's range are those of the chosen axis.
    assert manifest["gates"]["auc"]["value"] == pytest.approx(found["standardised"]["auc"], abs=1e-4)
    defaults = [r.index for r in plan.rollouts if r.group == DEFAULT and r.split == "extract"]
    raw = torch.stack([made[index] for index in defaults]) @ axis.unit[probe]
    assert float(axis.floors["p50"][probe]) == pytest.approx(float(raw[:, probe].median()), rel=0.05)
    assert float(axis.to_units(raw[:, probe].mean(), probe)) == pytest.approx(1, abs=1e-3)
    assert axis.to_units(float(axis.role_mean[probe] @ axis.unit[probe]), probe) == pytest.approx(0, abs=1e-3)


def test_where_none_dominates_the_plain_axis_is_kept(tmp_path: Path):
    plan = make_plan("tiny", SIZE)
    state, _, options = gathered(plan, 1.0, tmp_path)
    vectors = Vectors(state, plan, options.verdicts)
    cast = vectors.cast(plan.roles)
    plain, standardised = variants_of(state, plan, vectors, cast)
    built = build(state, plan, cast, vectors, dict(RUN))
    assert built.axis.manifest["variant"] == "plain"
    torch.testing.assert_close(built.axis.direction, cast.default_mean - cast.role_mean)
    nearly = replace(
        standardised, table=replace(standardised.table, auc_choice=plain.table.auc_choice + 0.029)
    )
    clearly = replace(
        standardised, table=replace(standardised.table, auc_choice=plain.table.auc_choice + 0.031)
    )
    at_probe = [replace(one, probe=plain.probe) for one in (nearly, clearly)]
    assert [choose_variant(plain, one).name for one in at_probe] == ["plain", "standardised"]


def test_components_of_the_standardised_axis_are_those_of_standardised_role_vectors(tmp_path: Path):
    plan = make_plan("tiny", SIZE)
    state, _, options = gathered(plan, 40.0, tmp_path)
    vectors = Vectors(state, plan, options.verdicts)
    _, standardised = variants_of(state, plan, vectors, vectors.cast(plan.roles))
    assert standardised.cast.variance is not None
    deviation = safe_variance(standardised.cast.variance).sqrt().numpy()
    for layer in range(LAYERS):
        scaled = standardised.cast.vectors[:, layer].numpy() / deviation[layer]
        _, values, rows = np.linalg.svd(scaled - scaled.mean(0), full_matrices=False)
        difference = (standardised.cast.default_mean - standardised.cast.role_mean)[layer].numpy()
        difference = difference / deviation[layer]
        cosine = abs(rows[0] @ difference) / np.linalg.norm(difference)
        assert float(standardised.table.cos_pc1[layer].abs()) == pytest.approx(cosine, abs=1e-3)
        share = values[0] ** 2 / (values**2).sum()
        assert float(standardised.table.pc1_share[layer]) == pytest.approx(share, abs=1e-4)


def test_a_saved_state_keeps_its_moments_and_both_projections(tmp_path: Path):
    plan = make_plan("tiny", replace(SIZE, roles=4))
    state, made, _ = gathered(plan, 5.0, tmp_path / "work", verdicts=KEPT)
    again = State.load(tmp_path / "work", "work")
    torch.testing.assert_close(again.variance(KEPT), state.variance(KEPT), rtol=0, atol=0)
    assert again.held_out_standardised.keys() == state.held_out_standardised.keys() == state.held_out.keys()
    cast = Vectors(state, plan, KEPT).cast(Vectors(state, plan, KEPT).roles_with(1))
    axes = fold_axes(replace(cast, variance=state.variance(KEPT)), plan)
    first = next(r for r in plan.rollouts if r.group == DEFAULT and r.split == "held_out")
    mean = torch.cat([made[first.index], torch.ones(LAYERS, 1)], dim=-1)
    units = again.held_out_standardised[DEFAULT][0]
    assert units.shape == (FOLDS, LAYERS)
    torch.testing.assert_close(units, (mean * axes).sum(-1))
    again.forget_held_out(3)
    assert not again.held_out_standardised and again.variance(KEPT).equal(state.variance(KEPT))


def test_a_state_of_an_earlier_version_is_not_resumed(tmp_path, monkeypatch):
    plan = make_plan("tiny", replace(SIZE, roles=4))

    class Model:
        spec, revision, dtype, eight_bit, base = "m", None, torch.float32, False, False

    def folder() -> Path:
        return extraction.work_folder(Model(), plan, extraction.Settings(), Judge(), tmp_path)  # type: ignore[arg-type]

    class Judge:
        name, threshold = "none", 0.0

    now = folder()
    monkeypatch.setattr(extraction, "_STATE", "without moments")
    assert folder() != now


def test_the_largest_share_counts_the_largest_values():
    assert float(largest_share(torch.tensor([1.0, 5.0, 3.0, 1.0]), 2)) == pytest.approx(0.8)
    assert float(largest_share(torch.ones(3))) == 1
