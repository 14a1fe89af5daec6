"""The pages of a class as HTML, the QR code, and the address of this machine in its network."""

from __future__ import annotations

import io
import socket
from html import escape
from pathlib import Path

import plotly
import segno

from demo.page.stage.component import stage_html as stage_markup
from demo.page.stage.component import stage_script, stage_styles

_STAGE = Path(__file__).parents[1] / "stage"
_FOLDER = _STAGE / "classroom"


def phone_html(root_path: str) -> str:
    """The page of a student's phone. root_path: under which a reverse proxy serves the page."""
    return _page("phone", root_path)


def board_html(root_path: str) -> str:
    """The page of the board."""
    return _page("board", root_path)


def stage_html(root_path: str) -> str:
    """The stage on which a phone follows the speaker's; it is shown in a frame of the phone's page."""
    page = _page("follow", root_path)
    page = page.replace("{stage styles}", "\n".join(stage_styles())).replace("{stage}", stage_markup())
    return page.replace("{stage script}", stage_script())


def _page(name: str, root_path: str) -> str:
    page = (_FOLDER / f"{name}.html").read_text(encoding="utf-8").replace("{root}", escape(root_path))
    # With its release, because browsers keep the file.
    page = page.replace("plotly.min.js", f"plotly.min.js?v={plotly.__version__}")
    files = [_FOLDER / "class.css", _FOLDER / f"{name}.css", _STAGE / f"{name}.bundle.js"]
    for path in files:
        if f"{{{path.name}}}" in page:
            page = page.replace(f"{{{path.name}}}", path.read_text(encoding="utf-8"))
    return page


def qr_svg(text: str) -> str:
    """A QR code as an SVG element, in the colour of the text around it."""
    out = io.BytesIO()
    code = segno.make(text, error="m", micro=False)
    # Dark on light in both themes: not every phone reads an inverted code.
    code.save(
        out,
        kind="svg",
        xmldecl=False,
        svgns=True,
        nl=False,
        omitsize=True,
        border=4,
        dark="#000",
        light="#fff",
    )
    return out.getvalue().decode()


def lan_address() -> str:
    """This machine's address in its network; empty where it has none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(
                ("192.0.2.1", 9)
            )  # reserved for documentation; a datagram socket only looks up the route
            return str(probe.getsockname()[0])
        except OSError:
            return ""
