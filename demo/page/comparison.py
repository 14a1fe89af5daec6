"""What the stage gets of another open conversation, to compare it with the one that is shown."""

from __future__ import annotations

from typing import Any

from demo.conversation.session_file import Recording, summary_json, token_json
from demo.conversation.settings_json import settings_json
from demo.conversation.turns import Reply, Turn
from demo.page.session import Chat
from demo.page.stage.protocol import Operation, operation
from demo.utils.errors import UserError

# What a comparison shows of a token: its text, the part of the reply it belongs to, and whether a cap acted.
_TOKEN_KEYS = ("t", "s", "r", "k", "z")


def compared_op(chat: Chat, recording: Recording, shown: Recording) -> Operation:
    """Another conversation beside the one that is shown.

    Args:
        recording: `chat` as a recording.
        shown: the conversation that is shown, as a recording.

    Raises:
        UserError: one of the two has no turns.
    """
    if not recording.turns or not shown.turns:
        raise UserError("A conversation without turns cannot be compared; say something in it first.")
    return operation(
        "compared",
        id=chat.id,
        title=chat.title,
        model=recording.model,
        probe_layer=recording.marks.probe_layer,
        same_axis=same_axis(recording, shown),
        turns=[_turn(turn) for turn in recording.turns],
    )


def same_axis(one: Recording, other: Recording) -> bool:
    """Whether both were read along the same axis, so that their means have the same unit.

    What only one of them tells is no difference: files of earlier versions hold less.
    """
    if _read_with(one) != _read_with(other):
        return False
    told = (one.marks.zones, other.marks.zones), (one.map.get("roles"), other.map.get("roles"))
    return all(mine is None or yours is None or mine == yours for mine, yours in told)


def _read_with(recording: Recording) -> tuple[str, int, str, bool]:
    marks = recording.marks
    return recording.model, marks.probe_layer, marks.unit_note, marks.assistant


def _turn(turn: Turn) -> dict[str, Any]:
    branches = {branch: _reply(reply) for branch, reply in turn.replies.items()}
    live = any(reply.finish is None for reply in turn.replies.values())
    return {
        "user": turn.user,
        "branches": branches,
        **({} if turn.settings is None else {"settings": settings_json(turn.settings)}),
        **({"live": True} if live else {}),
    }


def _reply(reply: Reply) -> dict[str, Any]:
    rows = (token_json(token, live=True, running=True) for token in reply.tokens)
    tokens = [{key: row[key] for key in _TOKEN_KEYS if key in row} for row in rows]
    return {**summary_json(reply), "tokens": tokens}
