"""One worker owns the model: all visitors' rows share its forward passes.

Each turn of its loop lets those go that have ended, lets those in for whom there is room, draws a token for every row that
decodes, and runs one pass of all these tokens and at most `chunk` prompt tokens of newcomers. So a newcomer's prompt never holds
up the others for longer than one chunk takes, and nobody waits for another conversation to end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Lock, Thread, main_thread

from demo.engine.forward.forward_pass import Chunk, ChunkReading
from demo.engine.kv_cache import KVCache, PrefixCache, common_prefix
from demo.engine.protocol import Event, Load
from demo.engine.request_group import ReadTask, RequestGroup
from demo.engine.sequence import RunningBatch, TokenSequence
from demo.utils.errors import UserError, explain_failure, nan_error

_PATIENCE = 1.0  # seconds the worker waits for more before its thread ends

# From so many shared tokens on it pays to wait until another row has read them.
_WORTH_SHARING = 16

_PAUSE = 0.01  # seconds

_AHEAD = 16  # steps that the worker may be ahead of a reader

_LONG = 4  # chunks: a prompt that is longer takes turns with the others


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the worker may fill. rows: at once; kv_bytes: of KV cache, running and kept; token_bytes: of one token's keys and
    values at all layers; chunk: prompt tokens in one pass; keep: whether anything is kept once a row has ended."""

    rows: int
    kv_bytes: int
    token_bytes: int
    chunk: int
    keep: bool = True


