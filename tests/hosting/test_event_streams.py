"""A request that is sent while the last event stream is being closed gets its events all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.middleware import Middleware

from demo.page import event_streams
from demo.page.event_streams import EventStreams
from tests.helpers import hosted as helper
from tests.helpers.browser import chromium_page, say, wait_for_first_update
from tests.trust import held

CLOSE = b'data: {"msg":"close_stream"}\n\n'
JOIN = b'{"data":["\\"session_hash\\":\\"b\\""],"fn_index":1,"session_hash":"a"}'


class Wire:
    """Both ends of `EventStreams`: an app that answers at once, and a client that disconnects when told."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.gone = asyncio.Event()
        self.app_saw: list[str] = []
        self.middleware = EventStreams(self._app)

    async def _app(self, scope, receive, send):
        if scope["path"].endswith("join"):
            assert (await receive())["body"] == JOIN
        else:
            watch = asyncio.create_task(self._watch(receive))
            await send({"type": "http.response.body", "body": CLOSE, "more_body": True})
            watch.cancel()
        await send({"type": "http.response.start", "status": 200})

    async def _watch(self, receive):
        self.app_saw.append((await receive())["type"])

    async def request(self, path: str, name: str, query: bytes = b"") -> None:
        bodies = [{"type": "http.request", "body": JOIN}]

        async def receive():
            if bodies:
                return bodies.pop()
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            self.sent.append(f"{name} {message['type'].split('.')[-1]}")

        scope = {"type": "http", "path": path, "query_string": query}
        await self.middleware(scope, receive, send)

    async def close_and_join(self, session: bytes, joins: bool) -> None:
        """A stream is being closed, and a request of session "a" comes before its client has let go.

        Args:
            joins: The request is answered before that, which is waited for.
        """
        stream = self.request("/gradio_api/queue/data", "stream", b"session_hash=" + session)
        closing = asyncio.create_task(stream)
        await asyncio.sleep(0.01)
        joining = asyncio.create_task(self.request("/gradio_api/queue/join", "join"))
        await asyncio.sleep(0.05)
        for _ in range(2000 if joins else 0):
            if "join start" in self.sent:
                break
            await asyncio.sleep(0.01)
        self.sent.append("wait")
        self.gone.set()
        await asyncio.gather(closing, joining)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run it on a thread of its own, because a browser test may have left a loop on this one."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(asyncio.run, coroutine).result(30)


def test_the_answer_waits_until_the_browser_has_let_go_of_the_stream():
    wire = Wire()
    run(wire.close_and_join(b"a", False))
    assert wire.sent[:2] == ["stream body", "wait"] and sorted(wire.sent[2:]) == [
        "join start",
        "stream start",
    ]
    assert "http.disconnect" not in wire.app_saw, "Gradio would forget the session of a browser that has gone"
    assert wire.middleware._closing == {}


def test_another_session_does_not_wait():
    wire = Wire()
    run(wire.close_and_join(b"b", True))
    assert wire.sent[:3] == ["stream body", "join start", "wait"]


def test_a_browser_that_does_not_let_go_is_not_waited_for_long(monkeypatch):
    monkeypatch.setattr(event_streams, "LONGEST_WAIT", 0.02)
    wire = Wire()
    run(wire.close_and_join(b"a", True))
    assert wire.sent.index("join start") < wire.sent.index("wait")


class SlowNetwork:
    """The message that closes an event stream takes a second and a half to reach the browser."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def send_late(message):
            if b"close_stream" in message.get("body", b""):
                await asyncio.sleep(1.5)
            await send(message)

        await self.app(scope, receive, send_late)


@pytest.mark.slow
def test_a_message_sent_before_the_closing_arrives_is_answered(patient, monkeypatch):
    options = helper.middleware_options

    def slow(*given):
        made = options(*given)
        made["app_kwargs"]["middleware"].insert(0, Middleware(SlowNetwork))
        return made

    monkeypatch.setattr(helper, "middleware_options", slow)
    with helper.hosted(patient) as address, chromium_page(address) as (page, _):
        wait_for_first_update(page)
        say(page, "Hello")
        page.wait_for_function("window.personaStage.counts().settled > 0", timeout=20_000)
    held("a message sent while the stream before is being closed", 1, "it is answered", "hosting")
