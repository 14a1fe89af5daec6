"""python app.py: load a model and its axis, open the page."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import configargparse

from demo.page.hosting import add_hosting_options, limits_of, password_of
from demo.space import on_zerogpu

# Before anything imports gradio: no analytics, whatever the environment says. It would also keep the last 10,000 events with who
# caused them, and sum them all up after every one.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)
if on_zerogpu():
    import spaces  # noqa: F401 - it must see torch before anybody else does

from demo.axis.files import axis_folder
from demo.engine.options import add_engine_options, end_plainly_when_asked, load_engine, show_progress
from demo.engine.protocol import Sampling
from demo.utils.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    end_plainly_when_asked()
    try:
        limits = limits_of(options)
        password_of(options)
        if options.replay is not None:
            return _replay(options)
        # On a thread that ends: a thread that has computed keeps a team of helpers, and the teams of two threads slow each other down.
        with ThreadPoolExecutor(1) as apart:
            engine, notes = apart.submit(load_engine, options, show_progress).result()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    # Only now: a mistake in the flags should not wait for these imports.
    from demo.conversation.scenarios import load_scenarios
    from demo.page.evaluation_panel import evaluation_text
    from demo.page.layout import build_page, launch_options

    model, axis = engine.model, engine.axis
    evaluation = evaluation_text(axis, _axis_home(options, model.slug))
    status = " · ".join([f"**{model.slug}** on {model.device}, {model.dtype_reason}", *notes])
    page = build_page(engine, axis, model.slug, status, load_scenarios(), Sampling(), evaluation, limits)
    print(status.replace("*", ""))
    _launch(page, options, launch_options())
    return 0


def _axis_home(options: argparse.Namespace, slug: str) -> Path | None:
    """The folder of the axis in use, where this machine has it: an engine process may have brought its own."""
    try:
        return axis_folder(options.axis or slug)
    except UserError:
        return None


def _replay(options: argparse.Namespace) -> int:
    """Recorded sessions alone: no model is loaded."""
    from demo.page.layout import TITLE, launch_options
    from demo.page.recordings import open_file
    from demo.page.viewer import build_viewer

    first = open_file(Path(options.replay)) if options.replay else None
    _launch(build_viewer(TITLE, first), options, launch_options())
    return 0


def _launch(page: Any, options: argparse.Namespace, more: dict[str, Any]) -> None:
    from demo.page.middleware import middleware_options

    more |= middleware_options(password_of(options))
    gc.freeze()  # what is there by now stays: looking through it for garbage would hold all replies up every time
    page.launch(server_name=options.host, server_port=options.port, inbrowser=options.open, **more)


def _parser() -> argparse.ArgumentParser:
    parser = configargparse.ArgumentParser(
        prog="python app.py",
        description="Live microscope for persona drift.",
        auto_env_var_prefix="PERSONA_DRIFT_",
    )
    add_engine_options(parser)
    add_hosting_options(parser)
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument(
        "--replay",
        nargs="?",
        const="",
        metavar="FILE",
        help="watch recorded sessions with no model: this session file, or the ones that come with the program",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
