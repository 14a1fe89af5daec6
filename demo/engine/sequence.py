"""One branch while it runs: its prompt, what it has generated, and the events it gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from demo.engine.forward.forward_pass import Chunk, ChunkReading, ForwardPass
from demo.engine.kv_cache import CachedSequence, KVCache, PrefixCache, common_prefix, rounded_up
from demo.engine.protocol import PromptEvent, Request, TokenEvent
from demo.engine.sampling import SamplingStep, sample_batch
from demo.models.chat_template import RenderedChat


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens that mean something to a row. stops: end a reply; special: no content; barred: never drawn."""

    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int]
    special: frozenset[int]
    barred: tuple[int, ...] = ()


@dataclass(eq=False)
class TokenSequence:
    """A request in the engine. limit: most tokens to generate. `before` holds one projection per token run, axis units;
    `pending` is the token that has been drawn but not yet run; `logits` [V] are those after the last token run.

    layers: the capped layers that its events report, in order.
    """

    request: Request
    chat: RenderedChat
    limit: int
    vocabulary: Vocabulary
    layers: tuple[int, ...] = ()
    slot: int = -1
    reused: int = 0
    before: list[float] = field(default_factory=list)
    generated: list[int] = field(default_factory=list)
    pending: int | None = None
    logits: Tensor | None = None

    def __post_init__(self) -> None:
        self._text = DecodeStream(skip_special_tokens=True)
        self._probability: float | None = None
        self._seen = said_before(self.request, self.chat)

    @property
    def ran(self) -> int:
        """Tokens in the slot."""
        return len(self.before)

    @property
    def left(self) -> int:
        """Prompt tokens that have not been run."""
        return max(len(self.chat.ids) - self.ran, 0)

    @property
    def wants_stop(self) -> bool:
        return self.pending in self.vocabulary.stops

    @property
    def is_broken(self) -> bool:
        """The model's numbers were none when the pending token was drawn: nothing that follows would mean anything."""
        return self._probability is not None and not math.isfinite(self._probability)

    @property
    def is_full(self) -> bool:
        return len(self.generated) >= self.limit

    @property
    def pending_is_special(self) -> bool:
        return self.pending in self.vocabulary.special

    def start_after(self, entry: CachedSequence, kept: int) -> None:
        """The first `kept` prompt tokens come from a cache, with the projections they had."""
        self.reused, self.before = kept, entry.before[:kept]

    def prompt_part(self, most: int) -> Chunk:
        """The next `most` prompt tokens, or as many as are left."""
        start, end = self.ran, min(self.ran + most, len(self.chat.ids))
        exempt = [owner < 0 for owner in self.chat.owner[start:end]]
        last = end == len(self.chat.ids)
        return self._part(self.chat.ids[start:end], exempt, last, True)

    def token_part(self) -> Chunk:
        """The pending token."""
        assert self.pending is not None  # a row is only run with a drawn token
        return self._part([self.pending], [self.pending_is_special], True, False)

    def _part(self, ids: list[int], exempt: list[bool], last: bool, prompt: bool) -> Chunk:
        return Chunk(self.slot, self.ran, ids, exempt, self.request.cap, self.request.steer, last, prompt)

    def draw(self) -> SamplingStep:
        """How the next token is to be drawn."""
        return SamplingStep(self.request.sampling, len(self.generated), self._seen, self.vocabulary.barred)

    def take(self, token: int, probability: float) -> None:
        """The next token has been drawn."""
        self.pending, self._probability, self.logits = token, probability, None
        if not self.pending_is_special:
            self._seen[token] = None

    def prompt_event(self) -> PromptEvent:
        last = len(self.request.messages) - 1
        values = [p for p, owner in zip(self.before, self.chat.owner, strict=True) if owner == last]
        mean = sum(values) / len(values) if values else None
        return PromptEvent(self.request.branch, len(self.chat.ids), self.reused, mean)

    def token_event(self, reading: ChunkReading) -> TokenEvent:
        """The pending token has been run."""
        token, position = self.pending, len(self.chat.ids) + len(self.generated)
        assert token is not None
        self.generated.append(token)
        self.before += reading.before
        return TokenEvent(
            self.request.branch,
            token,
            self._text.step(self.vocabulary.tokenizer.backend_tokenizer, token) or "",
            reading.before[-1],
            reading.after,
            tuple(reading.corrections.get(layer, 0.0) for layer in self.layers),
            position,
            self.pending_is_special,
            "length" if self.is_full else None,
            None if self.pending_is_special else reading.coordinates,
            self._probability,
        )

    def stop_event(self) -> TokenEvent:
        """The row leaves without running its pending token, which ends the reply."""
        assert self.pending is not None
        text = self._text.step(self.vocabulary.tokenizer.backend_tokenizer, self.pending)
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
            "stop",
            probability=self._probability,
        )

    def to_cache(self, keys: list[Tensor], values: list[Tensor]) -> CachedSequence:
        ids = (self.chat.ids + self.generated)[: self.ran]
        return CachedSequence(ids, keys, values, list(self.before), self.request.intervention)


