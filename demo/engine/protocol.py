"""The interface of every engine: requests in, events out. There is no model code here.

Conversations and the page use these types only, so they work with any engine.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event as CancelFlag
from typing import Literal, NamedTuple, Protocol

from demo.models.chat_template import LeftOut, Message
from demo.utils.errors import UserError

# On the roles' first three principal components, axis units at the probe layer; see demo.axis.components.
Coordinates = tuple[float, float, float]


def as_coordinates(place: Sequence[float]) -> Coordinates | None:
    """Three numbers as coordinates; an empty sequence, from an axis without components, as None."""
    return (place[0], place[1], place[2]) if place else None


# "stop": the model ended the reply. "sentence": the soft limit ended it between two sentences. "length": the
# limit ended it anywhere.
FinishReason = Literal["stop", "sentence", "length", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are sampled.

    The repetition penalty (Keskar et al. 2019, CTRL) applies to tokens of the assistant's own replies only,
    never to template tokens, so that it does not make the end-of-turn token less likely with every turn.

    Attributes:
        temperature: 0 is greedy.
        repetition_penalty: 1 is none.
        soft_limit: once the answer has so many tokens, it ends with the sentence it is in; 0 is none.
            Reasoning does not count, and `max_new_tokens` holds in any case.
    """

    temperature: float = 0.3
    top_p: float = 0.9
    max_new_tokens: int = 96
    seed: int = 0
    repetition_penalty: float = 1.1
    soft_limit: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 5:
            raise UserError(f"Temperature must lie between 0 and 5, not {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"Top-p must be above 0 and at most 1, not {self.top_p}.")
        if not 1 <= self.max_new_tokens <= 100_000:
            raise UserError(f"Max new tokens must be at least 1, not {self.max_new_tokens}.")
        if not 0 <= self.soft_limit <= 100_000:
            raise UserError(
                f"Replies can end at a sentence after 0 (never) to 100000 tokens, not {self.soft_limit}."
            )
        if not 0 <= self.seed < 2**53:
            raise UserError(f"The seed must be a whole number from 0 to 2^53, not {self.seed}.")
        if not 1 <= self.repetition_penalty <= 2:
            raise UserError(
                f"The repetition penalty must lie between 1 (none) and 2, not {self.repetition_penalty}."
            )


@dataclass(frozen=True, slots=True)
class Cap:
    """Which decoder layers are capped, and the floor of each.

    Attributes:
        floors: raw projection units, along the direction's unit vector, which for the axis points toward the
            Assistant; along its negative where the cap is `downward`.
        direction: the name of another direction; empty for the axis.
        downward: keep the projection from rising above a ceiling, instead of from falling below a floor.
        only_below: makes the cap conditional: it acts on a reply only if that begins below this, and on
            nothing but the reply. A reply begins where the prompt's last token projects at the probe layer,
            axis units. The prompt is then read without the cap, with all replies in it.
    """

    layers: tuple[int, ...]
    floors: tuple[float, ...]
    direction: str = ""
    downward: bool = False
    only_below: float | None = None

    def acts_from(self, start: float) -> bool:
        """Whether it acts on a reply that begins at `start`, axis units."""
        return self.only_below is None or start < self.only_below


@dataclass(frozen=True, slots=True)
class Steer:
    """Add alpha times a direction at one decoder layer.

    Attributes:
        alpha: 1 is one unit of the direction at that layer: toward the Assistant for the axis.
        direction: the name of another direction; empty for the axis.
    """

    layer: int
    alpha: float
    direction: str = ""

    def __post_init__(self) -> None:
        if not -20 <= self.alpha <= 20:
            raise UserError(
                f"The steering strength must lie between -20 and 20 axis units, not {self.alpha}."
            )


# Which part of a reply cap and steering act on, where a model reasons before it answers.
Span = Literal["both", "answer", "reasoning"]

Intervention = tuple[Cap | None, Cap | None, Steer | None, Span]

# The mean residual stream of a reply at the probe layer: D numbers, raw units.
State = tuple[float, ...]

# What a reply begins with, in order: token ids, and texts, which the engine encodes.
Opening = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the mean state of a reply lies from that of an earlier one of its branch, at the probe layer.

    Attributes:
        length: the distance, in axis units.
        along: its part along the axis, in axis units, positive toward the Assistant.
    """

    length: float
    along: float

    @property
    def share(self) -> float:
        """Share of the squared distance that lies along the axis, 0 to 1; 0 where nothing has shifted."""
        return min((self.along / self.length) ** 2, 1.0) if self.length > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence: a branch of a conversation to be continued, or a finished chat to be read.

    Attributes:
        span: which part of the assistant's replies cap and steering act on.
        thinking: whether the model is asked to reason before it answers.
        date: the day that a dated chat template writes, as YYYY-MM-DD; None for today.
        also: a second cap, along another direction.
        along: names of the directions that are read along, besides the axis.
        plain: read the reply's words a second time as the unsteered model would, in the same passes.
        first: the mean state of the branch's first reply, from which the shift of this one is measured.
        opening: what the reply begins with, instead of what would be sampled there. Its tokens are run one by
            one like sampled ones, count toward the limits, and are reported like them.
        previous: the mean state of the branch's reply before, from which the step to this one is measured.
    """

    branch: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    cap: Cap | None = None
    steer: Steer | None = None
    span: Span = "both"
    thinking: bool = False
    date: str | None = None
    also: Cap | None = None
    along: tuple[str, ...] = ()
    plain: bool = False
    first: State | None = None
    opening: Opening = ()
    previous: State | None = None

    @property
    def in_prompt(self) -> Intervention:
        """Everything besides the text that shapes the activations of the prompt."""
        cap, also = (None if one is None or one.only_below is not None else one for one in self._both)
        return cap, also, self.steer, self.span

    @property
    def is_conditional(self) -> bool:
        """Whether a cap depends on where the reply begins."""
        return any(cap.only_below is not None for cap in self.caps)

    def in_reply(self, start: float) -> tuple[Cap | None, Cap | None]:
        """The caps that act on a reply that begins at `start`, axis units."""
        cap, also = (None if one is None or not one.acts_from(start) else one for one in self._both)
        return cap, also

    @property
    def _both(self) -> tuple[Cap | None, Cap | None]:
        return self.cap, self.also

    @property
    def is_steered(self) -> bool:
        """Whether anything but the text shapes this sequence's activations."""
        return any(part is not None for part in (self.cap, self.also, self.steer))

    @property
    def caps(self) -> tuple[Cap, ...]:
        """The caps in force, that along the axis first."""
        return tuple(cap for cap in self._both if cap is not None)

    def acts_on(self, reasoning: bool) -> bool:
        """Whether cap and steering act on tokens of this kind. User and system messages count as answer."""
        return self.span in ("both", "reasoning" if reasoning else "answer")


@dataclass(frozen=True, slots=True)
class WaitEvent:
    """There is no capacity yet. ahead: how many request groups come first."""

    ahead: int


@dataclass(frozen=True, slots=True)
class PromptEvent:
    """The prompt of one branch has been read.

    Attributes:
        reused_tokens: prompt tokens that came from a cache.
        user_projection: mean over the content tokens of the last message, axis units at the probe layer,
            before the clamp; None when there are none.
        left_out: what the chat template left out of the prompt.
        start: projection of the prompt's last token, axis units at the probe layer, before the clamp: where
            the reply begins. None from an engine that does not tell.
    """

    branch: str
    prompt_tokens: int
    reused_tokens: int
    user_projection: float | None
    left_out: tuple[LeftOut, ...] = ()
    start: float | None = None


# How many tokens that could have come are reported with each token, and how likely they are at least.
MOST_ALTERNATIVES = 8
LEAST_ALTERNATIVE = 0.001


class Alternative(NamedTuple):
    """A token that could have come at some place of a reply.

    Attributes:
        token_id: in the model's vocabulary.
        text: what it would add; the name of a special token.
        probability: as in `Token`.
    """

    token_id: int
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a reply: what the engine reports, a conversation keeps and a session file holds.

    Attributes:
        text: what this token adds to the reply; empty for special tokens and while a multi-byte character
            is incomplete.
        before, after: projection at the probe layer before and after the clamp there, axis units; None for a
            token that was never run (the end-of-turn token, or one that was cancelled).
        corrections: what each capped layer added, in axis units of that layer.
        special: whether it is a special token rather than content.
        coordinates: place on the persona map, axis units at the probe layer, after the clamp there; None
            where `before` is None, for special tokens, and when the axis has no components.
        probability: of this token when it was sampled, by the sequence's model at temperature 1, before the
            repetition penalty.
        at: milliseconds after the turn began, set by the conversation.
        reasoning: whether it belongs to the reasoning before the answer.
        plain: projection at the probe layer as the unsteered model reads the same words, axis units; None
            where that was not asked for.
        along: projections at the probe layer along the directions that were asked for, each in its own
            units, after the caps.
        also: what the second cap added, the sum over its layers, in units of its direction.
        alternatives: the likeliest tokens at its place, the likeliest first; the token itself may be among
            them. At most MOST_ALTERNATIVES.
        plain_alternatives: the same as the unsteered model would go on after the same words; empty where
            these were not read a second time.
        token_id: in the model's vocabulary; None where that is not known.
        given: whether it belongs to what the reply was made to begin with, instead of being sampled.
    """

    text: str
    before: float | None
    after: float | None
    corrections: tuple[float, ...]
    special: bool
    coordinates: Coordinates | None = None
    probability: float | None = None
    at: int | None = None
    reasoning: bool = False
    plain: float | None = None
    along: tuple[float, ...] = ()
    also: float = 0.0
    alternatives: tuple[Alternative, ...] = ()
    plain_alternatives: tuple[Alternative, ...] = ()
    token_id: int | None = None
    given: bool = False

    @property
    def correction(self) -> float:
        """Sum over the capped layers; 0 where the cap did not act."""
        return sum(self.corrections)


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A branch has one more token, or has ended.

    Attributes:
        token_id: None when a branch ends before its first token; `token` is then empty.
        position: index in the context.
        finish_reason: set on the branch's last event only.
        fault: why the branch failed, in one sentence; empty otherwise.
        state: on the branch's last event, the mean state of the answer's content tokens; None from an engine
            that does not measure it.
        shift, step: on the branch's last event, how far `state` lies from `Request.first`, and from
            `Request.previous`; None without both.
    """

    branch: str
    token_id: int | None
    token: Token
    position: int
    finish_reason: FinishReason | None = None
    fault: str = ""
    state: State | None = None
    shift: Shift | None = None
    step: Shift | None = None


@dataclass(frozen=True, slots=True)
class ReadToken:
    """One content token of a finished chat as the model reads it.

    Attributes:
        message: index of the message it belongs to.
        before, after: projection at every decoder layer, axis units of that layer, before and after the
            clamp there.
        coordinates, reasoning, along: as in `Token`.
    """

    message: int
    text: str
    before: tuple[float, ...]
    after: tuple[float, ...]
    coordinates: Coordinates | None = None
    reasoning: bool = False
    along: tuple[float, ...] = ()


Event = WaitEvent | PromptEvent | TokenEvent
# Closing the generator frees the sequences.
Events = Generator[Event, None, None]


@dataclass(frozen=True, slots=True)
class Load:
    """How busy an engine is.

    Attributes:
        running, waiting: sequences that are being answered, and that wait for capacity.
        kv_bytes: bytes of KV cache held for running sequences and kept between turns, all conversations
            together.
        kv_budget: bytes of KV cache allowed.
    """

    running: int
    waiting: int
    kv_bytes: int
    kv_budget: int


class Engine(Protocol):
    """Answers several requests in step and reports where every token stands on the axis."""

    @property
    def load(self) -> Load:
        """How busy the engine is."""
        ...

    def stream(self, requests: Sequence[Request], cancel: CancelFlag | None = None) -> Events:
        """Answer all requests in step. Setting `cancel` ends them within one step."""
        ...

    def read(self, request: Request, cancel: CancelFlag | None = None) -> Iterator[list[ReadToken]]:
        """Read a finished chat under the request's intervention, a chunk at a time.

        Nothing is generated, and nothing is kept afterwards. An iterator that is closed before its end costs
        at most a chunk.

        Raises:
            UserError: at once, when the chat cannot be read; a TooLongError when it does not fit the context
                window.
        """
        ...

    def forget(self, branches: Sequence[str]) -> None:
        """Drop what is cached for these branches."""
        ...


def capped_layers(requests: Sequence[Request]) -> tuple[int, ...]:
    """The decoder layers whose corrections the events of these requests report, in order."""
    return tuple(sorted({layer for request in requests if request.cap for layer in request.cap.layers}))


def check_layers(requests: Sequence[Request], count: int) -> None:
    """Raises UserError when a cap or steering names a decoder layer that a model of `count` layers lacks."""
    capped = {layer for request in requests for cap in request.caps for layer in cap.layers}
    touched = {*capped, *(request.steer.layer for request in requests if request.steer)}
    if not all(0 <= layer < count for layer in touched):
        raise UserError(f"The model has decoder layers 0 to {count - 1}; choose a band within them.")


def check_directions(
    requests: Sequence[Request], layers_of: Mapping[str, Sequence[int]], probe_layer: int
) -> None:
    """Check that an engine has the directions that these requests name.

    Args:
        layers_of: name of a direction -> the decoder layers at which it has a vector.

    Raises:
        UserError: a direction is unknown, or has no vector where it is needed.
    """
    for request in requests:
        acting = [(cap.direction, layer) for cap in request.caps for layer in cap.layers]
        acting += [(request.steer.direction, request.steer.layer)] if request.steer else []
        for name, layer in [*acting, *((name, probe_layer) for name in request.along)]:
            if name and name not in layers_of:
                raise UserError(f"This engine has no direction {name!r}; choose another one.")
            if name and layer not in layers_of[name]:
                own = layers_of[name]
                raise UserError(
                    f"The direction {name!r} has vectors at layers {own[0]} to {own[-1]} only, "
                    f"not at {layer}; choose layers among them."
                )


class TooLongError(UserError):
    """A chat does not fit the model's context window.

    Attributes:
        tokens: of the chat.
        context: the context window in tokens.
    """

    def __init__(self, tokens: int, context: int) -> None:
        self.tokens, self.context = tokens, context
        super().__init__(
            f"This conversation is {tokens} tokens long, but the model holds {context}: "
            "start a new chat or send a shorter message."
        )


def room_left(tokens: int, context: int) -> int:
    """How many more tokens fit the context window. Raises TooLongError when there is no room for one."""
    if context <= tokens:
        raise TooLongError(tokens, context)
    return context - tokens


def with_endings(events: Iterable[Event], branches: Mapping[str, int]) -> Events:
    """These events, followed by a "cancelled" event for every branch that has not finished among them.

    Args:
        branches: branch -> position of its next token, as far as it is known.
    """
    unfinished = dict(branches)
    for event in events:
        if isinstance(event, PromptEvent):
            unfinished[event.branch] = event.prompt_tokens
        elif isinstance(event, TokenEvent):
            unfinished[event.branch] = event.position + 1
            if event.finish_reason is not None:
                del unfinished[event.branch]
        yield event
    for branch, position in unfinished.items():
        yield TokenEvent(branch, None, Token("", None, None, (), False), position, "cancelled")
