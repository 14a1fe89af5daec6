"""One branch while it runs: its prompt, what it has generated, and the events it gives."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from demo.axis import AssistantAxis
from demo.capping import AxisHooks
from demo.engine.kv import BranchCache
from demo.engine.protocol import Coordinates, FinishReason, PromptEvent, Request, TokenEvent, as_coordinates
from demo.engine.sampling import draw
from demo.spans import RenderedChat


@dataclass(frozen=True, slots=True)
class ColumnReading:
    """What the last column of a forward pass showed for one row, in axis units."""

    before: float
    after: float
    corrections: tuple[float, ...]
    coordinates: Coordinates | None = None


def read_columns(axis: AssistantAxis, hooks: AxisHooks) -> tuple[list[list[float]], list[ColumnReading]]:
    """The last forward pass in axis units: projections before the clamp [B][T], and each row's last column."""
    reading = hooks.reading()
    before = axis.to_units(reading.before.cpu(), axis.probe_layer)
    # One transfer for both: on a GPU each one waits for the device.
    last_column = torch.cat([reading.after[:, -1:], reading.places], dim=-1).cpu()
    after = axis.to_units(last_column[:, 0], axis.probe_layer).tolist()
    places = last_column[:, 1:].tolist()
    lifts: Tensor = reading.lifts[:, -1].cpu() / axis.norm[list(hooks.capped_layers)]
    last = [
        ColumnReading(
            float(row[-1]), after[index], tuple(lifts[index].tolist()), as_coordinates(places[index])
        )
        for index, row in enumerate(before)
    ]
    return before.tolist(), last


@dataclass(eq=False)
class Row:
    """A request in the batch. `before` holds one projection per token run, axis units; `pending` is the token that
    has been drawn but not yet run."""

    request: Request
    chat: RenderedChat
    limit: int
    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int]
    special: frozenset[int]
    barred: list[int] = field(default_factory=list)
    cached: BranchCache | None = None
    reused: int = 0
    before: list[float] = field(default_factory=list)
    generated: list[int] = field(default_factory=list)
    pending: int | None = None

    def __post_init__(self) -> None:
        self._text = DecodeStream(skip_special_tokens=True)
        self._probability: float | None = None
        roles = [message["role"] for message in self.request.messages]
        self._seen = {
            token
            for token, owner in zip(self.chat.ids, self.chat.owner, strict=True)
            if owner >= 0 and roles[owner] == "assistant"
        }
        if self.cached is not None:
            self.reused = self.cached.common_prefix(self.chat.ids, self.request.intervention)

    @property
    def wants_stop(self) -> bool:
        return self.pending in self.stops

    @property
    def is_full(self) -> bool:
        return len(self.generated) >= self.limit

    @property
    def pending_is_special(self) -> bool:
        return self.pending in self.special

    def start_after(self, kept: int) -> None:
        """The first `kept` prompt tokens come from the cache, with the projections they had."""
        self.before = self.cached.before[:kept] if self.cached is not None and kept > 0 else []

    def draw(self, logits: Tensor) -> None:
        """Draw the next token from logits [V]; `barred` ids cannot be drawn."""
        if self.barred:
            logits = logits.index_fill(-1, torch.tensor(self.barred, device=logits.device), float("-inf"))
        self.pending = draw(logits, self.request.sampling, len(self.generated), self._seen)
        plain = logits.float()
        self._probability = float((plain[self.pending] - plain.logsumexp(-1)).exp())
        if not self.pending_is_special:
            self._seen.add(self.pending)

    def prompt_event(self) -> PromptEvent:
        last = len(self.request.messages) - 1
        values = [p for p, owner in zip(self.before, self.chat.owner, strict=True) if owner == last]
        mean = sum(values) / len(values) if values else None
        return PromptEvent(self.request.branch, len(self.chat.ids), self.reused, mean)

    def token_event(self, reading: ColumnReading) -> TokenEvent:
        """The pending token has been run."""
        token, position = self.pending, len(self.chat.ids) + len(self.generated)
        assert token is not None  # a row is only run with a drawn token
        self.generated.append(token)
        self.before.append(reading.before)
        return TokenEvent(
            self.request.branch,
            token,
            self._text.step(self.tokenizer.backend_tokenizer, token) or "",
            reading.before,
            reading.after,
            reading.corrections,
            position,
            self.pending_is_special,
            "length" if self.is_full else None,
            None if self.pending_is_special else reading.coordinates,
            self._probability,
        )

    def end_event(self, reason: FinishReason) -> TokenEvent:
        """The row leaves without running its pending token (the end-of-turn token, or one that was cancelled)."""
        text = "" if self.pending is None else self._text.step(self.tokenizer.backend_tokenizer, self.pending)
        position = len(self.chat.ids) + len(self.generated)
        return TokenEvent(
            self.request.branch,
            self.pending,
            text or "",
            None,
            None,
            (),
            position,
            self.pending_is_special,
            reason,
            probability=self._probability,
        )

    def to_cache(self, keys: list[Tensor], values: list[Tensor]) -> BranchCache:
        length = keys[0].shape[2]
        ids = (self.chat.ids + self.generated)[:length]
        return BranchCache(ids, keys, values, self.before[:length], self.request.intervention)
