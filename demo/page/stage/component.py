"""The stage: one custom component with the chat panes and all charts.

It is updated by small operations (see protocol.json).
Python sets its value to the JSON text of ``{"seq": int, "ops": [...]}``, and the browser applies each
operation once. The template never mentions the value, so nothing is rendered again. Use it as an output
with ``show_progress="hidden"``.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from demo.page.middleware import serve

if TYPE_CHECKING:  # it takes seconds, and the page that is shown while the model loads does without it
    import gradio as gr

_FOLDER = Path(__file__).parent
# Made from src/ and protocol.json by `npm run build`, which needs node; the program itself does not.
BUNDLE = "stage.bundle.js"
STYLES = (
    "stage.css",
    "panes.css",
    "turn_settings.css",
    "seeds.css",
    "forks.css",
    "charts.css",
    "compare.css",
    "map.css",
    "toolbar.css",
    "intro.css",
    "summary_bar.css",
    "tooltip.css",
    "presenting.css",
    "presenter.css",
    "tour.css",
)


def plotly_head() -> str:
    """The script tag that loads Plotly from this server, for ``launch(head=...)``."""
    return f'<script src="{serve(plotly_script())}"></script>'


def plotly_script() -> Path:
    """The file with Plotly's script, which comes with its Python package."""
    found = find_spec("plotly")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / "package_data" / "plotly.min.js"


def stage() -> gr.HTML:
    """Build the component inside a ``gr.Blocks``; the caller connects its value.

    The style sheets go into the head: Gradio would rewrite a ``css_template`` at every new value, and the
    browser would then restyle the whole page for each token. No script goes there, because Gradio delays
    ``js_on_load`` until it has loaded, and the first operations would be lost.
    """
    import gradio as gr

    return gr.HTML(
        value=None,
        html_template=stage_html(),
        js_on_load=stage_script(),
        head="".join(f"<style>\n{style}\n</style>" for style in stage_styles()),
        apply_default_css=False,
        container=False,
        padding=False,
        elem_id="stage-block",
    )


def stage_html() -> str:
    """The markup."""
    return _read("stage.html")


def stage_script() -> str:
    """The script: the body of a function with the parameters element, props, watch and trigger."""
    return _read(BUNDLE)


def stage_styles() -> list[str]:
    """The style sheets in order."""
    return [_read(name) for name in STYLES]


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
