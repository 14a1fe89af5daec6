"""A sequence is one branch while the engine answers it: its prompt, what it has generated, and its events.

`TokenSequence` is one sequence. `RunningBatch` holds the sequences that have a cache slot and runs them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from demo.engine.forward.forward_pass import ActivationRecorder, Chunk, ChunkReading, ForwardPass
from demo.engine.kv_cache import CachedSequence, PrefixCache, SequenceCache, common_prefix, rounded_up
from demo.engine.protocol import PromptEvent, Request, Token, TokenEvent
from demo.engine.sampling import SamplingStep, sample_batch
from demo.engine.text import Piece, ReplyText
from demo.models.chat_template import ReasoningFormat, RenderedChat, reasoning_format, special_tokens
from demo.models.loading import LoadedModel, ModelFacts


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
        listed: those of `stops` that end a reply in the middle of its reasoning too. Others, learnt from the
            template, may be part of the mark that ends the reasoning.
        reasoning: how the model marks reasoning; None for a model that does not reason.
    """

    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int]
    special: frozenset[int]
    barred: tuple[int, ...] = ()
    listed: frozenset[int] = frozenset()
    reasoning: ReasoningFormat | None = None


def vocabulary_of(
    model: LoadedModel | ModelFacts, stops: frozenset[int] | None = None, fixed_length: bool = False
) -> Vocabulary:
    """A model's tokenizer and the ids with a special meaning.

    Args:
        stops: ids that end a reply; None for the model's own.
        fixed_length: never sample an end-of-turn token.
    """
    ends = model.stops if stops is None else stops
    return Vocabulary(
        model.tokenizer,
        ends,
        special_tokens(model.tokenizer) | ends,
        tuple(sorted(ends)) if fixed_length else (),
        model.listed_ends if stops is None else stops,
        reasoning_format(model.tokenizer),
    )


