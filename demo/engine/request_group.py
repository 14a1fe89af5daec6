"""The scheduler's work: request groups and reads.

Work arrives from the clients' threads, and its results return to them through queues.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from queue import SimpleQueue
from threading import Event as CancelFlag
from typing import Any, Generic, TypeVar

from demo.engine.protocol import Event, WaitEvent, with_endings
from demo.engine.sequence import Status, TokenSequence

T = TypeVar("T")


class ResultQueue(Generic[T]):
    """Carries results from the scheduler to the client.

    Putting never blocks, so a slow client does not delay the others.

    Attributes:
        cancel: set by the client to end the work within one step.
        abandoned: set when the client no longer reads the results.
        pump: called while the queue is empty, to produce results where the engine has no thread of its own.
    """

    def __init__(self, cancel: CancelFlag) -> None:
        self.cancel = cancel
        self.abandoned = False
        self.pump: Callable[[], None] | None = None
        self._queue: SimpleQueue[list[T] | BaseException | None] = SimpleQueue()

    def put(self, items: list[T]) -> None:
        """Add results."""
        if items:
            self._queue.put(items)

    def fail(self, error: BaseException) -> None:
        """End with an error, which the client's iterator raises."""
        self._queue.put(error)

    def end(self) -> None:
        """End without an error."""
        self._queue.put(None)

    @property
    def unread(self) -> int:
        """How many lists of results the client has not read yet."""
        return self._queue.qsize()

    def items(self) -> Generator[T, None, None]:
        """The results, until the work ends or is cancelled. Raises the error that ended it, if any."""
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
    """Sequences that are answered in step.

    No sequence generates its first token before all prompts of the group have been read, and each step
    generates one token of every sequence.

    Attributes:
        sequences: the sequences that have not finished; those that only read along are `members` too.
        decoding: whether all prompts have been read.
        discard: branches that are not to be cached when they finish.
        has_finished_one: whether a sequence has ended, well or not.
    """

    def __init__(self, sequences: Sequence[TokenSequence], cancel: CancelFlag) -> None:
        super().__init__(cancel)
        self.sequences = list(sequences)
        self.decoding = False
        self.discard: set[str] = set()
        self.has_finished_one = False
        self._ahead = 0

    def items(self) -> Generator[Event, None, None]:
        """The events. After a cancel, each branch that has not finished ends as cancelled."""
        positions = {sequence.request.branch: len(sequence.chat.ids) for sequence in self.sequences}
        yield from with_endings(super().items(), positions)

    def report_ahead(self, ahead: int) -> None:
        """Tell the client how many groups come first, if that has changed."""
        if ahead != self._ahead:
            self._ahead = ahead
            self.put([WaitEvent(ahead)])

    @property
    def members(self) -> list[TokenSequence]:
        """All sequences that need a cache slot: each one, and behind it the one that reads along."""
        return [one for own in self.sequences for one in (own, own.plain) if one is not None]

    @property
    def waiting(self) -> list[TokenSequence]:
        """Members without a cache slot."""
        return [sequence for sequence in self.members if sequence.status is Status.WAITING]

    @property
    def can_decode(self) -> bool:
        """Whether all its prompts have just been read."""
        return not self.decoding and not self.waiting and not self.prompt_left

    @property
    def prompt_left(self) -> int:
        """Prompt tokens still to be run, all members together."""
        return sum(sequence.prompt_left for sequence in self.members)


class ReadTask(ResultQueue[Any]):
    """A finished chat that is read chunk by chunk between the steps of the request groups."""

    def __init__(self, chunks: Iterator[Any], cancel: CancelFlag) -> None:
        super().__init__(cancel)
        self.chunks = chunks
