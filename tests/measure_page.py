"""python -m tests.measure_page: the cost of the live page while two long replies stream.

Opens the real page in Chromium on an engine that generates at a steady rate, so that the page is measured and
not the model: 30 earlier turns, then two replies of 512 tokens. Prints bytes over the network per token,
updates of the charts per second, and the time between frames.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from demo.axis.files import load_axis
from demo.engine.protocol import Sampling
from demo.models.default import DEFAULT_MODEL
from demo.page.layout import build_page, launch_options
from tests.helpers.browser import chromium_page, one_turn, points, say, set_number, wait_until_still
from tests.helpers.steady import SteadyEngine

_RECORD_FRAMES = """() => {
  window.frames = [];
  let last = performance.now();
  (function tick(now) { window.frames.push(now - last); last = now; requestAnimationFrame(tick); })(last);
}"""


@contextmanager
def steady_page(engine: SteadyEngine) -> Iterator[Page]:
    """The page in Chromium. Raises RuntimeError on leaving if its scripts reported an error."""
    axis = load_axis(DEFAULT_MODEL)
    app = build_page(engine, axis, DEFAULT_MODEL, "scripted engine", (), Sampling())
    _, address, _ = app.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    try:
        with chromium_page(address, 1600, 900) as (page, watched):
            yield page
            if watched.errors:
                raise RuntimeError(watched.errors[0])
    finally:
        app.close()


def measure(rate: float, turns: int, tokens: int) -> dict[str, float]:
    """Measure the page and return the figures by name.

    Args:
        rate: Tokens per second in each branch.
        turns: Turns before the measured one.
        tokens: Tokens of each measured reply.
    """
    engine = SteadyEngine(1000)
    with steady_page(engine) as page:
        set_number(page, "max-new-tokens", 40)
        for turn in range(turns):
            with one_turn(page):
                say(page, f"Message {turn}")
        engine.pause = 1 / rate
        set_number(page, "max-new-tokens", tokens)
        wait_until_still(page)
        network = page.context.new_cdp_session(page)
        received: list[int] = []
        network.on("Network.dataReceived", lambda event: received.append(event["dataLength"]))
        network.send("Network.enable")
        page.evaluate(_RECORD_FRAMES)
        updates, began = points(page)["updates"], time.monotonic()
        say(page, "And now at length.")
        page.locator("#stop").wait_for(state="visible")
        page.locator("#stop").wait_for(state="hidden", timeout=300_000)
        seconds = time.monotonic() - began
        drawn = points(page)["updates"] - updates
        frames = sorted(page.evaluate("window.frames.slice(1)"))
    return {
        "earlier turns": turns,
        "tokens streamed": 2 * tokens,
        "bytes per token": round(sum(received) / (2 * tokens), 1),
        "plot updates per second": round(drawn / seconds, 1),
        "median ms between frames": round(statistics.median(frames), 1),
        "95th percentile": round(frames[int(0.95 * len(frames))], 1),
        "99th percentile": round(frames[int(0.99 * len(frames))], 1),
        "longest": round(frames[-1], 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.measure_page", description=__doc__)
    parser.add_argument("--rate", type=float, default=20, help="tokens per second in each branch")
    parser.add_argument("--turns", type=int, default=30, help="earlier turns")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of each measured reply")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    figures: dict[str, Any] = measure(options.rate, options.turns, options.tokens)
    for name, value in figures.items():
        print(f"{name:28} {value:g}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
