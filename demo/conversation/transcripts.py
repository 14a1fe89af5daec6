"""Import of chats from elsewhere: the paper's published transcripts, and messages in the OpenAI format.

Accepted are a list of {"role", "content"} objects, {"messages": [...]}, and {"conversation": [...]} as in
the published dataset (its `turns` count is unreliable and is ignored). A content may also be a list of
{"type": "text", "text"} parts. A reply's reasoning is read from `reasoning_content` or `reasoning`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from demo.conversation.settings import BRANCHES
from demo.conversation.turns import Reply, Turn, well_formed
from demo.utils.errors import UserError

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "model": "assistant",
}


@dataclass(frozen=True)
class Transcript:
    """A chat in turns.

    Attributes:
        turns: user message and reply of each turn.
        model: the model that the chat names; empty if it names none.
        reasoning: what the model wrote before each reply of `turns`, empty where it did not reason.
        unanswered: a last user message without a reply, which is not in `turns`; empty if there is none.
    """

    system_prompt: str
    turns: list[tuple[str, str]]
    model: str = ""
    unanswered: str = ""
    reasoning: tuple[str, ...] = ()

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


def parse_transcript(text: str) -> Transcript:
    """Parse a chat. Raises UserError for anything that is not one."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            "This is not JSON; paste a session file, or messages such as "
            '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}].'
        ) from error
    messages = data if isinstance(data, list) else None
    if isinstance(data, dict):
        messages = next(
            (data[key] for key in ("conversation", "messages") if isinstance(data.get(key), list)), None
        )
    if not messages:
        raise UserError(
            'No messages found: give a list of {"role", "content"}, or an object with it under "messages".'
        )
    model = data.get("model") if isinstance(data, dict) else None
    return _in_turns(list(_merged(messages)), model if isinstance(model, str) else "")


def _merged(messages: list[Any]) -> Iterator[tuple[str, str, str]]:
    """Role, text and reasoning of each message; consecutive messages with the same role become one."""
    role, texts, thoughts = "", list[str](), list[str]()
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or _ROLES.get(str(message.get("role")).lower()) is None:
            raise UserError(
                f"Message {number} has no role that is system, user or assistant; correct it and try again."
            )
        own, text = _ROLES[str(message["role"]).lower()], _text(message.get("content"), number)
        if own != role and texts:
            yield role, "\n\n".join(texts), "\n\n".join(thoughts)
            texts, thoughts = [], []
        role = own
        texts.append(text)
        thoughts += _reasoning(message)
    yield role, "\n\n".join(texts), "\n\n".join(thoughts)


def _reasoning(message: dict[str, Any]) -> list[str]:
    """The message's reasoning as a list of one text; an empty list if there is none."""
    found = [message.get(key) for key in ("reasoning_content", "reasoning")]
    return [well_formed(text) for text in found if isinstance(text, str) and text.strip()][:1]


def _text(content: object, number: int) -> str:
    if isinstance(content, str):
        return well_formed(content)
    if isinstance(content, list):
        texts = [
            part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"
        ]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return well_formed("".join(str(text) for text in texts))
    raise UserError(f"Message {number} holds no text; only text can be imported.")


def _in_turns(messages: list[tuple[str, str, str]], model: str) -> Transcript:
    system = messages.pop(0)[1] if messages[0][0] == "system" else ""
    if any(role == "system" for role, *_ in messages):
        raise UserError(
            "There is a system message in the middle of this chat; move it to the beginning or remove it."
        )
    if not messages or messages[0][0] != "user":
        raise UserError(
            "This chat does not begin with a user message; add the message that the first reply answers."
        )
    users, replies = messages[::2], messages[1::2]
    turns = [(user, reply) for (_, user, _), (_, reply, _) in zip(users, replies, strict=False)]
    unanswered = users[-1][1] if len(users) > len(replies) else ""
    return Transcript(system, turns, model, unanswered, tuple(reasoning for *_, reasoning in replies))
