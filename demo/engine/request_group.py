"""What the scheduler works through: jobs that arrive from visitors' threads and answer through queues."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from queue import SimpleQueue
from threading import Event as CancelFlag
from typing import Any, Generic, TypeVar

from demo.engine.protocol import Event, WaitEvent, ended
from demo.engine.sequence import TokenSequence

T = TypeVar("T")


class ResultQueue(Generic[T]):
    """Carries what the worker made to the one who asked. Putting never waits, so a slow or vanished reader holds up nobody."""

    def __init__(self, cancel: CancelFlag) -> None:
        self.cancel = cancel
        self.left = False  # set when nobody reads any more
        # Called while nothing is there, where no worker's thread fills the box.
        self.pump: Callable[[], None] | None = None
        self._queue: SimpleQueue[list[T] | BaseException | None] = SimpleQueue()

    def put(self, items: list[T]) -> None:
        if items:
            self._queue.put(items)

    def fail(self, error: BaseException) -> None:
        self._queue.put(error)

    def end(self) -> None:
        self._queue.put(None)

    @property
    def unread(self) -> int:
        """How many times something was put that nobody has taken yet."""
        return self._queue.qsize()

    def items(self) -> Generator[T, None, None]:
        """What was put, until the end or until it is cancelled; raises what failed."""
        while (got := self._next()) is not None:
            if isinstance(got, BaseException):
                raise got
            for item in got:
                if self.cancel.is_set():
                    return
                yield item

    def _next(self) -> list[T] | BaseException | None:
        while self.pump is not None and self._queue.empty():
            self.pump()
        return self._queue.get()


class RequestGroup(ResultQueue[Event]):
    """Rows that are answered in step: no row's first token comes before all prompts have been read, and each step gives a token
    of every row."""

    def __init__(self, rows: Sequence[TokenSequence], cancel: CancelFlag) -> None:
        super().__init__(cancel)
        self.rows = list(rows)  # those that have not ended
        self.waiting = list(rows)  # of these, those without a slot
        self.decoding = False
        self.discard: set[str] = set()  # branches whose caches nobody wants any more
        self._ahead = 0

    def items(self) -> Generator[Event, None, None]:
        """The events. Cancelled, no more tokens follow, also none that were made by then, and each branch that has not ended
        ends so."""
        yield from ended(super().items(), {row.request.branch: len(row.chat.ids) for row in self.rows})

    def say_ahead(self, ahead: int) -> None:
        """Tell how many jobs come first, when that has changed."""
        if ahead != self._ahead:
            self._ahead = ahead
            self.put([WaitEvent(ahead)])

    @property
    def prompt_left(self) -> int:
        """Prompt tokens still to run, all rows together."""
        return sum(row.left for row in self.rows)


class ReadTask(ResultQueue[Any]):
    """A finished chat that is read part by part between the steps of the others."""

    def __init__(self, parts: Iterator[Any], cancel: CancelFlag) -> None:
        super().__init__(cancel)
        self.parts = parts
