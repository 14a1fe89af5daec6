"""The page without a model: recorded sessions to watch, replay and save."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr

from demo.conversation.session_file import Recording
from demo.conversation.transcripts import parse_file
from demo.page.about import TITLE, about_text
from demo.page.chat_handlers import PageUpdate, plain_reason
from demo.page.fork_tree import chats_of
from demo.page.recording_handlers import Answer, Call, RecordingHandlers
from demo.page.recordings import checked_text, recorded_ops, stage_meta
from demo.page.session import Chat, Session
from demo.page.shared_sessions import SharedSessions
from demo.page.stage.component import stage
from demo.page.stage.protocol import Operation, operation
from demo.page.updates import Updates, notice_op, reset_op
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError

_EMPTY = (
    "Recorded sessions, no model.\nOpen… shows the ones that come with the program and takes session files."
)
_NEEDS_MODEL = (
    "No model is loaded, so only session files can be opened; start the program without --replay for more."
)


class Viewer(RecordingHandlers):
    """Handlers of the page without a model."""

    unavailable = _NEEDS_MODEL

    def __init__(self, first: Recording | None, sessions: SharedSessions | None = None) -> None:
        """Handlers for all visitors.

        Args:
            first: the recording that a visitor sees at once; None for an empty stage.
            sessions: those that visitors may open by address; None for none.
        """
        self._first, self._sessions = first, sessions or SharedSessions()

    def open(self, session: Session) -> str | None:
        """A visitor arrives: show the first recording, or an empty stage."""
        if self._first is not None and session.chat.recording is None:
            chats = chats_of(self._first, "")
            chats[0].address = ""
            for chat in (*chats, chats[0]):
                session.show(chat)
        return self._whole(session).stage

    @property
    def shared_sessions(self) -> SharedSessions:
        return self._sessions

    def refused(self, session: Session, error: Exception) -> PageUpdate:
        return self._update(
            session, notice_op(plain_reason(error, "That failed ({}); reload the page."), "error")
        )

    def shown(self, call: Call) -> PageUpdate:
        return self._whole(call.session)

    def switch(self, session: Session, chat: Chat) -> None:
        session.show(chat)

    def recording(self, call: Call, chat: Chat) -> Recording:
        if chat.recording is None:
            raise UserError("There is nothing to save yet; open a session first.")
        return replace(chat.recording, notes=chat.notes)

    def on_open(self, call: Call) -> Answer:
        found = parse_file(checked_text(call.asked.fields["text"]))
        if not isinstance(found, Recording):
            raise UserError(_NEEDS_MODEL)
        yield from self.open_recording(call, found)

    def about(self, session: Session) -> str:
        """What the page explains, for the recording that is shown."""
        recording = session.chat.recording
        if recording is None:
            return about_text(None, reasoning=False)
        replies = [reply for turn in recording.turns for reply in turn.replies.values()]
        return about_text(recording.marks, any(reply.reasoning for reply in replies))

    def _whole(self, session: Session) -> PageUpdate:
        if session.chat.recording is not None:
            return self._update(session, *recorded_ops(session))
        meta = stage_meta("", PlotMarks(0), {"missing": "Open a session to see its map."}, True)
        reset = reset_op(session.chat.conversation, meta | {"empty_note": _EMPTY})
        return self._update(session, reset, operation("conversations", **session.overview()))

    def _update(self, session: Session, *operations: Operation) -> PageUpdate:
        updates = Updates(session.chat.conversation)
        updates.add(*operations)
        return PageUpdate(updates.take())


def build_viewer(title: str, first: Recording | None, sessions: SharedSessions | None = None) -> gr.Blocks:
    """The whole page for recorded sessions. first, sessions: see `Viewer`."""
    viewer = Viewer(first, sessions)

    def opened(session: Session) -> tuple[Any, ...]:
        return viewer.open(session), viewer.about(session)

    def answer(session: Session, event: gr.EventData, request: gr.Request) -> Iterator[Any]:
        for update in viewer.dispatch(session, event._data, None, request):
            yield update.stage, viewer.about(session)

    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True) as page:
        session = gr.State(Session())
        with gr.Column(elem_id="screen"):
            with gr.Row(elem_id="top"):
                gr.Markdown(f"# {title}", elem_id="title")
            view = stage()
        with gr.Accordion(TITLE, open=False, elem_id="about"):
            about = gr.Markdown(viewer.about(Session()))
        private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        page.load(opened, session, [view, about], **private)
        for event in (view.select, view.submit):
            # The stage may send a request while the one before is still ending; both are answered.
            event(answer, session, [view, about], trigger_mode="multiple", **private)
    return page
