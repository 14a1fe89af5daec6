"""The stage: one custom component with both chat panes and both plots, fed with small operations.

Python sets its value to the JSON text of ``{"seq": int, "ops": [...]}``; the browser applies each operation once.
The template never mentions the value, so nothing is rendered again. Use it as an output with
``show_progress="hidden"``.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import plotly

from demo.page.middleware import serve

STATIC_DIR = Path(__file__).parent

# Concatenated in this order: they are the body of one function.
SCRIPTS = (
    "model.js",
    "panes.js",
    "chart.js",
    "overlay.js",
    "token_chart.js",
    "turn_chart.js",
    "charts.js",
    "map_figure.js",
    "map.js",
    "layers.js",
    "tooltip.js",
    "summary_bar.js",
    "toolbar.js",
    "persistence.js",
    "replay.js",
    "keyboard.js",
    "requests.js",
    "stage.js",
)

STYLES = (
    "stage.css",
    "panes.css",
    "charts.css",
    "map.css",
    "toolbar.css",
    "summary_bar.css",
    "tooltip.css",
    "presenting.css",
)


def plotly_head() -> str:
    """The script tag that loads Plotly from this server, for ``launch(head=...)``."""
    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return f'<script src="{serve(script)}"></script>'


def stage() -> gr.HTML:
    """Build the component inside a ``gr.Blocks``; the caller wires its value.

    The style sheet goes into the head: Gradio would rewrite a ``css_template`` at every new value, and the
    browser would then restyle the whole page for each token. No script goes there, because Gradio holds
    ``js_on_load`` back until it has loaded, and the first operations would be lost.
    """
    return gr.HTML(
        value=None,
        html_template=_read("stage.html"),
        js_on_load="\n".join(_read(name) for name in SCRIPTS),
        head="".join(f"<style>\n{_read(name)}\n</style>" for name in STYLES),
        apply_default_css=False,
        container=False,
        padding=False,
        elem_id="stage-block",
    )


def _read(name: str) -> str:
    return (STATIC_DIR / name).read_text(encoding="utf-8")
