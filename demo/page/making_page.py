"""The page while a model has no axis yet: it offers to make one, and shows it being made.

It is served before the live page, on the same port. Anybody may chat with the model meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from demo.conversation.turns import well_formed
from demo.extraction.making import AxisMaker
from demo.models.chat_template import Message
from demo.page.hosting import Limits
from demo.page.json_requests import json_body
from demo.page.middleware import framed_by
from demo.page.rate_limit import RateLimiter, address_of
from demo.utils.errors import UserError, explain_failure

_FOLDER = Path(__file__).parent / "stage"
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
_MOST_MESSAGES = 40
_MOST_BODY = 256 * 1024  # bytes
_WATCHED_S = 5.0  # a page that has asked within so many seconds is still open


class MakingPage:
    """Answers for one `AxisMaker`. `app` is the ASGI application.

    Attributes:
        seen_done: whether a page has been told that the axis is made.
    """

    def __init__(self, maker: AxisMaker, limits: Limits | None = None, root_path: str = "") -> None:
        """Show `maker`.

        Args:
            root_path: the path under which a reverse proxy serves the page.
        """
        self._maker, self._root_path = maker, root_path
        self._limiter = RateLimiter(limits or Limits())
        self._asked = float("-inf")
        self.seen_done = False
        self.app = Starlette(
            routes=[
                Route("/config", self._not_yet),
                Route("/state", self._state),
                Route("/start", self._start, methods=["POST"]),
                Route("/stop", self._stop, methods=["POST"]),
                Route("/chat", self._chat, methods=["POST"]),
                Route("/{path:path}", self._page),
            ]
        )

    @property
    def is_open(self) -> bool:
        """Whether somebody looks at the page."""
        return time.monotonic() - self._asked < _WATCHED_S

    async def _page(self, request: Request) -> Response:
        # It must not be kept: the same address soon shows another page.
        headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": f"frame-ancestors {framed_by()}",
            "X-Content-Type-Options": "nosniff",
        }
        return HTMLResponse(making_html(self._root_path), headers=headers)

    async def _not_yet(self, request: Request) -> Response:
        """409 tells a page that waits for the model that there is something to do first."""
        return JSONResponse({"detail": "This model has no axis yet."}, 409)

    async def _state(self, request: Request) -> Response:
        self._asked = time.monotonic()
        now = self._maker.now
        self.seen_done = self.seen_done or now.phase == "done"
        return JSONResponse(asdict(now), headers={"Cache-Control": "no-store"})

    async def _start(self, request: Request) -> Response:
        try:
            self._maker.start(str((await json_body(request, _MOST_BODY)).get("preset", "")))
        except UserError as error:
            return _refused(error)
        return await self._state(request)

    async def _stop(self, request: Request) -> Response:
        try:
            await json_body(request, _MOST_BODY)
        except UserError as error:
            return _refused(error)
        self._maker.stop()
        return await self._state(request)

    async def _chat(self, request: Request) -> Response:
        try:
            messages = _messages(await json_body(request, _MOST_BODY))
            pieces = self._answer(address_of(request), messages)
            first = await run_in_threadpool(next, pieces, "")
        except Exception as error:
            return _refused(_explained(error))
        return StreamingResponse(_joined(first, pieces), media_type="text/plain; charset=utf-8")

    def _answer(self, address: str, messages: Sequence[Message]) -> Iterator[str]:
        characters = sum(len(message["content"]) for message in messages)
        with self._limiter.turn(address, characters, self._maker.load):
            yield from self._maker.answer(messages)


def making_html(root_path: str) -> str:
    """The whole page. root_path: of the server."""
    page = (_FOLDER / "making" / "making.html").read_text(encoding="utf-8")
    page = page.replace("{policy}", _POLICY).replace("{root}", escape(root_path))
    for path in (_FOLDER / "making" / "making.css", _FOLDER / "making.bundle.js"):
        page = page.replace(f"{{{path.name}}}", path.read_text(encoding="utf-8"))
    return page


def _joined(first: str, pieces: Iterator[str]) -> Iterator[str]:
    yield first
    try:
        yield from pieces
    except Exception as error:
        yield f" [{_explained(error)}]"


def _explained(error: Exception) -> UserError:
    """One sentence for whatever went wrong with a reply."""
    found = explain_failure(error)
    if isinstance(found, UserError):
        return found
    return UserError(f"The reply failed ({type(error).__name__}); nothing else is affected, so try again.")


def _messages(body: dict[str, Any]) -> list[Message]:
    """The chat of a request. Raises UserError when it is malformed."""
    found = body.get("messages")
    if not isinstance(found, list) or not 1 <= len(found) <= _MOST_MESSAGES:
        raise UserError(f"A chat has 1 to {_MOST_MESSAGES} messages here; reload the page to begin another.")
    messages: list[Message] = []
    for number, one in enumerate(found):
        role: Literal["user", "assistant"] = "user" if number % 2 == 0 else "assistant"
        content = one.get("content") if isinstance(one, dict) else None
        if not isinstance(content, str) or (role == "user" and not content.strip()):
            raise UserError("The message is empty; write something.")
        messages.append({"role": role, "content": well_formed(content)})
    if messages[-1]["role"] != "user":
        raise UserError("The last message must be yours; write something.")
    return messages


def _refused(error: UserError) -> Response:
    return JSONResponse({"detail": str(error)}, 400)
