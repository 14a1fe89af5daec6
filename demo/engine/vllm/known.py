"""Projections of texts that were run before: what vLLM takes from its prefix cache is not run again, and so not read again."""

from __future__ import annotations

from collections import OrderedDict

from demo.engine.protocol import Intervention
from demo.engine.row import Row
from demo.engine.store import common_prefix


class KnownProjections:
    """The last text of every branch, under the intervention it was run under. most: tokens, all branches together; twice what vLLM's
    own cache can hold is more than it can ever give back."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._entries: OrderedDict[str, tuple[list[int], list[float], Intervention]] = OrderedDict()

    def put(self, row: Row) -> None:
        """A row has ended."""
        branch, ids = row.request.branch, (row.chat.ids + row.generated)[: row.ran]
        self.drop(branch)
        self._entries[branch] = (ids, row.before[: row.ran], row.request.intervention)
        self._held += len(ids)
        while self._held > self._most and self._entries:
            self.drop(next(iter(self._entries)))

    def of(self, row: Row) -> list[float]:
        """Axis units, before the clamp, of as much of the row's prompt as is known from its beginning."""
        best: list[float] = []
        for ids, before, under in self._entries.values():
            if under == row.request.intervention:
                shared = common_prefix(ids, row.chat.ids)
                if shared > len(best):
                    best = before[:shared]
        return best

    def drop(self, branch: str) -> None:
        gone = self._entries.pop(branch, None)
        self._held -= len(gone[0]) if gone else 0

    def clear(self) -> None:
        self._entries.clear()
        self._held = 0
