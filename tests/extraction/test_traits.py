"""Traits on the axis, against plain arithmetic, and their prompts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from demo.axis.directions import Directions, components, load_directions, save_directions
from demo.axis.files import axis_digest, save_axis
from demo.extraction import traits as command
from demo.extraction.rollouts import Reply
from demo.extraction.traits import SIDES, Measured, Trait, trait_plan, traits_of
from demo.extraction.vectors import Judged, State
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from demo.utils.paths import ASSETS
from tests.helpers.axes import random_axis, with_components
from tests.helpers.tiny_models import tiny_llama


def few(plan, names):
    """The plan of a few traits only."""
    kept = tuple(r for r in plan.rollouts if r.group.rpartition(" ")[0] in names)
    renumbered = tuple(replace(rollout, index=index) for index, rollout in enumerate(kept))
    return replace(plan, rollouts=renumbered, roles=tuple(dict.fromkeys(r.group for r in kept)))


def test_there_are_240_traits_with_two_different_prompts_each():
    traits = json.loads((ASSETS / "traits.json").read_text())["traits"]
    assert len({trait["name"] for trait in traits}) == len(traits) == 240
    prompts = [trait[side] for trait in traits for side in SIDES]
    assert all(prompt.endswith(".") and prompt.startswith(("You", "Your")) for prompt in prompts)
    assert len(set(prompts)) == len(prompts)
    # The trait is shown and not named, so that a reply cannot just echo its name.
    named = [t["name"] for t in traits if t["name"] in t["positive"].lower().split()]
    assert len(named) <= 10, named


def test_both_sides_and_both_halves_answer_the_same_kinds_of_questions():
    plan = trait_plan()
    for half in (0, 1):
        asked = [
            Counter(r.question for r in plan.rollouts if r.half == half and r.group.endswith(side))
            for side in SIDES
        ]
        assert asked[0] == asked[1] and len(asked[0]) == len(plan.questions["extract"]) // 2
    kinds = {q["text"]: q["kind"] for q in json.loads((ASSETS / "questions.json").read_text())["questions"]}
    halves = [{kinds[r.text] for r in plan.rollouts if r.half == half} for half in (0, 1)]
    assert halves[0] == halves[1] and len(halves[0]) == 6


@pytest.mark.parametrize("questions", [0, 6, 13])
def test_halves_must_have_whole_rounds_of_questions(questions):
    with pytest.raises(UserError, match="multiple of 12"):
        trait_plan(questions)


def test_figures_equal_plain_arithmetic():
    plan = few(trait_plan(), ("calm", "cruel", "witty"))
    axis, state = random_axis(3, 8, 1, (1, 2)), State()
    generator = torch.Generator().manual_seed(2)
    means: dict[tuple[str, int], list[torch.Tensor]] = {}
    for rollout in plan.rollouts:
        mean = torch.randn(3, 8, generator=generator)
        state.add(Judged(Reply(rollout, "", (1, 2), mean, ()), 1.0, True), plan.max_new_tokens)
        means.setdefault((rollout.group, rollout.half), []).append(mean[axis.probe_layer])
    defaults = torch.randn(9, 2, 8, generator=generator)
    found = traits_of(state, plan, axis, defaults)
    traits, order = found.traits, found.halves

    def vector(name: str, *halves: int) -> torch.Tensor:
        sides = [
            torch.stack([m for half in halves for m in means[f"{name} {side}", half]]).mean(0)
            for side in SIDES
        ]
        return sides[0] - sides[1]

    unit = axis.unit[axis.probe_layer]
    for trait in traits:
        whole = vector(trait.name, 0, 1)
        assert trait.shift == pytest.approx(float(whole @ unit / axis.norm[axis.probe_layer]), abs=1e-4)
        assert trait.cosine == pytest.approx(float(whole @ unit / whole.norm()), abs=1e-4)
        first, second = vector(trait.name, 0), vector(trait.name, 1)
        assert trait.agreement == pytest.approx(
            float(first @ second / first.norm() / second.norm()), abs=1e-4
        )
    assert [t.shift for t in traits] == sorted((t.shift for t in traits), reverse=True)
    ranks = [[t.name for t in sorted(traits, key=lambda t: vector(t.name, half) @ unit)] for half in (0, 1)]
    distance = sum((ranks[0].index(n) - ranks[1].index(n)) ** 2 for n in ranks[0])
    assert order == pytest.approx(1 - 6 * distance / (3 * 8))
    for direction in found.directions:
        own = direction.vector[direction.index(axis.probe_layer)]
        assert torch.allclose(own, vector(direction.name, 0, 1), rtol=1e-3, atol=1e-3)
        opposite = torch.stack(
            [mean for half in (0, 1) for mean in means[f"{direction.name} {SIDES[1]}", half]]
        ).mean(0)
        raw = float(opposite @ direction.unit[0])
        assert direction.to_units(raw, axis.probe_layer) == pytest.approx(0, abs=1e-4)
        assert direction.floors["p50"][0] == pytest.approx(
            float((defaults[:, 0] @ direction.unit[0]).median()), abs=1e-5
        )
    assert [direction.name for direction in found.directions] == ["calm", "cruel", "witty"]


def test_an_order_by_chance_says_so_and_how_many_questions_would_do():
    def verdict(halves: float) -> str:
        return Measured([], halves, 12, []).verdict

    assert "chance" not in verdict(0.8)
    # Spearman-Brown: 5.76 times as many bring .41 to 5.76 * .41 / (1 + 4.76 * .41) = .8.
    assert "largely on chance" in verdict(0.41) and "about 72 questions would do" in verdict(0.41)
    assert "ask more questions" in verdict(-0.1) and "ask more questions" in verdict(0.0)


def test_the_map_shows_what_traits_differ_in_beside_the_axis():
    unit, generator = torch.tensor([1.0, 0, 0, 0]), torch.Generator().manual_seed(0)
    beside = torch.tensor([-3.0, 1.0, 2.0])
    vectors = torch.randn(3, 1, generator=generator) * 50 * unit
    vectors = vectors + beside[:, None] * torch.tensor([0, 0.6, 0.8, 0]) + torch.tensor([0, 0, 0, 7.0])
    places = command._places(vectors, unit, 2.0)
    assert [abs(place) for place in places] == pytest.approx([1.5, 0.5, 1.0], abs=1e-4)
    assert places[0] * places[1] < 0 < places[1] * places[2]


def test_a_tiny_model_is_measured_and_written(model: LoadedModel, tmp_path: Path, monkeypatch):
    tiny = tiny_llama(model, context=256, seed=1)
    axis = random_axis(tiny.layer_count, tiny.hidden_size, 1, (1, 2))
    axis.manifest["model"] |= {"layers": tiny.layer_count}
    save_axis(axis, tmp_path)
    kept = replace(components(with_components(axis))[0], name="mine", kind="imported")
    save_directions(Directions([kept], axis_digest(axis)), tmp_path)
    plan = few(trait_plan(questions=12, max_new_tokens=2), ("calm", "cruel"))
    monkeypatch.setattr(command, "load_model", lambda *arguments, **named: tiny)
    monkeypatch.setattr(command, "trait_plan", lambda *arguments: plan)
    monkeypatch.setattr(command, "default_means", lambda *arguments: torch.randn(5, 2, tiny.hidden_size))
    assert command.main(["--axis", str(tmp_path)]) == 0
    table = json.loads((tmp_path / command.JSON).read_text())
    traits = [Trait(**row) for row in table["traits"]]
    assert {trait.name for trait in traits} == {"calm", "cruel"} and -1 <= table["halves"] <= 1
    report = (tmp_path / command.REPORT).read_text()
    assert "| calm | " in report and "| cruel | " in report and "](traits.svg)" in report
    assert (tmp_path / "traits.svg").read_text().startswith("<?xml")
    found = load_directions(tmp_path, axis)
    assert list(found) == ["mine", "calm", "cruel"]
    for trait in traits:
        assert found[trait.name].cosine == pytest.approx(trait.cosine, abs=1e-3)
        assert found[trait.name].agreement == pytest.approx(trait.agreement, abs=1e-3)
    assert not list((tmp_path / ".unfinished").glob("*"))
