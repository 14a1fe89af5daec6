"""The sign of an imported axis follows the evidence, and is never guessed."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch

from demo.axis import published as registry
from demo.axis.importer.build import ImportOptions, import_axis
from demo.capping import clamp
from tests.helpers.published_axis import HIDDEN, LAYERS, cap_at, refused, save, vector_name


def test_a_role_ward_axis_with_anchors_is_turned_around(published, options, tmp_path):
    """All evidence, from anchors and capping vectors, shows that the stored axis points toward the roles."""
    upright = import_axis(published.write(tmp_path / "up"), options)
    published.axis = -published.axis
    turned = import_axis(published.write(tmp_path / "down"), options)
    assert torch.equal(turned.direction, upright.direction)
    assert turned.floors.keys() == upright.floors.keys()
    assert all(torch.equal(turned.floors[name], upright.floors[name]) for name in turned.floors)
    assert {reason["points_to"] for reason in turned.manifest["import"]["sign_evidence"]} == {"role"}
    assert "turned around" in turned.manifest["import"]["conversions"][0]


@pytest.mark.parametrize("flipped", [False, True])
def test_capping_vectors_are_enough_to_decide_the_sign(published, options, tmp_path, flipped):
    expected = published.axis.float()
    published.axis = -published.axis if flipped else published.axis
    axis = import_axis(published.write(tmp_path / "x", "default_vector", "role_vectors"), options)
    assert torch.equal(axis.direction, expected)


@pytest.mark.parametrize("flipped", [False, True])
def test_means_are_enough_to_decide_the_sign(published, caps, tmp_path, flipped):
    expected = published.axis.float()
    published.axis = -published.axis if flipped else published.axis
    axis = import_axis(published.write(tmp_path / "x", "capping_config"), ImportOptions(caps=caps))
    assert torch.cosine_similarity(axis.direction, expected, dim=-1).min() > 0.9999


def test_a_stated_sign_that_contradicts_the_files_is_refused(published, options, tmp_path):
    folder = published.write(tmp_path / "x")
    import_axis(folder, replace(options, sign="assistant"))
    refused("--sign role contradicts the files", folder, replace(options, sign="role"))


def test_files_that_disagree_are_refused(published, options, tmp_path):
    """Capping vectors that point toward the Assistant contradict the anchors beside them."""
    for entry in published.config["vectors"].values():
        entry["vector"] = -entry["vector"]
    folder = published.write(tmp_path / "x")
    refused("disagree about which way the axis points", folder, options)
    refused("disagree", folder, replace(options, sign="assistant"))


def test_a_single_layer_of_the_wrong_sign_is_refused(published, options, tmp_path):
    published.axis[3] = -published.axis[3]
    refused("not clear from .* at layer 3", published.write(tmp_path / "y"), options)


def test_capping_vectors_of_another_axis_are_refused(published, options, tmp_path):
    bent = -published.axis[3].float()
    bent[0] += 0.4 * bent.norm()
    published.config["vectors"][vector_name(3)]["vector"] = bent
    refused("layer 3 is not the axis turned around", published.write(tmp_path / "x"), options)


def test_a_capping_config_without_an_axis_points_toward_the_roles(published, options, tmp_path, monkeypatch):
    path = save(published.config, tmp_path / "c.pt")
    refused("give --sign", path, options)
    refused("--sign assistant cannot be right", path, replace(options, sign="assistant"))
    axis = import_axis(path, replace(options, sign="role"))
    assert torch.equal(axis.direction, published.axis.float())
    assert axis.floors["published-p0.25"][2] == -cap_at(2, 0.25)
    small = replace(registry.QWEN, layers=LAYERS, hidden_size=HIDDEN, probe_layer=4)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = registry.KnownFile(digest[:16], "a published file", "role", small)
    monkeypatch.setattr(registry, "KNOWN_FILES", (known,))
    assert torch.equal(import_axis(path, options).direction, published.axis.float())
    del published.config["vectors"][vector_name(6)]
    refused("no vector for layer 6", save(published.config, path), replace(options, sign="role"))


@pytest.mark.parametrize("seed", range(5))
def test_floor_and_published_ceiling_are_the_same_clamp(published, options, tmp_path, seed):
    """The published formula, with the published role-ward vector and cap, equals this program's clamp."""
    axis = import_axis(published.write(tmp_path / "x"), options)
    hidden = 3 * torch.randn(2, 9, HIDDEN, generator=torch.Generator().manual_seed(seed))
    acted = 0
    for layer in range(2, 5):
        role_ward = published.config["vectors"][vector_name(layer)]["vector"].float()
        role_ward = role_ward / role_ward.norm()
        excess = (hidden @ role_ward - cap_at(layer, 0.25)).clamp(min=0)
        reference = hidden - excess[..., None] * role_ward
        floor = axis.floors["published-p0.25"][layer].expand(2)
        ours = clamp(hidden, axis.unit[layer], floor)
        torch.testing.assert_close(ours.hidden, reference, atol=1e-4, rtol=1e-4)
        assert (ours.hidden @ role_ward).max() <= cap_at(layer, 0.25) + 1e-4
        acted += int((ours.lift > 0).sum())
    assert acted > 0
    untouched = clamp(hidden, axis.unit[0], axis.floors["published-p0.25"][0].expand(2))
    assert torch.equal(untouched.hidden, hidden), "no floor at layer 0"
