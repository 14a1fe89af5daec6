"""Import of published axes: the formats, and the axis that each gives."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from demo.axis.axis import AssistantAxis
from demo.axis.files import load_axis, save_axis
from demo.axis.importer.build import ImportOptions, import_axis
from demo.axis.importer.floors import spans
from demo.utils.errors import UserError
from tests.helpers.published_axis import HIDDEN, LAYERS, ROLES, cap_at, refused, save, vector_name


def test_a_complete_published_folder_is_imported(published, options, tmp_path):
    axis = import_axis(published.write(tmp_path / "my-model"), options)
    assert torch.cosine_similarity(axis.direction, published.axis.float(), dim=-1).min() > 0.9999
    torch.testing.assert_close(axis.role_mean, published.mean)
    torch.testing.assert_close(axis.default_mean, published.default.float())
    assert (axis.probe_layer, axis.cap_band, axis.cap_floor) == (LAYERS // 2, (2, 4), "published-p0.25")
    for layer in range(LAYERS):
        unit = axis.unit[layer]
        assert axis.to_units(float(published.mean[layer] @ unit), layer) == pytest.approx(0, abs=1e-5)
        assert axis.to_units(float(published.default[layer].float() @ unit), layer) == pytest.approx(
            1, abs=1e-5
        )
    record = axis.manifest["import"]
    digest = hashlib.sha256((tmp_path / "my-model" / "assistant_axis.pt").read_bytes()).hexdigest()
    assert record["files"][0] == {"file": "assistant_axis.pt", "sha256": digest, "what": "axis"}
    assert record["files"][-1]["count"] == ROLES
    assert [reason["points_to"] for reason in record["sign_evidence"]] == ["assistant", "assistant"]
    assert record["sign_evidence"][1]["cosine"]["lowest"] == pytest.approx(1, abs=1e-4)
    assert "75th percentile of Assistant-ness" in str(record["conversions"])
    assert "ceiling -1 on the role-ward unit vector -> floor +1 on the Assistant-ward one" in str(
        record["conversions"]
    )
    assert axis.manifest["anchors"] is True and axis.manifest["model"] == {
        "layers": LAYERS,
        "hidden_size": HIDDEN,
    }


def test_roles_and_components_match_a_plain_reference(published, options, tmp_path):
    axis = import_axis(published.write(tmp_path / "x"), options)
    probe = axis.probe_layer
    expected = {
        name: axis.to_units(float(vector[probe].float() @ axis.unit[probe]), probe)
        for name, vector in published.roles.items()
    }
    assert {r["name"]: r["projection"] for r in axis.manifest["roles"]} == pytest.approx(expected, abs=1e-4)
    assert axis.pca is not None and axis.pca.shape == (3, LAYERS, HIDDEN)
    for layer in range(LAYERS):
        rows = axis.pca[:, layer]
        torch.testing.assert_close(rows @ rows.T, torch.eye(3), atol=1e-5, rtol=0)
        assert (rows @ axis.direction[layer]).min() >= 0
        centred = torch.stack([v[layer].float() for v in published.roles.values()]) - published.mean[layer]
        reference = torch.linalg.svd(centred, full_matrices=False).Vh[:3]
        torch.testing.assert_close((rows * reference).sum(-1).abs(), torch.ones(3), atol=1e-4, rtol=0)


def test_identical_roles_give_no_components(published, options, tmp_path):
    published.roles = dict.fromkeys(published.roles, published.roles["bard"])
    published.axis = (published.default.float() - published.roles["bard"].float()).bfloat16()
    published.config["vectors"] = {
        vector_name(n): {"vector": -published.axis[n], "layer": n} for n in range(LAYERS)
    }
    assert import_axis(published.write(tmp_path / "x"), options).pca is None


def test_floors_exist_only_where_a_cap_was_published(published, options, tmp_path):
    axis = import_axis(published.write(tmp_path / "x"), options)
    assert sorted(axis.floors) == ["published-p0.01", "published-p0.25"]
    assert axis.floor_layers("published-p0.25") == (2, 3, 4, 5), "other windows add layers"
    assert axis.floor_layers("published-p0.01") == (2, 3, 4)
    for name, percentile in (("published-p0.25", 0.25), ("published-p0.01", 0.01)):
        for layer in range(LAYERS):
            wanted = -cap_at(layer, percentile) if layer in axis.floor_layers(name) else -math.inf
            assert float(axis.floors[name][layer]) == pytest.approx(wanted)
    assert axis.floor_units("published-p0.25", 0) == -math.inf


def test_a_saved_imported_axis_loads_unchanged(published, options, tmp_path):
    axis = import_axis(published.write(tmp_path / "x"), options)
    save_axis(axis, tmp_path / "axis")
    again = load_axis(tmp_path / "axis")
    for name in ("direction", "role_mean", "default_mean", "pca"):
        assert torch.equal(getattr(again, name), getattr(axis, name))
    assert list(again.floors) == sorted(axis.floors)
    assert all(torch.equal(again.floors[name], axis.floors[name]) for name in axis.floors)
    assert again.manifest == axis.manifest


def test_published_files_can_be_loaded_directly(published, options, tmp_path):
    published.config["experiments"] = published.config["experiments"][:1]
    folder = published.write(tmp_path / "x")
    for where in (folder, folder / "assistant_axis.pt", str(folder / "capping_config.pt")):
        axis = load_axis(where)
        assert axis.manifest["anchors"] is True, "the files beside it give evidence and anchors"
    with pytest.raises(UserError, match="nothing to import"):
        load_axis(tmp_path / "none.pt")
    with pytest.raises(UserError, match=r"holds no assistant_axis\.pt; give one of its folders x"):
        load_axis(tmp_path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("sign", ["assistant", "role"])
def test_a_lone_axis_needs_a_sign_and_ceilings(published, caps, tmp_path, suffix, wrap, sign):
    path = tmp_path / f"some{suffix}"
    content = {"axis": published.axis, "metadata": torch.ones(1)} if wrap else {"axis": published.axis}
    if suffix == ".pt":
        save(content if wrap else published.axis, path)
    else:
        save_file(content, path)
    refused("give --sign assistant or --sign role", path, ImportOptions(caps=caps))
    refused("no floors in some.*--caps", path, ImportOptions(sign=sign))
    axis = import_axis(path, ImportOptions(sign=sign, caps=caps, probe_layer=1))
    sense = 1 if sign == "assistant" else -1
    assert torch.equal(axis.direction, sense * published.axis.float())
    assert (axis.cap_band, axis.cap_floor, axis.probe_layer) == ((3, 4), "given", 1)
    assert axis.floors["given"][3:5].tolist() == [1.5, -2.0], "floors do not depend on the stored sign"
    assert axis.manifest["anchors"] is False and axis.origin.abs().max() == 0
    assert torch.equal(axis.default_mean, axis.direction)


def test_only_plain_metadata_is_kept(published, caps, tmp_path):
    content = {
        "axis": published.axis,
        "metadata": {"model": "m" * 999, "n": 3, "t": torch.ones(2), "f": math.nan},
    }
    axis = import_axis(save(content, tmp_path / "a.pt"), ImportOptions(sign="role", caps=caps))
    assert axis.manifest["import"]["metadata"] == {"model": "m" * 200, "n": 3}


def test_a_folder_of_safetensors_files_is_imported(published, options, tmp_path):
    folder = published.write(tmp_path / "x", "assistant_axis", "default_vector", "role_vectors")
    save_file({"axis": published.axis}, folder / "assistant_axis.safetensors")
    save_file({"vector": published.default}, folder / "default_vector.safetensors")
    for name, vector in published.roles.items():
        save_file({"vector": vector}, folder / "role_vectors" / f"{name}.safetensors")
    torch.testing.assert_close(import_axis(folder, options).role_mean, published.mean)


def test_a_folder_on_the_hub_is_imported(published, options, tmp_path, monkeypatch):
    published.write(tmp_path / "snapshots" / "c0ffee" / "qwen-3-32b")
    requests = []

    def download(repo_id, **how):
        requests.append((repo_id, how))
        return str(tmp_path / "snapshots" / "c0ffee")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    for source in (
        "hf://lu-christina/assistant-axis-vectors/qwen-3-32b",
        "lu-christina/assistant-axis-vectors:qwen-3-32b",
        "hf://lu-christina/assistant-axis-vectors@c0ffee/qwen-3-32b",
    ):
        axis = import_axis(source, options)
        about = axis.manifest["import"]
        assert (about["dataset"], about["folder"], about["revision"]) == (
            "lu-christina/assistant-axis-vectors",
            "qwen-3-32b",
            "c0ffee",
        )
    repository, how = requests[0]
    assert repository == "lu-christina/assistant-axis-vectors" and how["repo_type"] == "dataset"
    assert all(pattern.startswith("qwen-3-32b/") for pattern in how["allow_patterns"])
    assert not any("trait" in pattern for pattern in how["allow_patterns"])
    assert [how["revision"] for _, how in requests] == [None, None, "c0ffee"]
    refused("no folder 'gemma'", "hf://lu-christina/assistant-axis-vectors/gemma")


def test_a_failed_download_is_explained_in_one_sentence(monkeypatch):
    def download(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    refused("could not be downloaded .*download the folder yourself", "hf://owner/data/folder")


def with_floors(axis: AssistantAxis, **floors: torch.Tensor) -> AssistantAxis:
    return replace(
        axis, floors=floors, manifest={**axis.manifest, "cap": {"layers": [2, 4], "floor": "mine"}}
    )


def test_floors_of_a_saved_axis_are_checked(published, options, tmp_path):
    axis = import_axis(published.write(tmp_path / "x"), options)
    good = torch.full((LAYERS,), -math.inf)
    good[2:5] = 1.0
    save_axis(with_floors(axis, mine=good), tmp_path / "axis")
    assert load_axis(tmp_path / "axis").floor_layers("mine") == (2, 3, 4)
    for value, words in (
        (math.inf, "NaN, infinite"),
        (math.nan, "NaN, infinite"),
        (-math.inf, "no floor at some"),
    ):
        bad = good.clone()
        bad[3] = value
        save_axis(with_floors(axis, mine=bad), tmp_path / "axis")
        with pytest.raises(UserError, match=words):
            load_axis(tmp_path / "axis")
    save_axis(with_floors(axis), tmp_path / "axis")
    with pytest.raises(UserError, match="no floors"):
        load_axis(tmp_path / "axis")


def test_loading_an_axis_returns_its_notes(published, caps, tmp_path):
    axis = import_axis(save(published.axis, tmp_path / "a.pt"), ImportOptions(sign="assistant", caps=caps))
    model = SimpleNamespace(
        spec="some/model",
        architecture="A",
        layer_count=LAYERS,
        hidden_size=HIDDEN,
        tokenizer=range(9),
        revision=None,
        digest=None,
        base=False,
        dtype_name="float32",
    )
    notes = axis.check_model(model)  # type: ignore[arg-type]
    assert "no anchors in the source" in notes[0] and "does not say which model" in notes[1]
    with pytest.raises(UserError, match="another model"):
        axis.check_model(SimpleNamespace(**{**vars(model), "hidden_size": 3}))  # type: ignore[arg-type]


def test_layers_are_written_as_ranges():
    assert spans({1, 2, 3, 7, 9, 10}) == "1-3, 7, 9-10"
