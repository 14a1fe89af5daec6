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
    assert printed[5].count("what the cap adds: +") == 2 and printed[5].count("[") == 4
    before, after = re.findall(r"mean [+-]\d\.\d+: (.*)", printed[6])
    assert before != after and " became " in printed[6]
    assert "[-" in printed[7] and "{+" in printed[7] and printed[7].count("the capped reply lies") == 2
    assert "A demon, from a notebook" in printed[8]


def test_seeds_a_fork_and_a_comparison_take_ten_lines_each():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for call in ("demo.reply_means", "chat.fork_at", "demo.compare"):
        [source] = [source for source in sources if call in source]
        assert len(source.splitlines()) <= 10


def test_the_notebook_was_stored_with_its_outputs_and_its_picture():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
