"""python -m demo.bench.class_load: load test of a class, with many phones and one board.

Starts `python app.py --class`. Students join, write, wait for both replies, guess, think, and begin another
conversation now and then; a board watches. Reports the time to the first token, the time until a turn that
has ended is on the board, errors, and the server's memory. With --growth it raises the number of students
step by step, until the first token takes too long: so many students this machine carries.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import platform
import random
import statistics
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson

from demo.bench.app_process import server
from demo.bench.class_report import table
from demo.bench.pair import MESSAGES
from demo.bench.report import write_json
from demo.models.default import DEFAULT_MODEL
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.resource_usage import resident_mib

PATIENCE_S = 180.0  # longest wait for the end of a turn
SETTLED_SHARE = 0.25  # of the time, after which memory should no longer grow
THINKING_S = (5.0, 25.0)  # between a student's turns
MOST_FIRST_TOKEN_S = 4.0  # at the 95th percentile; beyond it a class is too large for its machine
_TURNS_OF_A_CHAT = 6

TOKEN_HEADER = "x-class-token"  # as demo/page/classroom/routes.py names it

Message = dict[str, Any]


@dataclass
class Outcomes:
    """What happened.

    Attributes:
        at_once: seconds from sending a message to the first token on the phone, of the first message of each
            student; all are sent within a few seconds.
        first_token: the same for all later messages.
        reply: seconds from the first token to the end of both replies.
        tokens: of the longer reply of each turn.
        board_update: seconds from the end of a turn on the phone to the board's knowing it.
        turns: turns that were answered to the end.
        errors: what was refused or lost, one sentence each.
        memory: (seconds since the start, MiB) of the server's resident memory.
    """

    at_once: list[float] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)
    reply: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    board_update: list[float] = field(default_factory=list)
    turns: int = 0
    errors: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)


class Line:
    """One tab's connection: requests, and the stream that it listens to."""

    def __init__(self, address: str, token: str = "") -> None:
        """token: a student's or the speaker's; empty before a student has joined."""
        self._http = httpx.AsyncClient(base_url=address, timeout=PATIENCE_S, trust_env=False)
        self.token = token

    async def post(self, path: str, **body: Any) -> Message:
        """Raises RuntimeError with the sentence of a refusal."""
        answer = await self._http.post(f"class/{path}", json=body, headers={TOKEN_HEADER: self.token})
        found = answer.json()
        if answer.is_error:
            raise RuntimeError(str(found.get("detail", answer.status_code)))
        return dict(found)

    async def messages(self, path: str) -> AsyncGenerator[Message]:
        """What a stream says."""
        headers = {TOKEN_HEADER: self.token}
        async with self._http.stream("GET", f"class/{path}", headers=headers) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    yield orjson.loads(line[5:])

    async def close(self) -> None:
        await self._http.aclose()


