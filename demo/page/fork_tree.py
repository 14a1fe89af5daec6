"""The tree of a session's forks: what the page lists of it, and how it gets into a session file and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from demo.conversation.fork_json import point_json
from demo.conversation.forks import Fork
from demo.conversation.session_file import Recording, rounded
from demo.page.recordings import chat_of
from demo.page.session import Chat, Origin, Session, tree_of
from demo.page.stage.protocol import Operation, operation


def tree_op(session: Session, words: str = "", below: float | None = None) -> Operation:
    """All open conversations as a tree, with those that a filter finds.

    Args:
        words: a text that a message or a reply must contain, in any case of letters; empty for any.
        below: a projection that the mean of a reply must lie below, axis units; None for any.
    """
    by_id = {chat.id: index for index, chat in enumerate(session.chats)}
    nodes = [_node(chat, by_id, words.strip().casefold(), below) for chat in session.chats]
    return operation("tree", nodes=nodes, current=session.current)


def _node(chat: Chat, by_id: dict[str, int], words: str, below: float | None) -> dict[str, Any]:
    origin, turns = chat.origin, chat.conversation.turns
    parent = None if origin is None else by_id.get(origin.parent)
    branches = dict.fromkeys(branch for turn in turns for branch in turn.replies)
    means = {
        branch: [rounded(reply.mean) if (reply := turn.replies.get(branch)) else None for turn in turns]
        for branch in branches
    }
    return {
        "id": chat.id,
        "title": chat.title,
        "parent": parent,
        "point": None if origin is None else point_json(origin.point),
        "star": chat.notes.star,
        "note": chat.notes.note,
        "means": means,
        "found": _is_found(chat, words, below),
    }


def _is_found(chat: Chat, words: str, below: float | None) -> bool:
    """Whether one reply of the fork itself, or its message, meets both conditions.

    What a fork shares with its parent counts as the parent's.
    """
    first = 0 if chat.origin is None else chat.origin.point.turn
    for turn in chat.conversation.turns[first:]:
        for reply in turn.replies.values():
            low = below is None or (reply.mean is not None and reply.mean < below)
            if low and (words in reply.text.casefold() or words in turn.user.casefold()):
                return True
    return not words and below is None


def with_forks(recording: Recording, chats: Sequence[Chat], shown: Chat) -> Recording:
    """A recording of the root of a tree, with all its forks. recording: what all of them have in common."""
    tree = tree_of(chats, shown)
    root = tree[0]
    place = {chat.id: index for index, chat in enumerate(tree)}
    forks = tuple(
        Fork(
            place[chat.origin.parent],
            chat.origin.point,
            chat.conversation.turns,
            chat.title,
            chat.blurb,
            chat.system_prompt,
            chat.notes,
        )
        for chat in tree[1:]
        if chat.origin is not None
    )
    return replace(
        recording,
        turns=root.conversation.turns,
        title=root.title if root.recording is None else root.recording.title,
        blurb=root.blurb,
        system_prompt=root.system_prompt,
        notes=root.notes,
        forks=forks,
    )


def chats_of(recording: Recording, model_name: str) -> list[Chat]:
    """All conversations of a recording, the first one first. model_name: see `chat_of`."""
    chats = [chat_of(recording, model_name)]
    for fork in recording.forks:
        own = replace(
            recording,
            turns=fork.turns,
            title=fork.title,
            blurb=fork.blurb,
            system_prompt=fork.system_prompt,
            notes=fork.notes,
            forks=(),
        )
        chat = chat_of(own, model_name)
        chat.origin = Origin(chats[fork.parent].id, fork.point)
        chats.append(chat)
    return chats
