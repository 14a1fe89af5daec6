"""What can be checked in the documents: code blocks, commands, links, and names of files and functions."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from demo.utils.paths import ROOT

DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<key>needs|run by): (?P<value>[^\n]+?) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w+)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_ASSIGNMENT = re.compile(r"[A-Z_]+=.*", re.DOTALL)
_LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)")
_REFERENCE = re.compile(r"`((?:demo|tests|assets|docs|axes|examples)/[\w./-]+|app\.py)`(?: `(\w+)`)?")


@dataclass(frozen=True)
class Block:
    """A code block of a document.

    Attributes:
        needs: What a comment before the block says that its commands need; empty for none.
        run_by: The test that a comment before the block names, as FILE::TEST; empty for none.
    """

    document: str
    language: str
    code: str
    needs: str
    run_by: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command, without comments, variables and redirections."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [command for line in lines for command in split(shlex.split(line, comments=True)) if command]


@dataclass(frozen=True)
class Reference:
    """A file that a document names in backticks, and a name in it, or ""."""

    document: str
    path: str
    name: str

    def fault(self) -> str | None:
        """What is wrong with it; None if the file exists and defines the name."""
        path = ROOT / self.path
        if not path.exists():
            return f"{self.document}: there is no {self.path}"
        if self.name and not defines(path.read_text(encoding="utf-8"), self.name):
            return f"{self.document}: {self.path} does not define {self.name}"
        return None


def blocks(document: Path) -> Iterator[Block]:
    """The code blocks of a document that name a language."""
    for found in _BLOCK.finditer(document.read_text(encoding="utf-8")):
        comment = {found["key"]: found["value"]}
        code = textwrap.dedent(found["code"])
        name = str(document.relative_to(ROOT))
        yield Block(name, found["language"], code, comment.get("needs", ""), comment.get("run by", ""))


def links(document: Path) -> Iterator[tuple[Path, str]]:
    """The relative links of a document: the file that each leads to, and its anchor or ""."""
    text = re.sub(
        r"^( *)```.*?^\1```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    for target in _LINK.findall(text):
        if not target.startswith(("http://", "https://")):
            path, _, anchor = target.partition("#")
            yield (document.parent / path).resolve() if path else document, anchor


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def references(document: Path) -> list[Reference]:
    """The files that a document names in backticks; `FILE` `NAME` also names something in the file."""
    text, name = document.read_text(encoding="utf-8"), str(document.relative_to(ROOT))
    return [Reference(name, path, inside) for path, inside in _REFERENCE.findall(text)]


def defines(source: str, name: str) -> bool:
    """Whether Python or JavaScript source defines a function, class, field or constant of this name."""
    definition = (
        rf"(?:\b(?:def|class|function|const)\s+{name}\b)|(?:^\s*[\w, ]*\b{name}\b[\w, ]*\s*(?:[:=]|\())"
    )
    return re.search(definition, source, re.MULTILINE) is not None


def split(words: list[str]) -> Iterator[list[str]]:
    """The commands of one line, without variables and redirections."""
    for is_end, group in groupby(words, lambda word: word == "&&"):
        if not is_end:
            command = list(group)
            while command and _ASSIGNMENT.fullmatch(command[0]):
                command.pop(0)
            yield command[: command.index(">")] if ">" in command else command
