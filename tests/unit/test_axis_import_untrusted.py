"""Untrusted axis files: hostile, damaged or malformed ones are refused in one sentence."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from demo.axis.importer.build import ImportOptions
from tests.helpers.published_axis import HIDDEN, refused, save, vector_name


class Payload:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


@pytest.mark.parametrize("shape", ["torch", "legacy", "dict", "config", 0, 2, 4, 5])
@pytest.mark.trust("axis files that are hostile pickles", "refused, no code is run", "hostile input")
def test_a_hostile_pickle_is_refused_without_running_it(tmp_path, shape):
    target, path = tmp_path / "pwned", tmp_path / "axis.pt"
    payload = Payload(target)
    if isinstance(shape, int):
        path.write_bytes(pickle.dumps(payload, protocol=shape))
    else:
        content = {
            "torch": payload,
            "legacy": payload,
            "dict": {"axis": payload},
            "config": {"vectors": payload, "experiments": []},
        }[shape]
        torch.save(content, path, _use_new_zipfile_serialization=shape != "legacy")
    message = refused("holds pickled Python objects, which can run code when loaded; refused", path)
    assert "weights_only" not in message, "the message must not explain how to load the file all the same"
    assert not target.exists()


@pytest.mark.trust("a hostile pickle among role vectors", "refused, no code is run", "hostile input")
def test_a_folder_with_a_hostile_role_vector_is_refused(published, options, tmp_path):
    folder, target = published.write(tmp_path / "x"), tmp_path / "pwned"
    torch.save(Payload(target), folder / "role_vectors" / "zealot.pt")
    refused("zealot.pt holds pickled", folder, options)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"no tensor", b"PK\x03\x04 broken"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damaged_files_are_refused(tmp_path, content, suffix):
    path = tmp_path / f"axis{suffix}"
    path.write_bytes(content)
    refused("damaged|pickled", path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.ones(4), r"shape \(4,\)"),
        (torch.ones(2, 3, 4), "not a tensor"),
        (torch.ones(4, 4, dtype=torch.int64), "plain floating-point"),
        (torch.eye(4).to_sparse(), "plain floating-point"),
        (torch.ones(1, 1).expand(1_000_000, 1_000_000), "which no model has"),
        (torch.empty(0, 4), "which no model has"),
        (torch.full((4, 4), math.nan), "NaN"),
        (torch.full((4, 4), 3e38), "NaN or infinite"),
        (torch.zeros(4, 4), "points nowhere"),
        ([1, 2], "holds list"),
        ({"vector": torch.ones(4, 4)}, "without 'axis'"),
        ({}, "no keys"),
        ({"axis": 3}, "holds int"),
    ],
)
def test_content_that_is_not_an_axis_is_refused(tmp_path, content, words):
    refused(words, save(content, tmp_path / "some.pt"), ImportOptions(sign="role"))


def test_a_mean_activation_is_not_an_axis(published, tmp_path):
    folder = published.write(tmp_path / "x", "assistant_axis", "capping_config")
    for path in (folder / "default_vector.pt", folder / "role_vectors" / "bard.pt"):
        refused("mean activation, not an axis", path, ImportOptions(sign="assistant"))


def test_files_of_different_shapes_are_refused(published, options, tmp_path):
    folder = published.write(tmp_path / "x")
    save(published.roles["bard"][:, :8], folder / "role_vectors" / "bard.pt")
    refused("bard.pt has shape", folder, options)
    save(published.roles["bard"], folder / "role_vectors" / "bard.pt")
    published.config["vectors"][vector_name(9)] = {"vector": published.axis[0], "layer": 9}
    save(published.config, folder / "capping_config.pt")
    refused("do not belong together", folder, options)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.update(vectors={}),
        lambda c: c.update(vectors=[1]),
        lambda c: c.update(experiments=[]),
        lambda c: c.update(experiments=["x"]),
        lambda c: c["vectors"].update({5: c["vectors"][vector_name(0)]}),
        lambda c: c["vectors"].update(x={"vector": torch.ones(HIDDEN), "layer": True}),
        lambda c: c["vectors"].update(x={"vector": torch.ones(HIDDEN), "layer": -1}),
        lambda c: c["vectors"].update(x={"vector": torch.ones(HIDDEN)}),
        lambda c: c["vectors"].update(x={"vector": torch.ones(2, HIDDEN), "layer": 1}),
        lambda c: c["vectors"].update(x={"vector": torch.zeros(HIDDEN), "layer": 1}),
        lambda c: c["vectors"].update(x={"vector": torch.ones(3), "layer": 1}),
        lambda c: c["vectors"].update(x=3),
        lambda c: c["experiments"][0].pop("interventions"),
        lambda c: c["experiments"][0].update(id=None),
        lambda c: c["experiments"][0]["interventions"].append(3),
        lambda c: c["experiments"][0]["interventions"].append({"vector": "none", "cap": 1.0}),
        lambda c: c["experiments"][0]["interventions"].append({"vector": vector_name(2), "cap": 1.0}),
        lambda c: c["experiments"][0]["interventions"][0].update(cap="x"),
        lambda c: c["experiments"][0]["interventions"][0].update(cap=math.inf),
        lambda c: c["experiments"][0]["interventions"][0].update(cap=torch.ones(2)),
    ],
)
def test_a_malformed_capping_config_is_refused(published, options, tmp_path, spoil):
    spoil(published.config)
    refused(
        "file|it needs|get it again", save(published.config, tmp_path / "c.pt"), replace(options, sign="role")
    )
