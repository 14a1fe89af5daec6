"""python -m tests.notebook [--write]: run docs/notebook.ipynb from top to bottom and say how long it took.

With --write the outputs are stored in it, so that it can be read without being run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from demo.utils.paths import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def executed(folder: Path) -> Any:
    """The notebook with its outputs. It runs in `folder`, where it writes its files.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raised an error.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}})
    client.execute(env=os.environ | {"PYTHONPATH": paths})
    return notebook


def texts_of(notebook: Any) -> list[str]:
    """What each code cell printed, "" for one that printed nothing."""
    return [
        "".join(output["text"] for output in cell.outputs if output.get("name") == "stdout")
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def _without_noise(notebook: Any) -> Any:
    """Without progress lines, warnings and the times at which cells ran, which differ from run to run."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.notebook", description=__doc__)
    parser.add_argument("--write", action="store_true", help="store the outputs in the notebook")
    options, began = parser.parse_args(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(Path(folder))
    print("\n".join(texts_of(notebook)))
    print(f"the notebook ran in {time.monotonic() - began:.0f} s", file=sys.stderr)
    if options.write:
        nbformat.write(_without_noise(notebook), NOTEBOOK)


if __name__ == "__main__":
    main()
