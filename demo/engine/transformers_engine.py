"""The engine on transformers: the uncapped and the capped reply are rows of the same forward pass."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from threading import Event as CancelFlag

from demo.axis import AssistantAxis
from demo.components import probe_components
from demo.engine.forward import make_forward
from demo.engine.job import Job, Reading
from demo.engine.passes import Watch
from demo.engine.protocol import Events, Load, ReadToken, Request
from demo.engine.reader import read_chat
from demo.engine.row import Row, Vocabulary
from demo.engine.rows import RunningRows
from demo.engine.scheduler import Room, Scheduler
from demo.engine.slots import Slots
from demo.engine.store import BranchStore
from demo.errors import UserError
from demo.models import LoadedModel
from demo.spans import render_chat

DEFAULT_KV_BUDGET = 2 * 1024**3
DEFAULT_ROWS = 128
# Between two passes those who decode wait, so one chunk must take well under a second.
_PREFILL_CHUNK_CPU, _PREFILL_CHUNK_GPU = 128, 2048


def stop_tokens(model: LoadedModel) -> frozenset[int]:
    """Token ids that end a reply: the tokenizer's and whatever the model's generation config names."""
    named = model.model.generation_config.eos_token_id if model.model.generation_config else None
    listed = named if isinstance(named, list) else [named]
    return frozenset(token for token in (*listed, model.tokenizer.eos_token_id) if token is not None)


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
        self.store = BranchStore(budget if keep else 0)
        components = probe_components(axis, model.device)
        watch = Watch(model, axis, None if components is None else components.place)
        self.forward = make_forward(model, watch, lean)
        self._watch = watch
        stops = stop_tokens(model)
        barred = tuple(sorted(stops)) if fixed_length else ()
        self._vocabulary = Vocabulary(
            model.tokenizer, stops, frozenset(model.tokenizer.all_special_ids), barred
        )
        self._chunk = _PREFILL_CHUNK_CPU if model.device.type == "cpu" else _PREFILL_CHUNK_GPU
        slots = Slots(len(model.layers))
        room = Room(rows, budget, token_bytes(model), self._chunk, keep)
        self._scheduler = Scheduler(
            RunningRows(self.forward, self.store, slots), slots, self.store, room, own_thread
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
        self._check_layers(requests)
        layers = tuple(sorted({layer for r in requests if r.cap for layer in r.cap.layers}))
        rows = [self._row(request, layers) for request in requests]
        return self._follow(Job(rows, cancel or CancelFlag()))

    def _follow(self, job: Job) -> Events:
        if not job.rows:
            return
        self._scheduler.submit(job)
        try:
            yield from job.items()
        finally:
            job.left = True

    def read(self, request: Request, cancel: CancelFlag | None = None) -> Iterator[list[ReadToken]]:
        """Read the finished chat `request.messages` under the request's intervention, a prefill chunk at a time.

        Raises UserError at once when the chat does not fit the context window.
        """
        chat = render_chat(self.model.tokenizer, request.messages, reply_next=False)
        self._check_room(len(chat.ids) - 1)
        self._check_layers([request])
        flag = cancel or CancelFlag()
        parts = read_chat(self.model, self.axis, chat, self._watch, request, self._chunk)
        return self._follow_reading(Reading(parts, flag))

    def _follow_reading(self, reading: Reading) -> Iterator[list[ReadToken]]:
        self._scheduler.submit(reading)
        try:
            yield from reading.items()
        finally:
            reading.left = True

    def forget(self, branches: Sequence[str]) -> None:
        """Drop the KV caches of these branches."""
        self._scheduler.forget(branches)

    def _row(self, request: Request, layers: tuple[int, ...]) -> Row:
        chat = render_chat(self.model.tokenizer, request.messages)
        limit = min(request.sampling.max_new_tokens, self._check_room(len(chat.ids)))
        return Row(request, chat, limit, self._vocabulary, layers)

    def _check_room(self, tokens: int) -> int:
        """How many more tokens the context window holds; UserError when there is no room for one."""
        room = self.model.context - tokens
        if room < 1:
            raise UserError(
                f"This conversation is {tokens} tokens long, but the model holds {self.model.context}: "
                "start a new chat or send a shorter message."
            )
        return room

    def _check_layers(self, requests: Sequence[Request]) -> None:
        count = len(self.model.layers)
        touched = {layer for request in requests if request.cap for layer in request.cap.layers}
        touched |= {request.steer.layer for request in requests if request.steer}
        if not all(0 <= layer < count for layer in touched):
            raise UserError(f"The model has decoder layers 0 to {count - 1}; choose a band within them.")


def token_bytes(model: LoadedModel) -> int:
    """Bytes of one token's keys and values at all decoder layers, as the model's configuration has them."""
    config = model.model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * len(model.layers) * heads * size * model.dtype.itemsize
