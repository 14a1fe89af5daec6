"""Updates for the stage: engine events and conversation state as small operations (see stage/protocol.json).

While a turn runs, only new tokens are sent. When it ends, the whole turn is sent once, which repairs any
update that was lost.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence

from markdown_it import MarkdownIt

from demo.conversation.conversation import Conversation
from demo.conversation.session_file import gap_json, rounded, summary_json, token_json, turn_json
from demo.conversation.settings_json import settings_json
from demo.conversation.turns import Reply, Turn, well_formed
from demo.engine.protocol import Event, Load, PromptEvent, WaitEvent
from demo.page.stage.protocol import Operation, operation
from demo.plots.marks import PlotMarks, floor_label, mark_labels, mark_shapes

# A viewer sees no difference beyond this. A slower model gets one update per decode step.
UPDATES_PER_SECOND = 30
# Updates per second of all visitors together, which one server can send without slowing the model down. With
# many visitors, updates become fewer and larger.
_UPDATES_FOR_ALL = 90
_PATIENCE = 4  # an update with tokens of some branches only waits so many times as long

# No images, because a reply could make the browser fetch them from any address.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


def markdown_html(text: str) -> str:
    """A reply's Markdown as HTML for the page.

    HTML in the text stays text, and links disclose nothing about the page.
    """
    tokens = _MARKDOWN.parse(text)
    for token in (child for block in tokens for child in block.children or []):
        if token.type == "link_open":
            token.attrSet("target", "_blank")
            token.attrSet("rel", "noopener noreferrer")
    return str(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))


def live_reply(reply: Reply) -> Operation:
    """A reply as the stage shows it, with only the summaries of further samples."""
    running = reply.finish is None
    tokens = [token_json(token, live=True, running=running) for token in reply.tokens]
    return summary_json(reply) | {
        "tokens": tokens,
        "samples": _samples(reply),
        "html": markdown_html(reply.text),
    }


def recorded_turn(turn: Turn) -> Operation:
    """A turn with everything that a replay needs."""
    data = turn_json(turn) | _settings(turn)
    for branch, reply in turn.replies.items():
        data["branches"][branch] |= {"samples": _samples(reply), "html": markdown_html(reply.text)}
    return data


def live_turn(turn: Turn) -> Operation:
    """A turn as it stands. It is marked live while more tokens follow."""
    replies = {branch: live_reply(reply) for branch, reply in turn.replies.items()}
    live = any(reply.finish is None for reply in turn.replies.values())
    more = {"live": True} if live else gap_json(turn)
    return {"user": turn.user, "branches": replies, **_settings(turn), **more}


def turn_marks(marks: PlotMarks) -> Operation:
    """What a turn's cap decides in both charts, in the form that Plotly takes."""
    return {
        "shapes": mark_shapes(marks),
        "annotations": mark_labels(marks),
        "meta": {
            "floor": marks.floor,
            "floor_label": floor_label(marks),
            "cap_layers": None if marks.cap_layers is None else list(marks.cap_layers),
        },
    }


def _settings(turn: Turn) -> Operation:
    """How a turn was answered, where that is known."""
    settings = turn.settings
    if settings is None:
        return {}
    marks = {} if settings.marks is None else {"marks": turn_marks(settings.marks)}
    return {"settings": settings_json(settings), **marks}


def _samples(reply: Reply) -> list[Operation]:
    return [summary_json(sample) | {"text": sample.text} for sample in reply.samples]


def turn_start_op(conversation: Conversation, index: int) -> Operation:
    """A turn has begun. Its replies are yet to be written, but for those kept of the turn it replaces."""
    turn = conversation.turns[index]
    fields = {"user": turn.user, "branches": list(turn.replies), **_settings(turn)}
    kept = {branch: live_reply(reply) for branch, reply in turn.replies.items() if reply.finish is not None}
    return operation("turn_start", turn=index, **fields, **({"kept": kept} if kept else {}))


def turn_op(conversation: Conversation, index: int) -> Operation:
    """The authoritative state of one turn."""
    return operation("turn", turn=index, data=live_turn(conversation.turns[index]))


