"""One turn of a conversation as plain data: the user message and each branch's reply, token by token."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from demo.conversation.layers import Layers
from demo.conversation.settings import CAPPED, STEERED, UNCAPPED, TurnSettings
from demo.engine.protocol import Coordinates, FinishReason, Shift, State, Token


def well_formed(text: str) -> str:
    """`text` with U+FFFD for each lone half of a surrogate pair, which neither a tokenizer nor JSON accepts.

    Browsers send such halves where an emoji was cut in two.
    """
    try:
        text.encode()  # nearly every text is well formed, and this is by far the faster of the two
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass
class Reply:
    """One branch's answer.

    Attributes:
        limit: the most tokens it could have, reasoning included.
        user_projection: mean over the user message as this branch read it.
        fault: why the reply failed, in one sentence; empty otherwise.
        samples: further answers to the same turn, with other random numbers. They are not part of the
            history.
        state: the mean residual stream at the probe layer; None for a reply that was stopped, for a sample,
            and where a session file did not keep it.
        shift: how far the mean state lies from that of the branch's first finished reply; None where unknown.
        step: the same from the branch's finished reply before; None where unknown.
        layers: the reply at every decoder layer; None while nobody has looked at it.
        start: where it begins, axis units to four decimals, as in `PromptEvent`. A reply that goes on, or
            begins with given words, begins at the same prompt. None for one that was read, and where unknown.
    """

    limit: int
    tokens: list[Token] = field(default_factory=list)
    finish: FinishReason | None = None
    user_projection: float | None = None
    samples: list[Reply] = field(default_factory=list)
    fault: str = ""
    state: State | None = None
    shift: Shift | None = None
    step: Shift | None = None
    layers: Layers | None = None
    start: float | None = None
    _placed: int = field(default=0, init=False, repr=False)
    _sums: list[float] = field(default_factory=lambda: [0.0] * 3, init=False, repr=False)

    def __post_init__(self) -> None:
        for token in self.tokens:
            self._count_in(token)

    @classmethod
    def of_text(cls, text: str, reasoning: str = "") -> Reply:
        """A finished reply from elsewhere whose projections are not known yet."""
        before = [Token(reasoning, None, None, (), False, reasoning=True)] if reasoning else []
        return cls(0, [*before, Token(text, None, None, (), False)], "stop")

    def add(self, token: Token) -> None:
        """Append the next token, with its numbers to four decimals.

        Session files hold no more. So every mean is the same before a session is saved and after.
        """
        kept = _to_four_decimals(token)
        self.tokens.append(kept)
        self._count_in(kept)

    @property
    def place(self) -> Coordinates | None:
        """Mean coordinates of the answer's content tokens so far; None where the axis has no map."""
        if not self._placed:
            return None
        x, y, z = (total / self._placed for total in self._sums)
        return x, y, z

    @property
    def text(self) -> str:
        """The answer, without the reasoning before it."""
        return "".join(token.text for token in self.tokens if not token.reasoning)

    @property
    def reasoning(self) -> str:
        """What the model wrote before its answer; empty for a model that does not reason."""
        return "".join(token.text for token in self.tokens if token.reasoning)

    @property
    def read(self) -> list[Token]:
        """The answer's content tokens with a known projection; means and shares are computed over these."""
        return self._read(reasoning=False)

    def _read(self, reasoning: bool) -> list[Token]:
        return [
            token
            for token in self.tokens
            if not token.special and token.after is not None and token.reasoning == reasoning
        ]

    @property
    def mean(self) -> float | None:
        """Mean projection of the answer after the clamp, axis units."""
        return _mean(token.after for token in self.read)

    @property
    def plain_mean(self) -> float | None:
        """Mean projection of the answer as the unsteered model reads it, axis units; None where not read."""
        return _mean(token.plain for token in self.read)

    @property
    def along_means(self) -> list[float]:
        """Mean projection of the answer along each direction that was read along, in its own units."""
        rows = [token.along for token in self.read if token.along]
        return [sum(column) / len(rows) for column in zip(*rows, strict=True)] if rows else []

    @property
    def reasoning_mean(self) -> float | None:
        """Mean projection of the reasoning after the clamp, axis units; None without reasoning."""
        return _mean(token.after for token in self._read(reasoning=True))

    @property
    def fired(self) -> int:
        """Number of the answer's content tokens on which a cap acted at one layer or more."""
        return sum(token.correction > 0 or token.also > 0 for token in self.read)

    def _count_in(self, token: Token) -> None:
        if token.coordinates is None or token.special or token.reasoning:
            return
        self._placed += 1
        self._sums = [total + value for total, value in zip(self._sums, token.coordinates, strict=True)]


def rounded(value: float | None) -> float | None:
    """The value to four decimals, which is finer than a chart can show."""
    return None if value is None else round(value, 4)


def _to_four_decimals(token: Token) -> Token:
    place = token.coordinates
    return replace(
        token,
        before=rounded(token.before),
        after=rounded(token.after),
        corrections=tuple(round(value, 4) for value in token.corrections),
        coordinates=None if place is None else (round(place[0], 4), round(place[1], 4), round(place[2], 4)),
        probability=rounded(token.probability),
        plain=rounded(token.plain),
        along=tuple(round(value, 4) for value in token.along),
        also=round(token.also, 4),
        alternatives=tuple(one._replace(probability=round(one.probability, 4)) for one in token.alternatives),
        plain_alternatives=tuple(
            one._replace(probability=round(one.probability, 4)) for one in token.plain_alternatives
        ),
    )


def _mean(projections: Iterable[float | None]) -> float | None:
    values = [value for value in projections if value is not None]
    return sum(values) / len(values) if values else None


@dataclass
class Turn:
    """A user message and its replies.

    Attributes:
        replies: one reply for each branch that answered.
        settings: how the turn was answered, whatever has been chosen since; None for a turn that came from
            elsewhere or from a file of an earlier version.
        scripted: whether it is a step of the conversation's script, as it was written or edited.
    """

    user: str
    replies: dict[str, Reply]
    settings: TurnSettings | None = None
    scripted: bool = False

    def reply_in(self, branch: str) -> Reply | None:
        """The reply in this branch's history; None when the branch did not take part in the turn.

        The steered branch may be switched on late. Its history then holds the uncapped branch's replies
        to the earlier turns.
        """
        own = self.replies.get(branch)
        if own is None and branch == STEERED and len(self.replies) > 1:
            return self.replies.get(UNCAPPED)
        return own


def same_words(turn: Turn) -> bool:
    """Whether both replies are the same, with what was reasoned before them."""
    uncapped, capped = turn.replies[UNCAPPED], turn.replies[CAPPED]
    return (uncapped.reasoning, uncapped.text) == (capped.reasoning, capped.text)
