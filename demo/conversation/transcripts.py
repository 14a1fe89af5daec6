"""Import of chats from elsewhere, such as the paper's published transcripts, requests, and programs' exports.

A file is parsed as JSON or as lines of JSON, `transcript_shapes` finds the chats in it, and
`transcript_messages` what each message says. Here they become turns. A chat is read whole or refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import orjson

from demo.conversation.session_file import NAME, Recording, loads
from demo.conversation.settings import BRANCHES
from demo.conversation.transcript_messages import Said, said
from demo.conversation.transcript_shapes import FoundChat, chats_in
from demo.conversation.turns import Reply, Turn
from demo.utils.errors import UserError

_LONGEST_TITLE = 60
_SPACE = re.compile(r"\s*")
_TOO_DEEP = "This file nests its lists and objects too deeply for a chat; open another one."


@dataclass(frozen=True)
class Transcript:
    """A chat in turns.

    Attributes:
        turns: user message and reply of each turn.
        model: the model that the chat names; empty if it names none.
        reasoning: what the model wrote before each reply of `turns`, empty where it did not reason.
        unanswered: a last user message without a reply, which is not in `turns`; empty if there is none.
        title: the chat's own title; empty if it has none.
        notes: what of the file is not read, one sentence each.
    """

    system_prompt: str
    turns: list[tuple[str, str]]
    model: str = ""
    unanswered: str = ""
    reasoning: tuple[str, ...] = ()
    title: str = ""
    notes: tuple[str, ...] = ()

    @property
    def user_messages(self) -> tuple[str, ...]:
        """All user messages in order, the unanswered one included."""
        last = (self.unanswered,) if self.unanswered else ()
        return (*(user for user, _ in self.turns), *last)

    def unread_turns(self) -> list[Turn]:
        """Turns whose replies are text without projections, the same in both branches."""
        reasoning = self.reasoning or ("",) * len(self.turns)
        return [
            Turn(user, {branch: Reply.of_text(reply, thought) for branch in BRANCHES})
            for (user, reply), thought in zip(self.turns, reasoning, strict=True)
        ]


@dataclass(frozen=True)
class TranscriptFile:
    """The chats of a file, of which there is at least one. None is checked before it is chosen."""

    chats: list[FoundChat]

    def titles(self, most: int) -> list[str]:
        """What to call the first `most` chats: the title, or how the chat begins."""
        return [_shortened(chat.title or _beginning(chat)) for chat in self.chats[:most]]

    def transcript(self, index: int = 0) -> Transcript:
        """One of the chats.

        Raises:
            UserError: there is no such chat, it is none, or not all of it is text.
        """
        if not 0 <= index < len(self.chats):
            raise UserError(f"This file holds {len(self.chats)} chats; choose one of them.")
        chat = self.chats[index]
        try:
            messages = [said(message, number) for number, message in enumerate(chat.messages, 1)]
        except RecursionError as error:
            raise UserError(_TOO_DEEP) from error
        notes = [*chat.notes, *(message.note for message in messages if message.note)]
        if len(self.chats) > 1:
            notes = [f"This is chat {index + 1:,} of {len(self.chats):,} in its file.", *notes]
        return _in_turns(list(_merged(messages)), chat, tuple(dict.fromkeys(notes)))


def parse_file(text: str) -> Recording | TranscriptFile:
    """Parse a session file of this program, or a file with chats. Raises UserError for anything else.

    A session file is known by its own statement of its format, wherever in the file it stands.
    """
    text = text.removeprefix("\ufeff")
    values = _values(text)
    data = values[0] if len(values) == 1 else values
    if isinstance(data, dict) and data.get("format") == NAME:
        return loads(text)
    try:
        chats = chats_in(data)
    except RecursionError as error:
        raise UserError(_TOO_DEEP) from error
    if not chats:
        raise UserError(
            'No messages found: give a list of {"role", "content"}, or an object with it under "messages".'
        )
    return TranscriptFile(chats)


def parse_transcript(text: str, index: int = 0) -> Transcript:
    """Parse one of the chats of a file. Raises UserError for anything that is not one."""
    found = parse_file(text)
    if isinstance(found, Recording):
        raise UserError("This is a session file of this program, not a transcript; open it as a session.")
    return found.transcript(index)


def _values(text: str) -> list[Any]:
    """The JSON values of a text: one, or one after the other, such as one a line. Raises UserError."""
    try:
        return [orjson.loads(text)]
    except orjson.JSONDecodeError:
        pass  # it may be several values, or one that only Python's own parser takes
    values, at, decoder = list[Any](), _after_space(text, 0), json.JSONDecoder()
    try:
        while at < len(text):
            value, at = decoder.raw_decode(text, at)
            values.append(value)
            at = _after_space(text, at)
    except (ValueError, RecursionError) as error:
        line = text.count("\n", 0, getattr(error, "pos", at)) + 1
        raise UserError(
            f"This is not JSON (see line {line:,}); open a session file, or messages such as "
            '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}].'
        ) from error
    return values


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _merged(messages: list[Said]) -> Iterator[Said]:
    """The messages; consecutive ones with the same role become one."""
    for role, group in groupby(messages, lambda message: message.role):
        same = list(group)
        texts, thoughts = [one.text for one in same], [one.reasoning for one in same]
        yield Said(role, "\n\n".join(filter(None, texts)), "\n\n".join(filter(None, thoughts)))


def _in_turns(messages: list[Said], chat: FoundChat, notes: tuple[str, ...]) -> Transcript:
    system = [chat.system] if chat.system else []
    if messages and messages[0].role == "system" and (first := messages.pop(0).text) not in system:
        system.append(first)
    if any(message.role == "system" for message in messages):
        raise UserError(
            "There is a system message in the middle of this chat; move it to the beginning or remove it."
        )
    if not messages or messages[0].role != "user":
        raise UserError(
            "This chat does not begin with a user message; add the message that the first reply answers."
        )
    users, replies = messages[::2], messages[1::2]
    return Transcript(
        system_prompt="\n\n".join(system),
        turns=[(user.text, reply.text) for user, reply in zip(users, replies, strict=False)],
        model=chat.model,
        unanswered=users[-1].text if len(users) > len(replies) else "",
        reasoning=tuple(reply.reasoning for reply in replies),
        title=_shortened(chat.title),
        notes=notes,
    )


def _beginning(chat: FoundChat) -> str:
    for number, message in enumerate(chat.messages[:3], 1):
        try:
            found = said(message, number)
        except (UserError, RecursionError):
            continue  # the reason is given when the chat is chosen
        if found.role == "user" and found.text.strip():
            return found.text
    return "(no text)"


def _shortened(text: str) -> str:
    line = " ".join(text[: 4 * _LONGEST_TITLE].split())
    return line if len(line) <= _LONGEST_TITLE else f"{line[: _LONGEST_TITLE - 1]}…"