class Student:
    """A phone: its stream says when tokens come and when a turn has ended.

    Attributes:
        number: what the board calls it; 0 before it knows.
    """

    def __init__(self, number: int, line: Line, outcomes: Outcomes, ended: dict[str, float]) -> None:
        """ended: when turns have ended on phones, by a name that the board knows too."""
        self._rng, self._line, self._outcomes, self._ended = random.Random(number), line, outcomes, ended
        self.number, self._chat, self._turn, self._answered = 0, 1, 0, 0
        self._sent = self._began = 0.0
        self._counts = {"a": 0, "b": 0}
        self._first, self._over = asyncio.Event(), asyncio.Event()
        self._texts = itertools.cycle(MESSAGES[number % len(MESSAGES) :] + MESSAGES)
        self._name = number

    async def listen(self) -> None:
        """Follow the stream until the task is cancelled."""
        async for message in self._line.messages("events"):
            now = time.monotonic()
            if message["type"] == "state":
                self.number = message["student"]
                if message["problem"] and not self._over.is_set() and message["writing"] is False:
                    self._outcomes.errors.append(message["problem"]["text"])
                    self._over.set()
            elif message["type"] in ("tokens", "turn") and message["turn"] == self._turn:
                self._read(message, now)

    def _read(self, message: Message, now: float) -> None:
        """Take a message about the turn that is being answered."""
        panes = message.get("panes") or message["view"]["panes"]
        for name, pane in panes.items():
            fresh = len(pane.get("tokens", ()))
            # A whole turn has all tokens so far, or none once its means are shown.
            self._counts[name] = max(
                self._counts[name], fresh + (self._counts[name] if message["type"] == "tokens" else 0)
            )
        if not self._first.is_set() and any(self._counts.values()):
            self._first.set()
            self._began = now
            of_all = self._outcomes.at_once if self._answered == 0 else self._outcomes.first_token
            of_all.append(now - self._sent)
        if message["type"] == "turn" and message["view"]["ended"] and not self._over.is_set():
            self._ended[f"{self.number}/{self._chat}/{self._turn}"] = now
            self._outcomes.turns += 1
            self._answered += 1
            self._outcomes.reply.append(now - self._began)
            self._outcomes.tokens.append(max(self._counts.values()))
            self._over.set()

    async def talk(self, until: float) -> None:
        """Have conversations until that time."""
        await asyncio.sleep(self._rng.uniform(0, THINKING_S[0]))
        while time.monotonic() < until:
            try:
                await self._have_turn()
            except Exception as error:
                self._outcomes.errors.append(f"{type(error).__name__}: {error}")
                await asyncio.sleep(1)
            await asyncio.sleep(min(self._rng.uniform(*THINKING_S), max(0.0, until - time.monotonic())))

    async def _have_turn(self) -> None:
        if self._turn >= _TURNS_OF_A_CHAT:
            await self._line.post("again")
            self._chat, self._turn = self._chat + 1, 0
        self._counts = {"a": 0, "b": 0}
        self._first.clear()
        self._over.clear()
        self._sent = time.monotonic()
        await self._line.post("say", text=f"{next(self._texts)} I am number {self._name}.")
        await asyncio.wait_for(self._over.wait(), PATIENCE_S)
        try:
            await self._line.post("guess", turn=self._turn, pane=self._rng.choice("ab"))
        except RuntimeError as error:
            if "shown already" not in str(error):  # both replies are the same
                raise
        self._turn += 1


async def watch(board: Line, outcomes: Outcomes, ended: dict[str, float]) -> None:
    """Note how late each turn reaches the board, until the task is cancelled."""
    seen = set[str]()
    async for message in board.messages("board/events"):
        now = time.monotonic()
        for row in message.get("rows", ()):
            for turn in range(len(row["pairs"])):
                name = f"{row['student']}/{row['chat']}/{turn}"
                if name not in seen:
                    seen.add(name)
                    # The board may know it first: both look at the state of the class now and then.
                    asyncio.get_running_loop().call_later(2.0, _note, name, now, outcomes, ended)


def _note(name: str, now: float, outcomes: Outcomes, ended: dict[str, float]) -> None:
    if name in ended:
        outcomes.board_update.append(max(0.0, now - ended.pop(name)))


async def monitor(pid: int, outcomes: Outcomes) -> None:
    """Note the server's memory every five seconds, until the task is cancelled."""
    began = time.monotonic()
    while True:
        outcomes.memory.append((time.monotonic() - began, resident_mib(pid)))
        await asyncio.sleep(5)


def processor() -> str:
    """The name of this machine's processor."""
    information = Path("/proc/cpuinfo")  # Linux; elsewhere Python itself knows
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def conditions() -> dict[str, Any]:
    """What holds for all classes that are measured here."""
    return {
        "cpu": processor(),
        "model": DEFAULT_MODEL,
        "thinking_s": THINKING_S,
        "turns_of_a_chat": _TURNS_OF_A_CHAT,
        "most_first_token_s": MOST_FIRST_TOKEN_S,
    }


async def hold_class(address: str, pid: int, students: int, seconds: float) -> Outcomes:
    """One class of so many students for so long."""
    outcomes, ended = Outcomes(), dict[str, float]()
    board = Line(address)
    board.token = str((await board.post("start"))["secret"])
    await board.post("speaker", do="clear")
    await board.post("speaker", do="room", room=max(students, 1))
    events = board.messages("board/events")
    door = await anext(events)
    await events.aclose()
    lines = [Line(address) for _ in range(students)]
    for line in lines:
        line.token = str((await line.post("join", code=door["code"]))["token"])
    phones = [Student(number, line, outcomes, ended) for number, line in enumerate(lines)]
    watching = [asyncio.ensure_future(phone.listen()) for phone in phones]
    watching += [
        asyncio.ensure_future(one) for one in (watch(board, outcomes, ended), monitor(pid, outcomes))
    ]
    until = time.monotonic() + seconds
    await asyncio.gather(*(phone.talk(until) for phone in phones))
    await asyncio.sleep(3)  # the last turns reach the board
    outcomes.errors += [f"a stream ended: {task.exception()}" for task in watching if task.done()]
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    for phone in phones:
        await board.post("speaker", do="remove", student=phone.number)
    for line in (board, *lines):
        await line.close()
    return outcomes


