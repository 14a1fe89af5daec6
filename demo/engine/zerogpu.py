"""The transformers engine on a ZeroGPU Space, where each call runs in a forked worker process with a GPU.

Outside of such a Space the decorator does nothing, and this engine is the transformers engine
without a cache between turns. It cannot share forward passes between visitors, because each call
has a worker of its own, and it cannot keep a conversation's KV cache, so each turn reads its whole
history. See `protocol.Engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from threading import Event as CancelFlag
from threading import Lock
from typing import Any

from demo.axis.axis import AssistantAxis
from demo.axis.directions import Direction
from demo.engine.protocol import Event, Events, Load, ReadToken, Request, with_endings
from demo.engine.transformers_engine import DEFAULT_KV_BUDGET, TransformersEngine
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError

# Seconds of GPU time to ask for. What is asked for counts towards a visitor's daily quota.
_MAX_SECONDS = 120
_SECONDS_PER_TOKEN = 0.05
_SECONDS_PER_CALL = 10.0

# What a worker yields: an event, a chunk of a finished chat, or the message of a UserError. Other
# exceptions lose their message on the way out of the worker.
WorkerItem = Any


class ZeroGpuEngine:
    """Runs each call of the transformers engine in a worker with a GPU. See `protocol.Engine`."""

    def __init__(
        self,
        model: LoadedModel,
        axis: AssistantAxis,
        gpu: Callable[..., Any],
        kv_budget: int = DEFAULT_KV_BUDGET,
        directions: Mapping[str, Direction] | None = None,
    ) -> None:
        """Prepare the workers.

        Args:
            gpu: The decorator `spaces.GPU`.
            directions: Those along which requests may read, cap and steer besides the axis.
        """
        self.model, self.axis = model, axis
        self.directions = directions or {}
        self.reads_plain = True
        self.conditional_caps = True
        # The workers inherit it. In this process it only checks requests.
        self._engine = TransformersEngine(
            model, axis, kv_budget=kv_budget, keep=False, directions=self.directions
        )
        self._stream = gpu(duration=_seconds)(self._stream_in_worker)
        self._read = gpu(duration=_seconds)(self._read_in_worker)
        self._running, self._lock = 0, Lock()

    @property
    def load(self) -> Load:
        """The running sequences. Their memory belongs to the workers and is not counted."""
        return Load(self._running, 0, 0, 0)

    def stream(self, requests: Sequence[Request], cancel: CancelFlag | None = None) -> Events:
        """Answer all requests in step.

        Raises:
            UserError: At once, when a prompt does not fit or a cap names layers that the model does not have.
        """
        self._engine.stream(requests)  # checks them and runs nothing
        events = self._items(self._stream(list(requests)), len(requests), cancel or CancelFlag())
        return with_endings(events, {request.branch: 0 for request in requests})

    def read(self, request: Request, cancel: CancelFlag | None = None) -> Iterator[list[ReadToken]]:
        """Read a finished chat. Raises UserError at once when it does not fit."""
        self._engine.read(request)  # checks it and runs nothing
        return self._items(self._read([request]), 0, cancel or CancelFlag())

    def forget(self, branches: Sequence[str]) -> None:
        """Do nothing, because nothing is kept."""

    def _items(
        self, worker: Generator[WorkerItem, None, None], sequences: int, cancel: CancelFlag
    ) -> Iterator[Any]:
        """What a worker yields. Closing this generator stops the worker, and so does a cancel."""
        with self._lock:
            self._running += sequences
        try:
            for item in worker:
                if isinstance(item, str):
                    raise UserError(item)
                if cancel.is_set():
                    return
                yield item
        finally:
            worker.close()
            with self._lock:
                self._running -= sequences

    def _stream_in_worker(self, requests: list[Request]) -> Generator[Event | str, None, None]:
        try:
            yield from self._engine.stream(requests)
        except UserError as error:
            yield str(error)

    def _read_in_worker(self, requests: list[Request]) -> Generator[list[ReadToken] | str, None, None]:
        try:
            yield from self._engine.read(requests[0])
        except UserError as error:
            yield str(error)


def _seconds(requests: list[Request]) -> float:
    """How much GPU time to ask for."""
    tokens = max(request.sampling.max_new_tokens for request in requests)
    return min(_MAX_SECONDS, _SECONDS_PER_CALL + _SECONDS_PER_TOKEN * tokens)
