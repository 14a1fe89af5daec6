"""A sequence is one branch while the engine answers it: its prompt, what it has generated, and its events.

`TokenSequence` is one sequence. `RunningBatch` holds the sequences that have a cache slot and runs them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from demo.engine.forward.forward_pass import ActivationRecorder, Chunk, ChunkReading, ForwardPass
from demo.engine.kv_cache import CachedSequence, KVCache, PrefixCache, common_prefix, rounded_up
from demo.engine.protocol import PromptEvent, Request, Token, TokenEvent
from demo.engine.sampling import SamplingStep, sample_batch
from demo.models.chat_template import RenderedChat


class Status(Enum):
    """Where a sequence stands: it waits for a cache slot, has one, or has left the engine."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokenizer and the ids with a special meaning.

    Attributes:
        stops: ids that end a reply.
        special: ids that are not content.
        barred: ids that are never sampled.
    """

    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int]
    special: frozenset[int]
    barred: tuple[int, ...] = ()


@dataclass(eq=False)
class TokenSequence:
    """A request in the engine.

    Attributes:
        limit: the most tokens to generate.
        layers: the capped layers that its events report, in order.
        recorder, recorder_row: collects the residual stream of the generated content tokens; the row is where
            it puts them.
        slot: its cache slot, -1 without one.
        reused: prompt tokens that came from a cache.
        before: one projection per token run, axis units, before the clamp.
        pending: the token that has been sampled but not yet run.
        logits: [V], after the last token run.
    """

    request: Request
    chat: RenderedChat
    limit: int
    vocabulary: Vocabulary
    layers: tuple[int, ...] = ()
    recorder: ActivationRecorder | None = None
    recorder_row: int = 0
    status: Status = Status.WAITING
    slot: int = -1
    reused: int = 0
    before: list[float] = field(default_factory=list)
    generated: list[int] = field(default_factory=list)
    pending: int | None = None
    logits: Tensor | None = None

    def __post_init__(self) -> None:
        self._text = DecodeStream(skip_special_tokens=True)
        self._probability: float | None = None
        self._penalised = spoken_tokens(self.request, self.chat)

    @property
    def tokens_run(self) -> int:
        """How many tokens are in the cache slot."""
        return len(self.before)

    @property
    def prompt_left(self) -> int:
        """How many prompt tokens have not been run."""
        return max(len(self.chat.ids) - self.tokens_run, 0)

    @property
    def wants_stop(self) -> bool:
        """Whether the pending token ends the reply."""
        return self.pending in self.vocabulary.stops

    @property
    def is_broken(self) -> bool:
        """Whether the model's logits were NaN or infinite when the pending token was sampled."""
        return self._probability is not None and not math.isfinite(self._probability)

    @property
    def is_full(self) -> bool:
        """Whether the reply has reached its limit."""
        return len(self.generated) >= self.limit

    @property
    def pending_is_special(self) -> bool:
        return self.pending in self.vocabulary.special

    def start_after(self, cached: CachedSequence, tokens: int) -> None:
        """Reuse the first `tokens` prompt tokens of a cached sequence, with their projections."""
        self.reused, self.before = tokens, cached.before[:tokens]

    def prompt_chunk(self, most: int) -> Chunk:
        """The next `most` prompt tokens, or as many as are left."""
        start, end = self.tokens_run, min(self.tokens_run + most, len(self.chat.ids))
        exempt = [owner < 0 for owner in self.chat.owner[start:end]]
        request, last = self.request, end == len(self.chat.ids)
        return Chunk(self.slot, start, self.chat.ids[start:end], exempt, request.cap, request.steer, last)

    def token_chunk(self) -> Chunk:
        """The pending token."""
        assert self.pending is not None  # a sequence decodes only after a token was sampled
        recorder = None if self.pending_is_special else self.recorder
        return Chunk(
            self.slot,
            self.tokens_run,
            [self.pending],
            [self.pending_is_special],
            self.request.cap,
            self.request.steer,
            prompt=False,
            recorder=recorder,
            rows=() if recorder is None else (self.recorder_row,),
        )

    def sampling_step(self) -> SamplingStep:
        """How the next token is to be sampled."""
        step = len(self.generated)
        return SamplingStep(self.request.sampling, step, self._penalised, self.vocabulary.barred)

    def take(self, token: int, probability: float) -> None:
        """Make the token that has been sampled the pending one."""
        self.pending, self._probability, self.logits = token, probability, None
        if not self.pending_is_special:
            self._penalised[token] = None

    def prompt_event(self) -> PromptEvent:
        """The event of a prompt that has been read."""
        last = len(self.request.messages) - 1
        values = [p for p, owner in zip(self.before, self.chat.owner, strict=True) if owner == last]
        mean = sum(values) / len(values) if values else None
        return PromptEvent(self.request.branch, len(self.chat.ids), self.reused, mean)

    def token_event(self, reading: ChunkReading) -> TokenEvent:
        """The event of the pending token, which has been run."""
        token, position = self.pending, len(self.chat.ids) + len(self.generated)
        assert token is not None
        self.generated.append(token)
        self.before += reading.before
        return TokenEvent(
            self.request.branch,
            token,
            Token(
                self._spell(token),
                reading.before[-1],
                reading.after,
                tuple(reading.corrections.get(layer, 0.0) for layer in self.layers),
                self.pending_is_special,
                None if self.pending_is_special else reading.coordinates,
                self._probability,
            ),
            position,
            "length" if self.is_full else None,
        )

    def stop_event(self) -> TokenEvent:
        """The event of a pending token that ends the reply and is not run."""
        assert self.pending is not None
        return TokenEvent(
            self.request.branch,
            self.pending,
            Token(
                self._spell(self.pending),
                None,
                None,
                (),
                self.pending_is_special,
                probability=self._probability,
            ),
            len(self.chat.ids) + len(self.generated),
            "stop",
        )

    def _spell(self, token: int) -> str:
        return self._text.step(self.vocabulary.tokenizer.backend_tokenizer, token) or ""

    def to_cache(self, keys: list[Tensor], values: list[Tensor]) -> CachedSequence:
        """The tokens run so far, with their keys and values, for the prefix cache."""
        ids = (self.chat.ids + self.generated)[: self.tokens_run]
        return CachedSequence(ids, keys, values, list(self.before), self.request.intervention)