def summary(outcomes: Outcomes, students: int, seconds: float) -> dict[str, Any]:
    """The figures of a class: seconds, and MiB of resident memory once it should have settled."""
    settled = [mib for at, mib in outcomes.memory if at >= SETTLED_SHARE * seconds] or [0.0]
    return {
        "students": students,
        "minutes": round(seconds / 60, 2),
        "turns": outcomes.turns,
        "all at once: first token s, p95": _p95(outcomes.at_once),
        "first token s, median": _median(outcomes.first_token),
        "first token s, p95": _p95(outcomes.first_token),
        "reply s, median": _median(outcomes.reply),
        "tokens of the longer reply, mean": _mean(outcomes.tokens),
        "board update s, p95": _p95(outcomes.board_update),
        "errors": len(outcomes.errors),
        "memory settled MiB": round(settled[0], 1),
        "memory most after MiB": round(max(settled), 1),
        "memory at the end MiB": round(settled[-1], 1),
        "first errors": outcomes.errors[:5],
    }


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 3) if values else None


def _mean(values: Sequence[float]) -> float | None:
    return round(statistics.fmean(values), 1) if values else None


def _p95(values: Sequence[float]) -> float | None:
    return round(statistics.quantiles(values, n=20)[-1], 3) if len(values) > 1 else None


@contextmanager
def on_cores(count: int | None) -> Iterator[None]:
    """Within the block, programs that are started run on so many cores of those of this one; None for all."""
    if count is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise UserError("--cores needs Linux; leave it out on this system.")
    before = os.sched_getaffinity(0)
    if not 1 <= count <= len(before):
        raise UserError(f"--cores must lie between 1 and {len(before)} here, not {count}.")
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def served(cores: int | None, flags: Sequence[str]) -> Iterator[tuple[str, int]]:
    """`python app.py --class` on so many cores, for students on all. Yields address and process id."""
    with on_cores(cores):
        running = server(["--class", "--host", "127.0.0.1", *flags])
        found = running.__enter__()
    try:
        yield found
    finally:
        running.__exit__(None, None, None)


def grow(options: argparse.Namespace, cores: int | None) -> Iterator[dict[str, Any]]:
    """Classes of more and more students on one server, up to the first whose first token takes too long."""
    with served(cores, options.flags) as (address, pid):
        for students in options.growth:
            outcomes = asyncio.run(hold_class(address, pid, students, 60 * options.minutes))
            figures = {"cores": cores} | summary(outcomes, students, 60 * options.minutes)
            print(figures, flush=True)
            yield figures
            if (figures["first token s, p95"] or PATIENCE_S) > MOST_FIRST_TOKEN_S:
                return


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load test; status 1 if there were errors."""
    parser = argparse.ArgumentParser(prog="python -m demo.bench.class_load", description=__doc__)
    parser.add_argument("--students", type=int, default=30, help="at once (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=20, help="of a class (default: %(default)s)")
    parser.add_argument(
        "--growth",
        type=_numbers,
        default=[],
        metavar="N,…",
        help="classes of so many students one after the other, each of --minutes, instead of --students",
    )
    parser.add_argument(
        "--cores",
        type=_numbers,
        default=[],
        metavar="N,…",
        help="run the program on so many cores, one number after the other (default: all)",
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("flags", nargs="*", help="for app.py, after --")
    options = parser.parse_args(arguments)
    options.growth = options.growth or [options.students]
    if min(options.growth) < 1 or options.minutes <= 0:
        raise UserError("A class has one student or more, and takes time.")
    figures = [one for cores in options.cores or [None] for one in grow(options, cores)]
    print("\n".join(table(figures, [name for name in figures[0] if name != "first errors"])))
    if options.json:
        write_json(options.json, {"about": conditions(), "classes": figures})
    return 1 if any(one["errors"] for one in figures) else 0


if __name__ == "__main__":
    raise SystemExit(main())
