"""One turn of a conversation: what the user said, what each branch replied, and where every token stood. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field

from demo.conversation.settings import STEERED, UNCAPPED, TurnSettings
from demo.engine.protocol import Coordinates, FinishReason


def well_formed(text: str) -> str:
    """`text` with U+FFFD for each half of a surrogate pair that stands alone, which neither a tokenizer nor JSON takes.
    Browsers let them through where an emoji was cut in two."""
    try:
        text.encode()  # nearly always well, and by far the quicker of the two: every update of every page comes by here
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a reply. before, after: projection at the probe layer, axis units; corrections: per capped layer,
    axis units of that layer; coordinates: place on the persona map, as in `TokenEvent`; probability: of this token where
    it was drawn; at: milliseconds after the turn began."""

    text: str
    before: float | None
    after: float | None
    corrections: tuple[float, ...]
    special: bool
    coordinates: Coordinates | None = None
    probability: float | None = None
    at: int | None = None

    @property
    def correction(self) -> float:
        """Sum over the capped layers; 0 where the cap did not act."""
        return sum(self.corrections)


@dataclass
class Reply:
    """One branch's answer. user_projection: mean over the user message as this branch read it; samples: the same turn
    answered with other random numbers, which are no part of the history."""

    limit: int
    tokens: list[Token] = field(default_factory=list)
    finish: FinishReason | None = None
    user_projection: float | None = None
    samples: list[Reply] = field(default_factory=list)
    _placed: int = field(default=0, init=False, repr=False)
    _sums: list[float] = field(default_factory=lambda: [0.0] * 3, init=False, repr=False)

    def __post_init__(self) -> None:
        for token in self.tokens:
            self._count_in(token)

    @classmethod
    def of_text(cls, text: str) -> Reply:
        """A finished reply from elsewhere, of which nothing has been read yet."""
        return cls(0, [Token(text, None, None, (), False)], "stop")

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
    """replies: by branch, of those that were spoken to; settings: None for a turn that came from elsewhere."""

    user: str
    replies: dict[str, Reply]
    settings: TurnSettings | None = None

    def reply_in(self, branch: str) -> Reply | None:
        """What `branch` remembers as the reply; None when the turn was not spoken to it.

        The steered branch may be switched on late: what was said before it was there, it has from the uncapped branch.
        """
        own = self.replies.get(branch)
        if own is None and branch == STEERED and len(self.replies) > 1:
            return self.replies.get(UNCAPPED)
        return own
