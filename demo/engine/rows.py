"""The rows that are running, all visitors' together: brought in, drawn for, run in one pass, let go."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from demo.engine.passes import Forward, Part, PartReading
from demo.engine.row import Row
from demo.engine.sampling import draw_rows
from demo.engine.slots import Slots, rounded_up
from demo.engine.store import BranchStore, common_prefix


class RunningRows:
    """Rows with a slot each. One thread at a time."""

    def __init__(self, forward: Forward, store: BranchStore, slots: Slots) -> None:
        self.rows: list[Row] = []
        self._forward, self._store, self._slots = forward, store, slots

    def columns(self, rows: Sequence[Row]) -> int:
        """Columns that a slot needs so that each of these rows and of those that run can reach its end."""
        return max((rounded_up(len(row.chat.ids) + row.limit) for row in [*self.rows, *rows]), default=0)

    def bring_in(self, row: Row) -> None:
        """Give a row a slot, and whatever of its prompt is known already: from its own last turn, from another branch that began
        alike, or from a row that is running now."""
        row.slot = len(self.rows)
        self._slots.reserve(len(self.rows) + 1, self.columns([row]))
        # At least one token must run, for its logits.
        most = len(row.chat.ids) - 1
        entry, kept = self._store.longest(row.request.branch, row.chat.ids, row.request.intervention)
        kept = min(kept, most)
        other, shared = self._alike(row)
        shared = min(shared, most)
        if other is not None and shared > kept:
            self._slots.copy(other.slot, row.slot, shared)
            row.reused, row.before = shared, other.before[:shared]
        elif entry is not None and kept:
            self._slots.load(row.slot, entry, kept)
            row.start_after(entry, kept)
        self.rows.append(row)

    def _alike(self, row: Row) -> tuple[Row | None, int]:
        """The running row whose text so far shares most with this row's prompt, under the same intervention."""
        best, most = None, 0
        for other in self.rows:
            if other.request.intervention == row.request.intervention:
                said = (other.chat.ids + other.generated)[: other.ran]
                shared = common_prefix(said, row.chat.ids)
                if shared > most:
                    best, most = other, shared
        return best, most

    def draw(self, rows: Sequence[Row]) -> None:
        """Draw the next token of every row that has logits."""
        ready = [row for row in rows if row.logits is not None]
        if ready:
            logits = torch.stack([row.logits for row in ready if row.logits is not None])
            drawn = draw_rows(logits, [row.draw() for row in ready])
            for row, token, probability in zip(ready, *drawn, strict=True):
                row.take(token, probability)

    def run(self, work: Sequence[tuple[Row, Part]]) -> list[PartReading]:
        """One forward pass; every row whose part ends its text so far then has logits."""
        parts = [part for _, part in work]
        logits, readings = self._forward.run(parts, self._slots)
        lines = iter(logits)
        for row, part in work:
            if part.last:
                row.logits = next(lines)
        return readings

    def let_go(self, row: Row, *, keep: bool) -> None:
        """Free the row's slot; keep: its cache goes to the store."""
        if row in self.rows:
            self.rows.remove(row)
            if keep and row.ran:
                self._store.put(row.request.branch, row.to_cache(*self._slots.saved(row.slot, row.ran)))
            self._close_up()

    def _close_up(self) -> None:
        """Move rows down into free slots, so that a pass looks at no more of them than there are rows."""
        free = sorted(set(range(len(self.rows))) - {row.slot for row in self.rows})
        high = [row for row in self.rows if row.slot >= len(self.rows)]
        for slot, row in zip(free, high, strict=True):
            self._slots.copy(row.slot, slot, row.ran)
            row.slot = slot
