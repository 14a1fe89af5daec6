"""The page without a model: recorded sessions to watch, replay and save."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from demo.conversation.session_file import NAME, Recording, loads
from demo.page.recordings import checked_text, meta_of, open_shipped, recorded_ops, saved, talk_of
from demo.page.session import Session
from demo.page.stage.component import stage
from demo.page.updates import Op, Updates, notice_op, reset_op
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError

_EMPTY = (
    "Recorded sessions, no model.\nOpen… shows the ones that come with the program and takes session files."
)

_NEEDS_MODEL = (
    "No model is loaded, so only session files can be opened; start the program without --replay for more."
)


@dataclass(frozen=True)
class Viewer:
    """first: the recording a visitor sees at once; None for an empty stage."""

    first: Recording | None

    def open(self, session: Session) -> str:
        if self.first is not None and session.talk.recording is None:
            session.show(talk_of(self.first, ""))
        return self._value(session)

    def ask(self, session: Session, event: gr.EventData) -> str:
        """What the stage's buttons ask for, see `asks`."""
        ask = event._data if isinstance(event._data, dict) else {}
        try:
            match ask.get("do"):
                case "open":
                    session.show(talk_of(self._load(ask.get("text")), ""))
                case "recorded":
                    session.show(talk_of(open_shipped(str(ask.get("name"))), ""))
                case "switch" | "drop" as what:
                    index = ask.get("talk")
                    if not isinstance(index, int) or not 0 <= index < len(session.talks):
                        raise UserError("That conversation is no longer there.")
                    if what == "switch":
                        session.show(session.talks[index])
                    else:
                        session.drop(index)
                case "save":
                    if session.talk.recording is None:
                        raise UserError("There is nothing to save yet; open a session first.")
                    return self._say(
                        session, saved(session.talk, session.talk.recording, str(ask.get("kind")))
                    )
                case _:
                    raise UserError(_NEEDS_MODEL)
        except UserError as error:
            return self._say(session, notice_op(str(error), "error"))
        return self._value(session)

    def _load(self, text: object) -> Recording:
        checked = checked_text(text)
        if NAME not in checked[:200]:
            raise UserError(_NEEDS_MODEL)
        return loads(checked)

    def _value(self, session: Session) -> str:
        if session.talk.recording is not None:
            return self._say(session, *recorded_ops(session))
        meta = meta_of("", PlotMarks(0), {"missing": "Open a session to see its map."}, True) | {
            "empty_note": _EMPTY
        }
        return self._say(
            session, reset_op(session.talk.conversation, meta), {"op": "talks", **session.overview()}
        )

    def _say(self, session: Session, *ops: Op) -> str:
        updates = Updates(session.talk.conversation)
        updates.say(*ops)
        return updates.take()


def build_viewer(title: str, first: Recording | None) -> gr.Blocks:
    """The whole page for recorded sessions."""
    viewer = Viewer(first)
    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True) as page:
        session = gr.State(Session())
        with gr.Row(elem_id="top"):
            gr.Markdown(f"# {title}", elem_id="title")
        view = stage()
        private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        page.load(viewer.open, session, view, **private)
        for event in (view.select, view.submit):
            event(viewer.ask, session, view, **private)
    return page
