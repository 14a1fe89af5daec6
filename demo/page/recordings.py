"""Recorded sessions on the page: shipped ones, ones that visitors open, and the files that they save.

The server writes no file: a saved session goes to the browser.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from demo.conversation.conversation import Conversation
from demo.conversation.exports import tokens_csv
from demo.conversation.session_file import MOST_BYTES, Recording, dumps, open_file
from demo.models.default import DEFAULT_MODEL
from demo.page.made_with import MadeWith, made_meta
from demo.page.session import Chat, Session
from demo.page.stage.component import stage_html, stage_script, stage_styles
from demo.page.stage.protocol import Operation, operation
from demo.page.updates import Updates, recorded_turn, reset_op
from demo.plots.figures import token_figure, turn_figure
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError
from demo.utils.paths import ASSETS

FOLDER = ASSETS / "recorded"
# What a visitor sees first: the beginning of a scenario, in which the words of the replies differ.
INTRO = ASSETS / "intro.session.json"
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


def intro_file(flag: str | None) -> Path | None:
    """The file that the flag --intro names; None for none."""
    if flag is None:
        return INTRO
    return None if flag == "none" else Path(flag)


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
        notes=recording.notes,
        recording=replace(recording, forks=()),
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


def recorded_ops(session: Session, made_with: MadeWith | None = None) -> list[Operation]:
    """The operations that show the session's current chat, which is a recording.

    Args:
        made_with: the model that is loaded here; None for none.
    """
    chat = session.chat
    assert chat.recording is not None
    meta = stage_meta(chat.recording.model, chat.recording.marks, chat.recording.map, chat.watch_only)
    meta |= _link_meta(chat) | made_meta(_model_of(chat, made_with), chat.recording.date)
    return [
        reset_op(chat.conversation, meta, recorded=True),
        operation("conversations", **session.overview()),
    ]


def _model_of(chat: Chat, loaded: MadeWith | None) -> MadeWith | None:
    """What a command needs to load the recording's model; None if that is not known."""
    if not chat.watch_only:
        return loaded
    # Of other models a file has only the name, which may not be what --model takes.
    return MadeWith(DEFAULT_MODEL) if chat.recording and chat.recording.model == DEFAULT_MODEL else None


def _link_meta(chat: Chat) -> dict[str, Any]:
    """How anybody finds the session, and how many of its turns are still as they were recorded."""
    if chat.address is None or chat.recording is None:
        return {}
    pairs = zip(chat.conversation.turns, chat.recording.turns, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] is pair[1] or pair[0] == pair[1], pairs))
    return {"link": {"query": chat.address, "turns": same}}


def intro_of(recording: Recording) -> dict[str, Any]:
    """A recording as the intro of a page: what `stage_meta` says of it, and its turns."""
    meta = stage_meta(recording.model, recording.marks, recording.map, True) | {"unsaved": True}
    return {"meta": meta, "turns": [recorded_turn(turn) for turn in recording.turns]}


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
# The waiting page loads that script from its server, and asks it whether the model is there.
_WAITING_POLICY = _POLICY.replace("'unsafe-inline';", "'unsafe-inline' 'self';", 1) + "; connect-src 'self'"
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
{plotly}
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
    session.chats = [replace(chat_of(recording, ""), watch_only=True, address="")]
    title = f"{recording.title} · Persona drift"
    return _page(title, recorded_ops(session), _POLICY, f"<script>{PLOTLY}</script>")


def waiting_html(intro: Recording, root_path: str) -> str:
    """The page while the model is being loaded: the stage with the intro. root_path: of the server."""
    session = Session()
    ready = f"{root_path}/config"
    meta = stage_meta("", intro.marks, {}, True) | {"intro": intro_of(intro), "ready": ready}
    ops = [reset_op(session.chat.conversation, meta), operation("conversations", **session.overview())]
    script = f'<script src="{html.escape(root_path)}/plotly.min.js"></script>'
    return _page("Persona drift, live", ops, _WAITING_POLICY, script)


def _page(title: str, ops: list[Operation], policy: str, plotly: str) -> str:
    """The stage as a page of its own.

    Args:
        policy: its Content-Security-Policy.
        plotly: the script element of the charts.
    """
    updates = Updates(Session().chat.conversation)
    updates.add(*ops)
    return _PAGE.format(
        policy=policy,
        title=html.escape(title),
        styles="\n".join(stage_styles()),
        stage=stage_html(),
        plotly=plotly,
        # A string inside a script element. No text of a chat may end that element.
        value=json.dumps(updates.take()).replace("<", "\\u003c"),
        script=stage_script(),
    )
