"""What the page says about whether capping works on the loaded model: the report beside its axis, where there is one."""

from __future__ import annotations

import re
from pathlib import Path

from demo.axis import AssistantAxis, axis_digest
from demo.errors import UserError
from demo.evidence import COMMAND, NAME
from demo.jsonfile import read_object
from demo.page.served import serve


def evidence_text(axis: AssistantAxis, folder: Path | None) -> str:
    """Markdown for the page. folder: where the axis lies, None for one that has no folder."""
    report = None if folder is None else folder / "evidence.md"
    if folder is None or report is None or not report.is_file():
        return f"None has been gathered for this axis. `{COMMAND}` gathers it."
    try:
        about = read_object(folder / NAME, f"run {COMMAND} again")["about"]
        gathered_with = about["axis"], about["cap"]
    except (UserError, KeyError, TypeError) as error:
        return f"The evidence beside this axis cannot be read ({error}); run `{COMMAND}` again."
    if gathered_with[0] != axis_digest(axis):
        return f"The evidence beside this axis was gathered with another one; run `{COMMAND}` again."
    text = report.read_text(encoding="utf-8").split("\n", 2)[2]  # the accordion has the title
    return re.sub(r"!\[([^\]]*)\]\(([\w-]+\.svg)\)", lambda found: _picture(found, folder), text)


def _picture(found: re.Match[str], folder: Path) -> str:
    """The same picture at an address that this server answers."""
    path = folder / found[2]
    return f"![{found[1]}]({serve(path)})" if path.is_file() else ""
