"""The axis: its units, its files, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from demo.axis.axis import FLOOR_NAMES, check_axis
from demo.axis.files import load_axis, save_axis
from demo.conversation.settings import make_cap, own_cap
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis


@pytest.fixture
def axis():
    return random_axis(6, 16, 3, (3, 4))


@pytest.fixture
def folder(axis, tmp_path):
    save_axis(axis, tmp_path / "axis")
    return tmp_path / "axis"


def test_zero_is_the_average_role_and_one_the_default_assistant(axis):
    for layer in range(axis.layers):
        unit = axis.direction[layer] / axis.direction[layer].norm()
        assert axis.to_units(float(axis.role_mean[layer] @ unit), layer) == pytest.approx(0, abs=1e-5)
        assert axis.to_units(float(axis.default_mean[layer] @ unit), layer) == pytest.approx(1, abs=1e-5)
    assert float((axis.unit * axis.direction).sum(-1).min()) > 0, "the unit points toward the Assistant"


def test_to_units_gives_the_same_for_tensors_and_floats(axis):
    raw = torch.tensor([-2.0, 0.0, 3.5])
    assert axis.to_units(raw, 2).tolist() == pytest.approx(
        [axis.to_units(float(value), 2) for value in raw], rel=1e-5
    )


def test_a_saved_axis_loads_unchanged(axis, folder):
    again = load_axis(folder)
    for name in ("direction", "role_mean", "default_mean"):
        assert torch.equal(getattr(again, name), getattr(axis, name))
    assert all(torch.equal(again.floors[name], axis.floors[name]) for name in FLOOR_NAMES)
    assert (again.probe_layer, again.cap_band, again.cap_floor) == (3, (3, 4), "p25")


def test_engines_that_cannot_wait_have_the_cap_that_is_named_for_them(axis):
    cap = {
        "layers": [2, 4],
        "floor": "p75",
        "only_below": 0.4,
        "otherwise": {"layers": [3, 4], "floor": "p05"},
    }
    careful = replace(axis, manifest={**axis.manifest, "cap": cap})
    check_axis(careful, "a test")
    own, other = own_cap(careful), own_cap(careful.unconditional())
    assert (own.layers, own.only_below) == ((2, 3, 4), 0.4)
    assert (other.layers, other.only_below) == ((3, 4), None)
    assert other.floors == pytest.approx([float(axis.floors["p05"][layer]) for layer in (3, 4)])
    del cap["otherwise"]
    assert own_cap(careful.unconditional()) == replace(own, only_below=None)
    assert axis.unconditional() is axis
    cap["otherwise"] = {"layers": [3, 400], "floor": "p05"}
    with pytest.raises(UserError, match="names layers or a floor that the axis does not have"):
        check_axis(careful, "a test")


def test_unknown_manifest_keys_are_ignored(folder):
    manifest = json.loads((folder / "axis.json").read_text())
    (folder / "axis.json").write_text(json.dumps({**manifest, "from_the_future": 1}))
    assert load_axis(folder).probe_layer == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.pop("probe_layer"), "lacks probe_layer"),
        (lambda m: m.update(format=2), "format 2"),
        (lambda m: m.update(probe_layer=99), "does not have"),
        (lambda m: m.update(probe_layer="x"), "malformed"),
        (lambda m: m.update(cap={"layers": [5, 2], "floor": "p25"}), "does not have"),
        (lambda m: m.update(cap={"layers": [2], "floor": "p25"}), "malformed"),
        (lambda m: m.update(cap={"layers": [2, 3], "floor": "p99"}), "does not have"),
    ],
)
def test_a_malformed_manifest_is_refused_in_one_sentence(folder, change, words):
    manifest = json.loads((folder / "axis.json").read_text())
    change(manifest)
    (folder / "axis.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=words) as error:
        load_axis(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_manifest_that_is_not_an_object_is_refused(folder, content):
    (folder / "axis.json").write_text(content)
    with pytest.raises(UserError):
        load_axis(folder)


def test_malformed_tensors_are_refused(axis, folder):
    (folder / "axis.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        load_axis(folder)
    broken = axis.direction.clone()
    broken[1, 1] = float("nan")
    save_axis(type(axis)(broken, axis.role_mean, axis.default_mean, axis.floors, axis.manifest), folder)
    with pytest.raises(UserError, match="NaN"):
        load_axis(folder)
    save_axis(
        type(axis)(axis.direction[:, :8], axis.role_mean, axis.default_mean, axis.floors, axis.manifest),
        folder,
    )
    with pytest.raises(UserError, match="do not fit together"):
        load_axis(folder)


def test_the_error_for_a_missing_axis_says_how_to_make_one():
    with pytest.raises(UserError, match=r"demo\.extraction"):
        load_axis("no-such-axis")


def fake_model(**changes):
    about = {
        "spec": "test",
        "architecture": "LlamaForCausalLM",
        "layer_count": 6,
        "hidden_size": 16,
        "tokenizer": range(100),
        "revision": "r1",
        "digest": None,
        "base": False,
        "dtype_name": "float32",
    }
    return SimpleNamespace(**{**about, **changes})


def test_another_shape_is_refused_and_a_fine_tuned_model_gets_a_note(axis):
    axis.manifest["model"] = {
        "id": "test",
        "revision": "r1",
        "architecture": "LlamaForCausalLM",
        "layers": 6,
        "hidden_size": 16,
        "vocab_size": 100,
        "dtype": "float32",
    }
    assert axis.check_model(fake_model()) == []
    for change in (
        {"hidden_size": 8},
        {"layer_count": 5},
        {"architecture": "GPT2LMHeadModel"},
        {"tokenizer": range(9)},
    ):
        with pytest.raises(UserError, match="cannot be used with"):
            axis.check_model(fake_model(**change))
    assert "may not transfer" in axis.check_model(fake_model(spec="mine/fine-tune"))[0]
    assert "may not transfer" in axis.check_model(fake_model(revision="r2"))[0]
    assert "bfloat16" in axis.check_model(fake_model(dtype_name="bfloat16"))[0]
    assert "given plain transcripts (--base)" in axis.check_model(fake_model(base=True))[0]
    axis.manifest["model"]["base"] = True
    assert axis.check_model(fake_model(base=True)) == []
    assert "made from plain transcripts (--base)" in axis.check_model(fake_model())[0]


def test_the_digest_of_the_weights_counts_more_than_the_name(axis):
    axis.manifest["model"] = {"id": "test", "revision": "r1", "digest": "d1"}
    assert axis.check_model(fake_model(spec="elsewhere/test", revision=None, digest="d1")) == []
    assert "may not transfer" in axis.check_model(fake_model(digest="d2"))[0]
    assert axis.check_model(fake_model(digest=None)) == []


def test_a_cap_holds_one_raw_floor_per_layer(axis):
    cap = make_cap(axis, 2, 4, "p50")
    assert cap.layers == (2, 3, 4)
    assert cap.floors == tuple(float(axis.floors["p50"][layer]) for layer in (2, 3, 4))
    for first, last in ((4, 2), (-1, 2), (2, 6)):
        with pytest.raises(UserError, match="between 0 and 5"):
            make_cap(axis, first, last, "p50")
    with pytest.raises(UserError, match="no floor 'p99'"):
        make_cap(axis, 1, 2, "p99")
