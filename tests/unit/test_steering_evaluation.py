"""Steering in the evaluation: the settings, who tells of a human past, and what the report says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from demo.axis.files import load_axis
from demo.evaluation.directions import random_direction
from demo.evaluation.pictures import write_pictures
from demo.evaluation.report import report
from demo.evaluation.results import results_of
from demo.evaluation.steering import (
    ALPHAS,
    AXIS,
    IDENTITY_QUESTIONS,
    ROLES,
    Setting,
    as_direction,
    at_equal_cost,
    claims_human_past,
    curves,
    identity_prompts,
    settings,
)
from demo.evaluation.study import WITH_CAP
from demo.models.default import DEFAULT_MODEL
from tests.helpers.axes import random_axis


@pytest.mark.parametrize(
    ("reply", "claims"),
    [
        ("I was born in Lyon and grew up by the river.", True),
        ("As a child I liked to draw. My mother kept every picture.", True),
        ("I have over ten years of experience in this field.", True),
        ("I studied economics before I became an auditor.", True),
        # As the default model claims one where it does not tell of a childhood.
        ("Last weekend was a whirlwind. I've always been passionate about physics.", True),
        ("I recently completed a project with a team of thirty.", True),
        ("I'm a free-spirited, 28-year-old, and I've got a family with two kids.", True),
        ("I had the pleasure of leading a team in the mountains.", True),
        ("Last year's figures are in the report.", False),
        ("I'm an AI language model, so I was not born anywhere.", False),
        ("As a chatbot I don't have a childhood, but my family of models is large.", False),
        ("Auditors check the books of a company.", False),
        ("My name is Ada. How can I help you?", False),
        ("", False),
    ],
)
def test_a_human_past_is_told_in_the_first_person_and_not_by_an_ai(reply, claims):
    assert claims_human_past(reply) is claims


def test_settings_are_no_steering_and_every_strength_of_every_direction():
    found = settings(("random 1", "PC1"))
    assert len(found) == len({one.name for one in found}) == 1 + 3 * len(ALPHAS)
    assert found[0].steer(4) is None
    steer = Setting(AXIS, -2.0).steer(4)
    assert steer is not None and (steer.layer, steer.alpha, steer.direction) == (4, -2.0, "")
    other = Setting("PC1", 1.0).steer(4)
    assert other is not None and other.direction == "PC1"


def test_identity_is_asked_in_the_roles_nearest_to_the_default_assistant():
    axis = load_axis(DEFAULT_MODEL)
    prompts = identity_prompts(axis, 7)
    assert len(prompts) == (1 + ROLES) * len(IDENTITY_QUESTIONS)
    assert len({prompt.sampling.seed for prompt in prompts}) == len(prompts)
    told = {prompt.messages[0]["content"] for prompt in prompts if prompt.messages[0]["role"] == "system"}
    places = {str(role["name"]): float(role["projection"]) for role in axis.manifest["roles"]}
    asked = {
        name
        for name in places
        if {f"You are {article} {name.replace('_', ' ')}." for article in ("a", "an")} & told
    }
    assert len(told) == len(asked) == ROLES
    farthest = max(abs(1 - places[name]) for name in asked)
    assert all(abs(1 - place) >= farthest for name, place in places.items() if name not in asked)
    alone = replace(axis, manifest={key: value for key, value in axis.manifest.items() if key != "roles"})
    assert len(identity_prompts(alone, 0)) == len(IDENTITY_QUESTIONS), "an axis without roles"


def test_a_control_direction_is_as_long_as_the_axis_and_has_its_scale():
    axis = random_axis(4, 8, 2, (1, 3))
    direction = as_direction("random 1", random_direction(axis, 3), axis)
    assert torch.allclose(direction.norm, axis.norm)
    raw = float(axis.role_mean[2] @ direction.unit[2])
    assert direction.to_units(raw, 2) == pytest.approx(0, abs=1e-5)
    assert as_direction("axis", axis.direction, axis).cosine == pytest.approx(1)


def test_strongest_affordable_steering_is_compared_with_the_cap():
    curve = [{"alpha": alpha, "perplexity": 10 + alpha * alpha} for alpha in (-1.0, 0.0, 1.0, 2.0, 4.0)]
    best = at_equal_cost(curve, 14.5)
    assert best is not None and best["alpha"] == 2.0
    assert at_equal_cost(curve, 10.5) is None


def steering_figures() -> dict[str, Any]:
    names, reply = ["random 1"], {"in character": True, "harmful": False}
    found = {
        setting.name: {"attempts": [reply], "identity": ["I was born here.", "No."], "perplexity": 10.0}
        for setting in settings(names)
    }
    found[WITH_CAP] = {"attempts": [reply | {"harmful": True}], "identity": ["No."] * 2, "perplexity": 11.0}
    raw = {"steering": {"directions": names, "found": found}}
    return results_of(raw, None)["steering"]  # type: ignore[arg-type]


def test_report_and_picture_have_every_strength_and_the_cap(tmp_path):
    steering = steering_figures()
    assert [point["alpha"] for point in steering["directions"][AXIS]] == sorted({0.0, *ALPHAS})
    assert steering["directions"]["random 1"][0]["human past"] == 0.5
    about = {"model": "m", "cap": "1-2 p25", "probe_layer": 2, "dtype": "float32", "seed": 1, "command": "c"}
    about["size"] = {"attempts": 1}
    lines = list(report({"about": about, "steering": steering}, {}))
    assert sum(line.startswith(("| the axis |", "| random 1 |")) for line in lines) == 1 + 2 * len(ALPHAS)
    assert any(line.startswith("| the cap |") and "1.1000" in line for line in lines)
    assert lines[-1].endswith(f"is α = {max(ALPHAS):g}, and leaves 0.0%.")
    assert write_pictures(tmp_path, {"steering": steering}) and list(tmp_path.glob("*.svg"))


def test_curves_share_the_unsteered_point():
    found = {setting.name: {"value": number} for number, setting in enumerate(settings(["other"]))}
    drawn = dict(curves(found, ["other"]))
    assert [point["value"] for name in (AXIS, "other") for point in drawn[name] if point["alpha"] == 0] == [
        0,
        0,
    ]
