"""Recordings on the page: shown as conversations, and saved as files that the browser keeps. Nothing is written here."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from demo.conversation.exports import tokens_csv
from demo.conversation.session_file import MOST_BYTES, Recording, dumps, loads
from demo.page.session import Session, Talk
from demo.page.stage.component import SCRIPTS, STATIC_DIR, STYLES
from demo.page.updates import Op, Updates, reset_op
from demo.plots import figures as plots
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError
from demo.utils.paths import ASSETS


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


FOLDER = ASSETS / "recorded"

ENDING = ".session.json"


def shipped() -> tuple[str, ...]:
    """Their names, in order."""
    return tuple(sorted(path.name.removesuffix(ENDING) for path in FOLDER.glob(f"*{ENDING}")))


def open_shipped(name: str) -> Recording:
    """Raises UserError for a name that is not among `shipped`, so that no other file can be asked for."""
    if name not in shipped():
        raise UserError("There is no recorded session of that name; choose one of the list.")
    return open_file(FOLDER / f"{name}{ENDING}")


def open_file(path: Path) -> Recording:
    """Raises UserError for a file that cannot be read as a session."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} is larger than {MOST_BYTES // 2**20} MiB, so it is no session file.")
        return loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}); give a saved session file."
        ) from error


# The browser that saves the file puts the plotting script here: it has it already, and it is large.
PLOTLY = "/*plotly*/"

_NOWHERE = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

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
{scripts}
}})();
</script>
</body>
</html>
"""


def standalone(title: str, value: str) -> str:
    """value: the stage's value, as `Updates.take` gives it. The plotting script is left to the browser (PLOTLY)."""
    read = [(STATIC_DIR / name).read_text(encoding="utf-8") for name in (*SCRIPTS, *STYLES, "stage.html")]
    return _PAGE.format(
        policy=_NOWHERE,
        title=html.escape(title),
        styles="\n".join(read[len(SCRIPTS) : -1]),
        stage=read[-1],
        plotly=PLOTLY,
        # As a string in a script: nothing in a chat may end the script.
        value=json.dumps(value).replace("<", "\\u003c"),
        scripts="\n".join(read[: len(SCRIPTS)]),
    )
