"""The engine on transformers: the uncapped and the capped reply are sequences of the same forward pass."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import Event as CancelFlag
from typing import TypeVar

from demo.axis.axis import AssistantAxis
from demo.axis.components import probe_components
from demo.axis.directions import Direction
from demo.engine.forward.forward_pass import ActivationRecorder, Beside, Probe
from demo.engine.forward.selection import choose_forward, memory_of
from demo.engine.prefix_cache import PrefixCache, plain_branch
from demo.engine.protocol import (
    Events,
    Load,
    ReadToken,
    Request,
    capped_layers,
    check_directions,
    check_layers,
    room_left,
)
from demo.engine.reader import read_chat
from demo.engine.request_group import ReadTask, RequestGroup, ResultQueue
from demo.engine.running_batch import RunningBatch
from demo.engine.scheduler import MOST_CHUNKS, Capacity, Scheduler
from demo.engine.sequence import TokenSequence, vocabulary_of
from demo.engine.threads import threads_for
from demo.models.chat_template import RenderedChat, render_chat
from demo.models.loading import LoadedModel

DEFAULT_KV_BUDGET = 2 * 1024**3
DEFAULT_SEQUENCES = 128
# Prompt tokens in a chunk. Decoding sequences wait while a chunk runs, so it must take well under a second.
_CHUNK_CPU, _CHUNK_GPU = 128, 2048

T = TypeVar("T")


class TransformersEngine:
    """Generates replies of many branches from one model, each with its own floors. See `protocol.Engine`.

    The streams of any number of threads share the forward passes.

    Attributes:
        directions: further directions by name, along which requests may read, cap and steer.
        reads_plain: `Request.plain` has an effect.
        conditional_caps: a cap may have `only_below`.
        prefix_cache: the sequences of branches between turns.
        forward: the forward pass in use.
        scheduler: decides what runs.
    """

    reads_plain = True
    conditional_caps = True

    def __init__(
        self,
        model: LoadedModel,
        axis: AssistantAxis,
        kv_budget: int | None = DEFAULT_KV_BUDGET,
        fixed_length: bool = False,
        sequences: int = DEFAULT_SEQUENCES,
        fused: bool = True,
        own_thread: bool = False,
        keep: bool = True,
        chunk: int | None = None,
        stops: frozenset[int] | None = None,
        reproducible: bool = False,
        directions: Mapping[str, Direction] | None = None,
        states: bool = True,
    ) -> None:
        """Put an engine on a loaded model.

        Args:
            kv_budget: bytes of KV cache, of running sequences and kept between turns together; None for no
                limit.
            fixed_length: never sample an end-of-turn token, so that every reply reaches its limit (for
                benchmarks).
            sequences: how many run at once; further ones wait.
            fused: False for transformers' own modules even where there is a faster forward pass.
            own_thread: compute on one thread of the engine's own, for a server whose threads come and go.
                Each thread that computes keeps a pool of helper threads, and several pools slow each other
                down.
            keep: False to keep nothing between turns.
            chunk: prompt tokens in a forward pass that others wait for; None for what suits the device.
            stops: ids that end a reply; None for the model's own.
            reproducible: compute the same bits in every process on this machine, at some cost in speed.
            directions: those along which requests may read, cap and steer besides the axis.
            states: measure the mean state of every reply, and its shift since the first one.
        """
        self.model = model
        self.axis = axis
        budget = sys.maxsize if kv_budget is None else kv_budget
        self.prefix_cache = PrefixCache(budget if keep else 0)
        self.directions = directions or {}
        components = probe_components(axis, model.device)
        beside = Beside(axis.probe_layer, components, self.directions, states)
        self._probe = Probe(model, axis, beside, self.directions)
        self.forward = choose_forward(model, self._probe, fused, reproducible)
        self.vocabulary = vocabulary_of(model, stops, fixed_length)
        chunk = chunk or (_CHUNK_CPU if model.device.type == "cpu" else _CHUNK_GPU)
        cache = self.forward.new_cache()
        batch = RunningBatch(self.forward, self.prefix_cache, cache)
        with model.turn:
            token_bytes, state_bytes = memory_of(model, self.forward)
            threads = threads_for(model, self.forward)
        # A GPU's chunk is long enough to be read fast, and more of them would take much memory.
        most = MOST_CHUNKS if model.device.type == "cpu" else 1
        capacity = Capacity(sequences, budget, token_bytes, chunk, keep, state_bytes, most)
        self.scheduler = Scheduler(batch, cache, self.prefix_cache, capacity, own_thread, threads, model.turn)

    @property
    def load(self) -> Load:
        """How busy the engine is."""
        return self.scheduler.load

    def stream(
        self,
        requests: Sequence[Request],
        cancel: CancelFlag | None = None,
        recorder: ActivationRecorder | None = None,
    ) -> Events:
        """Answer all requests in step.

        Args:
            cancel: setting it, or closing the iterator, frees the sequences within one step.
            recorder: receives the residual stream of every generated content token; row n is request n.

        Yields:
            WaitEvents while there is no capacity, then a PromptEvent per request, then a TokenEvent per
            request and step.

        Raises:
            UserError: at once, before anything runs, when a prompt does not fit the context window or a cap
                names layers that the model lacks.
        """
        check_layers(requests, len(self.model.layers))
        self._check_directions(requests)
        layers = capped_layers(requests)
        chats = self._rendered(requests)
        sequences = [
            self._sequence(request, chat, layers) for request, chat in zip(requests, chats, strict=True)
        ]
        for row, sequence in enumerate(sequences):
            sequence.recorder, sequence.recorder_row = recorder, row
        group = RequestGroup(sequences, cancel or CancelFlag())
        return self._results(group) if sequences else _nothing()

    def read(self, request: Request, cancel: CancelFlag | None = None) -> Iterator[list[ReadToken]]:
        """Read the finished chat `request.messages` under the request's intervention, a chunk at a time.

        Raises:
            UserError: at once, when the chat does not fit the context window.
        """
        chat = render_chat(
            self.model.tokenizer,
            request.messages,
            reply_next=False,
            thinking=request.thinking,
            date=request.date,
        )
        room_left(len(chat.ids) - 1, self.model.context)
        check_layers([request], len(self.model.layers))
        self._check_directions([request])
        chunk = self.scheduler.capacity.chunk
        chunks = read_chat(self.forward, self._probe, self.model.tokenizer, chat, request, chunk)
        return self._results(ReadTask(chunks, cancel or CancelFlag()))

    def forget(self, branches: Sequence[str]) -> None:
        """Drop the KV caches of these branches."""
        self.scheduler.forget(branches)

    def _check_directions(self, requests: Sequence[Request]) -> None:
        layers_of = {name: direction.layers for name, direction in self.directions.items()}
        check_directions(requests, layers_of, self.axis.probe_layer)

    def _results(self, work: ResultQueue[T]) -> Generator[T, None, None]:
        self.scheduler.submit(work)
        try:
            yield from work.items()
        finally:
            work.abandoned = True
            self.scheduler.release_abandoned()

    def _rendered(self, requests: Sequence[Request]) -> list[RenderedChat]:
        """The chat of each request. The branches of a pair often have the same one; it is rendered once."""
        found, before = list[RenderedChat](), None
        for request in requests:
            asked = request.messages, request.thinking, request.date
            if asked != before:
                messages, thinking, date = before = asked
                chat = render_chat(self.model.tokenizer, messages, thinking=thinking, date=date)
            found.append(chat)
        return found

    def _sequence(self, request: Request, chat: RenderedChat, layers: tuple[int, ...]) -> TokenSequence:
        limit = min(request.sampling.max_new_tokens, room_left(len(chat.ids), self.model.context))
        sequence = TokenSequence(request, chat, limit, self.vocabulary, layers)
        sequence.along = tuple(self._probe.beside.names.index(name) for name in request.along)
        sequence.axis = self.axis
        if request.plain and request.is_steered:
            unsteered = replace(
                request,
                branch=plain_branch(request.branch),
                cap=None,
                also=None,
                steer=None,
                along=(),
                plain=False,
            )
            sequence.plain = TokenSequence(unsteered, chat, limit, self.vocabulary, leads=False)
        return sequence


def _nothing() -> Events:
    yield from ()
