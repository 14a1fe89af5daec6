"""What a message of a chat from elsewhere says: its role, text and reasoning, in the forms of many programs.

Nothing is dropped in silence: what is no text is refused by name, and what is left out is said in a note.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from demo.conversation.turns import well_formed
from demo.utils.errors import UserError

Json = dict[str, Any]

# The tables below are in lower case, and names are compared in lower case.
_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter", "request"), "user"),
    **dict.fromkeys(("assistant", "model", "ai", "gpt", "chatgpt", "claude", "gemini", "grok"), "assistant"),
    **dict.fromkeys(("bot", "chatbot", "bing", "bard", "copilot", "response", "think"), "assistant"),
}
_TOOL_ROLES = ("tool", "function", "observation", "ipython")
_ROLE_KEYS = ("role", "from", "sender", "author", "speaker")
# True for the user, false for the assistant.
_USER_FLAGS = ("is_user", "isCreatedByUser")

# The keys of a message, or of a part of one, that hold its content. The first that is not empty counts.
_CONTENT_KEYS = ("parts", "steps", "fragments", "content", "value", "text", "mes", "message", "refusal")
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
# Keys beside the content whose values are no text.
_BESIDE = (
    *("images", "image", "audio", "files", "files_v2", "attachments", "experimental_attachments"),
    *("tool_calls", "toolCalls", "toolInvocations", "function_call"),
)

# Types of parts.
_TEXT = ("", "text", "input_text", "output_text", "multimodal_text", "refusal", "message", "contentblock")
_FRAGMENTS = ("request", "response")
_THOUGHT = ("thinking", "reasoning", "reasoning_text", "summary_text", "thoughts", "think")
_THOUGHT_KEYS = ("thinking", "thoughts", "text", "content", "reasoning", "summary")
_ENCRYPTED = ("redacted_thinking",)
# What programs write down for themselves.
_BOOKKEEPING = ("step-start", "token_budget", "debuginfoblock", "reasoning_recap", "toolstatus")
# By a word in the type of a part that is no text. The first word that is found counts.
_NAMES = {
    "result": "a tool's result",
    "output": "a tool's result",
    "tool": "a tool call",
    "function": "a tool call",
    "code": "a tool call",
    "call": "a tool call",
    "image": "an image",
    "audio": "audio",
    "video": "a video",
    "file": "a file",
    "document": "a file",
    "attachment": "a file",
    "inline": "an image or another file",
}


@dataclass(frozen=True)
class Said:
    """One message.

    Attributes:
        role: system, user or assistant.
        note: what of the message is left out, in one sentence; empty for nothing.
    """

    role: str
    text: str
    reasoning: str = ""
    note: str = ""


def said(message: object, number: int) -> Said:
    """What a message says.

    Args:
        number: its place in the chat, from 1; 0 for a system prompt that stands beside the messages.

    Raises:
        UserError: it has no known role, or holds anything that is not text.
    """
    where = f"Message {number}" if number else "The system prompt"
    data = unwrapped(message) if isinstance(message, dict) else {}
    role, kind = _role(data, where), str(data.get("type") or "").lower()
    _refuse_beside(data, where)
    part = data if kind in _THOUGHT else first(data, _CONTENT_KEYS)
    spoken = list(_spoken(part, where, data.get("isThought") is True))
    texts = "".join(text for is_thought, text in spoken if not is_thought)
    thoughts = [text for is_thought, text in spoken if is_thought and text.strip()]
    if not thoughts and kind not in _THOUGHT:
        beside = [data[key] for key in _REASONING_KEYS if isinstance(data.get(key), str)]
        thoughts = [text for text in beside if text.strip()][:1]
    if not spoken and not thoughts and not _is_empty(data):
        raise UserError(f"{where} holds no text; only text can be read.")
    if role == "assistant":
        texts, folded = _unfolded(texts)
        thoughts += folded
    note = "Encrypted reasoning is left out." if _encrypted(part) else ""
    return Said(role, well_formed(texts), well_formed("\n\n".join(thoughts)), note)


def is_message(value: object) -> bool:
    """Whether `said` can be asked about this value. A message that is then refused is one, too."""
    if not isinstance(value, dict) or "messages" in value or "mapping" in value:
        return False
    data = unwrapped(value)
    name, kind = role_name(data), str(data.get("type")).lower()
    return isinstance(data.get("role"), str) or name in _ROLES or name in _TOOL_ROLES or kind in _THOUGHT


def is_said_by_user(value: object) -> bool:
    """Whether this is a message of the user, or a system prompt."""
    return isinstance(value, dict) and _ROLES.get(role_name(unwrapped(value))) in ("user", "system")


def unwrapped(message: Json) -> Json:
    """The message inside the line of a log, or the selected one of its versions."""
    versions = message.get("versions")
    if isinstance(versions, list) and versions and all(isinstance(one, dict) for one in versions):
        at = message.get("currentlySelected")
        return dict(versions[at if isinstance(at, int) and 0 <= at < len(versions) else -1])
    if isinstance(message.get("role"), str):
        return message
    for key in ("message", "response", "data", "kwargs"):
        inner = message.get(key)
        if isinstance(inner, dict) and (role_name(inner) or "content" in inner):
            return {"type": message.get("type"), **inner}
    return message


def role_name(message: Json) -> str:
    """The role as the program calls it, in lower case; empty if the message has none."""
    for flag in _USER_FLAGS:
        if isinstance(message.get(flag), bool):
            return "user" if message[flag] else "assistant"
    for key in _ROLE_KEYS:
        name = message.get(key)
        name = name.get("role") if isinstance(name, dict) else name
        if isinstance(name, str) and name:
            return name.lower()
    fragments = message.get("fragments")
    if isinstance(fragments, list) and fragments and isinstance(fragments[0], dict):
        message = fragments[0]
    kind = str(message.get("type") or "").lower()
    return kind if kind in _ROLES else ""


def first(data: object, keys: Iterable[str]) -> Any:
    """The first of these values that is not empty; None if all are."""
    return next((data[key] for key in keys if data.get(key)), None) if isinstance(data, dict) else None


def _role(data: Json, where: str) -> str:
    name, kind = role_name(data), str(data.get("type") or "")
    if not name and kind and kind.lower() not in _TEXT:
        if kind.lower() in _THOUGHT:
            return "assistant"
        raise _no_text(where, kind)
    if name in _TOOL_ROLES or "tool" in name or "function" in name:
        raise _no_text(where, name, "a tool's result" if name in _TOOL_ROLES else None)
    if name not in _ROLES:
        raise UserError(f"{where} has no role that is system, user or assistant; correct it and try again.")
    return _ROLES[name]


def _refuse_beside(data: Json, where: str) -> None:
    metadata, recipient = data.get("metadata"), str(data.get("recipient") or "all")
    for holder in (data, metadata if isinstance(metadata, dict) else {}):
        for key in _BESIDE:
            if holder.get(key):
                raise _no_text(where, key)
    if recipient.lower() not in ("all", "assistant", "user"):
        raise _no_text(where, recipient, "a tool call")


def _is_empty(data: Json) -> bool:
    """Whether a message without text has a content, which is then empty."""
    keys = _THOUGHT_KEYS if str(data.get("type")).lower() in _THOUGHT else _CONTENT_KEYS
    return any(isinstance(data.get(key), str | list | dict) for key in keys)


def _spoken(part: object, where: str, thought: bool = False) -> Iterator[tuple[bool, str]]:
    """The texts of a content, each with whether it is reasoning. Raises UserError for what is no text."""
    if isinstance(part, str):
        yield thought, part
    elif isinstance(part, list):
        for one in part:
            yield from _spoken(one, where, thought)
    elif isinstance(part, dict):
        kind = str(part.get("type") or part.get("content_type") or "")
        name = kind.lower()
        if name in _BOOKKEEPING or name in _ENCRYPTED:
            return
        if name not in _TEXT and name not in _FRAGMENTS and name not in _THOUGHT:
            raise _no_text(where, kind)
        keys = _THOUGHT_KEYS if name in _THOUGHT else _CONTENT_KEYS
        if not any(key in part for key in keys):
            raise _no_text(
                where, next((str(key) for key in part if key not in ("type", "content_type")), "{}")
            )
        style = part.get("style")
        styled = isinstance(style, dict) and style.get("type") == "thinking"
        yield from _spoken(
            first(part, keys), where, thought or styled or name in _THOUGHT or bool(part.get("thought"))
        )
    elif part is not None:
        raise UserError(f"{where} holds no text; only text can be read.")


def _encrypted(part: object) -> bool:
    if isinstance(part, list):
        return any(map(_encrypted, part))
    if not isinstance(part, dict):
        return False
    return part.get("type") in _ENCRYPTED or bool(
        part.get("encrypted_content") and not first(part, _THOUGHT_KEYS)
    )


def _no_text(where: str, kind: str, what: str | None = None) -> UserError:
    named = (name for word, name in _NAMES.items() if word in kind.lower())
    what = what or next(named, "a part that is not text")
    return UserError(
        f"{where} holds {what} (“{kind[:40]}”), but only text can be read; "
        "remove that message, or open another chat."
    )


# Some programs fold the reasoning into the text of a reply.
_FOLDED = re.compile(r'<details type="reasoning"[^>]*>\s*(?:<summary>.*?</summary>)?(.*?)</details>\s*', re.S)


def _unfolded(text: str) -> tuple[str, list[str]]:
    thoughts = [html.unescape(re.sub(r"^> ?", "", one.strip(), flags=re.M)) for one in _FOLDED.findall(text)]
    return _FOLDED.sub("", text), thoughts
