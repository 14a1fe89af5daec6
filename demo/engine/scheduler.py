"""One scheduler owns the model: the sequences of all clients share its forward passes.

Each step frees what has been abandoned, reads a chunk of every chat that is only read, and then schedules,
runs and postprocesses one forward pass. A pass holds one token of every decoding sequence and some chunks of
`Capacity.chunk` prompt tokens of new ones, see `chunks_at_once`. A new prompt therefore delays the others by
a few chunks at a time, and no conversation waits for another to end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Condition, Lock, Thread, main_thread
from typing import Any

from demo.engine.forward.forward_pass import Chunk, ChunkReading
from demo.engine.kv_cache import SequenceCache, common_prefix
from demo.engine.prefix_cache import PrefixCache, plain_branch
from demo.engine.protocol import Event, Load
from demo.engine.request_group import ReadTask, RequestGroup, ResultQueue
from demo.engine.running_batch import RunningBatch
from demo.engine.sequence import Status, TokenSequence
from demo.engine.threads import Threads
from demo.utils.errors import UserError, explain_failure, nan_error

Scheduled = list[tuple[TokenSequence, Chunk]]

_IDLE_S = 1.0  # how long the engine's thread waits for more work before it ends
_PAUSE_S = 0.01  # how long it pauses when every client is behind
# With at least so many shared tokens, a sequence waits until another one has read them.
_WORTH_SHARING = 16
_STEPS_AHEAD = 16  # how many steps the scheduler may be ahead of a client
_LONG_PROMPT = 4  # in chunks; a longer prompt takes turns with the others
MOST_CHUNKS = 4  # in one pass
_LEAST_SHARE = 16  # tokens of a prompt that are worth a place in a pass, unless they are its first


def chunks_at_once(reading: int, decoding: int) -> int:
    """How many chunks of prompt tokens one forward pass holds.

    The more tokens a pass holds, the less time each takes, but whoever decodes waits for all of them. So a
    single new prompt takes one chunk beside others that decode, and more where nobody waits, or where many
    more groups wait for their first token than for their next one.

    Args:
        reading, decoding: groups whose prompts are being read, and that decode.
    """
    return max(1, min(MOST_CHUNKS, reading // decoding if decoding else MOST_CHUNKS))


def _with_the_same_prompt(sequences: Sequence[TokenSequence]) -> list[list[TokenSequence]]:
    """The sequences, those together that have read as much of the same prompt."""
    found: list[list[TokenSequence]] = []
    for sequence in sequences:
        for twins in found:
            if twins[0].tokens_run == sequence.tokens_run and twins[0].chat.ids == sequence.chat.ids:
                twins.append(sequence)
                break
        else:
            found.append([sequence])
    return found


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the scheduler may fill.

    Attributes:
        sequences: how many run at once, without those that only read along.
        kv_bytes: bytes of KV cache, of running sequences and kept between turns together.
        token_bytes: bytes that the cache holds of one token.
        state_bytes: bytes that it holds of a sequence of any length.
        chunk: prompt tokens in a forward pass that others wait for.
        most_chunks: in one forward pass.
        keep: whether anything is cached once a sequence has finished.
    """

    sequences: int
    kv_bytes: int
    token_bytes: int
    chunk: int
    keep: bool = True
    state_bytes: int = 0
    most_chunks: int = MOST_CHUNKS

    def needed(self, sequences: int, columns: int) -> int:
        """Bytes that so many sequences take with room for so many tokens altogether."""
        return columns * self.token_bytes + sequences * self.state_bytes


