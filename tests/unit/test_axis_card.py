"""The card of an axis folder."""

from __future__ import annotations

import json

from huggingface_hub import ModelCard

from demo.axis.__main__ import main
from demo.axis.files import load_axis, save_axis
from demo.axis.importer.build import import_axis
from demo.models.default import DEFAULT_MODEL
from demo.utils.paths import AXES


def test_the_card_of_the_shipped_axis_says_what_its_manifest_says(capsys):
    manifest = json.loads((AXES / DEFAULT_MODEL / "axis.json").read_text())
    assert main(["card", DEFAULT_MODEL]) == 0
    text = capsys.readouterr().out
    assert ModelCard(text).data.base_model == manifest["model"]["id"]
    for name, gate in manifest["gates"].items():
        passed = "yes" if gate["passed"] else "no"
        assert f"| {name} | {gate['value']:.3f} | {gate['threshold']:.2f} | {passed} |" in text
    first, last = manifest["cap"]["layers"]
    assert f"layers {first} to {last}, at the floor `{manifest['cap']['floor']}`" in text
    assert manifest["created_with"]["command"] in text
    assert all(f"- {kind}: {count} rollouts" in text for kind, count in manifest["rollouts"].items())


def test_the_card_of_an_imported_axis_names_its_files_and_no_gates(published, options, tmp_path, capsys):
    save_axis(import_axis(str(published.write(tmp_path / "x")), options), tmp_path / "axis")
    record = load_axis(tmp_path / "axis").manifest["import"]
    assert main(["card", str(tmp_path / "axis")]) == 0
    text = capsys.readouterr().out
    assert "None were measured." in text and "Extracted by" not in text
    assert record["files"] and all(f"- `{entry['file']}`: " in text for entry in record["files"])
    assert all(f"- Converted: {step}" in text for step in record["conversions"])
    assert all(note in text for note in load_axis(tmp_path / "axis").manifest["notes"])
