"""Where the messages of a chat are in files of other programs: lists, trees, requests with their replies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from demo.conversation.transcript_messages import Json, first, is_message, is_said_by_user, role_name, said
from demo.conversation.turns import well_formed

# The messages of a chat are the list under the first of these keys that holds messages.
_LISTS = (
    *("conversation", "conversations", "messages", "chat_messages", "contents", "chunks", "responses"),
    *("internal", "dialogue", "dialog", "turns", "items", "data", "input", "prompt"),
)
# Lists of earlier messages, which the texts under the keys below follow.
_HISTORIES = ("history", "chat_history")
_PROMPTS = ("instruction", "input", "prompt", "question", "query", "message")
_REPLIES = ("choices", "candidates", "output", "response", "completion", "chosen", "answer", "message")
_INSIDE_REPLY = ("choices", "candidates", "message", "output", "content", "response", "body", "text")
_ALTERNATIVES = ("choices", "candidates")

# What stands beside the messages.
_SYSTEM = (
    *("system", "system_prompt", "systemPrompt", "system_instruction", "systemInstruction", "instructions"),
    *("preprompt", "preamble"),
)
_TITLE = ("title", "name")
_MODEL = ("model", "default_model_slug", "models")

# Keys of the nodes of a tree. The end of its current branch stands beside them.
_IDS = ("uuid", "messageId", "id")
_PARENTS = ("parent_message_uuid", "parentMessageId", "parentId", "parent", "ancestors")
_CURRENT = ("current_node", "currentId", "current_leaf_message_uuid")
# Contents that the program writes to the model and does not show.
_HIDDEN = ("user_editable_context", "model_editable_context")

_DEEPEST = 6  # levels of lists and objects around a chat


@dataclass(frozen=True)
class FoundChat:
    """A chat in the form in which its program wrote it.

    Attributes:
        messages: for `transcript_messages.said`.
        system: the system prompt that stands beside them.
        notes: what of the file is left out, one sentence each.
    """

    messages: list[Any]
    system: str = ""
    model: str = ""
    title: str = ""
    notes: tuple[str, ...] = ()


def chats_in(value: object, depth: int = _DEEPEST) -> list[FoundChat]:
    """All chats in a parsed file, in order; an empty list if there are none.

    Raises:
        UserError: a system prompt is not text.
    """
    if depth < 0 or not isinstance(value, list | dict):
        return []
    if isinstance(value, list):
        messages = _messages(value, pairs=depth == _DEEPEST)
        return [FoundChat(messages)] if messages else [c for one in value for c in chats_in(one, depth - 1)]
    found = _chat(value)
    if found is not None:
        return [found]
    inside = [chat for one in value.values() for chat in chats_in(one, depth - 1)]
    if not inside and depth == _DEEPEST and is_message(value):
        return [FoundChat([value])]
    beside = _beside(value) if inside else {}
    return [
        replace(
            one,
            system=one.system or beside["system"],
            model=one.model or beside["model"],
            title=one.title or (beside["title"] if len(inside) == 1 else ""),
        )
        for one in inside
    ]


def _messages(values: object, pairs: bool = True) -> list[Any]:
    """The messages of a list of messages, or of pairs of texts; an empty list for anything else."""
    if not isinstance(values, list):
        return []
    if pairs and all(
        isinstance(pair, list) and [type(text) for text in pair] == [str, str] for pair in values
    ):
        return [
            {"role": role, "content": text}
            for pair in values
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
    # The first line of some programs' files describes the chat.
    found = [one for one in values if not (isinstance(one, dict) and "chat_metadata" in one)]
    return list(_with_children(found)) if any(map(is_message, found)) else []


def _with_children(messages: list[Any]) -> Iterator[Any]:
    """The messages, each followed by the messages that some programs nest in it."""
    waiting = messages[::-1]
    while waiting:
        message = waiting.pop()
        yield message
        children = message.get("children") if isinstance(message, dict) else None
        if isinstance(children, list):
            waiting += [one for one in reversed(children) if isinstance(one, dict)]


def _oldest_first(messages: list[Any]) -> list[Any]:
    times = [one.get("created_at") if isinstance(one, dict) else None for one in messages]
    whole = [time for time in times if isinstance(time, int)]
    newest_first = len(whole) == len(times) and whole == sorted(whole, reverse=True) and whole[0] > whole[-1]
    return messages[::-1] if newest_first else messages


def _chat(data: Json) -> FoundChat | None:
    """The chat that an object holds: its messages, and the reply beside them if there is one."""
    request = data.get("request")
    if isinstance(request, dict):  # what was asked of a server, and what it answered
        body = request.get("body")
        asked: Json = body if isinstance(body, dict) else request
        found = _chat({**asked, "response": data.get("response")})
        if found is not None:
            return found
    messages, notes = _listed(data)
    prompt = [] if messages else _prompt(data)
    reply = next((one for key in _REPLIES if (one := _reply(data.get(key), key))), [])
    if reply and is_said_by_user(reply[0]):
        messages, prompt = [], []  # some data sets repeat the whole chat with the reply
        if "chosen" not in data:
            return None
    elif not messages and not (prompt and (reply or "model" in data)):
        return None
    return FoundChat([*messages, *prompt, *reply], **_beside(data), notes=(*notes, *_notes(data)))


def _listed(data: Json) -> tuple[list[Any], tuple[str, ...]]:
    """The messages that an object lists, and notes on what is left out."""
    history = data.get("history")
    for nodes, beside in ((data.get("mapping"), data), (first(history, ("messages",)), history)):
        if isinstance(nodes, dict) and isinstance(beside, dict):
            return _branch(nodes, beside)
    for key in _LISTS:
        messages = _messages(data.get(key))
        if messages:
            nodes = {_key(first(one, _IDS)): one for one in messages}
            parents = [parent for one in messages if (parent := _parent(one)) is not None]
            forks = len(nodes) == len(messages) and len(set(parents)) < len(parents)
            return _branch(nodes, data) if forks else (_oldest_first(messages), ())
    return [], ()


def _prompt(data: Json) -> list[Any]:
    """The messages of an object that gives the last one as text, perhaps after a list of earlier ones."""
    earlier = next((found for key in _HISTORIES if (found := _messages(data.get(key)))), [])
    texts = [text for key in _PROMPTS if isinstance(text := data.get(key), str) and text.strip()]
    return [*earlier, *([{"role": "user", "content": "\n\n".join(texts)}] if texts else [])]


def _reply(value: object, key: str = "") -> list[Any]:
    """What a server or a data set gives as the reply, as messages; an empty list for anything else."""
    if isinstance(value, str):
        # The text of a "message" is the user's.
        return [{"role": "assistant", "content": value}] if value.strip() and key != "message" else []
    if isinstance(value, list):
        return _reply(value[0]) if value and key in _ALTERNATIVES else value
    if not isinstance(value, dict):
        return []
    if is_message(value):
        return [value]
    return next((one for inner in _INSIDE_REPLY if (one := _reply(value.get(inner), inner))), [])


def _notes(data: Json) -> Iterator[str]:
    response = data.get("response")
    for holder in (data, response if isinstance(response, dict) else {}):
        for key in _ALTERNATIVES:
            if isinstance(holder.get(key), list) and len(holder[key]) > 1:
                yield f"The first of {len(holder[key])} replies is read."
    if data.get("rejected"):
        yield "The chosen reply is read, and not the rejected one."
    if data.get("tools"):
        yield "The descriptions of tools are left out."


def _beside(data: Json) -> dict[str, str]:
    """System prompt, model and title, where they stand beside the messages; empty otherwise."""
    system = first(data, _SYSTEM) or first(data.get("params"), _SYSTEM) or _configured(data)
    model = first(data, _MODEL)
    model, title = model[0] if isinstance(model, list) else model, first(data, _TITLE)
    return {
        "system": said({"role": "system", "content": system}, 0).text if system else "",
        "model": well_formed(model) if isinstance(model, str) else "",
        "title": well_formed(title) if isinstance(title, str) else "",
    }


def _configured(data: Json) -> object:
    """The system prompt among the settings of a chat."""
    fields = first(data.get("perChatPredictionConfig"), ("fields",))
    named = [one for one in fields if isinstance(one, dict)] if isinstance(fields, list) else []
    return next((one.get("value") for one in named if str(one.get("key")).endswith("systemPrompt")), None)


# --- trees


def _branch(nodes: dict[Any, Any], beside: Json) -> tuple[list[Any], tuple[str, ...]]:
    """The messages from the root of a tree to the end of its current branch, or of its last one."""
    parents = {key: _parent(node) for key, node in nodes.items()}
    for key, node in nodes.items():
        children = node.get("children") if isinstance(node, dict) else None
        for child in children if isinstance(children, list) else ():
            if _key(child) is not None and parents.get(child) is None:
                parents[child] = key
    inner = set(parents.values())
    ends = [key for key in nodes if key not in inner]
    at = next((key for name in _CURRENT if (key := _key(beside.get(name))) in nodes), None)
    at = at if at is not None else next(iter(ends[::-1]), None)
    path: dict[Any, Any] = {}
    while at in nodes and at not in path:
        path[at] = _message_of(nodes[at])
        at = parents[at]
    messages = [one for one in reversed(path.values()) if isinstance(one, dict)]
    shown = [one for one in messages if not _is_hidden(one)]
    notes = ["Only the current branch of the chat is read."] * (len(ends) > 1)
    if any(_has_text(one) for one in messages if _is_hidden(one)):
        notes.append("Messages that the program does not show are left out.")
    return shown, tuple(notes)


def _message_of(node: object) -> object:
    inner = node.get("message", node) if isinstance(node, dict) else None
    return inner if inner is None or isinstance(inner, dict) else node


def _key(value: object) -> str | int | None:
    """The id of a node; None for what cannot be one."""
    return value if isinstance(value, str | int) else None


def _parent(node: object) -> str | int | None:
    found = first(node, _PARENTS)
    return _key(found[-1] if isinstance(found, list) else found)


def _is_hidden(message: Json) -> bool:
    content, metadata = message.get("content"), message.get("metadata")
    kind = content.get("content_type") if isinstance(content, dict) else None
    hidden = isinstance(metadata, dict) and metadata.get("is_visually_hidden_from_conversation") is True
    empty = role_name(message) == "system" and not _has_text(message)
    return hidden or kind in _HIDDEN or empty


def _has_text(message: Json) -> bool:
    content = message.get("content")
    texts = [v for k, v in content.items() if k != "content_type"] if isinstance(content, dict) else [content]
    return any(part for text in texts for part in (text if isinstance(text, list) else [text]))