def said_before(request: Request, chat: RenderedChat) -> dict[int, None]:
    """Tokens of the assistant's earlier replies, on which the repetition penalty falls; in the order said, so that the same reply
    always gives the same arithmetic."""
    roles = [message["role"] for message in request.messages]
    return dict.fromkeys(
        token
        for token, owner in zip(chat.ids, chat.owner, strict=True)
        if owner >= 0 and roles[owner] == "assistant"
    )


class RunningBatch:
    """Rows with a slot each. One thread at a time."""

    def __init__(self, forward: ForwardPass, store: PrefixCache, slots: KVCache) -> None:
        self.rows: list[TokenSequence] = []
        self._forward, self._store, self._slots = forward, store, slots

    def columns(self, rows: Sequence[TokenSequence]) -> int:
        """Columns that a slot needs so that each of these rows and of those that run can reach its end."""
        return max((rounded_up(len(row.chat.ids) + row.limit) for row in [*self.rows, *rows]), default=0)

    def bring_in(self, row: TokenSequence) -> None:
        """Give a row a slot, and whatever of its prompt is known already: from its own last turn, from another branch that began
        alike, or from a row that is running now."""
        row.slot = len(self.rows)
        self._slots.reserve(len(self.rows) + 1, self.columns([row]))
        # At least one token must run, for its logits.
        most = len(row.chat.ids) - 1
        entry, kept = self._store.longest(row.request.branch, row.chat.ids, row.request.intervention)
        kept = min(kept, most)
        other, shared = self._alike(row)
        shared = min(shared, most)
        if other is not None and shared > kept:
            self._slots.copy(other.slot, row.slot, shared)
            row.reused, row.before = shared, other.before[:shared]
        elif entry is not None and kept:
            self._slots.load(row.slot, entry, kept)
            row.start_after(entry, kept)
        self.rows.append(row)

    def _alike(self, row: TokenSequence) -> tuple[TokenSequence | None, int]:
        """The running row whose text so far shares most with this row's prompt, under the same intervention."""
        best, most = None, 0
        for other in self.rows:
            if other.request.intervention == row.request.intervention:
                said = (other.chat.ids + other.generated)[: other.ran]
                shared = common_prefix(said, row.chat.ids)
                if shared > most:
                    best, most = other, shared
        return best, most

    def draw(self, rows: Sequence[TokenSequence]) -> None:
        """SamplingStep the next token of every row that has logits."""
        ready = [row for row in rows if row.logits is not None]
        if ready:
            logits = torch.stack([row.logits for row in ready if row.logits is not None])
            drawn = sample_batch(logits, [row.draw() for row in ready])
            for row, token, probability in zip(ready, *drawn, strict=True):
                row.take(token, probability)

    def run(self, work: Sequence[tuple[TokenSequence, Chunk]]) -> list[ChunkReading]:
        """One forward pass; every row whose part ends its text so far then has logits."""
        parts = [part for _, part in work]
        logits, readings = self._forward.run(parts, self._slots)
        lines = iter(logits)
        for row, part in work:
            if part.last:
                row.logits = next(lines)
        return readings

    def let_go(self, row: TokenSequence, *, keep: bool) -> None:
        """Free the row's slot; keep: its cache goes to the store."""
        if row in self.rows:
            self.rows.remove(row)
            if keep and row.ran:
                self._store.put(row.request.branch, row.to_cache(*self._slots.saved(row.slot, row.ran)))
            self._close_up()

    def _close_up(self) -> None:
        """Move rows down into free slots, so that a pass looks at no more of them than there are rows."""
        free = sorted(set(range(len(self.rows))) - {row.slot for row in self.rows})
        high = [row for row in self.rows if row.slot >= len(self.rows)]
        for slot, row in zip(free, high, strict=True):
            self._slots.copy(row.slot, slot, row.ran)
            row.slot = slot
