"""The engine on vLLM: for models that need several GPUs or machines, and for rooms that outgrow one process.

vLLM runs all rows of all visitors in its own batches; the workers cap, read and draw (recorder.py, draw.py). Here requests go in,
and what comes out of order and row by row becomes the events that every engine gives. See `protocol.Engine`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from threading import Event as CancelFlag

from demo.axis import AssistantAxis
from demo.engine.job import Job, Reading
from demo.engine.protocol import Events, Load, ReadToken, Request
from demo.engine.reader import Speller
from demo.engine.row import Row, Vocabulary
from demo.engine.vllm.check import check_cap
from demo.engine.vllm.core import Core, VllmDied
from demo.engine.vllm.known import KnownProjections
from demo.engine.vllm.line import Line, ReadLine
from demo.engine.vllm.options import VllmOptions
from demo.engine.vllm.plan import RowPlan
from demo.errors import UserError
from demo.model_facts import ModelFacts
from demo.spans import RenderedChat, render_chat

_LOOK = 0.05  # seconds between looks whether somebody has cancelled, while nothing arrives
_DIED = "The model's process ended in the middle of this reply; the conversation is kept. It is starting again: send the message once more in a moment."


class VllmEngine:
    """Streams replies of many branches from a vLLM engine. See `protocol.Engine`.

    fixed_length: never draw an end-of-turn token (for benchmarks).
    """

    def __init__(
        self,
        model: ModelFacts,
        axis: AssistantAxis,
        options: VllmOptions | None = None,
        fixed_length: bool = False,
    ) -> None:
        """Loads the model in vLLM's own processes and makes sure that the cap acts there. Raises UserError."""
        self.model, self.axis, self.options = model, axis, options or VllmOptions()
        stops = model.stops
        self._barred = tuple(sorted(stops)) if fixed_length else ()
        self._vocabulary = Vocabulary(
            model.tokenizer, stops, frozenset(model.tokenizer.all_special_ids), self._barred
        )
        self._context = min(model.context, self.options.context or model.context)
        self._numbers = itertools.count()
        # All of these are touched on the core's loop only.
        self._queue: list[tuple[Job, list[Line]]] = []
        self._jobs: list[tuple[Job, list[Line]]] = []
        self._lines: dict[str, Line] = {}
        self._reads: dict[str, tuple[Reading, ReadLine]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._pump: asyncio.Task[None] | None = None
        self.core = Core(model, axis, self.options, check_cap)
        self.core.start()
        self.known = KnownProjections(2 * self.core.tokens)
        self._news = self.core.run(_event()).result()

    @property
    def load(self) -> Load:
        """How busy it is. kv_bytes: of running rows; what the prefix cache keeps beside them, vLLM gives back when it must."""
        held = sum(line.row.ran for line in list(self._lines.values()))
        waiting = sum(len(lines) for _, lines in list(self._queue))
        size = self.model.token_bytes
        return Load(len(self._lines), waiting, held * size, self.core.tokens * size)

    def stream(self, requests: Sequence[Request], cancel: CancelFlag | None = None) -> Events:
        """Answer all requests in step. Raises UserError at once when a prompt does not fit the context window, a cap names layers
        the model lacks, or vLLM is not there."""
        self.core.require()
        self._check_layers(requests)
        layers = tuple(sorted({layer for r in requests if r.cap for layer in r.cap.layers}))
        lines = [self._line(request, layers) for request in requests]
        return self._follow(Job([line.row for line in lines], cancel or CancelFlag()), lines)

    def _follow(self, job: Job, lines: list[Line]) -> Events:
        if not job.rows:
            return
        self.core.loop.call_soon_threadsafe(self._submit, job, lines)
        try:
            yield from job.items()
        finally:
            job.left = True

    def read(self, request: Request, cancel: CancelFlag | None = None) -> Iterator[list[ReadToken]]:
        """Read the finished chat `request.messages` under the request's intervention. Raises UserError at once when it does not
        fit the context window or vLLM is not there."""
        self.core.require()
        chat = render_chat(self.model.tokenizer, request.messages, reply_next=False)
        self._check_room(len(chat.ids))
        self._check_layers([request])
        plan = self._plan(request, chat, every_layer=True)
        line = ReadLine(chat.ids, chat.owner, plan, self.axis, Speller(self.model.tokenizer))
        return self._follow_reading(Reading(iter(()), cancel or CancelFlag()), line)

    def _follow_reading(self, reading: Reading, line: ReadLine) -> Iterator[list[ReadToken]]:
        self.core.loop.call_soon_threadsafe(self._submit_reading, reading, line)
        try:
            yield from reading.items()
        finally:
            reading.left = True

    def forget(self, branches: Sequence[str]) -> None:
        """Drop what is remembered of these branches. Their keys and values stay in vLLM's cache until others need the room."""
        self.core.loop.call_soon_threadsafe(self._forget, list(branches))

    # --- requests

    def _line(self, request: Request, layers: tuple[int, ...]) -> Line:
        chat = render_chat(self.model.tokenizer, request.messages)
        limit = min(request.sampling.max_new_tokens, self._check_room(len(chat.ids)))
        row = Row(request, chat, limit, self._vocabulary, layers)
        return Line(row, self._plan(request, chat), self.axis)

    def _plan(self, request: Request, chat: RenderedChat, every_layer: bool = False) -> RowPlan:
        roles = [message["role"] for message in request.messages]
        said = dict.fromkeys(
            t for t, o in zip(chat.ids, chat.owner, strict=True) if o >= 0 and roles[o] == "assistant"
        )
        cap, steer = request.cap, request.steer
        return RowPlan(
            id=f"row-{next(self._numbers)}",
            exempt=bytes(owner < 0 for owner in chat.owner),
            sampling=request.sampling,
            layers=cap.layers if cap else (),
            floors=cap.floors if cap else (),
            steer=(steer.layer, steer.alpha) if steer else None,
            every_layer=every_layer,
            said=tuple(said),
            barred=self._barred,
        )

    def _check_room(self, tokens: int) -> int:
        """How many more tokens the context window holds. One stays free: vLLM draws one more than is shown, which runs the last."""
        room = self._context - tokens - 1
        if room < 1:
            raise UserError(
                f"This conversation is {tokens} tokens long, but the model holds {self._context}: "
                "start a new chat or send a shorter message."
            )
        return room

    def _check_layers(self, requests: Sequence[Request]) -> None:
        count = self.model.layer_count
        touched = {layer for request in requests if request.cap for layer in request.cap.layers}
        touched |= {request.steer.layer for request in requests if request.steer}
        if not all(0 <= layer < count for layer in touched):
            raise UserError(f"The model has decoder layers 0 to {count - 1}; choose a band within them.")

    # --- on the core's loop

    def _submit(self, job: Job, lines: list[Line]) -> None:
        self._queue.append((job, lines))
        self._wake()

    def _submit_reading(self, reading: Reading, line: ReadLine) -> None:
        self._reads[line.plan.id] = (reading, line)
        self._tasks[line.plan.id] = asyncio.ensure_future(self._run_reading(reading, line))
        self._wake()

    def _forget(self, branches: list[str]) -> None:
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
                continue
            self._news.clear()
            try:
                await self._collect()
                for job, lines in list(self._jobs):
                    self._advance(job, lines)
            except Exception as error:
                self._fail_all(error)

    async def _collect(self) -> None:
        records, drawn = await self.core.drain()
        for id_, step, _, probability in drawn:
            if id_ in self._lines:
                self._lines[id_].take_drawn(step, probability)
        for id_, start, told in records:
            if id_ in self._lines:
                self._lines[id_].take_record(start, told)
            elif id_ in self._reads:
                reading, line = self._reads[id_]
                reading.put([line.part(start, told)])

    def _let_in(self) -> None:
        """First come, first served, while there are rows left. What vLLM's memory has no room for waits there."""
        while self._queue:
            job, lines = self._queue[0]
            if self._jobs and len(self._lines) + len(lines) > self.options.rows:
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

    async def _run(self, job: Job, line: Line) -> None:
        """Feed a line from vLLM, which draws one token more than is wanted so that the last one is run."""
        try:
            async for step in self.core.steps(line.row.chat.ids, line.plan, line.row.limit + 1):
                line.take_step(step)
                self._news.set()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._fail(job, error)

    async def _run_reading(self, reading: Reading, line: ReadLine) -> None:
        try:
            async for _ in self.core.steps(line.ids, line.plan, 1, read_cache=False):
                await self._collect()
        except asyncio.CancelledError:
            pass
        except Exception as error:
            reading.fail(_told(error))
        finally:
            reading.end()
            self._reads.pop(line.plan.id, None)
            self._tasks.pop(line.plan.id, None)

    def _advance(self, job: Job, lines: list[Line]) -> None:
        """Give all events that what has arrived allows, one token of every row at a time."""
        if not job.decoding:
            if not all(line.begun for line in lines):
                return
            job.put([line.prompt_event() for line in lines])
            job.decoding = True
        while lines:
            if not all(line.draw() for line in lines):
                return
            stopped = [line for line in lines if line.row.wants_stop]
            job.put([line.row.stop_event() for line in stopped])
            self._leave(job, lines, stopped)
            if not all(line.was_run for line in lines):
                return
            job.put([line.token_event() for line in lines])
            self._leave(job, lines, [line for line in lines if line.row.is_full])

    def _leave(self, job: Job, lines: list[Line], leaving: Sequence[Line] | None = None) -> None:
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

    def _drop(self, line: Line) -> None:
        self._lines.pop(line.plan.id, None)
        task = self._tasks.pop(line.plan.id, None)
        if task is not None:
            task.cancel()

    def _remove(self, job: Job) -> None:
        self._jobs = [entry for entry in self._jobs if entry[0] is not job]
        self._queue = [entry for entry in self._queue if entry[0] is not job]

    def _fail(self, job: Job, error: Exception) -> None:
        for other, lines in [*self._jobs, *self._queue]:
            if other is job:
                for line in lines:
                    self._drop(line)
                self._remove(job)
                job.fail(_told(error))

    def _fail_all(self, error: Exception) -> None:
        for job, _ in [*self._jobs, *self._queue]:
            self._fail(job, error)


async def _event() -> asyncio.Event:
    return asyncio.Event()


def _told(error: Exception) -> Exception:
    return UserError(_DIED) if isinstance(error, VllmDied) else error
