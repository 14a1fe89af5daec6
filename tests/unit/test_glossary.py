"""The glossary names modules and classes that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from demo.utils.paths import ROOT

# The last cell of each row: a module, and possibly a name in it.
ROWS = re.findall(
    r"^\| ([^|]+) \|.*\| `(demo/\S+)`(?: `(\w+)`)? \|$",
    (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


@pytest.mark.parametrize(("term", "path", "name"), ROWS)
def test_every_term_is_where_the_glossary_says(repository: Path, term: str, path: str, name: str):
    text = (repository / path).read_text(encoding="utf-8")
    assert re.search(rf"\b{name}\b", text), f"{term}: {name} is not in {path}"


def test_every_row_is_read():
    lines = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| term")]
    assert len(ROWS) == len(rows) > 30
