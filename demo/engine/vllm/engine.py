"""The engine on vLLM: for models that need several GPUs or machines, and for rooms that outgrow one process.

vLLM runs all rows of all visitors in its own batches; the workers cap, read and draw (recorder.py, draw.py). Here requests go in,
and what comes out of order and row by row becomes the events that every engine gives. See `protocol.Engine`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from threading import Event as CancelFlag

from demo.axis.axis import AssistantAxis
from demo.engine.protocol import Events, Load, ReadToken, Request, capped_layers, check_layers, room_left
from demo.engine.reader import Speller
from demo.engine.request_group import ReadTask, RequestGroup
from demo.engine.sequence import TokenSequence, Vocabulary, said_before
from demo.engine.vllm.client import VllmClient
from demo.engine.vllm.options import VllmOptions
from demo.engine.vllm.recorder import SequencePlan
from demo.engine.vllm.request import VllmRead, VllmSequence
from demo.engine.vllm.scheduler import VllmScheduler
from demo.engine.vllm.self_test import run_self_test
from demo.models.chat_template import RenderedChat, render_chat
from demo.models.loading import ModelFacts


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
        # One token stays free: vLLM draws one more than is shown, which runs the last.
        self._context = min(model.context, self.options.context or model.context) - 1
        self._numbers = itertools.count()
        self.core = VllmClient(model, axis, self.options, run_self_test)
        self.core.start()
        self.desk = VllmScheduler(self.core, self.options.rows)

    @property
    def load(self) -> Load:
        """How busy it is. kv_bytes: of running rows; what the prefix cache keeps beside them, vLLM gives back when it must."""
        running, waiting, tokens = self.desk.counts
        size = self.model.token_bytes
        return Load(running, waiting, tokens * size, self.core.tokens * size)

    def stream(self, requests: Sequence[Request], cancel: CancelFlag | None = None) -> Events:
        """Answer all requests in step. Raises UserError at once when a prompt does not fit the context window, a cap names layers
        the model lacks, or vLLM is not there."""
        self.core.require()
        check_layers(requests, self.model.layer_count)
        layers = capped_layers(requests)
        lines = [self._line(request, layers) for request in requests]
        return self._follow(RequestGroup([line.row for line in lines], cancel or CancelFlag()), lines)

    def _follow(self, job: RequestGroup, lines: list[VllmSequence]) -> Events:
        if not job.rows:
            return
        self.core.loop.call_soon_threadsafe(self.desk.submit, job, lines)
        try:
            yield from job.items()
        finally:
            job.left = True

    def read(self, request: Request, cancel: CancelFlag | None = None) -> Iterator[list[ReadToken]]:
        """Read the finished chat `request.messages` under the request's intervention. Raises UserError at once when it does not
        fit the context window or vLLM is not there."""
        self.core.require()
        chat = render_chat(self.model.tokenizer, request.messages, reply_next=False)
        room_left(len(chat.ids), self._context)
        check_layers([request], self.model.layer_count)
        plan = self._plan(request, chat, every_layer=True)
        line = VllmRead(chat.ids, chat.owner, plan, self.axis, Speller(self.model.tokenizer))
        return self._follow_reading(ReadTask(iter(()), cancel or CancelFlag()), line)

    def _follow_reading(self, reading: ReadTask, line: VllmRead) -> Iterator[list[ReadToken]]:
        self.core.loop.call_soon_threadsafe(self.desk.submit_reading, reading, line)
        try:
            yield from reading.items()
        finally:
            reading.left = True

    def forget(self, branches: Sequence[str]) -> None:
        """Drop what is remembered of these branches. Their keys and values stay in vLLM's cache until others need the room."""
        self.core.loop.call_soon_threadsafe(self.desk.forget, list(branches))

    # --- requests

    def _line(self, request: Request, layers: tuple[int, ...]) -> VllmSequence:
        chat = render_chat(self.model.tokenizer, request.messages)
        limit = min(request.sampling.max_new_tokens, room_left(len(chat.ids), self._context))
        row = TokenSequence(request, chat, limit, self._vocabulary, layers)
        return VllmSequence(row, self._plan(request, chat), self.axis)

    def _plan(self, request: Request, chat: RenderedChat, every_layer: bool = False) -> SequencePlan:
        cap, steer = request.cap, request.steer
        return SequencePlan(
            id=f"row-{next(self._numbers)}",
            exempt=bytes(owner < 0 for owner in chat.owner),
            sampling=request.sampling,
            layers=cap.layers if cap else (),
            floors=cap.floors if cap else (),
            steer=(steer.layer, steer.alpha) if steer else None,
            every_layer=every_layer,
            said=tuple(said_before(request, chat)),
            barred=self._barred,
        )
