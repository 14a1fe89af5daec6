"""What goes to the browser: engine events and chat state as the stage's small operations (see static/stage.js).

While a turn runs only new tokens travel; its end brings the whole turn once, so that a lost message heals itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from markdown_it import MarkdownIt

from demo.conversation.conversation import Conversation
from demo.conversation.session_file import rounded, summary_json, token_json, turn_json
from demo.conversation.turns import Reply, Token, Turn, well_formed
from demo.engine.protocol import Event, Load, PromptEvent, WaitEvent

Op = dict[str, Any]

# A viewer sees no difference beyond this. A model that is slower than this is followed step by step.
UPDATES_PER_SECOND = 30

# What one server can pass on without slowing the model down: a full room gets fewer and larger updates.
_UPDATES_FOR_ALL = 90

_PATIENCE = 4  # times as long for an update that only some branches have something for

# Times and places of single tokens are for recordings: a page that is told live has both already.
_RECORDED = ("m", "x")


def live_token(token: Token) -> Op:
    """A token as the stage shows it; "b", the projection before the cap, only where the cap changed it."""
    data = {key: value for key, value in token_json(token).items() if key not in _RECORDED}
    if data.get("b") == data.get("a"):
        data.pop("b", None)
    return data


def live_reply(reply: Reply) -> Op:
    """A reply as the stage shows it: of further samples only what sums them up."""
    tokens = [live_token(token) for token in reply.tokens]
    return summary_json(reply) | {"tokens": tokens, "samples": _samples(reply), "html": prose(reply.text)}


def recorded_turn(turn: Turn) -> Op:
    """A turn with all that a replay needs."""
    data = turn_json(turn)
    for branch, reply in turn.replies.items():
        data["branches"][branch] |= {"samples": _samples(reply), "html": prose(reply.text)}
    return data


def _samples(reply: Reply) -> list[Op]:
    return [summary_json(sample) | {"text": sample.text} for sample in reply.samples]


def live_turn(turn: Turn) -> Op:
    """A turn as it stands. live: it is still being answered, and more tokens follow."""
    replies = {branch: live_reply(reply) for branch, reply in turn.replies.items()}
    live = any(reply.finish is None for reply in turn.replies.values())
    return {"user": turn.user, "branches": replies} | ({"live": True} if live else {})


def turn_op(conversation: Conversation, index: int) -> Op:
    """The authoritative state of one turn."""
    return {"op": "turn", "turn": index, "data": live_turn(conversation.turns[index])}


def reset_op(conversation: Conversation, meta: Op, *, recorded: bool = False) -> Op:
    """Everything at once: a new chat, another conversation, or a page that has been reloaded. recorded: with what a replay
    needs."""
    turns = [(recorded_turn if recorded else live_turn)(turn) for turn in conversation.turns]
    return {"op": "reset", "meta": meta, "turns": turns}


def notice_op(text: str, level: str = "info") -> Op:
    return {"op": "notice", "text": text, "level": level}


def lost_op(branches: Iterable[str]) -> Op:
    """A turn that failed has been taken out again, and its panes say so."""
    text = "This reply was lost before it was whole. It is no part of the conversation; your message is back in the box."
    return {"op": "lost", "branches": list(branches), "text": text}


def load_op(load: Load) -> Op:
    return {
        "op": "load",
        "running": load.running,
        "waiting": load.waiting,
        "mib": round(load.kv_bytes / 2**20),
        "budget": round(load.kv_budget / 2**20),
    }


class Updates:
    """Numbers the stage's values and holds events back until an update is due."""

    def __init__(self, conversation: Conversation, listeners: Callable[[], int] = lambda: 1) -> None:
        """listeners: how many conversations are being answered now."""
        self._conversation = conversation
        self._listeners = listeners
        self._ops: list[Op] = []
        self._tokens: dict[str, list[Op]] = {}
        self._last = 0.0
        self._urgent = False

    def add(self, events: Iterable[Event]) -> None:
        """Take in events that are already part of the conversation's last turn."""
        index = len(self._conversation.turns) - 1
        turn = self._conversation.turns[index]
        for event in events:
            if isinstance(event, WaitEvent):
                self._ops.append({"op": "waiting", "turn": index, "ahead": event.ahead})
                self._urgent = True
                continue
            reply = turn.replies[event.branch]
            if isinstance(event, PromptEvent):
                mean = rounded(event.user_projection)
                self._ops.append({"op": "prompt", "turn": index, "branch": event.branch, "user_mean": mean})
            else:
                if event.token_id is not None:
                    self._tokens.setdefault(event.branch, []).append(live_token(reply.tokens[-1]))
                if event.finish_reason is not None:
                    self._flush_tokens(index)
                    end = {"op": "turn_end", "turn": index, "branch": event.branch}
                    self._ops.append(end | summary_json(reply))

    def say(self, *ops: Op) -> None:
        self._ops += ops

    @property
    def due(self) -> bool:
        """Time for an update, and not in the middle of a decode step: no pane runs ahead of the other for long."""
        if self._urgent:
            return True
        rate = min(UPDATES_PER_SECOND, _UPDATES_FOR_ALL / max(1, self._listeners()))
        passed = (time.monotonic() - self._last) * rate
        replies = self._conversation.turns[-1].replies
        complete = all(
            branch in self._tokens or reply.finish is not None for branch, reply in replies.items()
        )
        return passed >= (1 if complete else _PATIENCE)

    def take(self) -> str:
        """The stage's next value: everything since the last one, as JSON text.

        Text and not an object, because Gradio sends the difference between a streamed value and the one before, and
        its differences of nested lists go wrong when one of them shrinks.
        """
        self._flush_tokens(len(self._conversation.turns) - 1)
        self._last, self._urgent = time.monotonic(), False
        ops, self._ops = self._ops, []
        value = {"seq": time.time_ns() // 1000, "ops": ops}
        text = well_formed(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
        # Gradio looks for script tags in HTML values and warns; chat text may well hold one.
        return text.replace("<", "\\u003c")

    def _flush_tokens(self, index: int) -> None:
        for branch, tokens in self._tokens.items():
            reply = self._conversation.turns[index].replies[branch]
            place, at = reply.place, len(reply.tokens) - len(tokens)
            said = {"op": "tokens", "turn": index, "branch": branch, "at": at, "tokens": tokens}
            self._ops.append(said if place is None else {**said, "place": [rounded(v) for v in place]})
        self._tokens = {}


# No images: they would be fetched from wherever a model says.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


def prose(text: str) -> str:
    """HTML for the page. Links open elsewhere and tell nothing about this page."""
    tokens = _MARKDOWN.parse(text)
    for token in (child for block in tokens for child in block.children or []):
        if token.type == "link_open":
            token.attrSet("target", "_blank")
            token.attrSet("rel", "noopener noreferrer")
    return str(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))
