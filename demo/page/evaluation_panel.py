"""The page's report on whether capping works on the loaded model, read from the folder of its axis."""

from __future__ import annotations

import re
from pathlib import Path

from demo.axis.axis import AssistantAxis
from demo.axis.files import axis_digest
from demo.evaluation import COMMAND, NAME
from demo.page.middleware import serve
from demo.utils.errors import UserError
from demo.utils.json_files import read_object

# Figures and report. Earlier versions wrote the second pair.
_FILES = ((NAME, "evaluation.md"), ("evidence.json", "evidence.md"))


def evaluation_text(axis: AssistantAxis, folder: Path | None) -> str:
    """Markdown for the page.

    Args:
        folder: the axis's folder; None for an axis without one.
    """
    found = next((names for names in _FILES if folder is not None and (folder / names[1]).is_file()), None)
    if folder is None or found is None:
        return f"This axis has not been evaluated yet. Run `{COMMAND}` to evaluate it."
    figures, report = (folder / name for name in found)
    try:
        about = read_object(figures, f"run {COMMAND} again")["about"]
        digest, _ = about["axis"], about["cap"]
    except (UserError, KeyError, TypeError) as error:
        return f"The evaluation beside this axis cannot be read ({error}); run `{COMMAND}` again."
    if digest != axis_digest(axis):
        return f"The evaluation in this folder belongs to another axis; run `{COMMAND}` again."
    text = report.read_text(encoding="utf-8").split("\n", 2)[
        2
    ]  # without its title, which the accordion shows
    return re.sub(r"!\[([^\]]*)\]\(([\w-]+\.svg)\)", lambda found: _picture(found, folder), text)


def _picture(found: re.Match[str], folder: Path) -> str:
    """The picture at an address of this server; empty when its file is missing."""
    path = folder / found[2]
    return f"![{found[1]}]({serve(path)})" if path.is_file() else ""
