"""A sequence is one branch while the engine answers it: its prompt, what it has generated, and its events."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from demo.axis.axis import AssistantAxis
from demo.engine.forward.forward_pass import ActivationRecorder, Chunk, ChunkReading
from demo.engine.protocol import (
    LEAST_ALTERNATIVE,
    Alternative,
    FinishReason,
    Opening,
    PromptEvent,
    Request,
    Shift,
    State,
    Token,
    TokenEvent,
)
from demo.engine.sampling import Choice, Likeliest, SamplingStep
from demo.engine.text import Piece, ReplyText, TokenTexts, encode_following, ends_sentence
from demo.models.chat_template import ReasoningFormat, RenderedChat, reasoning_format, special_tokens
from demo.models.loading import LoadedModel, ModelFacts
from demo.utils.errors import UserError


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
        texts: the text of single tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int]
    special: frozenset[int]
    texts: TokenTexts
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
        TokenTexts(model.tokenizer),
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
        along: which of the probe's further directions its events report.
        plain: the sequence that reads the same words as the unsteered model; None without one.
        axis: the axis along which shift and step from earlier replies are measured; None to measure none.
        leads: False for a sequence that only reads what another one writes.
        opening: ids of the tokens that the reply begins with, as the request asks for.
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
    along: tuple[int, ...] = ()
    plain: TokenSequence | None = None
    axis: AssistantAxis | None = None
    leads: bool = True
    opening: tuple[int, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        words = self.vocabulary
        self.opening = opening_ids(self.request.opening, words, self.limit)
        self._text = ReplyText(words.tokenizer, words.special, words.reasoning, self.chat.opens_reasoning)
        self._piece = Piece("", False, False)
        self._choice: Choice | None = None
        self._plain_likeliest: Likeliest = ()
        self._penalised = spoken_tokens(self.request, self.chat)
        self._answer, self._answer_tokens = "", 0
        self._state: Tensor | None = None
        self._states = 0

    @cached_property
    def exempt_in_prompt(self) -> list[bool]:
        """Per prompt token, whether the clamp leaves it alone: template text, and spans without a cap."""
        return [
            owner < 0 or not self.request.acts_on(reasoning)
            for owner, reasoning in zip(self.chat.owner, self.chat.reasoning, strict=True)
        ]

    @property
    def most_tokens(self) -> int:
        """How many tokens the cache slot may have to hold."""
        return len(self.chat.ids) + self.limit

    @property
    def tokens_run(self) -> int:
        """How many tokens are in the cache slot."""
        return len(self.before)

    @property
    def prompt_left(self) -> int:
        """How many prompt tokens have not been run."""
        return max(len(self.chat.ids) - self.tokens_run, 0)

    def reads_as(self, other: TokenSequence) -> bool:
        """Whether both have the same prompt, under the same intervention."""
        return self.request.in_prompt == other.request.in_prompt and self.chat.ids == other.chat.ids

    def has_read_all_of(self, other: TokenSequence) -> bool:
        """Whether it has read exactly the prompt of another sequence as that would, and nothing more."""
        return (
            self.logits is not None and self.pending is None and not self.prompt_left and self.reads_as(other)
        )

    @property
    def wants_stop(self) -> bool:
        """Whether the reply ends before the pending token."""
        return self._model_stops or self._sentence_ends

    @property
    def _model_stops(self) -> bool:
        """Whether the pending token is one with which the model ends a reply."""
        ends = self.vocabulary.listed if self._piece.reasoning else self.vocabulary.stops
        return self.pending in ends

    @property
    def _sentence_ends(self) -> bool:
        """Whether the soft limit is reached, and the pending token would begin another sentence."""
        limit = self.request.sampling.soft_limit
        if self._is_given:
            return False
        return 0 < limit <= self._answer_tokens and ends_sentence(self._answer, self._piece.text)

    @property
    def _is_given(self) -> bool:
        """Whether the pending token belongs to the opening."""
        return len(self.generated) < len(self.opening)

    @property
    def is_broken(self) -> bool:
        """Whether the model's logits were NaN or infinite when the pending token was sampled."""
        return self._choice is not None and not math.isfinite(self._choice.probability)

    @property
    def is_full(self) -> bool:
        """Whether the reply has reached its limit."""
        return len(self.generated) >= self.limit

    @property
    def pending_is_special(self) -> bool:
        return self._piece.special

    def start_after(self, before: list[float]) -> None:
        """Reuse prompt tokens that are in the cache already. before: their projections."""
        self.reused, self.before = len(before), before

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
        last = end == len(self.chat.ids)
        cap, also, steer, _ = self.request.in_prompt
        return Chunk(self.slot, start, self.chat.ids[start:end], exempt, cap, steer, last, also=also)

    def token_chunk(self) -> Chunk:
        """The pending token."""
        assert self.pending is not None  # a sequence decodes only after a token was sampled
        recorder = None if self.pending_is_special else self.recorder
        cap, also = self.request.in_reply(self.start)
        return Chunk(
            self.slot,
            self.tokens_run,
            [self.pending],
            [self.pending_is_exempt],
            cap,
            self.request.steer,
            prompt=False,
            also=also,
            recorder=recorder,
            rows=() if recorder is None else (self.recorder_row,),
        )

    def sampling_step(self) -> SamplingStep:
        """How the next token is to be sampled."""
        step = len(self.generated)
        given = self.opening[step] if self._is_given else None
        return SamplingStep(self.request.sampling, step, self._penalised, self.vocabulary.barred, given)

    def take(self, choice: Choice, plain: Likeliest = ()) -> None:
        """Make the token that has been sampled the pending one.

        Args:
            plain: how the unsteered model would go on after the same words.
        """
        self.pending, self._choice, self.logits = choice.token, choice, None
        self._plain_likeliest = plain
        self._piece = self._text.step(choice.token)
        if not self.pending_is_special:
            self._penalised[choice.token] = None

    def _chosen_from(self) -> dict[str, Any]:
        """What a token's event says of the choice."""
        assert self._choice is not None
        return {
            "probability": self._choice.probability,
            "alternatives": self._alternatives(self._choice.likeliest),
            "plain_alternatives": self._alternatives(self._plain_likeliest),
            "token_id": self._choice.token,
        }

    def _alternatives(self, likeliest: Likeliest) -> tuple[Alternative, ...]:
        text_of = self.vocabulary.texts
        return tuple(
            Alternative(token, text_of(token), chance)
            for token, chance in likeliest
            if chance >= LEAST_ALTERNATIVE
        )

    def follow(self) -> None:
        """Make the token that this sequence has sampled the pending one of `plain`, too."""
        if self.plain is not None:
            self.plain.pending, self.plain._piece, self.plain.logits = self.pending, self._piece, None

    def prompt_event(self) -> PromptEvent:
        """The event of a prompt that has been read."""
        last = len(self.request.messages) - 1
        values = [p for p, owner in zip(self.before, self.chat.owner, strict=True) if owner == last]
        mean = sum(values) / len(values) if values else None
        count = len(self.chat.ids)
        return PromptEvent(self.request.branch, count, self.reused, mean, self.chat.left_out, self.start)

    def token_event(self, reading: ChunkReading) -> TokenEvent:
        """The event of the pending token, which has been run."""
        token, position = self.pending, len(self.chat.ids) + len(self.generated)
        assert token is not None
        given = self._is_given
        self.run_pending(reading)
        if not self._piece.reasoning and not self.pending_is_special:
            if self.request.sampling.soft_limit:
                self._answer, self._answer_tokens = self._answer + self._piece.text, self._answer_tokens + 1
            self._add_state(reading.state)
        event = TokenEvent(
            self.request.branch,
            token,
            Token(
                self._piece.text + (self._text.end() if self.is_full else ""),
                reading.before[-1],
                reading.after,
                tuple(reading.corrections.get(layer, 0.0) for layer in self.layers),
                self.pending_is_special,
                None if self.pending_is_special else reading.coordinates,
                reasoning=self._piece.reasoning,
                plain=self._plain_reading,
                along=tuple(reading.along[number] for number in self.along),
                also=reading.also,
                given=given,
                **self._chosen_from(),
            ),
            position,
            "length" if self.is_full else None,
        )
        return self._measured(event) if self.is_full else event

    @property
    def _plain_reading(self) -> float | None:
        """The newest token's projection as the unsteered model reads it; None where it is no number."""
        value = math.nan if self.plain is None else self.plain.before[-1]
        return value if math.isfinite(value) else None

    def run_pending(self, reading: ChunkReading) -> None:
        """Count the pending token as run."""
        assert self.pending is not None
        self.generated.append(self.pending)
        self.before += reading.before

    def _add_state(self, state: Tensor | None) -> None:
        if state is not None:
            self._state = state.clone() if self._state is None else self._state.add_(state)
            self._states += 1

    @property
    def mean_state(self) -> State | None:
        """Mean residual stream of the answer's content tokens so far; None where it is not measured."""
        return None if self._state is None else tuple((self._state / self._states).tolist())

    def stop_event(self) -> TokenEvent:
        """The event of a reply that ends before the pending token, which is not run.

        At the end of a sentence that token is no part of the reply.
        """
        assert self.pending is not None
        if not self._model_stops:
            return self._measured(self._ending("sentence"))
        event = TokenEvent(
            self.request.branch,
            self.pending,
            Token(
                self._piece.text + self._text.end(),
                None,
                None,
                (),
                self.pending_is_special,
                reasoning=self._piece.reasoning,
                **self._chosen_from(),
            ),
            len(self.chat.ids) + len(self.generated),
            "stop",
        )
        return self._measured(event)

    def _measured(self, event: TokenEvent) -> TokenEvent:
        """The last event of a reply, with its mean state, and how far that lies from earlier ones."""
        state, axis = self.mean_state, self.axis
        shift, step = (
            None if state is None or before is None or axis is None else shift_of(axis, before, state)
            for before in (self.request.first, self.request.previous)
        )
        return replace(event, state=state, shift=shift, step=step)

    def failed_event(self, error: BaseException) -> TokenEvent:
        """The event of a sequence that ends because of an error."""
        return self._ending("failed", str(error))

    def _ending(self, reason: FinishReason, fault: str = "") -> TokenEvent:
        """An event without a token."""
        position = len(self.chat.ids) + len(self.generated)
        return TokenEvent(
            self.request.branch, None, Token("", None, None, (), False), position, reason, fault
        )

    @property
    def start(self) -> float:
        """Where the reply begins, axis units: the projection of the prompt's last token. It has been run."""
        return self.before[len(self.chat.ids) - 1]

    @property
    def shared_run(self) -> int:
        """How many tokens of the cache slot serve other sequences whose intervention is `in_prompt`.

        A reply on which a conditional cap acts is left out: later turns read it without the cap.
        """
        request, prompt = self.request, len(self.chat.ids)
        if self.tokens_run <= prompt or request.in_reply(self.start) == request.in_prompt[:2]:
            return self.tokens_run
        return prompt

    @property
    def ids_run(self) -> list[int]:
        """The tokens in the cache slot."""
        return (self.chat.ids + self.generated)[: self.tokens_run]


