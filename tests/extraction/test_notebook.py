"""The notebook of the documentation."""

from __future__ import annotations

import re

import nbformat
import pytest

from tests.notebook import NOTEBOOK, executed, texts_of


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs_and_shows_what_it_says(tmp_path):
    printed = texts_of(executed(tmp_path))
    assert "cosine with the shipped axis" in printed[1]
    written, unsteered, uncapped = (float(value) for value in re.findall(r": ([+-]\d\.\d+)", printed[4]))
    assert uncapped < unsteered < written
    assert "A demon, from a notebook" in printed[5]


def test_the_notebook_was_stored_with_its_outputs_and_its_picture():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
