"""The files of this machine that the page shows: Plotly's script and the evidence's pictures, one by one, and no other."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import gradio as gr

_SERVED: set[str] = set()


def serve(path: Path) -> str:
    """Make this one file reachable. Gives its address, relative to the page: it also holds behind a proxy under a path."""
    path = path.resolve()
    gr.set_static_paths([path])
    _SERVED.add(path.as_posix())
    return f"gradio_api/file={quote(path.as_posix())}"


def is_served(path: str) -> bool:
    """path: absolute, as a visitor's request names it."""
    return path in _SERVED
