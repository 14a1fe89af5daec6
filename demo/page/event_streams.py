"""Middleware that keeps a message from being lost between two event streams.

The browser receives the events of its requests through one stream, and asks for a new stream when the last
one has been closed. Gradio closes the stream when no request is pending. A request that is accepted before
the browser has read of the closing would wait for its events in a stream that has ended: the message is
sent, and nothing happens. Therefore the answer to such a request is held back until the browser has let go
of the stream.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# In seconds. A browser lets go of a closed stream at once, but a proxy may not pass that on.
LONGEST_WAIT = 2.0

# Quotation marks within the strings of a JSON text are escaped, so what a user writes does not match.
# The session comes last in a request, after what may be a whole session file.
_END = 4096
_SESSION = re.compile(rb'"session_hash":\s*"([^"\\]+)"')


class EventStreams:
    """ASGI middleware around `queue/join` and `queue/data`."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app
        self._closing: dict[str, asyncio.Event] = {}  # by session; set once the browser has let go

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", "")).rstrip("/")
        if path.endswith("/queue/data"):
            session = parse_qs(scope["query_string"].decode()).get("session_hash", [""])[0]
            await self._stream(session, scope, receive, send)
        elif path.endswith("/queue/join"):
            await self._join(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _stream(self, session: str, scope: Scope, receive: Receive, send: Send) -> None:
        closing = asyncio.Event()

        async def receive_until_closing() -> Message:
            message = await receive()
            if closing.is_set():  # the stream ends in good order, not because the browser has gone
                await asyncio.Event().wait()
            return message

        async def send_and_wait(message: Message) -> None:
            if b'"close_stream"' not in message.get("body", b""):
                await send(message)
                return
            closing.set()
            gone = self._closing[session] = asyncio.Event()
            try:
                await send(message)
                await _until_disconnected(receive)
            finally:
                gone.set()
                if self._closing.get(session) is gone:
                    del self._closing[session]

        await self._app(scope, receive_until_closing, send_and_wait)

    async def _join(self, scope: Scope, receive: Receive, send: Send) -> None:
        end = b""

        async def receive_and_keep() -> Message:
            nonlocal end
            message = await receive()
            end = (end + message.get("body", b""))[-_END:]
            return message

        async def send_when_closed(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = _SESSION.findall(end)
                gone = self._closing.get(found[-1].decode()) if found else None
                if gone is not None:
                    await gone.wait()
            await send(message)

        await self._app(scope, receive_and_keep, send_when_closed)


async def _until_disconnected(receive: Receive) -> None:
    async def disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(disconnected(), LONGEST_WAIT)
