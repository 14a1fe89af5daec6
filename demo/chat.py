"""Conversations: what was said in each branch, where every token stood, and how a turn is run.

A conversation has two branches that see the same user messages but their own replies. This module turns engine events
into state and passes them on; it knows neither the page nor the model.
"""

from __future__ import annotations

import uuid
from contextlib import closing
from dataclasses import dataclass, field, replace
from threading import Event as CancelFlag

from demo.axis import AssistantAxis
from demo.engine.protocol import (
    Cap,
    Coordinates,
    Engine,
    Event,
    Events,
    FinishReason,
    Message,
    PromptEvent,
    Request,
    Sampling,
)
from demo.errors import UserError

UNCAPPED, CAPPED = "uncapped", "capped"
BRANCHES = (UNCAPPED, CAPPED)


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a reply. before, after: projection at the probe layer, axis units; corrections: per capped layer,
    axis units of that layer; coordinates: place on the persona map, as in `TokenEvent`."""

    text: str
    before: float | None
    after: float | None
    corrections: tuple[float, ...]
    special: bool
    coordinates: Coordinates | None = None

    @property
    def correction(self) -> float:
        """Sum over the capped layers; 0 where the cap did not act."""
        return sum(self.corrections)


@dataclass
class Reply:
    """One branch's answer. user_projection: mean over the user message as this branch read it."""

    limit: int
    tokens: list[Token] = field(default_factory=list)
    finish: FinishReason | None = None
    user_projection: float | None = None
    _placed: int = field(default=0, init=False, repr=False)
    _sums: list[float] = field(default_factory=lambda: [0.0] * 3, init=False, repr=False)

    def __post_init__(self) -> None:
        for token in self.tokens:
            self._count_in(token)

    def add(self, token: Token) -> None:
        """The next token has been said."""
        self.tokens.append(token)
        self._count_in(token)

    @property
    def place(self) -> Coordinates | None:
        """Mean coordinates of the content tokens so far, kept up to date by `add`; None where the axis has no map."""
        if not self._placed:
            return None
        x, y, z = (total / self._placed for total in self._sums)
        return x, y, z

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    @property
    def read(self) -> list[Token]:
        """Content tokens whose projection is known: what means and shares are taken over."""
        return [token for token in self.tokens if not token.special and token.after is not None]

    @property
    def mean(self) -> float | None:
        """Mean projection after the clamp, axis units."""
        values = [token.after for token in self.read if token.after is not None]
        return sum(values) / len(values) if values else None

    @property
    def fired(self) -> int:
        """Number of content tokens on which the cap acted at one layer or more."""
        return sum(token.correction > 0 for token in self.read)

    def _count_in(self, token: Token) -> None:
        if token.coordinates is None or token.special:
            return
        self._placed += 1
        self._sums = [total + value for total, value in zip(self._sums, token.coordinates, strict=True)]


@dataclass
class Turn:
    user: str
    replies: dict[str, Reply]


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """How the next turn is answered. cap None: both branches run uncapped."""

    sampling: Sampling
    cap: Cap | None
    system_prompt: str = ""


def make_cap(axis: AssistantAxis, first: int, last: int, floor: str) -> Cap:
    """A cap at decoder layers `first` to `last`, inclusive, each at its own named floor. Raises UserError."""
    if not 0 <= first <= last < axis.layers:
        raise UserError(
            f"The capped layers must run from a lower to a higher number between 0 and {axis.layers - 1}, "
            f"not from {first} to {last}."
        )
    layers = tuple(range(first, last + 1))
    floors = axis.floor(floor)
    if not set(layers) <= set(axis.floor_layers(floor)):  # a cap that silently does nothing would be a lie
        have = axis.floor_layers(floor)
        raise UserError(
            f"{floor} has floors at {len(have)} layers between {have[0]} and {have[-1]} only, not at all of {first} to "
            f"{last}; choose layers among them."
        )
    return Cap(layers, tuple(float(floors[layer]) for layer in layers))


@dataclass
class Conversation:
    """One visitor's chat. `stop()` may be called from any thread; everything else from one at a time."""

    turns: list[Turn] = field(default_factory=list)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    _cancel: CancelFlag = field(default_factory=CancelFlag, repr=False)

    def branch_id(self, branch: str) -> str:
        """The name under which the engine keeps this branch's KV cache."""
        return f"{self.id}/{branch}"

    def messages(self, branch: str, system_prompt: str = "") -> list[Message]:
        """What the model sees as history in this branch."""
        history: list[Message] = (
            [{"role": "system", "content": system_prompt}] if system_prompt.strip() else []
        )
        for turn in self.turns:
            history.append({"role": "user", "content": turn.user})
            history.append({"role": "assistant", "content": turn.replies[branch].text})
        return history

    def stop(self) -> None:
        """End the running turn within one decode step; what has been said so far stays."""
        self._cancel.set()

    def send(self, engine: Engine, text: str, settings: TurnSettings) -> Events:
        """Run one turn: both branches answer `text` together.

        Returns an iterator of the engine's events, each given once it is in the state, with `branch` as in BRANCHES.
        Raises UserError at once, with nothing changed, when the turn cannot be run. A turn that fails midway is
        taken out again; one whose iterator is closed keeps what was said.
        """
        if not text.strip():
            raise UserError("Write a message first.")
        self._cancel.clear()
        events = engine.stream([self._request(branch, text, settings) for branch in BRANCHES], self._cancel)
        turn = Turn(text, {branch: Reply(settings.sampling.max_new_tokens) for branch in BRANCHES})
        self.turns.append(turn)
        return self._follow(turn, events)

    def _follow(self, turn: Turn, events: Events) -> Events:
        try:
            with closing(events):
                for event in events:
                    yield self._take(turn, event)
        except GeneratorExit:
            for reply in turn.replies.values():
                reply.finish = reply.finish or "cancelled"
            raise
        except Exception:
            self.turns.remove(turn)
            raise

    def _request(self, branch: str, text: str, settings: TurnSettings) -> Request:
        messages = (*self.messages(branch, settings.system_prompt), Message(role="user", content=text))
        cap = settings.cap if branch == CAPPED else None
        return Request(self.branch_id(branch), messages, settings.sampling, cap)

    def _take(self, turn: Turn, event: Event) -> Event:
        branch = event.branch.rpartition("/")[2]
        reply = turn.replies[branch]
        if isinstance(event, PromptEvent):
            reply.user_projection = event.user_projection
        else:
            reply.finish = event.finish_reason
            if event.token_id is not None:
                reply.add(
                    Token(
                        event.text,
                        event.projection,
                        event.projection_after,
                        event.corrections,
                        event.is_special,
                        event.coordinates,
                    )
                )
        return replace(event, branch=branch)
