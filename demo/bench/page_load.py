"""python -m demo.bench.page_load: load test of the page, with many visitors for several minutes.

Starts `python app.py` and first has every conversation of a small set answered alone, greedily.
Then many visitors have these conversations at once through the page's own endpoints: some stop a
reply, some disappear in the middle of one. Every reply that was not interrupted must equal the
reply that was given alone. Reports errors, replies that differ, the time to the first token and the
server's memory. Compare replies with `-- --dtype float32`: in bfloat16 a token can depend on the
batch that it is computed in.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from gradio_client import Client

from demo.bench.app_process import server
from demo.bench.pair import MESSAGES
from demo.bench.report import write_json
from demo.conversation.settings import BRANCHES
from demo.utils.cli import command
from demo.utils.resource_usage import resident_mib

PATIENCE_S = 120.0  # longest wait for the end of a reply

SETTLED_MIN = 3.0  # minutes after which memory should no longer grow

# Arguments of /send after the message and the system prompt: temperature, top-p, repetition penalty.
_GREEDY = (0.0, 0.9, 1.1)

Texts = dict[str, str]


class Visitor:
    """A client of the page's named endpoints."""

    def __init__(self, address: str, tokens: int) -> None:
        """tokens: most tokens of a reply."""
        self._client = Client(address, verbose=False)
        self._tokens = tokens

    def new_chat(self) -> None:
        """Start a new conversation."""
        self._client.predict("", api_name="/new_chat")  # the system prompt has no default

    def stop(self) -> None:
        """Stop the running turn."""
        self._client.predict(api_name="/stop")

    def send(self, text: str) -> Iterator[list[dict[str, Any]]]:
        """Send a message. Yields the stage's operations, one update after the other."""
        job = self._client.submit(text, "", *_GREEDY, self._tokens, api_name="/send")
        for update in job:
            value = json.loads(update[0]) if isinstance(update[0], str) else None
            if value:
                yield value["ops"]
        job.result(timeout=PATIENCE_S)  # raises the error, if there was one


@dataclass
class Outcomes:
    """What happened to all visitors.

    Attributes:
        turns: Turns that were answered to the end.
        stopped: Replies that a visitor stopped.
        vanished: Replies during which a visitor disappeared.
        different: Messages whose replies were not those given alone.
        errors: Error messages.
        first_token: Seconds to the first token, one entry per turn.
        memory: (minutes, MiB) of the server's resident memory.
        busiest: Most sequences that ran at once.
    """

    turns: int = 0
    stopped: int = 0
    vanished: int = 0
    different: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    busiest: int = 0
    lock: Lock = field(default_factory=Lock)


@dataclass(frozen=True)
class LoadTest:
    """One run: where, with which conversations, and what came of it.

    Attributes:
        address: The page.
        tokens: Most tokens of a reply.
        scripts: The user messages of each conversation.
        expected: For each script and turn, the replies that were given alone.
        outcomes: Filled in as visitors come and go.
        over: Set when the time is up.
    """

    address: str
    tokens: int
    scripts: Sequence[Sequence[str]]
    expected: Sequence[Sequence[Texts]]
    outcomes: Outcomes = field(default_factory=Outcomes)
    over: Event = field(default_factory=Event)

    def run(self, visitors: int, minutes: float, pid: int) -> None:
        """Have `visitors` visitors at once on the page, and monitor the server, whose process is `pid`."""
        monitor = Thread(target=self._monitor, args=(pid,))
        monitor.start()
        with ThreadPoolExecutor(visitors) as pool:
            streams = [pool.submit(self._visit, number) for number in range(visitors)]
            self.over.wait(60 * minutes)
            self.over.set()
            for stream in streams:
                stream.result(timeout=2 * PATIENCE_S)
        monitor.join()

    def _visit(self, number: int) -> None:
        """Have conversations, one after the other, until the time is up."""
        rng, visitor = random.Random(number), Visitor(self.address, self.tokens)
        while not self.over.is_set():
            try:
                stayed = self._converse(visitor, rng)
            except Exception as error:
                stayed = False
                with self.outcomes.lock:
                    self.outcomes.errors.append(f"{type(error).__name__}: {error}")
            if not stayed:
                visitor = Visitor(self.address, self.tokens)

    def _converse(self, visitor: Visitor, rng: random.Random) -> bool:
        """Have one conversation. Returns False if the visitor has disappeared in the middle of it."""
        index, fate = rng.randrange(len(self.scripts)), rng.random()
        visitor.new_chat()
        for turn, text in enumerate(self.scripts[index]):
            if fate < 0.1:
                _stop_midway(visitor, text)
                self.outcomes.stopped += 1
                return True
            if fate < 0.15:
                next(iter(visitor.send(text)))  # the rest of the reply is never read
                self.outcomes.vanished += 1
                return False
            self._compare_turn(visitor, text, self.expected[index][turn])
            self.over.wait(rng.uniform(0.5, 3))
        return True

    def _compare_turn(self, visitor: Visitor, text: str, expected: Texts) -> None:
        start, times = time.monotonic(), list[float]()
        replies = answer(visitor, text, times)
        with self.outcomes.lock:
            self.outcomes.turns += 1
            self.outcomes.first_token.append(times[0] - start)
            if replies != expected:
                self.outcomes.different.append(text)

    def _monitor(self, pid: int) -> None:
        client, start = Client(self.address, verbose=False), time.monotonic()
        while not self.over.wait(5):
            self.outcomes.memory.append(((time.monotonic() - start) / 60, resident_mib(pid)))
            running = client.predict(api_name="/info")["load"]["running"]
            self.outcomes.busiest = max(self.outcomes.busiest, running)


