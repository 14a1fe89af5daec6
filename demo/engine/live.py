"""The rows of one running batch, step by step: prefill, draw, run, release."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event as CancelFlag

import torch
from torch import Tensor

from demo.axis import AssistantAxis
from demo.capping import AxisHooks
from demo.engine.batch import RowBatch
from demo.engine.kv import BranchStore, RowCache
from demo.engine.protocol import Event
from demo.engine.row import Row, read_columns
from demo.models import LoadedModel


class LiveRows:
    """Branches that decode together. Events are complete lists, so that rows are consistent wherever a caller stops."""

    def __init__(
        self,
        model: LoadedModel,
        axis: AssistantAxis,
        rows: Sequence[Row],
        hooks: AxisHooks,
        store: BranchStore,
        buffers: RowCache | None = None,
    ) -> None:
        self.rows = list(rows)
        self.hooks = hooks
        self._axis = axis
        self._store = store
        self._batch = RowBatch(model, len(self.rows), buffers)
        self._logits = torch.empty(0)

    def prefill(self, chunk_size: int, cancel: CancelFlag) -> list[Event]:
        """Run the prompt tokens that no cache holds, `chunk_size` at a time; a PromptEvent per row.

        Cancelled, it gives each row's end event instead and leaves no rows.
        """
        rows, batch = self.rows, self._batch
        spare = max(row.limit for row in rows)
        left = batch.load([row.chat.ids for row in rows], [(row.cached, row.reused) for row in rows], spare)
        for row in rows:
            row.start_after(len(row.chat.ids) - left.shape[1])
        for chunk in left.split(chunk_size, dim=1):
            if cancel.is_set():
                self.rows = []
                return [row.end_event("cancelled") for row in rows]
            padding = batch.is_padding(chunk.shape[1])
            self.hooks.exempt = padding | self._template_text(chunk.shape[1])
            self._logits = batch.forward(chunk)
            before, _ = read_columns(self._axis, self.hooks)
            for row, values, skip in zip(rows, before, padding.sum(-1).tolist(), strict=True):
                row.before += values[skip:]
        return [row.prompt_event() for row in rows]

    def draw(self, cancel: CancelFlag) -> list[Event]:
        """Draw every row's next token; end events of the rows that are done or cancelled, which leave."""
        for row, logits in zip(self.rows, self._logits, strict=True):
            row.draw(logits)
        ended = [row for row in self.rows if row.wants_stop or cancel.is_set()]
        events: list[Event] = [row.end_event("stop" if row.wants_stop else "cancelled") for row in ended]
        self.release(ended)
        return events

    def step(self) -> list[Event]:
        """Run every row's drawn token; a TokenEvent per row. Rows at their limit leave."""
        if not self.rows:
            return []
        self.hooks.exempt = torch.tensor([[row.pending_is_special] for row in self.rows])
        self._logits = self._batch.forward(torch.tensor([[row.pending] for row in self.rows]))
        _, readings = read_columns(self._axis, self.hooks)
        events: list[Event] = [row.token_event(seen) for row, seen in zip(self.rows, readings, strict=True)]
        self.release([row for row in self.rows if row.is_full])
        return events

    def release(self, leaving: Sequence[Row]) -> None:
        """Store the KV caches of the rows that leave; the others go on."""
        if not leaving:
            return
        staying = [index for index, row in enumerate(self.rows) if row not in leaving]
        for index, row in enumerate(self.rows):
            if index not in staying and self._batch.width:
                self._store.put(row.request.branch, row.to_cache(*self._batch.row_cache(index)))
        if staying:
            self._batch.select(staying)
            self.hooks.select(staying)
            self._logits = self._logits[staying]
        self.rows = [self.rows[index] for index in staying]

    def _template_text(self, columns: int) -> Tensor:
        """[B, columns] bool for the next columns: template text and special tokens, which the clamp leaves alone."""
        start, pads = self._batch.width, self._batch.pad.tolist()
        owners = [[-1] * pad + row.chat.owner for row, pad in zip(self.rows, pads, strict=True)]
        return torch.tensor([[owner < 0 for owner in row[start : start + columns]] for row in owners])
