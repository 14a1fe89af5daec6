"""The engine on vLLM, for models that need several GPUs or machines, and for many visitors.

vLLM batches the sequences of all visitors. Its workers cap, read and sample (`recorder.py`,
`sampler.py`). This module takes requests and gives the events that every engine gives, see
`protocol.Engine`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from threading import Event as CancelFlag

from demo.axis.axis import AssistantAxis
from demo.axis.directions import Direction
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
from demo.engine.request_group import ReadTask, RequestGroup
from demo.engine.sequence import TokenSequence, Vocabulary, spoken_tokens, vocabulary_of
from demo.engine.text import content_texts
from demo.engine.vllm.client import VllmClient
from demo.engine.vllm.options import VllmOptions
from demo.engine.vllm.recorder import SequencePlan, SpanPlan
from demo.engine.vllm.request import VllmRead, VllmSequence
from demo.engine.vllm.scheduler import VllmScheduler
from demo.engine.vllm.self_test import run_self_test
from demo.models.chat_template import RenderedChat, render_chat
from demo.models.loading import ModelFacts
from demo.utils.errors import UserError


class VllmEngine:
    """Streams replies of many branches from vLLM. See `protocol.Engine`."""

    def __init__(
        self,
        model: ModelFacts,
        axis: AssistantAxis,
        options: VllmOptions | None = None,
        fixed_length: bool = False,
    ) -> None:
        """Load the model in vLLM's own processes and run the self-test of the cap.

        Args:
            model: What is known of the model without loading it.
            axis: The axis to cap along.
            options: How vLLM runs.
            fixed_length: Never sample an end-of-turn token (for benchmarks).

        Raises:
            UserError: vLLM cannot start, or the cap does not act in it as it should.
        """
        self.model, self.axis, self.options = model, axis, options or VllmOptions()
        # vLLM chooses its own tokens, and its workers know the axis only.
        self.directions: Mapping[str, Direction] = {}
        self.reads_plain = False
        self.conditional_caps = False  # see `_refuse_conditional`
        self._vocabulary = vocabulary_of(model, fixed_length=fixed_length)
        self._marks = _mark_ids(self._vocabulary)
        # One token stays free: vLLM samples one more than is shown, so that the last one shown is run.
        self._context = min(model.context, self.options.context or model.context) - 1
        self._ids = itertools.count()
        self._client = VllmClient(model, axis, self.options, run_self_test)
        self._client.start()
        self._scheduler = VllmScheduler(self._client, self.options.rows)

    @property
    def load(self) -> Load:
        """How busy the engine is.

        `kv_bytes` counts running sequences only. vLLM's prefix cache holds more, but gives it back
        when needed.
        """
        running, waiting, tokens = self._scheduler.counts
        size = self.model.token_bytes
        return Load(running, waiting, tokens * size, self._client.tokens * size)

    def stream(self, requests: Sequence[Request], cancel: CancelFlag | None = None) -> Events:
        """Answer all requests in step.

        Raises:
            UserError: At once, when a prompt does not fit the context window, a cap names layers
                that the model does not have, or vLLM is not ready.
        """
        self._client.require()
        check_layers(requests, self.model.layer_count)
        check_directions(requests, {}, self.axis.probe_layer)
        _refuse_conditional(requests)
        layers = capped_layers(requests)
        sequences = [self._sequence(request, layers) for request in requests]
        group = RequestGroup([sequence.state for sequence in sequences], cancel or CancelFlag())
        return self._stream(group, sequences)

    def _stream(self, group: RequestGroup, sequences: list[VllmSequence]) -> Events:
        if not sequences:
            return
        self._client.loop.call_soon_threadsafe(self._scheduler.submit, group, sequences)
        try:
            yield from group.items()
        finally:
            group.abandoned = True

    def read(self, request: Request, cancel: CancelFlag | None = None) -> Iterator[list[ReadToken]]:
        """Read the finished chat `request.messages` under the request's intervention.

        Raises:
            UserError: At once, when the chat does not fit the context window or vLLM is not ready.
        """
        self._client.require()
        chat = self._rendered(request, reply_next=False)
        room_left(len(chat.ids), self._context)
        check_layers([request], self.model.layer_count)
        check_directions([request], {}, self.axis.probe_layer)
        _refuse_conditional([request])
        plan = self._plan(request, chat, every_layer=True)
        texts = content_texts(self.model.tokenizer, chat)
        read = VllmRead(chat, texts, plan, self.axis)
        return self._stream_read(ReadTask(iter(()), cancel or CancelFlag()), read)

    def _stream_read(self, task: ReadTask, read: VllmRead) -> Iterator[list[ReadToken]]:
        self._client.loop.call_soon_threadsafe(self._scheduler.submit_read, task, read)
        try:
            yield from task.items()
        finally:
            task.abandoned = True

    def forget(self, branches: Sequence[str]) -> None:
        """Drop what is kept of these branches.

        vLLM's cache keeps their keys and values until it needs the room.
        """
        self._client.loop.call_soon_threadsafe(self._scheduler.forget, list(branches))

    def shut_down(self) -> None:
        """End vLLM's processes. The engine cannot be used afterwards."""
        self._client.shut_down()

    # --- requests

    def _sequence(self, request: Request, layers: tuple[int, ...]) -> VllmSequence:
        chat = self._rendered(request, reply_next=True)
        limit = min(request.sampling.max_new_tokens, room_left(len(chat.ids), self._context))
        state = TokenSequence(request, chat, limit, self._vocabulary, layers)
        return VllmSequence(state, replace(self._plan(request, chat), opening=state.opening), self.axis)

    def _rendered(self, request: Request, reply_next: bool) -> RenderedChat:
        return render_chat(
            self.model.tokenizer,
            request.messages,
            reply_next=reply_next,
            thinking=request.thinking,
            date=request.date,
        )

    def _plan(self, request: Request, chat: RenderedChat, every_layer: bool = False) -> SequencePlan:
        cap, steer = request.cap, request.steer
        return SequencePlan(
            id=f"row-{next(self._ids)}",
            exempt=bytes(
                owner < 0 or not request.acts_on(reasoning)
                for owner, reasoning in zip(chat.owner, chat.reasoning, strict=True)
            ),
            sampling=request.sampling,
            layers=cap.layers if cap else (),
            floors=cap.floors if cap else (),
            steer=(steer.layer, steer.alpha) if steer else None,
            every_layer=every_layer,
            said=tuple(spoken_tokens(request, chat)),
            barred=self._vocabulary.barred,
            spans=self._spans(request, chat),
        )

    def _spans(self, request: Request, chat: RenderedChat) -> SpanPlan | None:
        """Where reasoning begins and ends; None where clamp and steering act on all of the reply."""
        if request.span == "both" or self._marks is None:
            return None
        return SpanPlan(*self._marks, chat.opens_reasoning, request.span == "reasoning")


def _refuse_conditional(requests: Sequence[Request]) -> None:
    """Raises UserError when a cap depends on where a reply begins.

    vLLM keeps the keys and values of replies for later turns, which would have to read them without the cap.
    """
    if any(request.is_conditional for request in requests):
        raise UserError(
            "vLLM cannot cap only the replies that begin below a threshold; let the cap act on every reply "
            "(only_below off)."
        )


def _mark_ids(vocabulary: Vocabulary) -> tuple[list[int], list[int]] | None:
    """The tokens that open and close reasoning; None for a model that does not reason."""
    marks = vocabulary.reasoning
    if marks is None:
        return None
    opening, closing = (
        vocabulary.tokenizer(mark, add_special_tokens=False)["input_ids"]
        for mark in (marks.opening, marks.closing)
    )
    return list(opening), list(closing)
