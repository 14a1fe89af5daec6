"""python -m demo.bench.page_load: a room full of visitors on the real page, for minutes.

Starts `python app.py`, has every conversation of a small set answered alone (greedily), then lets many visitors have them at once
through the page's own endpoints: some stop a reply, some vanish in the middle of one. Every reply that was let finish must be the one
that was given alone. Reports errors, replies that differ, streams that got stuck, waiting times and the server's memory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from gradio_client import Client

from demo.bench.pair import MESSAGES
from demo.conversation.settings import BRANCHES
from demo.utils.paths import ROOT
from demo.utils.resource_usage import resident_mib

STUCK_S = 120.0  # without an update

SETTLED_MIN = 3.0  # from then on memory should stay as it is

# Arguments of /send after the message and the system prompt: temperature, top-p, repetition penalty, tokens.
_GREEDY = (0.0, 0.9, 1.1)

Texts = dict[str, str]


@dataclass
class Seen:
    """What the visitors saw. Seconds; one entry per reply."""

    turns: int = 0
    stopped: int = 0
    vanished: int = 0
    different: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)  # minutes, MiB
    busiest: int = 0
    lock: Lock = field(default_factory=Lock)


@contextmanager
def server(flags: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[tuple[str, int]]:
    """The page on a free port: its address and process id. environment: variables beyond those of this process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "app.py", "--port", str(port), *flags]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(environment or {})})
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError(f"app.py ended with status {process.returncode}")
            try:
                urllib.request.urlopen(address, timeout=2).close()
                break
            except OSError:
                time.sleep(0.2)
        else:
            raise RuntimeError("app.py did not answer")
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


class Visitor:
    """One browser's worth of the page."""

    def __init__(self, address: str, tokens: int) -> None:
        self._client = Client(address, verbose=False)
        self._tokens = tokens

    def new_chat(self) -> None:
        self._client.predict(api_name="/new_chat")

    def stop(self) -> None:
        self._client.predict(api_name="/stop")

    def send(self, text: str) -> Iterator[list[dict[str, Any]]]:
        """The stage's operations, one update after the other."""
        job = self._client.submit(text, "", *_GREEDY, self._tokens, api_name="/send")
        for update in job:
            value = json.loads(update[0]) if isinstance(update[0], str) else None
            if value:
                yield value["ops"]
        job.result(timeout=STUCK_S)  # raises what went wrong


def answer(visitor: Visitor, text: str, times: list[float]) -> Texts:
    """Send one message; both replies' texts, and when each update with tokens came. Raises RuntimeError for a notice."""
    replies: Texts = {}
    for ops in visitor.send(text):
        for op in ops:
            if op["op"] == "notice" and op.get("level") == "error":
                raise RuntimeError(op["text"])
            if op["op"] == "tokens":
                times.append(time.monotonic())
            if op["op"] == "turn" and not op["data"].get("live"):
                replies = {b: _text(op["data"]["branches"][b]) for b in BRANCHES}
    if not replies:
        raise RuntimeError("the turn never ended")
    return replies


def _text(reply: dict[str, Any]) -> str:
    return "".join(token["t"] for token in reply["tokens"])


def alone(address: str, tokens: int, scripts: Sequence[Sequence[str]]) -> list[list[Texts]]:
    """Every conversation by itself."""
    visitor, found = Visitor(address, tokens), []
    for script in scripts:
        visitor.new_chat()
        found.append([answer(visitor, text, []) for text in script])
    return found


def visit(
    number: int, address: str, tokens: int, scripts: Sequence[Sequence[str]], expected: list[list[Texts]], seen: Seen, over: Event
) -> None:  # fmt: skip
    """One visitor after the other in one seat, until it is over."""
    rng, visitor = random.Random(number), Visitor(address, tokens)
    while not over.is_set():
        try:
            index, fate = rng.randrange(len(scripts)), rng.random()
            visitor.new_chat()
            for turn, text in enumerate(scripts[index]):
                if fate < 0.1:
                    _stop_midway(visitor, text)
                    seen.stopped += 1
                    break
                if fate < 0.15:
                    next(iter(visitor.send(text)))
                    visitor = Visitor(address, tokens)  # the other one is gone, its reply unread
                    seen.vanished += 1
                    break
                _one_turn(visitor, text, expected[index][turn], seen)
                over.wait(rng.uniform(0.5, 3))
        except Exception as error:
            with seen.lock:
                seen.errors.append(f"{type(error).__name__}: {error}")
            visitor = Visitor(address, tokens)


def _stop_midway(visitor: Visitor, text: str) -> None:
    for count, _ in enumerate(visitor.send(text)):
        if count == 2:
            visitor.stop()


def _one_turn(visitor: Visitor, text: str, expected: Texts, seen: Seen) -> None:
    start, times = time.monotonic(), list[float]()
    replies = answer(visitor, text, times)
    with seen.lock:
        seen.turns += 1
        seen.first_token.append(times[0] - start)
        if replies != expected:
            seen.different.append(text)


def watch(address: str, pid: int, seen: Seen, over: Event) -> None:
    client, start = Client(address, verbose=False), time.monotonic()
    while not over.wait(5):
        seen.memory.append(((time.monotonic() - start) / 60, resident_mib(pid)))
        seen.busiest = max(seen.busiest, client.predict(api_name="/info")["load"]["running"])


def summary(seen: Seen, visitors: int, minutes: float) -> dict[str, Any]:
    """Figures of a run. Memory: MiB resident, the median around the time it should have settled, and the most after it."""
    settle = min(SETTLED_MIN, minutes / 2)
    settled = [mib for at, mib in seen.memory if settle <= at <= settle + 1]
    after = [mib for at, mib in seen.memory if at > settle]
    base = statistics.median(settled or after)
    return {
        "visitors": visitors,
        "minutes": minutes,
        "turns answered": seen.turns,
        "stopped": seen.stopped,
        "vanished": seen.vanished,
        "errors": len(seen.errors),
        "different from alone": len(seen.different),
        "rows at most": seen.busiest,
        "first token s, median": statistics.median(seen.first_token),
        "first token s, p95": statistics.quantiles(seen.first_token, n=20)[-1],
        "memory settled MiB": base,
        "memory most after MiB": max(after),
        "memory growth": max(after) / base - 1,
        "first errors": seen.errors[:5],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.bench.page_load", description=__doc__)
    parser.add_argument("--visitors", type=int, default=30, help="at once (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=15, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=48, help="most of a reply (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures as JSON")
    parser.add_argument("flags", nargs="*", help="for app.py, after --")
    options = parser.parse_args(arguments)
    scripts = [MESSAGES[start : start + 2] for start in range(len(MESSAGES) - 1)]
    seen, over = Seen(), Event()
    with server(options.flags) as (address, pid):
        expected = alone(address, options.tokens, scripts)
        print(f"{len(scripts)} conversations answered alone; now {options.visitors} visitors", flush=True)
        watcher = Thread(target=watch, args=(address, pid, seen, over))
        watcher.start()
        with ThreadPoolExecutor(options.visitors) as pool:
            seats = [
                pool.submit(visit, number, address, options.tokens, scripts, expected, seen, over)
                for number in range(options.visitors)
            ]
            over.wait(60 * options.minutes)
            over.set()
            for seat in seats:
                seat.result(timeout=2 * STUCK_S)
        watcher.join()
    figures = summary(seen, options.visitors, options.minutes)
    for name, value in figures.items():
        print(f"  {name:24} {value:.3g}" if isinstance(value, float) else f"  {name:24} {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if seen.errors or seen.different else 0


if __name__ == "__main__":
    raise SystemExit(main())
