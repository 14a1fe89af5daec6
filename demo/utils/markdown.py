"""Markdown that reports are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


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
