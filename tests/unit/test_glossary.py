"""The glossary names modules and classes that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from demo.utils.paths import ROOT
from tests.helpers.documents import Reference, defines, references

GLOSSARY = ROOT / "docs" / "glossary.md"


@pytest.mark.parametrize(
    "reference", references(GLOSSARY), ids=lambda reference: f"{reference.path} {reference.name}"
)
def test_every_term_is_where_the_glossary_says(reference: Reference):
    assert reference.fault() is None


def test_every_row_names_a_place_in_the_code():
    lines = GLOSSARY.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| term")]
    assert len(references(GLOSSARY)) == len(rows) > 30


def test_a_missing_file_and_a_missing_name_are_found(repository: Path):
    assert Reference("x.md", "demo/no_such.py", "").fault() == "x.md: there is no demo/no_such.py"
    assert (
        Reference("x.md", "demo/capping.py", "clampp").fault()
        == "x.md: demo/capping.py does not define clampp"
    )
    source = (repository / "demo" / "capping.py").read_text(encoding="utf-8")
    assert defines(source, "clamp") and defines(source, "AxisReading") and not defines(source, "paper")
    assert re.search(r"\bpaper\b", source)