@dataclass(eq=False)
class TokenSequence:
    """A request in the engine.

    Attributes:
        limit: the most tokens to generate.
        layers: the capped layers that its events report, in order.
        recorder, recorder_row: collects the residual stream of the generated content tokens; the row is where
            it puts them.
        slot: its cache slot, -1 without one.
        pause_at: a chunk of the prompt ends after so many tokens, because the state there is kept; 0 for
            none.
        reused: prompt tokens that came from a cache.
        before: one projection per token run, axis units, before the clamp.
        pending: the token that has been sampled but not yet run.
        logits: [V], after the last token run.
        fault: an error that ends this sequence.
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
    pause_at: int = 0
    reused: int = 0
    before: list[float] = field(default_factory=list)
    generated: list[int] = field(default_factory=list)
    pending: int | None = None
    logits: Tensor | None = None
    fault: BaseException | None = None

    def __post_init__(self) -> None:
        words = self.vocabulary
        self._text = ReplyText(words.tokenizer, words.special, words.reasoning, self.chat.opens_reasoning)
        self._piece = Piece("", False, False)
        self._probability: float | None = None
        self._penalised = spoken_tokens(self.request, self.chat)

    @cached_property
    def exempt_in_prompt(self) -> list[bool]:
        """Per prompt token, whether the clamp leaves it alone: template text, and spans without a cap."""
        return [
            owner < 0 or not self.request.acts_on(reasoning)
            for owner, reasoning in zip(self.chat.owner, self.chat.reasoning, strict=True)
        ]

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
        ends = self.vocabulary.listed if self._piece.reasoning else self.vocabulary.stops
        return self.pending in ends

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
        return self._piece.special

    def start_after(self, cached: CachedSequence, tokens: int) -> None:
        """Reuse the first `tokens` prompt tokens of a cached sequence, with their projections."""
        self.reused, self.before = tokens, cached.before[:tokens]

    @property
    def pending_is_exempt(self) -> bool:
        """Whether the clamp leaves the pending token alone."""
        return self._piece.special or not self.request.acts_on(self._piece.reasoning)

    def prompt_chunk(self, most: int) -> Chunk:
        """The next `most` prompt tokens, or as many as are left."""
        start, end = self.tokens_run, min(self.tokens_run + most, len(self.chat.ids))
        if start < self.pause_at < end:
            end = self.pause_at
        exempt = self.exempt_in_prompt[start:end]
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
            [self.pending_is_exempt],
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
        self._piece = self._text.step(token)
        if not self.pending_is_special:
            self._penalised[token] = None

    def prompt_event(self) -> PromptEvent:
        """The event of a prompt that has been read."""
        last = len(self.request.messages) - 1
        values = [p for p, owner in zip(self.before, self.chat.owner, strict=True) if owner == last]
        mean = sum(values) / len(values) if values else None
        return PromptEvent(self.request.branch, len(self.chat.ids), self.reused, mean, self.chat.left_out)

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
                self._piece.text + (self._text.end() if self.is_full else ""),
                reading.before[-1],
                reading.after,
                tuple(reading.corrections.get(layer, 0.0) for layer in self.layers),
                self.pending_is_special,
                None if self.pending_is_special else reading.coordinates,
                self._probability,
                reasoning=self._piece.reasoning,
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
                self._piece.text + self._text.end(),
                None,
                None,
                (),
                self.pending_is_special,
                probability=self._probability,
                reasoning=self._piece.reasoning,
            ),
            len(self.chat.ids) + len(self.generated),
            "stop",
        )

    def failed_event(self, error: BaseException) -> TokenEvent:
        """The event of a sequence that ends because of an error."""
        position = len(self.chat.ids) + len(self.generated)
        return TokenEvent(
            self.request.branch, None, Token("", None, None, (), False), position, "failed", str(error)
        )

    @property
    def ids_run(self) -> list[int]:
        """The tokens in the cache slot."""
        return (self.chat.ids + self.generated)[: self.tokens_run]


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

    def __init__(self, forward: ForwardPass, prefix_cache: PrefixCache, cache: SequenceCache) -> None:
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
        request = sequence.request
        cached, known = self._prefix_cache.longest(request.branch, sequence.chat.ids, request.intervention)
        other, shared = self._most_alike(sequence)
        if other is not None and shared > known:
            self._cache.copy(other.slot, sequence.slot, shared)
            sequence.reused, sequence.before = shared, other.before[:shared]
        elif cached is not None and known:
            self._cache.load(sequence.slot, cached.state, known)
            sequence.start_after(cached, known)
        if not self._cache.can_be_cut:
            sequence.pause_at = sequence.chat.stable
        self.sequences.append(sequence)

    def _most_alike(self, sequence: TokenSequence) -> tuple[TokenSequence | None, int]:
        """The running sequence with the longest prefix in common with this prompt, and its length.

        Only sequences under the same intervention count. At least one token is left to run, for its logits.
        """
        best, most = None, 0
        for other in self.sequences:
            if other.request.intervention == sequence.request.intervention:
                shared = min(common_prefix(other.ids_run, sequence.chat.ids), len(sequence.chat.ids) - 1)
                usable = self._cache.can_be_cut or shared == other.tokens_run
                if usable and shared > most:
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
        """Free the sequence's slot.

        Args:
            keep: store its state in the prefix cache, unless the sequence has failed.
        """
        sequence.status = Status.FINISHED
        if sequence in self.sequences:
            self.sequences.remove(sequence)
            if keep and sequence.tokens_run and sequence.fault is None:
                self._keep(sequence)
            # A failed sequence may leave NaN behind, which masks do not hide from the slot's next sequence.
            if sequence.fault is not None or not self._cache.can_be_cut:
                self._cache.clear(sequence.slot)
            self._close_gaps()

    def keep_state(self, sequence: TokenSequence) -> None:
        """Store the state before the header of the reply, from which another reply can begin.

        Only states that cannot be cut back need this.
        """
        if sequence.pause_at and sequence.tokens_run == sequence.pause_at > sequence.reused:
            self._keep(sequence)

    def _keep(self, sequence: TokenSequence) -> None:
        """Store what the cache slot holds in the prefix cache."""
        state = self._cache.saved(sequence.slot, sequence.tokens_run)
        entry = CachedSequence(sequence.ids_run, state, list(sequence.before), sequence.request.intervention)
        self._prefix_cache.put(sequence.request.branch, entry)

    def _close_gaps(self) -> None:
        """Move sequences into free slots, so that a pass covers no more slots than there are sequences."""
        free = sorted(set(range(len(self.sequences))) - {sequence.slot for sequence in self.sequences})
        high = [sequence for sequence in self.sequences if sequence.slot >= len(self.sequences)]
        for slot, sequence in zip(free, high, strict=True):
            self._cache.copy(sequence.slot, slot, sequence.tokens_run)
            if not self._cache.can_be_cut:
                self._cache.clear(sequence.slot)
            sequence.slot = slot
