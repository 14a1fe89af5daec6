"""python app.py: load a model and its axis, open the page."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before anything imports gradio: no analytics, whatever the environment says.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from demo.axis import axis_folder, load_axis
from demo.engine.protocol import Sampling
from demo.errors import UserError
from demo.models import DEFAULT_MODEL, load_model

if TYPE_CHECKING:
    from demo.engine.transformers_engine import TransformersEngine


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.replay is not None:
        return _replay(options)
    try:
        # On a thread that ends: a thread that has computed keeps a team of helpers, and the teams of two threads slow each other down.
        with ThreadPoolExecutor(1) as apart:
            engine, notes = apart.submit(_load_engine, options).result()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    # Only now: a mistake in the flags should not wait for these imports.
    from demo.page.evidence import evidence_text
    from demo.page.layout import build_page, launch_options
    from demo.page.session import load_scenarios

    model, axis = engine.model, engine.axis
    evidence = evidence_text(axis, axis_folder(options.axis or model.slug))
    status = " · ".join([f"**{model.slug}** on {model.device}, {model.dtype_reason}", *notes])
    page = build_page(engine, axis, model.slug, status, load_scenarios(), Sampling(), evidence)
    print(status.replace("*", ""))
    _launch(page, options, launch_options())
    return 0


def _load_engine(options: argparse.Namespace) -> tuple[TransformersEngine, list[str]]:
    """The engine, and what is to be known about its axis. Raises UserError."""
    model = load_model(
        options.model,
        device=options.device,
        dtype=options.dtype,
        trust_remote_code=options.trust_remote_code,
        progress=_show_progress,
    )
    axis = load_axis(options.axis or model.slug)
    notes = axis.check_model(model)
    from demo.engine.transformers_engine import TransformersEngine

    budget = int(options.kv_budget * 1024**3)
    return TransformersEngine(model, axis, kv_budget=budget, rows=2 * options.pairs, own_thread=True), notes


def _replay(options: argparse.Namespace) -> int:
    """Recorded sessions alone: no model is loaded."""
    from demo.page.layout import TITLE, launch_options
    from demo.page.viewer import build_viewer
    from demo.recordings import open_file

    try:
        first = open_file(Path(options.replay)) if options.replay else None
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _launch(build_viewer(TITLE, first), options, launch_options())
    return 0


def _launch(page: Any, options: argparse.Namespace, more: dict[str, Any]) -> None:
    page.launch(server_name=options.host, server_port=options.port, inbrowser=options.open, **more)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python app.py", description="Live microscope for persona drift.")
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="model name, local folder or hub id (default: %(default)s)"
    )
    parser.add_argument(
        "--axis",
        help="axis folder, name of a shipped axis, or a published axis: .pt file, folder or hf:// (default: the model's)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument(
        "--kv-budget",
        type=float,
        default=2.0,
        help="GiB of KV cache, all conversations together (default: %(default)s)",
    )
    parser.add_argument(
        "--pairs",
        type=int,
        default=64,
        help="side-by-side replies that run at once; further visitors wait their turn (default: %(default)s)",
    )
    parser.add_argument(
        "--replay",
        nargs="?",
        const="",
        metavar="FILE",
        help="watch recorded sessions with no model: this session file, or the ones that come with the program",
    )
    parser.add_argument("--trust-remote-code", action="store_true", help="let a hub model run its own code")
    return parser


def _show_progress(message: str, fraction: float | None) -> None:
    end = "\r" if fraction is not None and fraction < 1 and sys.stderr.isatty() else "\n"
    print(message if fraction is None else f"{message}: {fraction:.0%}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
