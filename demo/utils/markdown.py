"""Markdown: tables, and the blocks of a document that a command writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from demo.utils.errors import UserError


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """The lines of a table.

    Raises:
        ValueError: A row has another length than the head.
    """
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"{row} does not fit under {head}")
        yield "| " + " | ".join(map(str, row)) + " |"


def block(name: str, by: str, statements: str) -> str:
    """Statements in a document that the command `by` writes, between two comments that name the block."""
    begin, end = _markers(name, by)
    return f"{begin}\n{statements}\n{end}"


def replaced(document: str, name: str, by: str, statements: str) -> str:
    """The document with new content in its block. Raises UserError without the comments around it."""
    begin, end = _markers(name, by)
    if begin not in document or end not in document:
        raise UserError(f"The document lacks the line {begin!r} or {end!r}; put both back.")
    before, _, rest = document.partition(begin)
    return before + block(name, by, statements) + rest.partition(end)[2]


def _markers(name: str, by: str) -> tuple[str, str]:
    return f"<!-- {name}: {by} -->", f"<!-- end of {name} -->"
