"""Experiments, ceilings and floors of an imported axis, and the import command."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from demo.axis import published as registry
from demo.axis.__main__ import main
from demo.axis.files import load_axis
from demo.axis.importer.build import ImportOptions, import_axis
from demo.axis.importer.capping_config import parse_id
from demo.utils.paths import ROOT
from tests.helpers.published_axis import HIDDEN, LAYERS, cap_at, experiment, refused, save


def test_one_of_several_experiments_must_be_chosen(published, tmp_path):
    folder = published.write(tmp_path / "x")
    refused("3 experiments; choose one of layers_2:5-p0.25", folder)
    refused("no experiment 'layers_9:9-p1'", folder, ImportOptions(experiment="layers_9:9-p1"))
    axis = import_axis(folder, ImportOptions(experiment="layers_3:6-p0.25"))
    assert axis.cap_band == (3, 5)


def test_a_known_model_uses_its_recommended_experiment(published, tmp_path, monkeypatch):
    entry = replace(
        registry.QWEN, layers=LAYERS, hidden_size=HIDDEN, probe_layer=6, experiment="layers_3:6-p0.25"
    )
    monkeypatch.setattr(registry, "MODELS", (entry,))
    folder = published.write(tmp_path / "qwen-3-32b")
    axis = import_axis(folder)
    assert (axis.cap_band, axis.probe_layer) == ((3, 5), 6)
    assert axis.manifest["model"]["id"] == "Qwen/Qwen3-32B"
    moved = import_axis(folder, ImportOptions(band=(2, 5), model_id="me/Qwen3-32B-tuned"))
    assert moved.cap_band == (2, 5) and moved.manifest["model"]["id"] == "me/Qwen3-32B-tuned"


def test_a_folder_name_does_not_override_the_shape(published, options, tmp_path):
    folder = published.write(tmp_path / "qwen-3-32b")
    assert "id" not in import_axis(folder, options).manifest["model"], "a folder may have any name"
    refused("Qwen3-32B has 64 layers of 5120", folder, replace(options, model_id="Qwen/Qwen3-32B"))


def test_interventions_without_a_cap_are_skipped_with_a_note(published, tmp_path):
    chosen = experiment(1, 7, 0.5)
    del chosen["interventions"][2]["cap"]  # layer 3
    published.config["experiments"] = [chosen]
    axis = import_axis(published.write(tmp_path / "x"))
    assert axis.floor_layers("published-p0.5") == (1, 2, 4, 5, 6)
    assert axis.cap_band == (4, 6), "the longest run: a band has a floor at each of its layers"
    notes = " ".join(axis.manifest["notes"])
    assert "without a cap at layers 3" in notes and "names layers 1-6" in notes
    for step in chosen["interventions"]:
        step.pop("cap", None)
    refused("gives no cap at all", save(published.config, tmp_path / "c.pt"), ImportOptions(sign="role"))


def test_floors_of_disagreeing_windows_are_not_used(published, options, tmp_path):
    published.config["experiments"][1]["interventions"][0]["cap"] = -9.0  # layer 3 of layers_3:6
    published.config["experiments"].append(experiment(4, 6, 0.01))
    published.config["experiments"][-1]["interventions"][0]["cap"] = -9.0
    axis = import_axis(published.write(tmp_path / "x"), options)
    assert axis.floor_layers("published-p0.25") == (2, 3, 4) and list(axis.floors) == ["published-p0.25"]
    assert axis.floors["published-p0.25"][3] == -cap_at(3, 0.25)


def test_an_id_that_is_not_a_slice_still_names_a_floor(published, tmp_path):
    published.config["experiments"] = [experiment(2, 5, 0.25, id="mine")]
    axis = import_axis(published.write(tmp_path / "x"))
    assert axis.cap_floor == "mine" and axis.cap_band == (2, 4)
    assert parse_id("layers_46:54-p0.25").last == 53, "a half-open slice"  # type: ignore[union-attr]
    assert parse_id("mine") is None


def test_two_vectors_for_one_layer_are_refused(published, tmp_path):
    other = "layer_3/other"
    published.config["vectors"][other] = {"vector": published.axis[3], "layer": 3}
    folder = published.write(tmp_path / "x")
    import_axis(folder, ImportOptions(experiment="layers_2:5-p0.25"))  # a vector of another kind is not used
    published.config["experiments"][0]["interventions"].append({"vector": other, "cap": -1.0})
    save(published.config, folder / "capping_config.pt")
    refused("two vectors for layer 3", folder, ImportOptions(experiment="layers_2:5-p0.25"))


def test_given_caps_take_precedence_over_published_ones(published, options, caps, tmp_path):
    axis = import_axis(published.write(tmp_path / "x"), replace(options, caps=caps))
    assert (axis.cap_floor, axis.cap_band) == ("given", (3, 4))
    assert set(axis.floors) == {"given", "published-p0.25", "published-p0.01"}


def test_ceilings_far_from_the_anchors_get_a_note(published, options, tmp_path):
    path = tmp_path / "caps.json"
    path.write_text(json.dumps({"3": -400}))
    axis = import_axis(published.write(tmp_path / "x"), replace(options, caps=path))
    assert "layers 3 lies more than 3 axis units" in " ".join(axis.manifest["notes"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not readable JSON"),
        ("[]", "must hold a JSON object"),
        ("{}", "gives no cap"),
        ('{"8": -1}', "names layer '8'"),
        ('{"-1": -1}', "names layer '-1'"),
        (f'{{"{"9" * 5000}": 1}}', "names layer"),
        ('{"3": "x"}', "not a finite number"),
        ('{"3": true}', "not a finite number"),
        ('{"3": NaN}', "not a finite number"),
        (f'{{"3": 1{"0" * 400}}}', "not a finite number"),
    ],
)
def test_malformed_caps_are_refused(published, options, tmp_path, text, words):
    path = tmp_path / "caps.json"
    path.write_text(text)
    refused(words, published.write(tmp_path / "x"), replace(options, caps=path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"band": (1, 4)}, "goes beyond the layers with a floor; .* at 2-5"),
        ({"band": (4, 3)}, "goes beyond"),
        ({"probe_layer": 8}, "--probe-layer 8"),
        ({"probe_layer": -1}, "--probe-layer -1"),
    ],
)
def test_layers_that_do_not_exist_are_refused(published, options, tmp_path, change, words):
    refused(words, published.write(tmp_path / "x"), replace(options, **change))


def test_an_experiment_without_a_config_is_refused(published, options, tmp_path):
    refused("no capping config", save(published.axis, tmp_path / "a.pt"), replace(options, sign="role"))


def test_the_command_imports_an_axis_and_shows_it(published, tmp_path, capsys):
    folder, out = published.write(tmp_path / "x"), tmp_path / "axis"
    command = [
        "import",
        str(folder),
        "--experiment",
        "layers_2:5-p0.25",
        "--cap-layers",
        "3-4",
        "--out",
        str(out),
    ]
    assert main(command) == 0
    printed = capsys.readouterr().out
    for words in (
        "assistant-ward, cosine +1.000",
        "layers 3-4, floor published-p0.25",
        "role_vectors/ x 6",
        "wrote",
    ):
        assert words in printed
    assert load_axis(out).cap_band == (3, 4)
    assert main(command) == 0, "an import may be replaced"
    capsys.readouterr()
    assert main(["show", str(out)]) == 0
    assert printed.startswith(capsys.readouterr().out)


@pytest.mark.parametrize(
    "change",
    [
        ["--cap-layers", "4"],
        ["--cap-layers", "9-12"],
        ["--caps", "none.json"],
        ["--experiment", "x"],
        ["--probe-layer", "99"],
        ["--sign", "role"],
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(published, tmp_path, capsys, change):
    out = tmp_path / "axis"
    published.config["experiments"] = published.config["experiments"][:1]
    assert main(["import", str(published.write(tmp_path / "x")), "--out", str(out), *change]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert not out.exists()


def test_an_extracted_axis_is_not_overwritten(published, tmp_path, capsys):
    (tmp_path / "axis.json").write_text("{}")
    assert main(["import", str(published.write(tmp_path / "x")), "--out", str(tmp_path)]) == 2
    assert "would overwrite" in capsys.readouterr().err


def test_the_command_runs_as_a_module():
    """In a fresh interpreter: there is no import cycle, and the shell gets an exit status."""
    command = [sys.executable, "-m", "demo.axis", "show", "no-such-axis"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: No axis at 'no-such-axis'")
