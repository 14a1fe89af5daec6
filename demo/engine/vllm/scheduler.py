"""All that runs on vLLM now: which rows are in, what has come of each, who waits. Everything here happens on the core's loop, but for
what says otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from demo.engine.request_group import ReadTask, RequestGroup
from demo.engine.vllm.client import VllmClient, VllmDied
from demo.engine.vllm.recorder import Record, SampledToken
from demo.engine.vllm.request import PromptProjections, VllmRead, VllmSequence
from demo.utils.errors import UserError, nan_error

_LOOK = 0.05  # seconds between looks whether somebody has cancelled, while nothing arrives

_DIED = "The model's process ended in the middle of this reply; the conversation is kept. It is starting again: send the message once more in a moment."


class VllmScheduler:
    """rows: that run at once."""

    def __init__(self, core: VllmClient, rows: int) -> None:
        self._core, self._rows = core, rows
        # Twice what vLLM's own cache can hold is more than it can ever give back.
        self.known = PromptProjections(2 * core.tokens)
        self._queue: list[tuple[RequestGroup, list[VllmSequence]]] = []
        self._jobs: list[tuple[RequestGroup, list[VllmSequence]]] = []
        self._lines: dict[str, VllmSequence] = {}
        self._reads: dict[str, tuple[ReadTask, VllmRead]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._pump: asyncio.Task[None] | None = None
        self._news, self._collecting = core.run(_signals()).result()

    @property
    def counts(self) -> tuple[int, int, int]:
        """Rows that run, rows that wait, tokens of those that run. From any thread."""
        running, queue = list(self._lines.values()), list(self._queue)
        return len(running), sum(len(lines) for _, lines in queue), sum(line.row.ran for line in running)

    def submit(self, job: RequestGroup, lines: list[VllmSequence]) -> None:
        self._queue.append((job, lines))
        self._wake()

    def submit_reading(self, reading: ReadTask, line: VllmRead) -> None:
        self._reads[line.plan.id] = (reading, line)
        self._tasks[line.plan.id] = asyncio.ensure_future(self._run_reading(reading, line))
        self._wake()

    def forget(self, branches: list[str]) -> None:
        for job, _ in [*self._queue, *self._jobs]:
            job.discard.update(branches)
        for branch in branches:
            self.known.drop(branch)

    def _wake(self) -> None:
        self._news.set()
        if self._pump is None or self._pump.done():
            self._pump = asyncio.ensure_future(self._work())

    async def _work(self) -> None:
        """While there is anything to do: collect what the workers saw and turn it into events."""
        while self._queue or self._jobs or self._reads:
            self._let_go_cancelled()
            self._let_in()
            try:
                await asyncio.wait_for(self._news.wait(), _LOOK)
            except asyncio.TimeoutError:
                if not self._reads:  # of a long chat parts are there before vLLM says anything
                    continue
            self._news.clear()
            try:
                await self._collect()
            except Exception as error:
                self._fail_all(error)
            for job, lines in list(self._jobs):
                try:
                    self._advance(job, lines)
                except Exception as error:
                    self._fail(job, error)

    async def _collect(self) -> None:
        # One at a time: who has waited for it has everything that was seen before.
        async with self._collecting:
            records, drawn = await self._core.drain()
            self._hand_out(records, drawn)

    def _hand_out(self, records: list[Record], drawn: list[SampledToken]) -> None:
        for id_, step, _, probability in drawn:
            if id_ in self._lines:
                self._lines[id_].take_drawn(step, probability)
        for id_, start, explain_failure in records:
            if id_ in self._lines:
                self._lines[id_].take_record(start, explain_failure)
            elif id_ in self._reads:
                reading, line = self._reads[id_]
                reading.put([line.part(start, explain_failure)])

    def _let_in(self) -> None:
        """First come, first served, while there are rows left. What vLLM's memory has no room for waits there."""
        while self._queue:
            job, lines = self._queue[0]
            if self._jobs and len(self._lines) + len(lines) > self._rows:
                break
            self._jobs.append(self._queue.pop(0))
            for line in lines:
                line.known = self.known.of(line.row)
                self._lines[line.plan.id] = line
                self._tasks[line.plan.id] = asyncio.ensure_future(self._run(job, line))
        for ahead, (job, _) in enumerate(self._queue, start=1):
            job.say_ahead(ahead)

    def _let_go_cancelled(self) -> None:
        for job, lines in [*self._queue, *self._jobs]:
            if job.left or job.cancel.is_set():
                self._leave(job, lines)
        for id_, (reading, _) in list(self._reads.items()):
            if reading.left or reading.cancel.is_set():
                self._tasks[id_].cancel()

    async def _run(self, job: RequestGroup, line: VllmSequence) -> None:
        """Feed a line from vLLM, which draws one token more than is wanted so that the last one is run."""
        try:
            async for step in self._core.steps(line.row.chat.ids, line.plan, line.row.limit + 1):
                line.take_step(step)
                self._news.set()
        except Exception as error:
            self._fail(job, error)

    async def _run_reading(self, reading: ReadTask, line: VllmRead) -> None:
        try:
            async for _ in self._core.steps(line.ids, line.plan, 1, read_cache=False):
                await self._collect()
                self._news.set()  # for others, of whom something may have come with it
        except asyncio.CancelledError:
            pass
        except Exception as error:
            reading.fail(_told(error))
        finally:
            reading.end()
            self._reads.pop(line.plan.id, None)
            self._tasks.pop(line.plan.id, None)

    def _advance(self, job: RequestGroup, lines: list[VllmSequence]) -> None:
        """Give all events that what has arrived allows, one token of every row at a time."""
        if not job.decoding:
            if not all(line.prompt_read for line in lines):
                return
            job.put([line.prompt_event() for line in lines])
            job.decoding = True
        while lines:
            if not all(line.draw() for line in lines):
                return
            if any(line.row.is_broken for line in lines):
                raise nan_error()
            stopped = [line for line in lines if line.row.wants_stop]
            job.put([line.row.stop_event() for line in stopped])
            self._leave(job, lines, stopped)
            if not all(line.was_run for line in lines):
                return
            job.put([line.token_event() for line in lines])
            self._leave(job, lines, [line for line in lines if line.row.is_full])

    def _leave(
        self, job: RequestGroup, lines: list[VllmSequence], leaving: Sequence[VllmSequence] | None = None
    ) -> None:
        """These lines end, or all of them; a job without lines is done."""
        for line in list(lines if leaving is None else leaving):
            lines.remove(line)
            job.rows.remove(line.row)
            self._drop(line)
            if line.row.ran and line.row.request.branch not in job.discard:
                self.known.put(line.row)
        if not lines:
            job.end()
            self._remove(job)

    def _drop(self, line: VllmSequence) -> None:
        self._lines.pop(line.plan.id, None)
        task = self._tasks.pop(line.plan.id, None)
        if task is not None:
            task.cancel()

    def _remove(self, job: RequestGroup) -> None:
        self._jobs = [entry for entry in self._jobs if entry[0] is not job]
        self._queue = [entry for entry in self._queue if entry[0] is not job]

    def _fail(self, job: RequestGroup, error: Exception) -> None:
        for other, lines in [*self._jobs, *self._queue]:
            if other is job:
                for line in lines:
                    self._drop(line)
                self._remove(job)
                job.fail(_told(error))

    def _fail_all(self, error: Exception) -> None:
        for job, _ in [*self._jobs, *self._queue]:
            self._fail(job, error)


async def _signals() -> tuple[asyncio.Event, asyncio.Lock]:
    return asyncio.Event(), asyncio.Lock()


def _told(error: Exception) -> Exception:
    return UserError(_DIED) if isinstance(error, VllmDied) else error