def reset_op(conversation: Conversation, meta: Operation, *, recorded: bool = False) -> Operation:
    """The whole conversation: for a new chat, another conversation, or a page that was reloaded.

    Args:
        recorded: include what a replay needs.
    """
    turns = [(recorded_turn if recorded else live_turn)(turn) for turn in conversation.turns]
    return operation("reset", meta=meta, turns=turns)


def notice_op(text: str, level: str = "info") -> Operation:
    """A message to the visitor. level: "info" or "error"."""
    return operation("notice", text=text, level=level)


def lost_op(branches: Iterable[str]) -> Operation:
    """A turn that failed was removed again; the panes say so."""
    text = (
        "This reply was lost before it was complete. "
        "It is not part of the conversation; your message is back in the box."
    )
    return operation("lost", branches=list(branches), text=text)


def left_out_op(parts: Sequence[str]) -> Operation:
    """What the model's chat template leaves out of this conversation's prompts; nothing for no parts."""
    first = [f"This model’s chat template leaves out {part}." for part in parts[:1]]
    return operation(
        "left_out", text=" ".join([*first, *(f"It also leaves out {part}." for part in parts[1:])])
    )


def load_op(load: Load) -> Operation:
    """How busy the engine is."""
    return operation(
        "load",
        running=load.running,
        waiting=load.waiting,
        mib=round(load.kv_bytes / 2**20),
        budget=round(load.kv_budget / 2**20),
    )


class Updates:
    """Numbers the stage's values, and holds events back until an update is due."""

    def __init__(self, conversation: Conversation, listeners: Callable[[], int] = lambda: 1) -> None:
        """listeners: returns how many conversations are being answered now."""
        self._conversation = conversation
        self._listeners = listeners
        self._ops: list[Operation] = []
        self._tokens: dict[str, list[Operation]] = {}
        self._last = 0.0
        self._urgent = False

    def add_events(self, events: Iterable[Event]) -> None:
        """Add events that are already part of the conversation's last turn."""
        index = len(self._conversation.turns) - 1
        turn = self._conversation.turns[index]
        for event in events:
            if isinstance(event, WaitEvent):
                self.add(operation("waiting", turn=index, ahead=event.ahead))
                self._urgent = True
                continue
            reply = turn.replies[event.branch]
            if isinstance(event, PromptEvent):
                known = {"user_mean": rounded(event.user_projection)}
                known |= {} if reply.start is None else {"start": reply.start}
                self.add(operation("prompt", turn=index, branch=event.branch, **known))
                continue
            if event.token_id is not None:
                fresh = token_json(reply.tokens[-1], live=True, running=True)
                self._tokens.setdefault(event.branch, []).append(fresh)
            if event.finish_reason is not None:
                self._flush_tokens(index)
                self.add(operation("turn_end", turn=index, branch=event.branch, **summary_json(reply)))

    def add(self, *operations: Operation) -> None:
        """Add operations to the next value."""
        self._ops += operations

    @property
    def due(self) -> bool:
        """Whether to send an update now.

        In the middle of a decode step an update waits longer, so that no pane runs far ahead of the other.
        """
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

        It is text and not an object, because Gradio sends the difference between a streamed value and the
        one before, and its differences of nested lists go wrong when one of them shrinks.
        """
        self._flush_tokens(len(self._conversation.turns) - 1)
        self._last, self._urgent = time.monotonic(), False
        ops, self._ops = self._ops, []
        value = {"seq": time.time_ns() // 1000, "ops": ops}
        text = well_formed(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
        # Gradio looks for script tags in HTML values and warns; chat text may contain one.
        return text.replace("<", "\\u003c")

    def _flush_tokens(self, index: int) -> None:
        for branch, tokens in self._tokens.items():
            reply = self._conversation.turns[index].replies[branch]
            place = {} if reply.place is None else {"place": [rounded(value) for value in reply.place]}
            at = len(reply.tokens) - len(tokens)
            self.add(operation("tokens", turn=index, branch=branch, at=at, tokens=tokens, **place))
        self._tokens = {}
