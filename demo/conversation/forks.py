"""Forks: what a reply is made to begin with, and where a conversation has left another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from demo.conversation.turns import Reply, Turn
from demo.engine.protocol import Opening, Sampling, Token
from demo.utils.errors import UserError

# A fork with room for fewer tokens than this gets as many more as the settings allow to a reply.
_LEAST_ROOM = 8


@dataclass(frozen=True, slots=True)
class Beginning:
    """What one reply is made to begin with.

    Attributes:
        tokens: tokens of an earlier reply, as they were.
        then: what follows them: a token's id, or a text; None for nothing.
        own: whether the branch that begins with `tokens` wrote them itself.
        extends: whether the limits of sampling count from the end of the beginning on.
    """

    tokens: tuple[Token, ...]
    then: int | str | None = None
    own: bool = True
    extends: bool = False

    @property
    def opening(self) -> Opening:
        """The same for the engine. Tokens whose ids are not known, from an old file, are encoded anew."""
        parts: list[int | str] = []
        for token in self.tokens:
            if token.token_id is not None:
                parts.append(token.token_id)
            elif parts and isinstance(parts[-1], str):
                parts[-1] += token.text
            else:
                parts.append(token.text)
        if self.then is not None:
            parts.append(self.then)
        return tuple(part for part in parts if part != "")

    def sampling(self, asked: Sampling) -> Sampling:
        """How a reply that begins so is sampled."""
        if not self.extends:
            # A fork near the end of a reply that was cut needs room to go on.
            room = asked.max_new_tokens if len(self.tokens) + _LEAST_ROOM > asked.max_new_tokens else 0
            return replace(asked, max_new_tokens=asked.max_new_tokens + room)
        answered = sum(not token.special and not token.reasoning for token in self.tokens)
        return replace(
            asked,
            max_new_tokens=len(self.tokens) + asked.max_new_tokens,
            soft_limit=asked.soft_limit and answered + asked.soft_limit,
        )

    def noted(self, position: int, token: Token) -> Token:
        """Token number `position` of the new reply. What the branch wrote itself was not given to it."""
        known = self.own and all(one.token_id is not None for one in self.tokens)
        if not known or position >= len(self.tokens):
            return token
        return replace(token, given=self.tokens[position].given)


@dataclass(frozen=True)
class Beginnings:
    """What the replies of a turn begin with.

    Attributes:
        of: by branch; a branch that is not in it begins as it likes.
        kept: branches whose replies to this turn stay as they are.
        asked: the branches that answer; empty for those of the turn's settings.
    """

    of: Mapping[str, Beginning] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    asked: tuple[str, ...] = ()

    @property
    def extends(self) -> bool:
        """Whether a reply is continued, so that its further samples stay as they are."""
        return any(one.extends for one in self.of.values())


def forked(turn: Turn, branch: str, index: int, then: int | str, everywhere: bool = False) -> Beginnings:
    """A reply up to a token, and something else in that token's place.

    Args:
        index: of the token among all tokens of the reply, special ones included.
        then: another token's id, or a text.
        everywhere: let the other branches' replies begin with the same words; otherwise they stay.

    Raises:
        UserError: there is no such reply or token, or nothing to put in its place.
    """
    reply = turn.replies.get(branch)
    if reply is None or not 0 <= index < len(reply.tokens):
        raise UserError("That token is no longer there; choose another one.")
    if then == "":
        raise UserError("Write what is to stand in the place of the token.")
    tokens = tuple(reply.tokens[:index])
    others = [one for one in turn.replies if one != branch]
    if not everywhere:
        return Beginnings({branch: Beginning(tokens, then)}, frozenset(others), (branch,))
    everyone = tuple(turn.replies)
    return Beginnings({one: Beginning(tokens, then, own=one == branch) for one in everyone}, asked=everyone)


def index_of(turn: Turn, branch: str, number: int) -> int:
    """Where a token stands among all tokens of a reply.

    Args:
        number: its number among those that are shown, from 1.

    Raises:
        UserError: there is no such reply or token.
    """
    reply = turn.replies.get(branch)
    shown = [] if reply is None else [n for n, token in enumerate(reply.tokens) if not token.special]
    if not 1 <= number <= len(shown):
        raise UserError("That token is no longer there; choose another one.")
    return shown[number - 1]


def fitted(text: str, was: str) -> str:
    """A typed text in the place of a token: a word takes over the white space before the token."""
    space = was[: len(was) - len(was.lstrip())]
    return space + text if text[:1].isalnum() else text


def text_of(token: Token, token_id: int) -> str:
    """The text of one of the tokens that could have come in a token's place; empty where it is not known."""
    known = (*token.alternatives, *token.plain_alternatives)
    return next((one.text for one in known if one.token_id == token_id), "")


def continued(turn: Turn, branch: str) -> Beginnings:
    """All of a reply that was cut, so that it goes on. Raises UserError when the model ended it."""
    reply = turn.replies.get(branch)
    if reply is None or not can_go_on(reply):
        raise UserError("This reply was not cut off, so it cannot go on.")
    others = frozenset(one for one in turn.replies if one != branch)
    return Beginnings({branch: Beginning(tuple(reply.tokens), extends=True)}, others, (branch,))


def can_go_on(reply: Reply) -> bool:
    """Whether a reply was cut: by a limit, between two sentences, or by the user."""
    return reply.finish in ("length", "sentence", "cancelled") and bool(reply.tokens)


def restore_cut(turn: Turn, before: Turn, begin: Beginnings) -> None:
    """Put a reply back that was to go on, and was stopped before it had come as far as it had been."""
    for branch, one in begin.of.items():
        if one.extends and len(turn.replies[branch].tokens) < len(one.tokens):
            turn.replies[branch] = before.replies[branch]


def as_before(turn: Turn) -> Beginnings:
    """The replies begin with what they were made to begin with, if anything."""
    found: dict[str, Beginning] = {}
    for branch, reply in turn.replies.items():
        given = [index for index, token in enumerate(reply.tokens) if token.given]
        if given:
            found[branch] = Beginning(tuple(reply.tokens[: given[-1] + 1]))
    return Beginnings(found)


@dataclass(frozen=True, slots=True)
class ForkPoint:
    """Where a conversation leaves the one that it was forked from.

    Attributes:
        turn: the first turn that is its own.
        branch: whose reply it leaves at a token; empty for a fork between two turns.
        token: the number of that token among the shown ones of the reply, from 1; 0 where there is none.
        was, words: the token's text, and what stands in its place.
    """

    turn: int
    branch: str = ""
    token: int = 0
    was: str = ""
    words: str = ""


@dataclass(frozen=True)
class Notes:
    """What a user has noted of a conversation.

    Attributes:
        star: whether it is marked.
        note: a text.
    """

    star: bool = False
    note: str = ""


@dataclass(frozen=True)
class Fork:
    """A fork in a session file.

    Attributes:
        parent: which conversation it was forked from: 0 for the file's first one, n for its n-th fork.
        point: where it leaves that one.
        turns: all of its turns. Those before the point may be the parent's own objects.
    """

    parent: int
    point: ForkPoint
    turns: list[Turn]
    title: str = ""
    blurb: str = ""
    system_prompt: str = ""
    notes: Notes = field(default_factory=Notes)