def _stop_midway(visitor: Visitor, text: str) -> None:
    for count, _ in enumerate(visitor.send(text)):
        if count == 2:
            visitor.stop()


def answer(visitor: Visitor, text: str, times: list[float]) -> Texts:
    """Send one message and wait for both replies.

    Args:
        visitor: Who sends it.
        text: The message.
        times: The time of each update with tokens is appended to it.

    Returns:
        The text of each branch's reply.

    Raises:
        RuntimeError: The page showed an error, or the turn did not end.
    """
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


def replies_alone(address: str, tokens: int, scripts: Sequence[Sequence[str]]) -> list[list[Texts]]:
    """The replies to each script with no other visitor on the page."""
    visitor, found = Visitor(address, tokens), []
    for script in scripts:
        visitor.new_chat()
        found.append([answer(visitor, text, []) for text in script])
    return found


def summary(outcomes: Outcomes, visitors: int, minutes: float) -> dict[str, Any]:
    """The figures of a run.

    Memory is resident, in MiB: the median of the minute in which it should have settled, the most
    after that, and by what share the second exceeds the first.
    """
    settle = min(SETTLED_MIN, minutes / 2)
    settled = [mib for at, mib in outcomes.memory if settle <= at <= settle + 1]
    after = [mib for at, mib in outcomes.memory if at > settle]
    base = statistics.median(settled or after)
    return {
        "visitors": visitors,
        "minutes": minutes,
        "turns answered": outcomes.turns,
        "stopped": outcomes.stopped,
        "vanished": outcomes.vanished,
        "errors": len(outcomes.errors),
        "different from alone": len(outcomes.different),
        "sequences at once, most": outcomes.busiest,
        "first token s, median": statistics.median(outcomes.first_token),
        "first token s, p95": statistics.quantiles(outcomes.first_token, n=20)[-1],
        "memory settled MiB": base,
        "memory most after MiB": max(after),
        "memory growth": max(after) / base - 1,
        "first errors": outcomes.errors[:5],
    }


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load test; status 1 if there were errors or differing replies."""
    parser = argparse.ArgumentParser(prog="python -m demo.bench.page_load", description=__doc__)
    parser.add_argument("--visitors", type=int, default=30, help="at once (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=15, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=48, help="most of a reply (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("flags", nargs="*", help="for app.py, after --")
    options = parser.parse_args(arguments)
    scripts = [MESSAGES[start : start + 2] for start in range(len(MESSAGES) - 1)]
    with server(options.flags) as (address, pid):
        expected = replies_alone(address, options.tokens, scripts)
        print(f"{len(scripts)} conversations answered alone; now {options.visitors} visitors", flush=True)
        test = LoadTest(address, options.tokens, scripts, expected)
        test.run(options.visitors, options.minutes, pid)
    figures = summary(test.outcomes, options.visitors, options.minutes)
    for name, value in figures.items():
        print(f"  {name:24} {value:.3g}" if isinstance(value, float) else f"  {name:24} {value}")
    if options.json:
        write_json(options.json, figures)
    return 1 if test.outcomes.errors or test.outcomes.different else 0


if __name__ == "__main__":
    raise SystemExit(main())