def shift_of(axis: AssistantAxis, first: State, now: State) -> Shift | None:
    """How far one mean state lies from another, both [D] at the probe layer.

    None where their sizes differ, as in a session of another model.
    """
    if not len(first) == len(now) == axis.direction.shape[1]:
        return None
    moved, probe = torch.tensor(now) - torch.tensor(first), axis.probe_layer
    norm = float(axis.norm[probe])
    length, along = float(moved.norm()) / norm, float(moved @ axis.unit[probe]) / norm
    return Shift(length, along) if math.isfinite(length) else None


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


def opening_ids(opening: Opening, vocabulary: Vocabulary, limit: int) -> tuple[int, ...]:
    """The tokens that a reply begins with.

    Args:
        limit: the most tokens of the reply.

    Raises:
        UserError: the opening fills the reply, names a token that the model does not have, or ends the reply.
    """
    if not opening:
        return ()
    size, found = len(vocabulary.tokenizer), list[int]()
    for part in opening:
        found += [part] if isinstance(part, int) else encode_following(vocabulary.tokenizer, part)
    if not all(0 <= token < size for token in found):
        raise UserError("The reply cannot begin with a token that this model does not have; choose another.")
    if not vocabulary.stops.isdisjoint(found):
        raise UserError("The reply cannot go on after the token that ends it; choose another.")
    if found and len(found) >= limit:
        raise UserError(
            f"The reply would begin with {len(found)} tokens and may have only {limit}: raise the limit, or "
            "begin with less."
        )
    return tuple(found)
