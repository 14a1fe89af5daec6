"""The transformers engine on a ZeroGPU Space, where a GPU is lent for the length of a call to a forked worker process.

Off such a Space the decorator does nothing, and this engine is the transformers engine with nothing kept between turns. See
`protocol.Engine`. What it cannot do: share a forward pass between visitors (each call has a worker of its own) and keep a
conversation's KV cache (each turn reads its history anew).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from threading import Event as CancelFlag
from threading import Lock
from typing import Any

from demo.axis.axis import AssistantAxis
from demo.engine.protocol import Event, Events, Load, ReadToken, Request, ended
from demo.engine.transformers_engine import DEFAULT_KV_BUDGET, TransformersEngine
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError

# Seconds of GPU time that a call may take: a visitor's daily share goes by what is asked for here.
_LONGEST = 120

_PER_TOKEN, _PER_CALL = 0.05, 10.0

# What a worker gives: an event, a part of a reading, or the sentence of a UserError (others lose their text on the way).
Given = Any


class ZeroGpuEngine:
    """lend: `spaces.GPU`."""

    def __init__(
        self,
        model: LoadedModel,
        axis: AssistantAxis,
        lend: Callable[..., Any],
        kv_budget: int = DEFAULT_KV_BUDGET,
    ) -> None:
        self.model, self.axis = model, axis
        # Inherited by the worker processes; here it only checks requests.
        self._own = TransformersEngine(model, axis, kv_budget=kv_budget, keep=False)
        self._stream = lend(duration=_seconds)(self._in_worker)
        self._read = lend(duration=_seconds)(self._read_in_worker)
        self._running, self._lock = 0, Lock()

    @property
    def load(self) -> Load:
        """Replies being written. Their memory is the workers' affair."""
        return Load(self._running, 0, 0, 0)

    def stream(self, requests: Sequence[Request], cancel: CancelFlag | None = None) -> Events:
        """Answer all requests in step. Raises UserError at once when a prompt does not fit or a cap names layers the model lacks."""
        self._own.stream(requests)  # looks at them and runs nothing
        events = self._lent(self._stream(list(requests)), len(requests), cancel or CancelFlag())
        return ended(events, {request.branch: 0 for request in requests})

    def read(self, request: Request, cancel: CancelFlag | None = None) -> Iterator[list[ReadToken]]:
        """Read a finished chat. Raises UserError at once when it does not fit."""
        self._own.read(request)
        return self._lent(self._read([request]), 0, cancel or CancelFlag())

    def forget(self, branches: Sequence[str]) -> None:
        """Nothing is kept."""

    def _lent(self, given: Generator[Given, None, None], rows: int, cancel: CancelFlag) -> Iterator[Any]:
        """What a worker gives; closing it, which a cancel does, stops the worker."""
        with self._lock:
            self._running += rows
        try:
            for item in given:
                if isinstance(item, str):
                    raise UserError(item)
                if cancel.is_set():
                    return
                yield item
        finally:
            given.close()
            with self._lock:
                self._running -= rows

    def _in_worker(self, requests: list[Request]) -> Generator[Event | str, None, None]:
        try:
            yield from self._own.stream(requests)
        except UserError as error:
            yield str(error)

    def _read_in_worker(self, requests: list[Request]) -> Generator[list[ReadToken] | str, None, None]:
        try:
            yield from self._own.read(requests[0])
        except UserError as error:
            yield str(error)


def _seconds(requests: list[Request]) -> float:
    """How long a call may take."""
    return min(_LONGEST, _PER_CALL + _PER_TOKEN * max(r.sampling.max_new_tokens for r in requests))
