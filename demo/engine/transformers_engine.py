"""The engine on transformers: the uncapped and the capped reply are rows of the same forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Event as CancelFlag
from threading import Lock

import torch

from demo.axis import AssistantAxis
from demo.capping import AxisHooks
from demo.components import probe_components
from demo.engine.kv import BranchStore, RowCache
from demo.engine.live import LiveRows
from demo.engine.protocol import Events, ReadToken, Request
from demo.engine.reader import read_chat
from demo.engine.row import Row
from demo.engine.small_batch import skinny_is_faster, skinny_products
from demo.errors import UserError
from demo.models import LoadedModel
from demo.spans import RenderedChat, render_chat
from demo.steering import Push

DEFAULT_KV_BUDGET = 2 * 1024**3
# Stop is looked at between prefill chunks, so one chunk must take well under a second.
_PREFILL_CHUNK_CPU, _PREFILL_CHUNK_GPU = 128, 2048


def stop_tokens(model: LoadedModel) -> frozenset[int]:
    """Token ids that end a reply: the tokenizer's and whatever the model's generation config names."""
    named = model.model.generation_config.eos_token_id if model.model.generation_config else None
    listed = named if isinstance(named, list) else [named]
    return frozenset(token for token in (*listed, model.tokenizer.eos_token_id) if token is not None)


class TransformersEngine:
    """Streams replies of several branches from one model, each row with its own floors. See `protocol.Engine`.

    kv_budget: bytes of KV cache kept between turns, all branches together; fixed_length: never
    draw an end-of-turn token, so that every reply reaches its limit (for benchmarks). One stream runs at a time; another waits.
    """

    def __init__(
        self,
        model: LoadedModel,
        axis: AssistantAxis,
        kv_budget: int = DEFAULT_KV_BUDGET,
        fixed_length: bool = False,
    ) -> None:
        self.model = model
        self.axis = axis
        self.store = BranchStore(kv_budget)
        self.skinny = skinny_is_faster(model.model)
        self._lock = Lock()
        self._buffers = RowCache(len(model.layers))
        self._special = frozenset(model.tokenizer.all_special_ids)
        self._stops = stop_tokens(model)
        self._barred = sorted(self._stops) if fixed_length else []
        self._unit = axis.unit.to(model.device)
        components = probe_components(axis, model.device)
        self._place = None if components is None else components.place
        self._chunk = _PREFILL_CHUNK_CPU if model.device.type == "cpu" else _PREFILL_CHUNK_GPU

    def stream(self, requests: Sequence[Request], cancel: CancelFlag | None = None) -> Events:
        """Answer all requests as rows of one batch: a PromptEvent per row, then a TokenEvent per row and step.

        Raises UserError at once, before anything runs, when a prompt does not fit the context window or a cap names layers
        the model lacks. Closing the iterator, or setting `cancel`, frees the rows within one step.
        """
        rows = [self._row(request) for request in requests]
        live = LiveRows(self.model, self.axis, rows, self._hooks(requests), self.store, self._buffers)
        return self._run(live, cancel or CancelFlag())

    def _run(self, live: LiveRows, cancel: CancelFlag) -> Events:
        with self._lock, skinny_products(self.model.model, self.skinny), live.hooks.installed():
            try:
                yield from live.prefill(self._chunk, cancel)
                while live.rows:
                    yield from live.draw(cancel)
                    yield from live.step()
            except GeneratorExit:
                live.release(live.rows)
                raise

    def read(self, request: Request, cancel: CancelFlag | None = None) -> Iterator[list[ReadToken]]:
        """Read the finished chat `request.messages` under the request's intervention, a prefill chunk at a time.

        Raises UserError at once when the chat does not fit the context window.
        """
        chat = render_chat(self.model.tokenizer, request.messages, reply_next=False)
        self._check_room(len(chat.ids) - 1)
        return self._read(chat, self._hooks([request]), cancel or CancelFlag())

    def _read(self, chat: RenderedChat, hooks: AxisHooks, cancel: CancelFlag) -> Iterator[list[ReadToken]]:
        with self._lock:
            yield from read_chat(self.model, self.axis, chat, hooks, self._chunk, cancel)

    def forget(self, branches: Sequence[str]) -> None:
        """Drop the KV caches of these branches."""
        for branch in branches:
            self.store.drop(branch)

    def _row(self, request: Request) -> Row:
        chat = render_chat(self.model.tokenizer, request.messages)
        limit = min(request.sampling.max_new_tokens, self._check_room(len(chat.ids)))
        cached = self.store.get(request.branch)
        return Row(
            request, chat, limit, self.model.tokenizer, self._stops, self._special, self._barred, cached
        )

    def _check_room(self, tokens: int) -> int:
        """How many more tokens the context window holds; UserError when there is no room for one."""
        room = self.model.context - tokens
        if room < 1:
            raise UserError(
                f"This conversation is {tokens} tokens long, but the model holds {self.model.context}: "
                "start a new chat or send a shorter message."
            )
        return room

    def _hooks(self, requests: Sequence[Request]) -> AxisHooks:
        layers = sorted({layer for request in requests if request.cap for layer in request.cap.layers})
        count = len(self.model.layers)
        touched = [*layers, *(request.steer.layer for request in requests if request.steer)]
        if not all(0 <= layer < count for layer in touched):
            raise UserError(f"The model has decoder layers 0 to {count - 1}; choose a band within them.")
        floors = {layer: torch.full((len(requests),), float("-inf")) for layer in layers}
        for index, request in enumerate(requests):
            if request.cap is not None:
                for layer, floor in zip(request.cap.layers, request.cap.floors, strict=True):
                    floors[layer][index] = floor
        on_device = {layer: floor.to(self.model.device) for layer, floor in floors.items()}
        return AxisHooks(
            self.model.layers,
            self._unit,
            self.axis.probe_layer,
            on_device,
            self._pushes(requests),
            place=self._place,
        )

    def _pushes(self, requests: Sequence[Request]) -> dict[int, Push]:
        """Steering of each layer that any request steers at."""
        pushes = {}
        for layer in {request.steer.layer for request in requests if request.steer}:
            alpha = [r.steer.alpha if r.steer and r.steer.layer == layer else 0.0 for r in requests]
            pushes[layer] = Push(self.axis.direction[layer].to(self.model.device), torch.tensor(alpha))
        return pushes
