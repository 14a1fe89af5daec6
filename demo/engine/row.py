"""One branch while it runs: its prompt, what it has generated, and the events it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tokenizers.decoders import DecodeStream
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from demo.engine.passes import Part, PartReading
from demo.engine.protocol import PromptEvent, Request, TokenEvent
from demo.engine.sampling import Draw
from demo.engine.store import BranchCache
from demo.spans import RenderedChat


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens that mean something to a row. stops: end a reply; special: no content; barred: never drawn."""

    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int]
    special: frozenset[int]
    barred: tuple[int, ...] = ()


@dataclass(eq=False)
class Row:
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

    def start_after(self, entry: BranchCache, kept: int) -> None:
        """The first `kept` prompt tokens come from a cache, with the projections they had."""
        self.reused, self.before = kept, entry.before[:kept]

    def prompt_part(self, most: int) -> Part:
        """The next `most` prompt tokens, or as many as are left."""
        start, end = self.ran, min(self.ran + most, len(self.chat.ids))
        exempt = [owner < 0 for owner in self.chat.owner[start:end]]
        last = end == len(self.chat.ids)
        return self._part(self.chat.ids[start:end], exempt, last, True)

    def token_part(self) -> Part:
        """The pending token."""
        assert self.pending is not None  # a row is only run with a drawn token
        return self._part([self.pending], [self.pending_is_special], True, False)

    def _part(self, ids: list[int], exempt: list[bool], last: bool, prompt: bool) -> Part:
        return Part(self.slot, self.ran, ids, exempt, self.request.cap, self.request.steer, last, prompt)

    def draw(self) -> Draw:
        """How the next token is to be drawn."""
        return Draw(self.request.sampling, len(self.generated), self._seen, self.vocabulary.barred)

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

    def token_event(self, reading: PartReading) -> TokenEvent:
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

    def to_cache(self, keys: list[Tensor], values: list[Tensor]) -> BranchCache:
        ids = (self.chat.ids + self.generated)[: self.ran]
        return BranchCache(ids, keys, values, list(self.before), self.request.intervention)


def said_before(request: Request, chat: RenderedChat) -> dict[int, None]:
    """Tokens of the assistant's earlier replies, on which the repetition penalty falls; in the order said, so that the same reply
    always gives the same arithmetic."""
    roles = [message["role"] for message in request.messages]
    return dict.fromkeys(
        token
        for token, owner in zip(chat.ids, chat.owner, strict=True)
        if owner >= 0 and roles[owner] == "assistant"
    )