class Scheduler:
    """Decides what runs in each forward pass. Work may be submitted from any thread.

    Attributes:
        threads: chooses how many threads compute a pass; None to leave their number alone.
    """

    def __init__(
        self,
        batch: RunningBatch,
        cache: SequenceCache,
        prefix_cache: PrefixCache,
        capacity: Capacity,
        own_thread: bool,
        threads: Threads | None = None,
        turn: AbstractContextManager[None] | None = None,
    ) -> None:
        """Schedule `batch` within `capacity`.

        Args:
            own_thread: compute on a thread of the scheduler's own, which suits a server whose clients come
                and go. Without it, the clients that wait for a result do the work, one at a time, which
                suits a script.
            threads: see the attribute.
            turn: held during every step, where other engines run the same model; None where there is none.
        """
        self.batch, self.capacity = batch, capacity
        self._cache, self._prefix_cache = cache, prefix_cache
        self._own_thread, self.threads = own_thread, threads
        self._turn = turn or nullcontext()
        self._waiting: list[RequestGroup] = []  # first come, first served
        self._running: list[RequestGroup] = []
        self._reads: list[ReadTask] = []
        self._changed = Condition()
        self._stepping = Lock()
        self._thread: Thread | None = None

    # --- for clients

    def submit(self, work: ResultQueue[Any]) -> None:
        """Add work. Its queue receives the results."""
        with self._changed:
            if isinstance(work, RequestGroup):
                self._waiting.append(work)
            elif isinstance(work, ReadTask):
                self._reads.append(work)
            if not self._own_thread:
                work.pump = self._pump
            elif self._thread is None:
                self._thread = Thread(target=self._work, name="engine")
                self._thread.start()
            self._changed.notify()

    def forget(self, branches: Sequence[str]) -> None:
        """Drop what is cached for these branches, and cache nothing of those that still run."""
        with self._changed:
            named = [name for branch in branches for name in (branch, plain_branch(branch))]
            for group in [*self._waiting, *self._running]:
                group.discard.update(named)
        for name in named:
            self._prefix_cache.drop(name)

    @property
    def load(self) -> Load:
        """How busy the engine is."""
        with self._changed:
            waiting = sum(len(group.sequences) for group in self._waiting)
            held = self._cache.nbytes + self._prefix_cache.nbytes
            running = sum(sequence.leads for sequence in self.batch.sequences)
            return Load(running, waiting, held, self.capacity.kv_bytes)

    def release_abandoned(self) -> None:
        """Free the sequences of a client that has left.

        Where clients do the work, there may never be another client to do it. A client that is in a step
        frees the sequences when the step is done. This never blocks, because the garbage collector may
        close a stream in the middle of a step.
        """
        while not self._own_thread and self._abandoned() and self._stepping.acquire(blocking=False):
            try:
                self._guarded(self._end_abandoned)
            finally:
                self._stepping.release()

    # --- the thread that does the work

    def _pump(self) -> None:
        """One step on a client's thread. While another client is in a step, wait for it instead."""
        with self._stepping:
            if self._busy:
                with self._turn:
                    self._guarded(self._step)
        self.release_abandoned()

    def _work(self) -> None:
        # The thread ends with the main thread: the program must not end during a pass, and no client may wait
        # forever.
        while main_thread().is_alive():
            with self._changed:
                if not self._busy:
                    self._give_memory_back()
                    self._changed.wait(_IDLE_S)
                if not self._busy:
                    self._thread = None
                    return
            with self._turn:
                self._guarded(self._step)
        for work in [*self._waiting, *self._running, *self._reads]:
            work.fail(UserError("The program is closing."))

    @property
    def _busy(self) -> bool:
        return bool(self._waiting or self._running or self._reads)

    def _guarded(self, do: Callable[[], None]) -> None:
        """Run a step. An error that no sequence accounts for ends all groups: their state is then unknown."""
        try:
            do()
        except Exception as error:
            for group in [*self._waiting, *self._running]:
                self._fail(group, explain_failure(error))
            self._cache.fit([])

    # --- one step

    def _step(self) -> None:
        self._end_abandoned()
        self._continue_reads()
        scheduled = self._schedule()
        if scheduled:
            self._postprocess(*self._run(scheduled))
        elif any(group.can_decode for group in self._running):  # a copied prompt leaves nothing to run
            self._postprocess([], [])
        elif not self._reads and self._own_thread:
            time.sleep(_PAUSE_S)  # all clients are behind

    def _schedule(self) -> Scheduled:
        """Admit waiting groups, sample the next token of each decoding sequence, and choose what runs."""
        self._admit()
        # A group whose client has fallen behind pauses, so that a stop takes effect where the client is.
        decoding = [group for group in self._running if group.decoding and group.unread < _STEPS_AHEAD]
        self.batch.sample([sequence for group in decoding for sequence in group.sequences])
        for group in decoding:
            broken = [sequence for sequence in group.sequences if sequence.is_broken]
            if broken:
                self._end_broken(group, broken, nan_error())
            if group in self._running:
                stopped = [sequence for sequence in group.sequences if sequence.wants_stop]
                self._finish(group, stopped, [sequence.stop_event() for sequence in stopped])
        # Those that have just ended have no slots any more.
        goes_on = [group for group in decoding if group in self._running]
        tokens = [(sequence, sequence.token_chunk()) for group in goes_on for sequence in group.members]
        # In the order of their places, so that a pass reads the cache as it lies.
        tokens.sort(key=lambda work: self._cache.place(work[0].slot))
        return tokens + self._prompt_chunks()

    def _run(self, scheduled: Scheduled) -> tuple[Scheduled, list[ChunkReading]]:
        """Run one forward pass.

        After an error, the groups run one at a time, so that only those whose own part fails end. A key or
        value that is written twice is the same; a recurrent state would advance twice, so there all end.

        Returns:
            What was run, and its readings.
        """
        tokens = sum(len(chunk.ids) for _, chunk in scheduled)
        try:
            with self._timed(tokens):
                return scheduled, self.batch.run(scheduled)
        except Exception:
            if not self._cache.can_be_cut:
                raise
        ran: Scheduled = []
        readings: list[ChunkReading] = []
        for group in list(self._running):
            own = [work for work in scheduled if work[0] in group.members]
            for sequence, chunk in own:
                chunk.slot = sequence.slot  # another group's failure may have given it another one
            try:
                readings += self.batch.run(own) if own else []
                ran += own
            except Exception as error:
                self._fail(group, explain_failure(error))
        return ran, readings

    def _timed(self, tokens: int) -> AbstractContextManager[None]:
        """Around a pass of so many tokens: it runs with the number of threads that is fastest now."""
        return nullcontext() if self.threads is None else self.threads.step(tokens)

    def _postprocess(self, scheduled: Scheduled, readings: Sequence[ChunkReading]) -> None:
        """Turn the readings of the pass into events."""
        read = {id(sequence): reading for (sequence, _), reading in zip(scheduled, readings, strict=True)}
        results: list[tuple[RequestGroup, list[Event]]] = []
        # Every sequence is updated before any is removed: a removal moves others, and their cache slots must
        # then match their count of tokens run.
        for group in self._running:
            ran = [sequence for sequence in group.members if id(sequence) in read]
            if group.decoding:
                results.append((group, self._token_events(ran, read)))
                continue
            for sequence in ran:
                sequence.before += read[id(sequence)].before
                if self._may_keep(group, sequence):
                    self.batch.keep_state(sequence)
            if group.can_decode:
                group.decoding = True
                results.append((group, [sequence.prompt_event() for sequence in group.sequences]))
        for group, events in results:
            self._finish(group, [s for s in group.sequences if s.is_full and s.fault is None], events)
            broken = [sequence for sequence in group.sequences if sequence.fault is not None]
            if broken:
                self._end_broken(group, broken, broken[0].fault or nan_error())

    @staticmethod
    def _token_events(ran: Sequence[TokenSequence], read: dict[int, ChunkReading]) -> list[Event]:
        """The event of each sequence's token. A sequence that cannot make one is marked as broken."""
        events: list[Event] = []
        for sequence in ran:
            if not sequence.leads:
                sequence.run_pending(read[id(sequence)])
                if not math.isfinite(sequence.before[-1]):
                    sequence.fault = nan_error()  # its slot is then cleared, and nothing of it is kept
        for sequence in ran:
            if not sequence.leads:
                continue
            try:
                events.append(sequence.token_event(read[id(sequence)]))
            except Exception as error:
                sequence.fault = explain_failure(error)
        return events

    # --- admission

    def _admit(self) -> None:
        """Start waiting groups in order of arrival, while capacity allows."""
        while self._waiting:
            group = self._waiting[0]
            try:
                fits = self._fits(group)
            except UserError as error:
                self._fail(group, error)
                continue
            if not fits:
                break
            with self._changed:
                self._running.append(self._waiting.pop(0))
        for ahead, group in enumerate(self._waiting, start=1):
            group.report_ahead(ahead)

    def _fits(self, group: RequestGroup) -> bool:
        """Whether there is capacity for this group now. Cached prefixes are dropped to make room.

        Raises:
            UserError: the group exceeds the whole capacity.
        """
        running = [sequence for other in self._running for sequence in other.members]
        count = len(running) + len(group.members)
        answered = sum(sequence.leads for sequence in running) + len(group.sequences)
        lengths = [sequence.most_tokens for sequence in [*running, *group.members]]
        limit = self.capacity.kv_bytes
        needed = self.capacity.needed(count, self._cache.columns_of(lengths))
        if not running and needed > limit:
            plain = any(sequence.plain is not None for sequence in group.sequences)
            fewer = "turn off the reading without the cap, " if plain else ""
            raise UserError(
                f"This takes {needed / 2**30:.1f} GiB of KV cache and {limit / 2**30:.1f} GiB are allowed: "
                f"ask for shorter replies, {fewer}start a new chat, or start the program with a larger "
                "--kv-budget."
            )
        if running and (answered > self.capacity.sequences or needed > limit):
            return False
        # Allocated memory is reused, unless earlier sequences made it larger than the limit allows.
        held = self.capacity.needed(count, self._cache.columns_after(lengths))
        if held > limit:
            self._cache.fit(lengths)
            held = needed
        self._prefix_cache.set_budget(limit - held if self.capacity.keep else 0)
        # All at once: growing for one sequence after the other copies every layer's slots each time.
        self._cache.make_room(lengths)
        return True

    # --- prompts

    def _prompt_chunks(self) -> Scheduled:
        """Prompt tokens in order of arrival.

        A group decodes only when all its prompts have been read, so its sequences take turns. But a matrix
        product may round a row differently where a pass holds another number of rows: sequences with the
        same prompt, such as a pair, therefore read the same part of it in the same pass, and a cap that does
        not act changes no bit.
        """
        reading = [group for group in self._running if not group.decoding]
        if len(reading) > 1 and reading[0].prompt_left > _LONG_PROMPT * self.capacity.chunk:
            with self._changed:  # behind the others for the next chunk
                self._running.remove(reading[0])
                self._running.append(reading[0])
        chunks: Scheduled = []
        left = self.capacity.chunk * min(
            chunks_at_once(len(reading), len(self._running) - len(reading)), self.capacity.most_chunks
        )
        for group in reading:
            for sequence in group.waiting:
                if not self._prefix_is_being_read(sequence):
                    self.batch.add(sequence)
            ready = [s for s in group.members if s.status is Status.RUNNING and s.prompt_left]
            for twins in _with_the_same_prompt(ready):
                share = left // len(twins)
                if share >= _LEAST_SHARE or not chunks:
                    parts = [(sequence, sequence.prompt_chunk(max(share, 1))) for sequence in twins]
                    left -= sum(len(chunk.ids) for _, chunk in parts)
                    chunks += parts
        return chunks

    def _prefix_is_being_read(self, sequence: TokenSequence) -> bool:
        """Whether a running sequence is still reading this prompt, or a long common prefix of it."""
        return any(
            other.prompt_left
            and other.request.in_prompt == sequence.request.in_prompt
            and (
                other.reads_as(sequence)
                or common_prefix(other.chat.ids, sequence.chat.ids) >= other.tokens_run + _WORTH_SHARING
            )
            for other in self.batch.sequences
        )

    # --- endings

    def _finish(self, group: RequestGroup, sequences: Sequence[TokenSequence], events: list[Event]) -> None:
        """Send the events and remove these sequences. A group without sequences has ended."""
        for sequence in list(sequences):
            keep = self._may_keep(group, sequence)
            for member in (sequence, sequence.plain):
                if member is not None:
                    self.batch.remove(member, keep=keep and sequence.fault is None)
            group.sequences.remove(sequence)
            group.has_finished_one = True
        group.put(events)
        if not group.sequences:
            group.end()
            self._remove(group)

    def _end_broken(self, group: RequestGroup, broken: list[TokenSequence], error: BaseException) -> None:
        """End the sequences of a group that cannot go on. If no other is left, the whole group fails."""
        if len(broken) == len(group.sequences) and not group.has_finished_one:
            self._fail(group, error)
            return
        for sequence in broken:
            for member in (sequence, sequence.plain):
                if member is not None:
                    member.fault = error
        self._finish(group, broken, [sequence.failed_event(error) for sequence in broken])

    def _may_keep(self, group: RequestGroup, sequence: TokenSequence) -> bool:
        return self.capacity.keep and sequence.request.branch not in group.discard

    def _fail(self, group: RequestGroup, error: BaseException) -> None:
        for sequence in group.members:
            sequence.fault = error
            self.batch.remove(sequence, keep=False)
        self._remove(group)
        group.fail(error)

    def _remove(self, group: RequestGroup) -> None:
        with self._changed:
            (self._running if group in self._running else self._waiting).remove(group)

    def _abandoned(self) -> list[RequestGroup | ReadTask]:
        work: list[RequestGroup | ReadTask] = [*self._waiting, *self._running, *self._reads]
        return [one for one in work if one.abandoned or one.cancel.is_set()]

    def _end_abandoned(self) -> None:
        for work in self._abandoned():
            if isinstance(work, RequestGroup):
                self._finish(work, work.sequences, [])  # its queue reports the branches as cancelled
            else:
                self._end_read(work)

    def _give_memory_back(self) -> None:
        """Free the memory of a busy period once nothing runs."""
        if self._cache.nbytes > self.capacity.kv_bytes // 4:
            self._cache.fit([])

    # --- chats that are only read

    def _continue_reads(self) -> None:
        for task in list(self._reads):
            try:
                with self._timed(self.capacity.chunk):
                    chunk = next(task.chunks, None)
            except Exception as error:
                task.fail(explain_failure(error))
                chunk = None
            if chunk is not None:
                task.put([chunk])
            else:
                self._end_read(task)

    def _end_read(self, task: ReadTask) -> None:
        task.end()
        with self._changed:
            self._reads.remove(task)
