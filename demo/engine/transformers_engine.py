"""The engine on transformers: the uncapped and the capped reply are rows of the same forward pass."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from threading import Event as CancelFlag

from demo.axis.axis import AssistantAxis
from demo.axis.components import probe_components
from demo.engine.forward.forward_pass import Probe
from demo.engine.forward.selection import choose_forward
from demo.engine.kv_cache import KVCache, PrefixCache
from demo.engine.protocol import Events, Load, ReadToken, Request, capped_layers, check_layers, room_left
from demo.engine.reader import read_chat
from demo.engine.request_group import ReadTask, RequestGroup
from demo.engine.scheduler import Capacity, Scheduler
from demo.engine.sequence import RunningBatch, TokenSequence, Vocabulary
from demo.models.chat_template import render_chat
from demo.models.loading import LoadedModel

DEFAULT_KV_BUDGET = 2 * 1024**3

DEFAULT_ROWS = 128

# Between two passes those who decode wait, so one chunk must take well under a second.
_PREFILL_CHUNK_CPU, _PREFILL_CHUNK_GPU = 128, 2048


class TransformersEngine:
    """Streams replies of many branches from one model, each row with its own floors. See `protocol.Engine`.

    kv_budget: bytes of KV cache, of running rows and kept between turns, all visitors together, None for no bound; rows: that run at once, the others
    wait; fixed_length: never draw an end-of-turn token, so that every reply reaches its limit (for benchmarks); lean: False for
    transformers' own modules even where there is a faster way; own_thread: compute on one thread of the engine's, for a server whose
    threads come and go (each that computes would have a team of helpers of its own, and the teams get in each other's way). keep: False to keep
    nothing between turns. Streams of any number of threads share the forward passes either way.
    """

    def __init__(
        self,
        model: LoadedModel,
        axis: AssistantAxis,
        kv_budget: int | None = DEFAULT_KV_BUDGET,
        fixed_length: bool = False,
        rows: int = DEFAULT_ROWS,
        lean: bool = True,
        own_thread: bool = False,
        keep: bool = True,
    ) -> None:
        self.model = model
        self.axis = axis
        budget = sys.maxsize if kv_budget is None else kv_budget
        self.store = PrefixCache(budget if keep else 0)
        components = probe_components(axis, model.device)
        watch = Probe(model, axis, None if components is None else components.place)
        self.forward = choose_forward(model, watch, lean)
        self._watch = watch
        stops = model.stops
        barred = tuple(sorted(stops)) if fixed_length else ()
        self._vocabulary = Vocabulary(
            model.tokenizer, stops, frozenset(model.tokenizer.all_special_ids), barred
        )
        self._chunk = _PREFILL_CHUNK_CPU if model.device.type == "cpu" else _PREFILL_CHUNK_GPU
        slots = KVCache(len(model.layers))
        room = Capacity(rows, budget, model.token_bytes, self._chunk, keep)
        self._scheduler = Scheduler(
            RunningBatch(self.forward, self.store, slots), slots, self.store, room, own_thread
        )

    @property
    def load(self) -> Load:
        """How busy it is."""
        return self._scheduler.load

    def stream(self, requests: Sequence[Request], cancel: CancelFlag | None = None) -> Events:
        """Answer all requests in step: a PromptEvent per row, then a TokenEvent per row and step; before them WaitEvents while
        there is no room.

        Raises UserError at once, before anything runs, when a prompt does not fit the context window or a cap names layers
        the model lacks. Closing the iterator, or setting `cancel`, frees the rows within one step.
        """
        check_layers(requests, len(self.model.layers))
        layers = capped_layers(requests)
        rows = [self._row(request, layers) for request in requests]
        return self._follow(RequestGroup(rows, cancel or CancelFlag()))

    def _follow(self, job: RequestGroup) -> Events:
        if not job.rows:
            return
        self._scheduler.submit(job)
        try:
            yield from job.items()
        finally:
            job.left = True
            self._scheduler.sweep()

    def read(self, request: Request, cancel: CancelFlag | None = None) -> Iterator[list[ReadToken]]:
        """Read the finished chat `request.messages` under the request's intervention, a prefill chunk at a time.

        Raises UserError at once when the chat does not fit the context window.
        """
        chat = render_chat(self.model.tokenizer, request.messages, reply_next=False)
        room_left(len(chat.ids) - 1, self.model.context)
        check_layers([request], len(self.model.layers))
        flag = cancel or CancelFlag()
        parts = read_chat(self.model, self.axis, chat, self._watch, request, self._chunk)
        return self._follow_reading(ReadTask(parts, flag))

    def _follow_reading(self, reading: ReadTask) -> Iterator[list[ReadToken]]:
        self._scheduler.submit(reading)
        try:
            yield from reading.items()
        finally:
            reading.left = True
            self._scheduler.sweep()

    def forget(self, branches: Sequence[str]) -> None:
        """Drop the KV caches of these branches."""
        self._scheduler.forget(branches)

    def _row(self, request: Request, layers: tuple[int, ...]) -> TokenSequence:
        chat = render_chat(self.model.tokenizer, request.messages)
        limit = min(request.sampling.max_new_tokens, room_left(len(chat.ids), self.model.context))
        return TokenSequence(request, chat, limit, self._vocabulary, layers)