def spoken_tokens(request: Request, chat: RenderedChat) -> dict[int, None]:
    """Tokens of the assistant's earlier replies, to which the repetition penalty applies.

    They are in order of occurrence, so that the same conversation always gives the same arithmetic.
    """
    roles = [message["role"] for message in request.messages]
    return dict.fromkeys(
        token
        for token, owner in zip(chat.ids, chat.owner, strict=True)
        if owner >= 0 and roles[owner] == "assistant"
    )


class RunningBatch:
    """The running sequences of all clients, each with a cache slot. Used by one thread at a time."""

    def __init__(self, forward: ForwardPass, prefix_cache: PrefixCache, cache: KVCache) -> None:
        self.sequences: list[TokenSequence] = []
        self.forward = forward
        self._prefix_cache, self._cache = prefix_cache, cache

    def columns(self, sequences: Sequence[TokenSequence]) -> int:
        """How many columns a slot needs for these sequences and the running ones to reach their limits."""
        return max((rounded_up(len(s.chat.ids) + s.limit) for s in [*self.sequences, *sequences]), default=0)

    def add(self, sequence: TokenSequence) -> None:
        """Give a sequence a slot and fill in the longest known prefix of its prompt.

        The prefix may come from the branch's last turn, from another branch that begins alike, or from a
        sequence that is running now.
        """
        sequence.slot, sequence.status = len(self.sequences), Status.RUNNING
        self._cache.reserve(len(self.sequences) + 1, self.columns([sequence]))
        # At least one token must run, for its logits.
        most = len(sequence.chat.ids) - 1
        request = sequence.request
        cached, known = self._prefix_cache.longest(request.branch, sequence.chat.ids, request.intervention)
        known = min(known, most)
        other, shared = self._most_alike(sequence)
        shared = min(shared, most)
        if other is not None and shared > known:
            self._cache.copy(other.slot, sequence.slot, shared)
            sequence.reused, sequence.before = shared, other.before[:shared]
        elif cached is not None and known:
            self._cache.load(sequence.slot, cached, known)
            sequence.start_after(cached, known)
        self.sequences.append(sequence)

    def _most_alike(self, sequence: TokenSequence) -> tuple[TokenSequence | None, int]:
        """The running sequence with the longest prefix in common with this prompt, and its length.

        Only sequences under the same intervention count.
        """
        best, most = None, 0
        for other in self.sequences:
            if other.request.intervention == sequence.request.intervention:
                text = (other.chat.ids + other.generated)[: other.tokens_run]
                shared = common_prefix(text, sequence.chat.ids)
                if shared > most:
                    best, most = other, shared
        return best, most

    def sample(self, sequences: Sequence[TokenSequence]) -> None:
        """Sample the next token of every sequence that has logits."""
        ready = [sequence for sequence in sequences if sequence.logits is not None]
        if ready:
            logits = torch.stack([sequence.logits for sequence in ready if sequence.logits is not None])
            sampled = sample_batch(logits, [sequence.sampling_step() for sequence in ready])
            for sequence, token, probability in zip(ready, *sampled, strict=True):
                sequence.take(token, probability)

    def run(self, work: Sequence[tuple[TokenSequence, Chunk]]) -> list[ChunkReading]:
        """Run one forward pass. Sequences whose chunk asks for logits have them afterwards."""
        logits, readings = self.forward.run([chunk for _, chunk in work], self._cache)
        remaining = iter(logits)
        for sequence, chunk in work:
            if chunk.last:
                sequence.logits = next(remaining)
        return readings

    def remove(self, sequence: TokenSequence, *, keep: bool) -> None:
        """Free the sequence's slot. keep: store its keys and values in the prefix cache."""
        sequence.status = Status.FINISHED
        if sequence in self.sequences:
            self.sequences.remove(sequence)
            if keep and sequence.tokens_run:
                entry = sequence.to_cache(*self._cache.saved(sequence.slot, sequence.tokens_run))
                self._prefix_cache.put(sequence.request.branch, entry)
            self._close_gaps()

    def _close_gaps(self) -> None:
        """Move sequences into free slots, so that a pass covers no more slots than there are sequences."""
        free = sorted(set(range(len(self.sequences))) - {sequence.slot for sequence in self.sequences})
        high = [sequence for sequence in self.sequences if sequence.slot >= len(self.sequences)]
        for slot, sequence in zip(free, high, strict=True):
            self._cache.copy(sequence.slot, slot, sequence.tokens_run)
            sequence.slot = slot
