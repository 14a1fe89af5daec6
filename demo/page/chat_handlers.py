"""Handlers for the page's own buttons.

They take the settings, run the conversation on the engine, and return updates for the stage.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from weakref import WeakValueDictionary

import gradio as gr

from demo.axis.axis import AssistantAxis
from demo.axis.components import persona_map
from demo.axis.directions import Direction
from demo.conversation.forks import Beginnings
from demo.conversation.session_file import Recording
from demo.conversation.settings import ALL_BRANCHES, BRANCHES, TurnSettings
from demo.conversation.turns import well_formed
from demo.engine.protocol import Engine, Events, PromptEvent
from demo.page.made_with import MadeWith, made_meta
from demo.page.persistence import persist_op
from demo.page.rate_limit import RateLimiter, address_of
from demo.page.recordings import figures, intro_of, recorded_ops, stage_meta
from demo.page.session import Chat, Session
from demo.page.settings_panel import PanelValues
from demo.page.shared_sessions import SharedSessions
from demo.page.stage.protocol import Operation, operation
from demo.page.updates import (
    Updates,
    left_out_op,
    load_op,
    lost_op,
    notice_op,
    reset_op,
    turn_op,
    turn_start_op,
)
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError

log = logging.getLogger(__name__)

_LOST = "The turn failed ({}); your message is back in the box, so try again or start a new chat."
_FAILED = "That failed ({}); nothing was changed, so try again or reload the page."


@dataclass(frozen=True)
class PageUpdate:
    """New values for the page's components; None leaves a component as it is.

    Attributes:
        stage: the stage's value, as `Updates.take` gives it.
        message, system_prompt: texts of the two boxes.
        busy: whether *Stop* stands in the place of *Send*.
    """

    stage: str | None = None
    message: str | None = None
    system_prompt: str | None = None
    busy: bool | None = None

    def outputs(self) -> tuple[Any, ...]:
        """Values for stage, message box, system prompt, *Send* and *Stop*, in this order."""
        texts = [gr.skip() if one is None else one for one in (self.stage, self.message, self.system_prompt)]
        if self.busy is None:
            return (*texts, gr.skip(), gr.skip())
        return (*texts, gr.update(visible=not self.busy), gr.update(visible=self.busy))


@dataclass(frozen=True)
class ChatHandlers:
    """Bound to one engine and axis; every method works on the visitor's own Session.

    Attributes:
        dtype: number format of the model's weights; empty when unknown.
        made_with: what a command needs to load the same model.
        shared_sessions: those that visitors may open by address.
        intro: the recording that plays when a visitor arrives; None for an empty page.
        directions: the engine's further directions by name.
        tabs: sessions by Gradio's session hash.
        explain: one sentence for an error; see `plain_reason`.
    """

    engine: Engine
    axis: AssistantAxis
    model_name: str
    rate_limiter: RateLimiter = field(default_factory=RateLimiter)
    dtype: str = ""
    intro: Recording | None = None
    directions: Mapping[str, Direction] = field(default_factory=dict)
    tabs: WeakValueDictionary[str, Session] = field(default_factory=WeakValueDictionary)
    made_with: MadeWith = field(default_factory=MadeWith)
    shared_sessions: SharedSessions = field(default_factory=SharedSessions)
    explain: Callable[[Exception, str], str] = field(default_factory=lambda: plain_reason)

    @cached_property
    def map(self) -> dict[str, Any]:
        """The fixed part of the persona map, which every reset and every recording carries."""
        return persona_map(self.axis)

    # --- buttons

    def open(self, session: Session, values: PanelValues, request: gr.Request) -> PageUpdate:
        """A visitor arrives: show their conversation, or else the intro."""
        self.tabs[str(request.session_hash)] = session
        return self.reset(session, values, arrived=session.is_untouched)

    def new_chat(self, session: Session, values: PanelValues) -> PageUpdate:
        """Another conversation, with nothing of the one before; those before it stay in the list."""
        self.switch(session, Chat())
        chat = session.chat
        return replace(self.reset(session, values), message="", system_prompt=chat.system_prompt)

    def start(self, session: Session, chat: Chat, values: PanelValues) -> PageUpdate:
        """A new chat that follows a script: its system prompt, and its first message ready to be sent.

        The second press of a double click changes nothing.
        """
        shown = session.chat
        twice = (shown.title, shown.script) == (chat.title, chat.script) and shown.has_just_begun
        if twice and session.running is shown:
            return PageUpdate()
        self.switch(session, chat)
        opened = self.reset(session, values)
        return replace(opened, message=chat.next_line(), system_prompt=chat.system_prompt)

    def send(
        self, session: Session, text: str, values: PanelValues, request: gr.Request
    ) -> Iterator[PageUpdate]:
        """Answer one message in all branches, streaming. A refused turn changes nothing and says why."""
        try:
            with self.admit(request, len(text or "") + values.characters):
                yield from self.answer(session, text, values, len(session.chat.conversation.turns))
        except Exception as error:
            yield self.refusal(session, error)

    def stop(self, session: Session) -> None:
        """End the running turn within one decode step."""
        (session.running or session.chat).conversation.stop()

    def redraw_marks(self, session: Session, values: PanelValues) -> PageUpdate:
        """Floor or band has changed: move the reference lines of a chart without turns.

        Turns keep the lines of their own settings, and a recording keeps its own.
        """
        updates = Updates(session.chat.conversation)
        try:
            marks = values.cap_choice().marks(self.axis)
            if session.chat.recording is None:
                updates.add(operation("marks", figures=figures(marks)))
        except UserError as error:
            updates.add(notice_op(str(error), "error"))
        return PageUpdate(updates.take())

    def show_prompts(self, session: Session, values: PanelValues) -> PageUpdate:
        """The system prompt of a single pane has changed, or the panes were locked together."""
        updates = Updates(session.chat.conversation)
        updates.add(operation("pane_prompts", prompts=values.panes.next_prompts()))
        return PageUpdate(updates.take())

    def set_system_prompt(self, session: Session, text: object) -> PageUpdate:
        """The next turn's system prompt was changed, in the settings or in a pane. Both show it.

        Raises:
            UserError: the conversation is of another model, and can only be watched.
        """
        chat, updates = session.chat, Updates(session.chat.conversation)
        if chat.watch_only:
            raise UserError("This recorded session can be watched but not continued; start a new chat.")
        chat.system_prompt = well_formed(text) if isinstance(text, str) else ""
        updates.add(operation("conversations", **session.overview()))
        return PageUpdate(updates.take(), system_prompt=chat.system_prompt)

    def note_typed_prompt(self, session: Session, conversation: str, text: str) -> PageUpdate:
        """A system prompt is being typed into the settings.

        The box itself is left alone, because its user goes on typing.

        Args:
            conversation: the id of the one that it is meant for. Another may be shown by now.
        """
        chat = next((chat for chat in session.chats if chat.id == conversation and not chat.watch_only), None)
        if chat is None:
            return PageUpdate()
        if chat is session.chat:
            return replace(self.set_system_prompt(session, text), system_prompt=None)
        chat.system_prompt = well_formed(text)
        return PageUpdate()

    def leave(self, request: gr.Request) -> None:
        """A tab is closed, or its connection broke.

        Gradio keeps the tab's state for an hour; the KV cache is freed at once. A running reply is not
        stopped here, because its own stream ends when the client has left.
        """
        session = self.tabs.get(str(request.session_hash))
        if session is not None:
            session.gone = True
            self.forget(session.chats)

    def close(self, session: Session) -> None:
        """The visitor has left: stop what runs and free what is cached."""
        session.gone = True
        for chat in session.chats:
            chat.conversation.stop()
        self.forget(session.chats)

    # --- turns

    def answer(
        self,
        session: Session,
        text: str,
        values: PanelValues,
        at: int,
        settings: TurnSettings | None = None,
        begin: Beginnings | None = None,
        chat: Chat | None = None,
    ) -> Iterator[PageUpdate]:
        """Answer `text` as turn `at`, which replaces that turn and all after it.

        Args:
            settings: None for those of `values`.
            begin: what the replies begin with, and which of that turn's replies stay.
            chat: the conversation that is meant. Nothing happens if another one is shown by now.
        """
        if chat is not None and chat is not session.chat:
            return
        chat, text = session.chat, well_formed(text or "")
        updates = Updates(chat.conversation, lambda: self.engine.load.running // len(BRANCHES))
        session.gone = False
        replaces = at < len(chat.conversation.turns)
        try:
            settings, events = self._begin(session, text, values, at, settings, begin, updates)
        except UserError as error:
            updates.add(notice_op(str(error), "error"))
            yield PageUpdate(updates.take(), busy=None if session.running is chat else False)
            return
        # The box holds something else than the message that is edited or answered again.
        yield PageUpdate(updates.take(), message=None if replaces else "", busy=True)
        try:
            with closing(events):
                for event in events:
                    updates.add_events([event])
                    if isinstance(event, PromptEvent) and chat.note_left_out(event.left_out):
                        updates.add(left_out_op(chat.left_out))
                    if updates.due and session.chat is chat:
                        updates.add(load_op(self.engine.load))
                        yield PageUpdate(updates.take())
        except Exception as error:
            ops = notice_op(self.explain(error, _LOST), "error"), lost_op(settings.branches)
            yield replace(self.reset(session, values, *ops), message=text, busy=False)
            return
        finally:
            session.release(chat)
        if session.gone:
            self.forget([chat])  # again, because the turn has cached its sequences since
        yield self._ended(session, chat, values, at, updates)

    def _begin(
        self,
        session: Session,
        text: str,
        values: PanelValues,
        at: int,
        settings: TurnSettings | None,
        begin: Beginnings | None,
        updates: Updates,
    ) -> tuple[TurnSettings, Events]:
        """Start the turn. Raises UserError, with nothing changed."""
        chat = session.chat
        if chat.watch_only:
            model = chat.recording.model if chat.recording else "another model"
            raise UserError(
                f"This session was recorded with {model}, "
                "so it can be watched but not continued here; start a new chat."
            )
        settings = replace(settings or self.settings_of(values, at, chat.seed), dtype=self.dtype)
        settings = replace(settings, template=self.made_with.template)
        session.claim(chat)
        replaced = chat.conversation.turns[at : at + 1]
        try:
            events = chat.conversation.send(self.engine, text, settings, at, begin)
        except Exception:
            session.release(chat)
            raise
        chat.system_prompt = settings.system_prompt
        chat.note_scripted(at, replaced[0] if replaced else None)
        updates.add(turn_start_op(chat.conversation, at), operation("conversations", **session.overview()))
        return settings, events

    def _ended(
        self, session: Session, chat: Chat, values: PanelValues, at: int, updates: Updates
    ) -> PageUpdate:
        """A turn has ended: send all of it, the next line of the script, and what the browser stores."""
        if session.chat is not chat:
            return PageUpdate(busy=False)
        updates.add(
            turn_op(chat.conversation, at),
            operation("conversations", **session.overview()),
            load_op(self.engine.load),
            persist_op(chat, self.recording(chat, values), at),
        )
        # Without a scripted message the box keeps what was typed meanwhile.
        return PageUpdate(updates.take(), message=chat.next_line() or None, busy=False)

    # --- shared with the stage's handlers

    def admit(self, request: gr.Request, characters: int) -> AbstractContextManager[None]:
        """A context for the duration of one turn. Raises UserError when the rate limit does not allow it."""
        return self.rate_limiter.turn(address_of(request), characters, self.engine.load)

    def admit_file(self, request: gr.Request, *texts: object) -> None:
        """Count texts of files, which stay in memory. Raises UserError when the rate limit is exceeded."""
        characters = sum(len(text) for text in texts if isinstance(text, str))
        self.rate_limiter.file(address_of(request), characters)

    def refusal(self, session: Session, error: Exception) -> PageUpdate:
        """A notice that says why something was not done."""
        updates = Updates(session.chat.conversation)
        updates.add(notice_op(self.explain(error, _FAILED), "error"))
        return PageUpdate(updates.take())

    def switch(self, session: Session, chat: Chat) -> None:
        """Show another conversation. A turn that still runs elsewhere is stopped."""
        self.forget(session.show(chat))

    def forget(self, chats: list[Chat]) -> None:
        """Drop the KV caches of these chats."""
        self.engine.forget([chat.conversation.branch_id(branch) for chat in chats for branch in ALL_BRANCHES])

    def reset(
        self, session: Session, values: PanelValues, *more: Operation, arrived: bool = False
    ) -> PageUpdate:
        """The conversation that is shown, from scratch. arrived: with the intro, which covers it."""
        chat = session.chat
        updates = Updates(chat.conversation)
        if chat.recording is not None:
            updates.add(*recorded_ops(session, self.made_with), *more)
        else:
            meta = stage_meta(self.model_name, self.marks(values), self.map, False)
            meta |= made_meta(self.made_with, chat.conversation.date)
            if arrived and self.intro is not None:
                meta["intro"] = intro_of(self.intro)
            overview = operation("conversations", **session.overview())
            updates.add(reset_op(chat.conversation, meta), overview, *more)
        updates.add(left_out_op(chat.left_out))
        updates.add(persist_op(chat, self.recording(chat, values)))
        return PageUpdate(updates.take())

    def recording(self, chat: Chat, values: PanelValues) -> Recording:
        """The conversation with all that is needed to show it elsewhere."""
        if chat.recording is not None:
            prompt, turns = chat.system_prompt, chat.conversation.turns
            return replace(chat.recording, turns=turns, system_prompt=prompt, notes=chat.notes)
        return Recording(
            self.model_name,
            chat.conversation.turns,
            self.marks(values),
            chat.title,
            chat.blurb,
            chat.system_prompt,
            self.map,
            chat.conversation.date,
            chat.notes,
        )

    def settings_of(self, values: PanelValues, turn: int, seed: int = 0) -> TurnSettings:
        """The settings of turn number `turn`, see `PanelValues.turn_settings`. Raises UserError."""
        return values.turn_settings(self.axis, turn, seed, self.directions)

    def marks(self, values: PanelValues) -> PlotMarks:
        """Reference lines for the settings, without a cap when the chosen one is not valid.

        An invalid cap is refused when a message is sent; a new chat must still work.
        """
        try:
            return values.cap_choice().marks(self.axis)
        except UserError:
            return replace(values, cap_on=False).cap_choice().marks(self.axis)


def plain_reason(error: Exception, unexpected: str) -> str:
    """One sentence for the visitor.

    Only the type of an unexpected error is shown and logged, because its text may quote a conversation.
    """
    if isinstance(error, UserError):
        return str(error)
    log.error("unexpected %s", type(error).__name__)
    return unexpected.format(type(error).__name__)
