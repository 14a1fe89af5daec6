"""What the browser stores: its tab's conversations, so that they survive a reload or a change of server.

After every turn the stage receives the new turns in the form of a session file. stage/persistence.js
assembles them and sends them back when they are needed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from demo.conversation.fork_json import point_from, point_json
from demo.conversation.session_file import Recording, from_json, parsed, to_json, turn_json
from demo.page.recordings import checked_text, conversation_of
from demo.page.session import MOST_CHATS, Chat, Origin, Session
from demo.page.stage.protocol import Operation, operation
from demo.utils.errors import UserError


def persist_op(chat: Chat, recording: Recording, start: int = 0) -> Operation:
    """The conversation from turn `start` on; the browser has the turns before."""
    head = to_json(replace(recording, turns=[], map=recording.map if chat.recording else {}))
    extra = {
        "script": chat.script,
        "scripted": [index for index, turn in enumerate(chat.conversation.turns) if turn.scripted],
        "content_warning": chat.content_warning,
        "seed": chat.seed,
        "recorded": chat.recording is not None,
        "origin": _origin_json(chat.origin),
    }
    turns = [turn_json(turn) for turn in chat.conversation.turns[start:]]
    return operation("persist", id=chat.id, head=head | extra, turns=turns) | {"from": start}


def restore_chats(session: Session, stored: object, current: object, model_name: str) -> None:
    """Show the conversations that a browser has stored.

    Args:
        stored: one text per conversation, as the browser sent it; it may be anything. Empty where the tab
            was reloaded during its first reply.
        current: index of the conversation to show.
        model_name: the model that can continue a conversation here.

    Raises:
        UserError: with nothing changed, when the stored conversations cannot be used.
    """
    if not isinstance(stored, list) or len(stored) > MOST_CHATS:
        raise UserError("The browser's storage holds no list of conversations; start a new chat.")
    chats = [_chat(checked_text(text), model_name) for text in stored]
    if len({chat.id for chat in (*chats, *session.chats)}) < len(chats) + len(session.chats):
        raise UserError("The conversations in the browser's storage are open already.")
    _share_turns(chats)
    for chat in chats:
        session.show(chat)
    if chats:
        session.show(chats[current if isinstance(current, int) and 0 <= current < len(chats) else -1])


def _chat(text: str, model_name: str) -> Chat:
    data = parsed(text)
    recording = from_json(data)
    script = data.get("script", [])
    warning = data.get("content_warning", data.get("care", ""))  # "care" as earlier versions wrote it
    texts = [warning, *script] if isinstance(script, list) else [None]
    seed = data.get("seed", 0)  # earlier versions wrote none
    if not all(isinstance(one, str) for one in texts) or type(seed) is not int or not 0 <= seed < 2**31:
        raise UserError("The browser's storage is damaged; start a new chat.")
    other_model = recording.model != model_name
    chat = Chat(
        conversation=conversation_of(recording),
        title=recording.title,
        blurb=recording.blurb,
        content_warning=warning,
        system_prompt=recording.system_prompt,
        script=tuple(script),
        recording=recording if other_model or data.get("recorded") is True else None,
        watch_only=other_model,
        seed=seed,
        origin=_origin(data.get("origin")),
        notes=recording.notes,
    )
    _note_scripted(chat, data.get("scripted"))
    if re.fullmatch("[0-9a-f]{16}", str(data.get("id"))):
        chat.id = data["id"]
    return chat


def _origin_json(origin: Origin | None) -> dict[str, Any] | None:
    return None if origin is None else {"parent": origin.parent, "point": point_json(origin.point)}


def _origin(stored: object) -> Origin | None:
    """Where a conversation was forked; None where it was not, or where that cannot be read."""
    if not isinstance(stored, dict) or not isinstance(stored.get("parent"), str):
        return None
    try:
        return Origin(stored["parent"], point_from(stored["point"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _share_turns(chats: Sequence[Chat]) -> None:
    """Let forks hold the turns before their point in common with their parents again, as they did before."""
    by_id = {chat.id: chat.conversation for chat in chats}
    for chat in chats:
        parent = None if chat.origin is None else by_id.get(chat.origin.parent)
        if chat.origin is None or parent is None:
            continue
        turns = chat.conversation.turns
        for index in range(min(chat.origin.point.turn, len(turns), len(parent.turns))):
            # The browser stores the mean states of some turns only, and those of a fork may be other ones.
            if turn_json(turns[index], ()) != turn_json(parent.turns[index], ()):
                break
            turns[index] = parent.turns[index]


def _note_scripted(chat: Chat, stored: object) -> None:
    """Mark the turns that are steps of the script.

    Args:
        stored: their indices. Earlier versions stored none; then the messages are compared with the script.
    """
    for index, turn in enumerate(chat.conversation.turns):
        if isinstance(stored, list):
            turn.scripted = index in stored and chat.said < len(chat.script)
        else:
            chat.note_scripted(index, None)
