"""What goes to the browser: engine events and chat state as the stage's small operations (see static/stage.js).

While a turn runs only new tokens travel; its end brings the whole turn once, so that a lost message heals itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

from demo.chat import BRANCHES, Conversation, Reply, Token, Turn
from demo.engine.protocol import Event, PromptEvent

Op = dict[str, Any]
# A viewer sees no difference beyond this, and a browser stays cool.
UPDATES_PER_SECOND = 15


def token_json(token: Token) -> Op:
    """Three digits of an axis unit are more than a plot can show."""
    return {
        "t": token.text,
        "b": _rounded(token.before),
        "a": _rounded(token.after),
        "c": _rounded(token.correction),
        "s": int(token.special),
    }


def reply_json(reply: Reply) -> Op:
    return {
        "tokens": [token_json(token) for token in reply.tokens],
        "finish": reply.finish,
        "mean": _rounded(reply.mean),
        "user_mean": _rounded(reply.user_projection),
        "fired": reply.fired,
        "count": len(reply.read),
        "limit": reply.limit,
        "place": _place(reply),
    }


def turn_json(turn: Turn) -> Op:
    return {"user": turn.user, "branches": {branch: reply_json(turn.replies[branch]) for branch in BRANCHES}}


def turn_op(conversation: Conversation, index: int) -> Op:
    """The authoritative state of one turn."""
    return {"op": "turn", "turn": index, "data": turn_json(conversation.turns[index])}


def reset_op(conversation: Conversation, meta: Op) -> Op:
    """Everything at once: a new chat, or a page that has been reloaded."""
    return {"op": "reset", "meta": meta, "turns": [turn_json(turn) for turn in conversation.turns]}


def notice_op(text: str, level: str = "info") -> Op:
    return {"op": "notice", "text": text, "level": level}


class Updates:
    """Numbers the stage's values and holds events back until an update is due."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._ops: list[Op] = []
        self._tokens: dict[str, list[Op]] = {}
        self._last = 0.0

    def add(self, events: Iterable[Event]) -> None:
        """Take in events that are already part of the conversation's last turn."""
        index = len(self._conversation.turns) - 1
        turn = self._conversation.turns[index]
        for event in events:
            reply = turn.replies[event.branch]
            if isinstance(event, PromptEvent):
                mean = _rounded(event.user_projection)
                self._ops.append({"op": "prompt", "turn": index, "branch": event.branch, "user_mean": mean})
            else:
                if event.token_id is not None:
                    self._tokens.setdefault(event.branch, []).append(token_json(reply.tokens[-1]))
                if event.finish_reason is not None:
                    self._flush_tokens(index)
                    end = {key: value for key, value in reply_json(reply).items() if key != "tokens"}
                    self._ops.append({"op": "turn_end", "turn": index, "branch": event.branch, **end})

    def say(self, *ops: Op) -> None:
        self._ops += ops

    @property
    def due(self) -> bool:
        return time.monotonic() - self._last >= 1 / UPDATES_PER_SECOND

    def take(self) -> str:
        """The stage's next value: everything since the last one, as JSON text.

        Text and not an object, because Gradio sends the difference between a streamed value and the one before, and
        its differences of nested lists go wrong when one of them shrinks.
        """
        self._flush_tokens(len(self._conversation.turns) - 1)
        self._last = time.monotonic()
        ops, self._ops = self._ops, []
        text = json.dumps({"seq": time.time_ns() // 1000, "ops": ops}, ensure_ascii=False, allow_nan=False)
        # Gradio looks for script tags in HTML values and warns; chat text may well hold one.
        return text.replace("<", "\\u003c")

    def _flush_tokens(self, index: int) -> None:
        for branch, tokens in self._tokens.items():
            place = _place(self._conversation.turns[index].replies[branch])
            said = {"op": "tokens", "turn": index, "branch": branch, "tokens": tokens}
            self._ops.append(said if place is None else {**said, "place": place})
        self._tokens = {}


def _place(reply: Reply) -> list[float] | None:
    """Where the reply stands on the persona map so far."""
    return None if reply.place is None else [round(value, 4) for value in reply.place]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
