"""What the page's buttons do. Thin: settings in, chat and engine called, small operations for the stage out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from demo import plots
from demo.axis import AssistantAxis
from demo.chat import BRANCHES
from demo.engine.protocol import Engine
from demo.errors import UserError
from demo.page.controls import cap_values, plot_marks, read_settings
from demo.page.session import Scenario, Session
from demo.page.wire import Op, Updates, notice_op, reset_op, turn_op
from demo.persona_map import persona_map

log = logging.getLogger(__name__)

_UNEXPECTED = "The turn failed ({}); your message is back in the box, so try again or start a new chat."
Shown = tuple[Any, Any, Any, Any]  # stage, message box, send button, stop button


@dataclass(frozen=True)
class Actions:
    """Bound to one engine and axis; every method works on the visitor's own Session."""

    engine: Engine
    axis: AssistantAxis
    model_name: str

    def open(self, session: Session, *cap: Any) -> str:
        """A visitor arrives: the stage as their conversation has it."""
        return self._reset(session, cap)

    def new_chat(self, session: Session, *cap: Any) -> tuple[Session, str, str]:
        """Forget the conversation and its caches."""
        self.close(session)
        fresh = Session()
        return fresh, self._reset(fresh, cap), ""

    def start(self, session: Session, scenario: Scenario, *cap: Any) -> tuple[Session, str, str, str]:
        """A new chat that follows a script: its system prompt and first message, ready to send."""
        self.close(session)
        fresh = Session(scenario.turns)
        stage = self._reset(fresh, cap, notice_op(f"{scenario.title}. {scenario.blurb}"))
        return fresh, stage, fresh.next_line(), scenario.system_prompt

    def send(self, session: Session, text: str, *values: Any) -> Iterator[Shown]:
        """Answer one message in both branches, streaming. A refused turn changes nothing and says why."""
        conversation = session.conversation
        updates, index, cap = Updates(conversation), len(conversation.turns), cap_values(values)
        try:
            updates.say({"op": "marks", "figures": self._figures(cap)})
            events = conversation.send(self.engine, text, read_settings(self.axis, index, values))
        except UserError as error:
            updates.say(notice_op(str(error), "error"))
            yield updates.take(), gr.skip(), *_IDLE
            return
        updates.say({"op": "turn_start", "turn": index, "user": text})
        yield updates.take(), "", *_BUSY
        try:
            with closing(events):
                for event in events:
                    updates.add([event])
                    if updates.due and not session.closed:
                        yield updates.take(), gr.skip(), gr.skip(), gr.skip()
        except Exception as error:
            log.error("turn failed: %s", type(error).__name__)
            reason = str(error) if isinstance(error, UserError) else _UNEXPECTED.format(type(error).__name__)
            yield self._reset(session, cap, notice_op(reason, "error")), text, *_IDLE
            return
        if session.closed:
            self.close(session)  # once more, for the turn has just put its caches back
            yield gr.skip(), gr.skip(), *_IDLE
            return
        updates.say(turn_op(conversation, index))
        yield updates.take(), session.next_line(), *_IDLE

    def stop(self, session: Session) -> None:
        """End the running turn within one decode step."""
        session.conversation.stop()

    def redraw_marks(self, session: Session, *cap: Any) -> str:
        """Floor or band has changed: move the reference lines."""
        updates = Updates(session.conversation)
        try:
            updates.say({"op": "marks", "figures": self._figures(cap)})
        except UserError as error:
            updates.say(notice_op(str(error), "error"))
        return updates.take()

    def close(self, session: Session) -> None:
        """The visitor is gone or starts anew: stop what runs and free what is cached."""
        session.closed = True
        session.conversation.stop()
        self.engine.forget([session.conversation.branch_id(branch) for branch in BRANCHES])

    def _reset(self, session: Session, cap: Any, *more: Op) -> str:
        try:
            figures = self._figures(cap)
        except UserError:
            # A band that cannot be used is refused when a message is sent; starting anew must still work.
            figures = self._figures((False, *cap[1:]))
        meta = {
            "model": self.model_name,
            "branches": list(BRANCHES),
            "figures": figures,
            "map": persona_map(self.axis),
        }
        updates = Updates(session.conversation)
        updates.say(reset_op(session.conversation, meta), *more)
        return updates.take()

    def _figures(self, cap: Any) -> Op:
        marks = plot_marks(self.axis, cap)
        return {"token": plots.token_figure(marks), "turn": plots.turn_figure(marks)}


_IDLE = (gr.update(visible=True), gr.update(visible=False))
_BUSY = (gr.update(visible=False), gr.update(visible=True))