class Scheduler:
    """Jobs may be submitted from any thread. own_thread: the work is done on a thread of the scheduler's, which serves readers
    that come and go; else by whichever reader waits, one at a time, which suits a script."""

    def __init__(
        self, running: RunningBatch, slots: KVCache, store: PrefixCache, room: Capacity, own_thread: bool
    ) -> None:
        self._running, self._slots, self._store, self._room = running, slots, store, room
        self._own_thread = own_thread
        self._queue: list[RequestGroup] = []  # not yet let in, first come first
        self._jobs: list[RequestGroup] = []
        self._readings: list[ReadTask] = []
        self._changed = Condition()
        self._at_work = Lock()
        self._thread: Thread | None = None

    def submit(self, work: RequestGroup | ReadTask) -> None:
        """Have it worked on; its outbox tells how it goes."""
        with self._changed:
            (self._queue if isinstance(work, RequestGroup) else self._readings).append(work)  # type: ignore[arg-type]
            if not self._own_thread:
                work.pump = self._pump
            elif self._thread is None:
                self._thread = Thread(target=self._work, name="engine")
                self._thread.start()
            self._changed.notify()

    def forget(self, branches: Sequence[str]) -> None:
        """Drop what is kept for these branches, also of rows that still run."""
        with self._changed:
            for job in [*self._queue, *self._jobs]:
                job.discard.update(branches)
        for branch in branches:
            self._store.drop(branch)

    @property
    def load(self) -> Load:
        with self._changed:
            waiting = sum(len(job.rows) for job in self._queue)
            held = self._slots.nbytes + self._store.nbytes
            return Load(len(self._running.rows), waiting, held, self._room.kv_bytes)

    def _pump(self) -> None:
        """One turn by a reader's thread, unless another is at it; then wait until that is done."""
        with self._at_work:
            if self._busy:
                self._step()
        self.sweep()

    def sweep(self) -> None:
        """A reader has left. Its rows go at once, for where readers do the work nobody else may ever come by; if one is at it, that
        one sweeps when it is done. Never waits: a stream may be closed by the garbage collector, in the middle of a step."""
        while not self._own_thread and self._abandoned() and self._at_work.acquire(blocking=False):
            try:
                self._safely(self._let_go)
            finally:
                self._at_work.release()

    def _abandoned(self) -> list[RequestGroup | ReadTask]:
        everything: list[RequestGroup | ReadTask] = [*self._queue, *self._jobs, *self._readings]
        return [work for work in everything if work.left or work.cancel.is_set()]

    def _let_go(self) -> None:
        for work in self._abandoned():
            if isinstance(work, RequestGroup):
                self._leave(work, work.rows, [])  # its outbox says the rest
            else:
                self._end(work)

    @property
    def _busy(self) -> bool:
        return bool(self._queue or self._jobs or self._readings)

    def _work(self) -> None:
        # The program ends when its main thread does: not in the middle of a product, and with no reader left waiting.
        while main_thread().is_alive():
            with self._changed:
                if not self._busy:
                    self._tidy()
                    self._changed.wait(_PATIENCE)
                if not self._busy:
                    self._thread = None
                    return
            self._step()
        for work in [*self._queue, *self._jobs, *self._readings]:
            work.fail(UserError("The program is closing."))

    def _step(self) -> None:
        self._safely(self._do)

    def _do(self) -> None:
        self._let_go()
        self._read_on()
        if not self._turn() and self._own_thread:
            time.sleep(_PAUSE)  # all readers are behind

    def _safely(self, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:
            # Whatever it was, rows are in an unknown state now; the next ones start clean.
            for job in [*self._queue, *self._jobs]:
                self._drop(job, explain_failure(error))
            self._slots.fit(0, 0)

    def _tidy(self) -> None:
        """Nobody runs: memory that a crowd needed is given back."""
        if self._slots.nbytes > self._room.kv_bytes // 4:
            self._slots.fit(0, 0)

    def _read_on(self) -> None:
        for reading in list(self._readings):
            try:
                part = next(reading.parts, None)
            except Exception as error:
                reading.fail(explain_failure(error))
                part = None
            if part is not None:
                reading.put([part])
            else:
                self._end(reading)

    def _end(self, reading: ReadTask) -> None:
        reading.end()
        with self._changed:
            self._readings.remove(reading)

    def _turn(self) -> bool:
        """One pass, unless there is nothing to run; whether there was."""
        self._let_in()
        # One whose reader has fallen behind pauses, so that a stop takes effect on what the reader sees.
        decoding = [job for job in self._jobs if job.decoding and job.unread < _AHEAD]
        self._running.draw([row for job in decoding for row in job.rows])
        for job in [job for job in decoding if any(row.is_broken for row in job.rows)]:
            decoding.remove(job)
            self._drop(job, nan_error())
        for job in decoding:
            stopped = [row for row in job.rows if row.wants_stop]
            self._leave(job, stopped, [row.stop_event() for row in stopped])
        work = [(row, row.token_part()) for job in decoding for row in job.rows] + self._prompt_parts()
        if work:
            self._took(work, self._running.run(work))
        return bool(work or self._readings)

    # --- who is in

    def _let_in(self) -> None:
        """Let jobs in, first come first served, while rows and memory allow."""
        while self._queue:
            job = self._queue[0]
            try:
                fits = self._fits(job)
            except UserError as error:
                self._drop(job, error)
                continue
            if not fits:
                break
            with self._changed:
                self._jobs.append(self._queue.pop(0))
        for ahead, job in enumerate(self._queue, start=1):
            job.say_ahead(ahead)

    def _fits(self, job: RequestGroup) -> bool:
        """Whether there is room for this job now. Kept caches make room for running rows. Raises UserError when there never is."""
        inside = [row for other in self._jobs for row in other.rows]
        count, columns = len(inside) + len(job.rows), self._running.columns([*inside, *job.rows])
        needed = count * columns * self._room.token_bytes
        if not inside and needed > self._room.kv_bytes:
            raise UserError(
                f"This takes {needed / 2**30:.1f} GiB of KV cache and {self._room.kv_bytes / 2**30:.1f} GiB are allowed: "
                "ask for shorter replies, start a new chat, or start the program with a larger --kv-budget."
            )
        if inside and (count > self._room.rows or needed > self._room.kv_bytes):
            return False
        # Memory that is there is used again, unless a row that has left made it too large for the rows of now.
        held = max(count, self._slots.slots) * max(columns, self._slots.columns) * self._room.token_bytes
        if held > self._room.kv_bytes:
            self._slots.fit(count, columns)
            held = needed
        self._store.set_budget(self._room.kv_bytes - held if self._room.keep else 0)
        return True

    def _leave(self, job: RequestGroup, rows: Sequence[TokenSequence], events: list[Event]) -> None:
        """These rows leave; a job without rows is done."""
        for row in list(rows):
            self._running.let_go(row, keep=self._room.keep and row.request.branch not in job.discard)
            job.rows.remove(row)
            if row in job.waiting:
                job.waiting.remove(row)
        job.put(events)
        if not job.rows:
            job.end()
            self._remove(job)

    def _drop(self, job: RequestGroup, error: BaseException) -> None:
        for row in job.rows:
            self._running.let_go(row, keep=False)
        self._remove(job)
        job.fail(error)

    def _remove(self, job: RequestGroup) -> None:
        with self._changed:
            (self._jobs if job in self._jobs else self._queue).remove(job)

    # --- what runs

    def _prompt_parts(self) -> list[tuple[TokenSequence, Chunk]]:
        """Up to a chunk of prompt tokens, first come first served; the rows of one job share evenly."""
        reading = [job for job in self._jobs if not job.decoding]
        if len(reading) > 1 and reading[0].prompt_left > _LONG * self._room.chunk:
            with self._changed:  # behind the others for the next chunk
                self._jobs.remove(reading[0])
                self._jobs.append(reading[0])
        parts: list[tuple[TokenSequence, Chunk]] = []
        left = self._room.chunk
        for job in reading:
            for row in list(job.waiting):
                if not self._is_being_read(row):
                    self._running.bring_in(row)
                    job.waiting.remove(row)
            ready = [row for row in job.rows if row.slot >= 0 and row.left]
            for index, row in enumerate(ready):
                share = -(-left // (len(ready) - index))
                if share > 0:
                    parts.append((row, row.prompt_part(share)))
                    left -= len(parts[-1][1].ids)
        return parts

    def _is_being_read(self, row: TokenSequence) -> bool:
        """Whether a running row is about to know a good part of this row's prompt."""
        return any(
            other.left
            and other.request.intervention == row.request.intervention
            and common_prefix(other.chat.ids, row.chat.ids) >= other.ran + _WORTH_SHARING
            for other in self._running.rows
        )

    def _took(self, work: Sequence[tuple[TokenSequence, Chunk]], readings: Sequence[ChunkReading]) -> None:
        """A pass is done: tell everyone what it showed."""
        seen = {id(row): reading for (row, _), reading in zip(work, readings, strict=True)}
        said: list[tuple[RequestGroup, list[Event]]] = []
        # All rows first: those that leave make others move, and a row must by then know what is in its slot.
        for job in self._jobs:
            if job.decoding:
                said.append((job, [row.token_event(seen[id(row)]) for row in job.rows if id(row) in seen]))
                continue
            for row in job.rows:
                if id(row) in seen:
                    row.before += seen[id(row)].before
            if not job.waiting and not job.prompt_left:
                job.decoding = True
                said.append((job, [row.prompt_event() for row in job.rows]))
        for job, events in said:
            self._leave(job, [row for row in job.rows if row.is_full], events)
