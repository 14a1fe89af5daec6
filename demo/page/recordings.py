"""Recorded sessions on the page: shipped ones, ones that visitors open, and the files that they save.

The server writes no file: a saved session goes to the browser.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from demo.conversation.conversation import Conversation
from demo.conversation.exports import tokens_csv
from demo.conversation.session_file import MOST_BYTES, Recording, dumps, loads
from demo.page.session import Chat, Session
from demo.page.stage.component import stage_html, stage_script, stage_styles
from demo.page.stage.protocol import Operation, operation
from demo.page.updates import Updates, reset_op
from demo.plots.figures import token_figure, turn_figure
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError
from demo.utils.paths import ASSETS

FOLDER = ASSETS / "recorded"
ENDING = ".session.json"


# --- files


def shipped() -> tuple[str, ...]:
    """Names of the recorded sessions that come with the program, in order."""
    return tuple(sorted(path.name.removesuffix(ENDING) for path in FOLDER.glob(f"*{ENDING}")))


def open_shipped(name: str) -> Recording:
    """One of the `shipped` sessions. Raises UserError for any other name, so no other file can be read."""
    if name not in shipped():
        raise UserError("There is no recorded session of that name; choose one from the list.")
    return open_file(FOLDER / f"{name}{ENDING}")


def open_file(path: Path) -> Recording:
    """Read a session file. Raises UserError when it is not one."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} is larger than {MOST_BYTES // 2**20} MiB, so it is not a session file.")
        return loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}); give a saved session file."
        ) from error


def checked_text(text: object) -> str:
    """A file's content as a browser sent it. Raises UserError."""
    if not isinstance(text, str) or not text.strip() or len(text) > MOST_BYTES:
        raise UserError(f"The file is empty or larger than {MOST_BYTES // 2**20} MiB; choose another.")
    return text


# --- on the stage


def chat_of(recording: Recording, model_name: str) -> Chat:
    """A recording as a conversation. model_name: the model that could continue it here, "" for none."""
    chat = Chat(
        title=recording.title or "Recorded session",
        blurb=recording.blurb,
        system_prompt=recording.system_prompt,
        recording=recording,
        watch_only=recording.model != model_name,
    )
    chat.conversation = conversation_of(recording)
    return chat


def conversation_of(recording: Recording) -> Conversation:
    """The recorded conversation. One without a date, from an earlier version, counts as begun today."""
    conversation = Conversation(list(recording.turns))
    if recording.date:
        conversation.date = recording.date
    return conversation


def figures(marks: PlotMarks) -> dict[str, Any]:
    """The two charts, empty, with their reference lines."""
    return {"token": token_figure(marks), "turn": turn_figure(marks)}


def stage_meta(model: str, marks: PlotMarks, persona_map: dict[str, Any], watch_only: bool) -> dict[str, Any]:
    """What the stage needs beside the turns."""
    return {
        "model": model,
        "figures": figures(marks),
        "map": persona_map,
        "shipped": shipped(),
        "watch_only": watch_only,
    }


def recorded_ops(session: Session) -> list[Operation]:
    """The operations that show the session's current chat, which is a recording."""
    chat = session.chat
    assert chat.recording is not None
    meta = stage_meta(chat.recording.model, chat.recording.marks, chat.recording.map, chat.watch_only)
    return [
        reset_op(chat.conversation, meta, recorded=True),
        operation("conversations", **session.overview()),
    ]


# --- saving


def download_op(chat: Chat, recording: Recording, kind: str) -> Operation:
    """A file for the browser to save: kind is json, csv or html. Raises UserError."""
    if not recording.turns:
        raise UserError("There is nothing to save yet; say something first.")
    name = "-".join("".join(c if c.isalnum() else " " for c in chat.title.lower()).split()) or "session"
    files: dict[str, tuple[str, str, Callable[[Recording], str]]] = {
        "json": (".session.json", "application/json", dumps),
        "csv": (".tokens.csv", "text/csv", tokens_csv),
        "html": (".html", "text/html", offline_page),
    }
    if kind not in files:
        raise UserError("Sessions are saved as json, csv or html.")
    ending, mime, write = files[kind]
    return operation("download", name=name + ending, mime=mime, text=write(recording))


# The browser inserts its own copy of the plotting script here when it saves the file: the script is large.
PLOTLY = "/*plotly*/"
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
body {{ margin: 0; padding: 12px; background: #f6f8fb; }}
body.dark {{ background: #0c1119; }}
{styles}
</style>
</head>
<body>
<main id="element">{stage}</main>
<script>{plotly}</script>
<script>
if (matchMedia("(prefers-color-scheme: dark)").matches) document.body.classList.add("dark");
(function () {{
const element = document.getElementById("element");
const props = {{ value: {value} }};
const watch = () => {{}};
const trigger = null;
{script}
}})();
</script>
</body>
</html>
"""


def offline_page(recording: Recording) -> str:
    """A session as one HTML file: the stage with its data, for a browser without server or network."""
    session = Session()
    session.chats = [replace(chat_of(recording, ""), watch_only=True)]
    updates = Updates(session.chat.conversation)
    updates.add(*recorded_ops(session))
    return _PAGE.format(
        policy=_POLICY,
        title=html.escape(f"{recording.title} · Persona drift"),
        styles="\n".join(stage_styles()),
        stage=stage_html(),
        plotly=PLOTLY,
        # A string inside a script element. No text of a chat may end that element.
        value=json.dumps(updates.take()).replace("<", "\\u003c"),
        script=stage_script(),
    )
