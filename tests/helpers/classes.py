"""A class on a real port of this process, with engines whose two replies differ, and a phone as a program."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx

from demo.conversation.scenarios import load_scenarios
from demo.conversation.settings import CAPPED
from demo.page.classroom.routes import ClassPages
from demo.page.classroom.talk import Loaded
from tests.helpers.axes import random_axis
from tests.helpers.hosted import MODEL_NAME, hosted
from tests.helpers.scripted import PatientEngine, _name_of

TIMEOUT_S = 30.0


class DifferingEngine(PatientEngine):
    """As `PatientEngine`, but the capped reply has a word more, unless the message asks for the same."""

    def _reply(self, request):
        tokens = super()._reply(request)
        same = "same" in request.messages[-1]["content"]
        return tokens if same or _name_of(request.branch) != CAPPED else [*tokens, replace(tokens[0])]


@dataclass
class Hosted:
    """A page with class mode: its address, and its routes' own state."""

    address: str
    pages: ClassPages

    @property
    def code(self) -> str:
        assert self.pages.classroom is not None
        return self.pages.classroom.code

    @property
    def secret(self) -> str:
        assert self.pages.classroom is not None
        return self.pages.classroom.secret


@contextmanager
def hosted_class(
    engine: Any, room: int = 30, opened: bool = True, port: int | None = None, **options: Any
) -> Iterator[Hosted]:
    """Serve a page with class mode. opened: whether a class is open. options: see `ClassPages`."""
    made: list[ClassPages] = []

    def routes(engine: Any, rate_limiter: Any) -> Any:
        axis = random_axis(4, 16, 2, (1, 2), MODEL_NAME)
        loaded = Loaded(engine, axis, MODEL_NAME)
        made.append(ClassPages(loaded, rate_limiter, load_scenarios(), room=room, **options))
        if opened:
            made[0].open()
        return made[0].routes()

    with hosted(engine, more=routes, port=port) as address:
        yield Hosted(address, made[0])


class Phone:
    """One tab, as a context manager: it has a token once it has joined, or the speaker's secret."""

    def __init__(self, address: str, token: str = "", headers: dict[str, str] | None = None) -> None:
        self.token = token
        self.http = httpx.Client(base_url=address, timeout=TIMEOUT_S, headers=headers, trust_env=False)

    def __enter__(self) -> Phone:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def post(self, path: str, **body: Any) -> httpx.Response:
        headers = {"Content-Type": "application/json", "X-Class-Token": self.token}
        return self.http.post(f"class/{path}", content=json.dumps(body), headers=headers)

    def get(self, path: str, **params: str) -> httpx.Response:
        return self.http.get(f"class/{path}", params=params, headers={"X-Class-Token": self.token})

    def join(self, code: str, **more: Any) -> httpx.Response:
        answer = self.post("join", code=code, **more)
        if answer.is_success:
            self.token = answer.json()["token"]
        return answer

    def hello(self, known_as: str) -> dict[str, bool]:
        """Whether there is a class, and whether it has this id."""
        return dict(self.http.get("class/hello", headers={"X-Class-Id": known_as}).json())

    def messages(self, path: str = "events") -> Iterator[dict[str, Any]]:
        """What a stream says, until the caller stops listening."""
        with self.http.stream("GET", f"class/{path}", headers={"X-Class-Token": self.token}) as answer:
            assert answer.is_success, answer.read()
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line[5:])

    def until(self, kind: str, condition: Any = lambda message: True, path: str = "events") -> dict[str, Any]:
        """The first message of a new stream that is of this kind and fulfils the condition."""
        for message in self.messages(path):
            if message["type"] == kind and condition(message):
                return message
        raise AssertionError(f"the stream ended without {kind}")

    def say(self, text: str) -> dict[str, Any]:
        """Send a message, and wait for the end of the turn: its view."""
        assert self.post("say", text=text).is_success
        ended = self.until("turn", lambda one: one["view"]["user"] == text and one["view"]["ended"])
        return dict(ended["view"])

    def board(self) -> dict[str, Any]:
        """What the board shows now."""
        return self.until("board", path="board/events")
