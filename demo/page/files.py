"""Recordings on the page: shown as conversations, and saved as files that the browser keeps. Nothing is written here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from demo import plots
from demo.errors import UserError
from demo.exports import tokens_csv
from demo.page.session import Session, Talk
from demo.page.standalone import standalone
from demo.page.wire import Op, Updates, reset_op
from demo.plot_marks import PlotMarks
from demo.recordings import shipped
from demo.session_file import MOST_BYTES, Recording, dumps


def talk_of(recording: Recording, model_name: str) -> Talk:
    """A recording as a conversation. model_name: who could go on with it here, "" for no one."""
    talk = Talk(
        title=recording.title or "Recorded session",
        blurb=recording.blurb,
        system_prompt=recording.system_prompt,
        recording=recording,
        watch_only=recording.model != model_name,
    )
    talk.conversation.turns = list(recording.turns)
    return talk


def checked_text(text: object) -> str:
    """What a browser sent as a file's content. Raises UserError."""
    if not isinstance(text, str) or not text.strip() or len(text) > MOST_BYTES:
        raise UserError(f"The file is empty or larger than {MOST_BYTES // 2**20} MiB; choose another.")
    return text


def figures(marks: PlotMarks) -> Op:
    return {"token": plots.token_figure(marks), "turn": plots.turn_figure(marks)}


def meta_of(model: str, marks: PlotMarks, persona_map: Op, watch_only: bool) -> Op:
    """What the stage needs beside the turns."""
    return {
        "model": model,
        "figures": figures(marks),
        "map": persona_map,
        "shipped": shipped(),
        "watch_only": watch_only,
    }


def recorded_ops(session: Session) -> list[Op]:
    """The operations that show the session's current talk, which is a recording."""
    talk = session.talk
    assert talk.recording is not None
    meta = meta_of(talk.recording.model, talk.recording.marks, talk.recording.map, talk.watch_only)
    return [reset_op(talk.conversation, meta, recorded=True), {"op": "talks", **session.overview()}]


def saved(talk: Talk, recording: Recording, kind: str) -> Op:
    """A file for the browser to keep: kind is json, csv or html. Raises UserError."""
    if not recording.turns:
        raise UserError("There is nothing to save yet; say something first.")
    name = "-".join("".join(c if c.isalnum() else " " for c in talk.title.lower()).split()) or "session"
    files: dict[str, tuple[str, str, Any]] = {
        "json": (".session.json", "application/json", dumps),
        "csv": (".tokens.csv", "text/csv", tokens_csv),
        "html": (".html", "text/html", _page),
    }
    if kind not in files:
        raise UserError("Sessions are saved as json, csv or html.")
    ending, mime, write = files[kind]
    return {"op": "download", "name": name + ending, "mime": mime, "text": write(recording)}


def _page(recording: Recording) -> str:
    alone = Session()
    alone.talks = [replace(talk_of(recording, ""), watch_only=True)]
    updates = Updates(alone.talk.conversation)
    updates.say(*recorded_ops(alone))
    return standalone(f"{recording.title} · Persona drift", updates.take())
