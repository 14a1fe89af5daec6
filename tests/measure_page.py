"""python -m tests.measure_page: what the live page costs while two long replies stream into a long talk.

The real page in Chromium on a scripted engine that speaks at a steady rate, so that the page is measured and not the model:
30 earlier turns, then two replies of 512 tokens. Prints bytes over the wire per token, updates of the plots per second, and
the time between frames.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from demo.axis.files import load_axis
from demo.engine.protocol import Sampling
from demo.models.default import DEFAULT_MODEL
from demo.page.layout import build_page, launch_options
from tests.helpers.browser import chromium_page, finished, say, set_number
from tests.helpers.steady import SteadyEngine

_FRAMES = """() => {
  window.frames = [];
  let last = performance.now();
  (function tick(now) { window.frames.push(now - last); last = now; requestAnimationFrame(tick); })(last);
}"""


def measure(rate: float, turns: int, tokens: int) -> dict[str, float]:
    axis = load_axis(DEFAULT_MODEL)
    engine = SteadyEngine(1000)
    page_app = build_page(engine, axis, DEFAULT_MODEL, "scripted engine", (), Sampling())
    _, address, _ = page_app.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    try:
        with chromium_page(address, 1600, 900) as (page, watched):
            set_number(page, "max-new-tokens", 40)
            for turn in range(turns):
                say(page, f"Message {turn}")
                page.wait_for_function(f"window.personaStage.counts().turnPoints.capped >= {turn + 1}")
                finished(page)
            engine.pause = 1 / rate
            set_number(page, "max-new-tokens", tokens)
            page.wait_for_timeout(1000)
            network = page.context.new_cdp_session(page)
            received: list[int] = []
            network.on("Network.dataReceived", lambda event: received.append(event["dataLength"]))
            network.send("Network.enable")
            page.evaluate(_FRAMES)
            updates, began = page.evaluate("window.personaStage.counts().updates"), time.monotonic()
            say(page, "And now at length.")
            page.wait_for_timeout(1000)
            page.wait_for_function("!document.querySelector('#stop')?.offsetParent", timeout=300_000)
            seconds = time.monotonic() - began
            drawn = page.evaluate("window.personaStage.counts().updates") - updates
            frames = sorted(page.evaluate("window.frames.slice(1)"))
            if watched.errors:
                raise RuntimeError(watched.errors[0])
    finally:
        page_app.close()
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
    parser.add_argument("--rate", type=float, default=20, help="tokens a second in each row")
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: dict[str, Any] = measure(options.rate, options.turns, options.tokens)
    for name, value in figures.items():
        print(f"{name:28} {value:g}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
