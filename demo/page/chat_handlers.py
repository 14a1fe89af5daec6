"""What the page's buttons do. Thin: settings in, chat and engine called, small operations for the stage out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from weakref import WeakValueDictionary

import gradio as gr

from demo.axis.axis import AssistantAxis
from demo.axis.components import persona_map
from demo.conversation.scenarios import Scenario
from demo.conversation.session_file import Recording
from demo.conversation.settings import ALL_BRANCHES, BRANCHES, TurnSettings
from demo.conversation.turns import well_formed
from demo.engine.protocol import Engine
from demo.page.persistence import keep_op
from demo.page.rate_limit import RateLimiter, address_of
from demo.page.recordings import figures, meta_of, recorded_ops
from demo.page.session import Session, Talk
from demo.page.settings_panel import cap_values, plot_marks, read_settings
from demo.page.updates import Op, Updates, load_op, lost_op, notice_op, reset_op, turn_op
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError

log = logging.getLogger(__name__)

_LOST = "The turn failed ({}); your message is back in the box, so try again or start a new chat."

_FAILED = "That failed ({}); nothing was changed, so try again or reload the page."

Shown = tuple[Any, Any, Any, Any]  # stage, message box, send button, stop button


@dataclass(frozen=True)
class ChatHandlers:
    """Bound to one engine and axis; every method works on the visitor's own Session."""

    engine: Engine
    axis: AssistantAxis
    model_name: str
    rate_limiter: RateLimiter = field(default_factory=RateLimiter)
    tabs: WeakValueDictionary[str, Session] = field(default_factory=WeakValueDictionary)  # by Gradio's hash

    @cached_property
    def map(self) -> dict[str, Any]:
        """The still part of the persona map, which every reset and every recording carries."""
        return persona_map(self.axis)

    def open(self, session: Session, request: gr.Request, *cap: Any) -> str:
        """A visitor arrives: the stage as their conversation has it."""
        self.tabs[str(request.session_hash)] = session
        return self.reset(session, cap)

    def new_chat(self, session: Session, *cap: Any) -> tuple[str, str]:
        """Another conversation; the ones before it stay in the list."""
        self.switch(session, Talk())
        return self.reset(session, cap), ""

    def start(self, session: Session, scenario: Scenario, *cap: Any) -> tuple[str, str, str]:
        """A new chat that follows a script: its system prompt and first message, ready to send."""
        talk = Talk(
            title=scenario.title,
            blurb=scenario.blurb,
            care=scenario.care,
            system_prompt=scenario.system_prompt,
            script=scenario.turns,
        )
        self.switch(session, talk)
        line = talk.next_line()
        return self.reset(session, cap), line, scenario.system_prompt

    def send(self, session: Session, text: str, request: gr.Request, *values: Any) -> Iterator[Shown]:
        """Answer one message in all branches, streaming. A refused turn changes nothing and says why."""
        try:
            with self.admit(request, text, *values):
                yield from self.answer(session, text, values, len(session.talk.conversation.turns))
        except Exception as error:
            yield self.refusal(session, error), gr.skip(), gr.skip(), gr.skip()

    def admit(self, request: gr.Request, *texts: object) -> AbstractContextManager[None]:
        """For as long as one turn takes. Raises UserError when it must not start."""
        characters = sum(len(text) for text in texts if isinstance(text, str))
        return self.rate_limiter.turn(address_of(request), characters, self.engine.load)

    def admit_file(self, request: gr.Request, *texts: object) -> None:
        """Texts of files, which stay in memory with the visitor. Raises UserError."""
        self.rate_limiter.file(address_of(request), sum(len(text) for text in texts if isinstance(text, str)))

    def refusal(self, session: Session, error: Exception) -> str:
        """The stage's value that says why something was not done."""
        updates = Updates(session.talk.conversation)
        updates.say(notice_op(plain_reason(error, _FAILED), "error"))
        return updates.take()

    def answer(
        self, session: Session, text: str, values: Any, at: int, settings: TurnSettings | None = None
    ) -> Iterator[Shown]:
        """Answer `text` as turn `at`, in place of that turn and all after it. settings: those of `values` unless given."""
        talk, cap, text = session.talk, cap_values(values), well_formed(text or "")
        conversation = talk.conversation
        updates = Updates(conversation, lambda: self.engine.load.running // len(BRANCHES))
        session.gone = False
        try:
            if talk.watch_only:
                raise UserError(
                    f"This session was recorded with {talk.recording.model if talk.recording else 'another model'}, "
                    "so it can be watched but not continued here; start a new chat."
                )
            updates.say({"op": "marks", "figures": figures(plot_marks(self.axis, cap))})
            settings = settings or read_settings(self.axis, at, values)
            session.claim(talk)
            try:
                events = conversation.send(self.engine, text, settings, at)
            except UserError:
                session.release(talk)
                raise
        except UserError as error:
            updates.say(notice_op(str(error), "error"))
            idle = _IDLE if session.running is not talk else (gr.skip(), gr.skip())
            yield updates.take(), gr.skip(), *idle
            return
        talk.system_prompt = settings.system_prompt
        updates.say({"op": "turn_start", "turn": at, "user": text, "branches": list(settings.branches)})
        yield updates.take(), "", *_BUSY
        try:
            with closing(events):
                for event in events:
                    updates.add([event])
                    if updates.due and session.talk is talk:
                        updates.say(load_op(self.engine.load))
                        yield updates.take(), gr.skip(), gr.skip(), gr.skip()
        except Exception as error:
            ops = notice_op(plain_reason(error, _LOST), "error"), lost_op(settings.branches)
            yield self.reset(session, cap, *ops), text, *_IDLE
            return
        finally:
            session.release(talk)
        if session.gone:
            self.forget([talk])  # once more, for the turn has just put its caches back
        if session.talk is not talk:
            yield gr.skip(), gr.skip(), *_IDLE
            return
        line = talk.next_line()
        updates.say(
            turn_op(conversation, at),
            {"op": "talks", **session.overview()},
            load_op(self.engine.load),
            keep_op(talk, self.recording(talk, cap), at),
        )
        yield updates.take(), line, *_IDLE

    def stop(self, session: Session) -> None:
        """End the running turn within one decode step."""
        (session.running or session.talk).conversation.stop()

    def redraw_marks(self, session: Session, *cap: Any) -> str:
        """Floor or band has changed: move the reference lines."""
        updates = Updates(session.talk.conversation)
        try:
            updates.say({"op": "marks", "figures": figures(plot_marks(self.axis, cap))})
        except UserError as error:
            updates.say(notice_op(str(error), "error"))
        return updates.take()

    def switch(self, session: Session, talk: Talk) -> None:
        """Show another conversation; a turn that still runs elsewhere is stopped."""
        self.forget(session.show(talk))

    def leave(self, request: gr.Request) -> None:
        """A tab is closed, or its line broke. Gradio keeps its state for an hour; the KV cache need not wait for that. A reply that runs
        is not stopped here: its own stream tells whether anybody still listens."""
        session = self.tabs.get(str(request.session_hash))
        if session is not None:
            session.gone = True
            self.forget(session.talks)

    def close(self, session: Session) -> None:
        """The visitor is gone: stop what runs and free what is cached."""
        session.gone = True
        for talk in session.talks:
            talk.conversation.stop()
        self.forget(session.talks)

    def forget(self, talks: list[Talk]) -> None:
        self.engine.forget([talk.conversation.branch_id(b) for talk in talks for b in ALL_BRANCHES])

    def reset(self, session: Session, cap: Any, *more: Op) -> str:
        """The stage's value for the conversation that is shown, whole."""
        talk = session.talk
        updates = Updates(talk.conversation)
        if talk.recording is not None:
            updates.say(*recorded_ops(session), *more)
        else:
            meta = meta_of(self.model_name, self.marks(cap), self.map, False)
            updates.say(reset_op(talk.conversation, meta), {"op": "talks", **session.overview()}, *more)
        updates.say(keep_op(talk, self.recording(talk, cap)))
        return updates.take()

    def recording(self, talk: Talk, cap: Any) -> Recording:
        """The conversation with all that is needed to show it elsewhere."""
        if talk.recording is not None:
            return replace(talk.recording, turns=talk.conversation.turns)
        return Recording(
            self.model_name,
            talk.conversation.turns,
            self.marks(cap),
            talk.title,
            talk.blurb,
            talk.system_prompt,
            self.map,
        )

    def marks(self, cap: Any) -> PlotMarks:
        """Reference lines for the settings. A band that cannot be used is refused when a message is sent; starting anew
        must still work."""
        try:
            return plot_marks(self.axis, cap)
        except UserError:
            return plot_marks(self.axis, (False, *cap[1:]))


def plain_reason(error: Exception, unexpected: str) -> str:
    """One sentence for the visitor. Of what no one foresaw, only the kind is told and logged: its text may quote a conversation."""
    if isinstance(error, UserError):
        return str(error)
    log.error("unexpected %s", type(error).__name__)
    return unexpected.format(type(error).__name__)


_IDLE = (gr.update(visible=True), gr.update(visible=False))

_BUSY = (gr.update(visible=False), gr.update(visible=True))
