"""POST /v1/chat/completions and GET /v1/models, beside the page on the same server.

Both are off unless whoever runs the page switches them on (`--openai`). With a password the API key is the
password. Each request carries the whole chat, and nothing is kept afterwards.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from secrets import token_hex
from threading import Event as CancelFlag
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from demo.axis.axis import AssistantAxis
from demo.engine.protocol import Engine, Event, TooLongError, WaitEvent
from demo.page.completions.request import CAPPED_ENDING, Asked, RefusedError, read_request
from demo.page.completions.response import Writer
from demo.page.rate_limit import LaterError, LoginLimiter, RateLimiter, address_of
from demo.utils.errors import UserError, explain_failure

if TYPE_CHECKING:
    from demo.models.loading import Thinking

log = logging.getLogger(__name__)

# Requests that are answered at once; each occupies a thread. Further ones wait.
_THREADS = 256

_CREATED = 0  # when the model was made is not known, and OpenAI's format wants a number

Answer = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")


class Completions:
    """Answers programs with the engine of a page."""

    def __init__(
        self,
        engine: Engine,
        axis: AssistantAxis,
        model_name: str,
        rate_limiter: RateLimiter,
        thinking: Thinking = "never",
    ) -> None:
        """Answer with `engine`.

        Args:
            rate_limiter: the page's, so that a visitor has the same limits here and there.
            thinking: whether the model reasons before it answers.
        """
        self._engine, self._axis, self._model_name = engine, axis, model_name
        self._rate_limiter, self._thinking = rate_limiter, thinking
        self._threads = CapacityLimiter(_THREADS)

    def routes(self, password: str | None, logins: LoginLimiter) -> list[Route]:
        """The endpoints.

        Args:
            password: every request must bring it as its API key; None for none.
            logins: counts wrong keys.
        """

        def guarded(answer: Answer) -> Answer:
            async def answer_or_refuse(request: Request) -> Response:
                try:
                    if password is not None:
                        _check_key(request, password, logins)
                    return await answer(request)
                except ClientDisconnect:
                    return Response(status_code=400)  # nobody reads it
                except Exception as error:
                    return _refusal(error)

            return answer_or_refuse

        return [
            Route("/v1/models", guarded(self._models)),
            Route("/v1/chat/completions", guarded(self._complete), methods=["POST"]),
        ]

    async def _models(self, request: Request) -> Response:
        """The model, and the same model under the axis's own cap."""
        names = (self._model_name, self._model_name + CAPPED_ENDING)
        about = {"object": "model", "created": _CREATED, "owned_by": "persona-drift"}
        return JSONResponse({"object": "list", "data": [{"id": name} | about for name in names]})

    async def _complete(self, request: Request) -> Response:
        # Another site's page cannot send this type of content without asking first.
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise RefusedError("Send the request as application/json.")
        name = f"chatcmpl-{token_hex(12)}"
        always = self._thinking == "always"
        asked = read_request(await request.body(), self._axis, self._model_name, always, name)
        if asked.fields.thinking and self._thinking == "never":
            raise RefusedError(
                "This model does not reason before it answers; leave thinking out.", "thinking"
            )
        writer, cancel = Writer(asked, name, self._axis.probe_layer), CancelFlag()
        events = self._events(asked, address_of(request), cancel)
        if not asked.fields.stream:
            try:
                return JSONResponse(await _while_connected(request, _whole(writer, events)))
            finally:
                cancel.set()
        # The status can only say what went wrong before the first chunk.
        first = await _while_connected(request, anext(events))
        return _CancellingStream(_chunks(asked, writer, first, events), cancel)

    async def _events(self, asked: Asked, address: str, cancel: CancelFlag) -> AsyncIterator[Event]:
        """The engine's events, but for those of waiting. Ends the replies when it is closed."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Queue[Event | Exception | None]()

        def put(item: Event | Exception | None) -> None:
            loop.call_soon_threadsafe(arrived.put_nowait, item)

        def work() -> None:
            try:
                with (
                    self._rate_limiter.turn(address, asked.characters, self._engine.load),
                    closing(self._engine.stream(asked.requests, cancel)) as events,
                ):
                    for event in events:
                        if cancel.is_set():
                            break
                        if not isinstance(event, WaitEvent):
                            put(event)
            except Exception as error:
                put(error)
            finally:
                self._engine.forget([request.branch for request in asked.requests])
                put(None)

        working = asyncio.ensure_future(run_sync(work, limiter=self._threads))
        try:
            while (item := await arrived.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
            await working
        finally:
            cancel.set()


class _CancellingStream(StreamingResponse):
    """A stream that ends the replies when it ends, for whatever reason."""

    def __init__(self, chunks: AsyncIterator[bytes], cancel: CancelFlag) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(chunks, media_type="text/event-stream", headers=headers)
        self._cancel = cancel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._cancel.set()


async def _whole(writer: Writer, events: AsyncIterator[Event]) -> dict[str, Any]:
    async for event in events:
        writer.take(event)
        if writer.is_done:
            break
    return writer.whole()


async def _chunks(
    asked: Asked, writer: Writer, first: Event, events: AsyncIterator[Event]
) -> AsyncIterator[bytes]:
    """The server-sent events of a stream."""
    try:
        for chunk in writer.take(first):
            yield _line(chunk)
        async for event in events:
            for chunk in writer.take(event):
                yield _line(chunk)
            if writer.is_done:
                break
        if asked.fields.stream_options.include_usage:
            yield _line(writer.usage_chunk())
        yield b"data: [DONE]\n\n"
    except Exception as error:
        yield _line(_explained(error)[1])


def _line(content: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"


async def _while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client leaves. Raises ClientDisconnect then."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        watching.cancel()


def _check_key(request: Request, password: str, logins: LoginLimiter) -> None:
    """Raises UserError unless the request brings the password as its API key."""
    address = address_of(request)
    if logins.is_over(address):
        raise LaterError("There were too many wrong keys from your address; wait a minute.", 60)
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), password.encode()):
        logins.too_many(address)
        raise RefusedError(
            "This endpoint needs the page's password as API key: Authorization: Bearer PASSWORD.",
            status=401,
            code="invalid_api_key",
        )


def _refusal(error: Exception) -> Response:
    status, content = _explained(error)
    headers = {"Retry-After": str(error.seconds)} if isinstance(error, LaterError) else None
    return JSONResponse(content, status, headers)


def _explained(error: Exception) -> tuple[int, dict[str, Any]]:
    """HTTP status and error object. Of an unexpected error only the type is shown and logged."""
    found = explain_failure(error)
    status, param, code = (400 if isinstance(error, UserError) else 500), None, None
    if isinstance(found, LaterError):
        status, code = 429, "rate_limit_exceeded"
    elif isinstance(found, TooLongError):
        code = "context_length_exceeded"
    elif isinstance(found, RefusedError):
        status, param, code = found.status, found.param, found.code
    elif not isinstance(found, UserError):
        log.error("unexpected %s", type(found).__name__)
        found = UserError(
            f"The reply failed ({type(found).__name__}); nothing else is affected, so try again."
        )
    kind = (
        "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    )
    return status, {"error": {"message": str(found), "type": kind, "param": param, "code": code}}
