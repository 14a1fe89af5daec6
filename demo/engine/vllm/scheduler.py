"""Schedules requests on vLLM and turns what it returns into events.

vLLM batches the sequences itself. This module decides which request groups are running, collects
tokens and records for each sequence, and keeps the sequences of a group in step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from demo.engine.request_group import ReadTask, RequestGroup
from demo.engine.sampling import Choice
from demo.engine.vllm.client import VllmClient, VllmDied
from demo.engine.vllm.recorder import Record, SampledToken
from demo.engine.vllm.request import PromptProjections, VllmRead, VllmSequence
from demo.utils.errors import UserError, nan_error

_POLL = 0.05  # seconds between looks at the cancel flags while nothing arrives

_DIED = (
    "The model's process ended in the middle of this reply; the conversation is kept. "
    "It is starting again: send the message once more in a moment."
)


class VllmScheduler:
    """Runs request groups and reads finished chats on vLLM.

    All methods must be called on the client's event loop. Only `counts` may be read from any thread.
    """

    def __init__(self, client: VllmClient, max_sequences: int) -> None:
        """max_sequences: How many sequences may run at once."""
        self._client, self._max_sequences = client, max_sequences
        # Twice what vLLM's own cache holds, which is more than it can ever reuse.
        self._known = PromptProjections(2 * client.tokens)
        self._waiting: list[tuple[RequestGroup, list[VllmSequence]]] = []
        self._running: list[tuple[RequestGroup, list[VllmSequence]]] = []
        self._sequences: dict[str, VllmSequence] = {}  # those that are running, by request id
        self._reads: dict[str, tuple[ReadTask, VllmRead]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._loop_task: asyncio.Task[None] | None = None
        self._changed, self._collecting = client.run(_event_and_lock()).result()

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many sequences are running, how many are waiting, and how many tokens the running ones hold."""
        running, waiting = list(self._sequences.values()), list(self._waiting)
        return (
            len(running),
            sum(len(sequences) for _, sequences in waiting),
            sum(sequence.state.tokens_run for sequence in running),
        )

    def submit(self, group: RequestGroup, sequences: list[VllmSequence]) -> None:
        """Answer a group of requests."""
        self._waiting.append((group, sequences))
        self._wake()

    def submit_read(self, task: ReadTask, read: VllmRead) -> None:
        """Read a finished chat."""
        self._reads[read.plan.id] = (task, read)
        self._tasks[read.plan.id] = asyncio.ensure_future(self._run_read(task, read))
        self._wake()

    def forget(self, branches: list[str]) -> None:
        """Drop what is kept of these branches, also of those that are still running."""
        for group, _ in [*self._waiting, *self._running]:
            group.discard.update(branches)
        for branch in branches:
            self._known.drop(branch)

    def _wake(self) -> None:
        self._changed.set()
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.ensure_future(self._loop())

    async def _loop(self) -> None:
        """Schedule, run and postprocess until there is nothing left to do."""
        while self._waiting or self._running or self._reads:
            self._remove_cancelled()
            self._schedule()
            try:
                await asyncio.wait_for(self._changed.wait(), _POLL)
            except asyncio.TimeoutError:
                if not self._reads:  # a long chat yields records before vLLM returns anything
                    continue
            self._changed.clear()
            try:
                await self._collect()
            except Exception as error:
                self._fail_all(error)
            for group, sequences in list(self._running):
                try:
                    self._postprocess(group, sequences)
                except Exception as error:
                    self._fail(group, error)

    # --- schedule

    def _schedule(self) -> None:
        """Start waiting groups in order of arrival while sequences are free.

        vLLM queues by itself what its memory has no room for.
        """
        while self._waiting:
            group, sequences = self._waiting[0]
            if self._running and len(self._sequences) + len(sequences) > self._max_sequences:
                break
            self._running.append(self._waiting.pop(0))
            for sequence in sequences:
                sequence.known = self._known.of(sequence.state)
                self._sequences[sequence.plan.id] = sequence
                self._tasks[sequence.plan.id] = asyncio.ensure_future(self._run(group, sequence))
        for ahead, (group, _) in enumerate(self._waiting, start=1):
            group.report_ahead(ahead)

    def _remove_cancelled(self) -> None:
        for group, sequences in [*self._waiting, *self._running]:
            if group.abandoned or group.cancel.is_set():
                self._finish(group, sequences, sequences)
        for request, (task, _) in list(self._reads.items()):
            if task.abandoned or task.cancel.is_set():
                self._tasks[request].cancel()

    # --- run

    async def _run(self, group: RequestGroup, sequence: VllmSequence) -> None:
        # One token more than is shown, so that vLLM also runs the last one that is.
        tokens = sequence.state.limit + 1
        try:
            async for step in self._client.steps(sequence.state.chat.ids, sequence.plan, tokens):
                sequence.add_step(step)
                self._changed.set()
        except Exception as error:
            self._fail(group, error)

    async def _run_read(self, task: ReadTask, read: VllmRead) -> None:
        try:
            async for _ in self._client.steps(read.chat.ids, read.plan, 1, read_cache=False):
                await self._collect()
                self._changed.set()  # this may have collected records of other requests as well
        except asyncio.CancelledError:
            pass
        except Exception as error:
            task.fail(_readable(error))
        finally:
            task.end()
            self._reads.pop(read.plan.id, None)
            self._tasks.pop(read.plan.id, None)

    async def _collect(self) -> None:
        # One call at a time: when the lock is free, everything recorded before has been handed out.
        async with self._collecting:
            records, sampled = await self._client.drain()
            self._hand_out(records, sampled)

    def _hand_out(self, records: list[Record], sampled: list[SampledToken]) -> None:
        for request, step, token, probability, likeliest in sampled:
            if request in self._sequences:
                choice = Choice(token, probability, tuple((one, chance) for one, chance in likeliest))
                self._sequences[request].add_choice(step, choice)
        for request, start, columns in records:
            if request in self._sequences:
                self._sequences[request].add_record(start, columns)
            elif request in self._reads:
                task, read = self._reads[request]
                task.put([read.read_tokens(start, columns)])

    # --- postprocess

    def _postprocess(self, group: RequestGroup, sequences: list[VllmSequence]) -> None:
        """Emit all events for which everything has arrived, one token of every sequence at a time."""
        if not group.decoding:
            if not all(sequence.prompt_is_recorded for sequence in sequences):
                return
            group.put([sequence.prompt_event() for sequence in sequences])
            group.decoding = True
        while sequences:
            if not all(sequence.take_token() for sequence in sequences):
                return
            if any(sequence.state.is_broken for sequence in sequences):
                raise nan_error()
            stopped = [sequence for sequence in sequences if sequence.state.wants_stop]
            group.put([sequence.state.stop_event() for sequence in stopped])
            self._finish(group, sequences, stopped)
            if not all(sequence.token_is_recorded for sequence in sequences):
                return
            group.put([sequence.token_event() for sequence in sequences])
            self._finish(group, sequences, [sequence for sequence in sequences if sequence.state.is_full])

    def _finish(
        self, group: RequestGroup, sequences: list[VllmSequence], finished: Sequence[VllmSequence]
    ) -> None:
        """End some of a group's sequences; a group without sequences ends too."""
        for sequence in list(finished):
            sequences.remove(sequence)
            group.sequences.remove(sequence.state)
            self._drop(sequence)
            if sequence.state.tokens_run and sequence.state.request.branch not in group.discard:
                self._known.put(sequence.state)
        if not sequences:
            group.end()
            self._remove(group)

    def _drop(self, sequence: VllmSequence) -> None:
        self._sequences.pop(sequence.plan.id, None)
        task = self._tasks.pop(sequence.plan.id, None)
        if task is not None:
            task.cancel()

    def _remove(self, group: RequestGroup) -> None:
        self._running = [entry for entry in self._running if entry[0] is not group]
        self._waiting = [entry for entry in self._waiting if entry[0] is not group]

    def _fail(self, group: RequestGroup, error: Exception) -> None:
        for other, sequences in [*self._running, *self._waiting]:
            if other is group:
                for sequence in sequences:
                    self._drop(sequence)
                self._remove(group)
                group.fail(_readable(error))

    def _fail_all(self, error: Exception) -> None:
        for group, _ in [*self._running, *self._waiting]:
            self._fail(group, error)


async def _event_and_lock() -> tuple[asyncio.Event, asyncio.Lock]:
    """Created on the loop that uses them."""
    return asyncio.Event(), asyncio.Lock()


def _readable(error: Exception) -> Exception:
    """The error that the user sees."""
    return UserError(_DIED) if isinstance(error, VllmDied) else error
