"""python -m demo.engine.remote.server: an engine process without a page. Any number of pages share it: python app.py --engine http://HOST:PORT

Lines of JSON over HTTP; a stream ends with a line that says so, and one without it was cut off. Nothing is stored, nothing logged.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Event as CancelFlag
from threading import Thread
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from demo.axis.files import axis_digest, axis_to_bytes
from demo.engine.options import KEY_VARIABLE, ServedEngine, add_engine_options, load_engine, show_progress
from demo.engine.remote.codec import VERSION, event_json, load_json, read_json, request_from
from demo.utils.errors import UserError

DEFAULT_PORT = 8100

_PULSE = 0.2  # seconds between signs of life while nothing happens

_MOST_BYTES = 64 * 1024**2  # of a request

_LOCAL = ("127.0.0.1", "localhost", "::1")

Lines = Iterable[dict[str, Any]]


@dataclass(frozen=True)
class Service:
    """One engine, for whoever knows the key."""

    engine: ServedEngine
    notes: list[str]
    key: str = ""

    @cached_property
    def digest(self) -> str:
        """Tells a page's axis from this one."""
        return axis_digest(self.engine.axis)

    def app(self) -> Starlette:
        guarded = {"/about": self.about, "/axis": self.axis, "/load": self.load}
        posted = {"/stream": self.stream, "/read": self.read, "/forget": self.forget}
        return Starlette(
            routes=[
                *(Route(path, self._guarded(call)) for path, call in guarded.items()),
                *(Route(path, self._guarded(call), methods=["POST"]) for path, call in posted.items()),
            ]
        )

    def _guarded(self, call: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
        async def endpoint(request: HttpRequest) -> Response:
            given = request.headers.get("authorization", "").encode("latin-1")  # as it came
            if self.key and not hmac.compare_digest(given, f"Bearer {self.key}".encode()):
                return _refused(
                    f"The engine asks for a key: set {KEY_VARIABLE} to the one it was started with.", 401
                )
            try:
                answer: Response = await call(request)
                return answer
            except UserError as error:
                return _refused(str(error), 400)
            except ClientDisconnect:
                return Response(status_code=400)

        return endpoint

    async def about(self, request: HttpRequest) -> Response:
        model = self.engine.model
        named = {
            "spec": model.spec,
            "slug": model.slug,
            "device": str(model.device),
            "dtype_reason": model.dtype_reason,
        }
        manifest = json.loads(axis_to_bytes(self.engine.axis)[1])
        return JSONResponse({"version": VERSION, "model": named, "notes": self.notes, "axis": manifest})

    async def axis(self, request: HttpRequest) -> Response:
        return Response(axis_to_bytes(self.engine.axis)[0], media_type="application/octet-stream")

    async def load(self, request: HttpRequest) -> Response:
        return JSONResponse(load_json(self.engine.load))

    async def stream(self, request: HttpRequest) -> Response:
        asked, cancel = await self._requests(request), CancelFlag()
        events = await asyncio.to_thread(self.engine.stream, asked, cancel)  # raises here what is refused
        return self._streamed((event_json(event) for event in events), cancel)

    async def read(self, request: HttpRequest) -> Response:
        asked, cancel = await self._requests(request), CancelFlag()
        if len(asked) != 1:
            raise UserError("One chat is read at a time.")
        parts = await asyncio.to_thread(self.engine.read, asked[0], cancel)
        return self._streamed((read_json(part) for part in parts), cancel)

    async def forget(self, request: HttpRequest) -> Response:
        branches = (await _body(request)).get("branches")
        if not isinstance(branches, list):
            raise UserError("Name the branches to forget.")
        self.engine.forget([str(branch) for branch in branches])
        return JSONResponse({})

    async def _requests(self, request: HttpRequest) -> list[Any]:
        body = await _body(request)
        if body.get("axis") != self.digest:
            raise UserError(
                "The engine process now has another model or axis than this page was started with: restart the page."
            )
        asked = body.get("requests")
        if not isinstance(asked, list) or not asked:
            raise UserError("The request cannot be read (no requests).")
        return [request_from(one) for one in asked]

    def _streamed(self, work: Lines, cancel: CancelFlag) -> Response:
        return StreamingResponse(self._lines(work, cancel), media_type="application/x-ndjson")

    async def _lines(self, work: Lines, cancel: CancelFlag) -> AsyncIterator[str]:
        """The engine's lines from a thread, and signs of life between them. A reader who goes away cancels the work."""
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None]()

        def put(line: dict[str, Any] | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(queue.put_nowait, line)

        def run() -> None:
            try:
                for line in work:
                    put(line)
                put({"end": True})
            except Exception as error:
                put(
                    {
                        "error": str(error)
                        if isinstance(error, UserError)
                        else f"The engine failed ({type(error).__name__})."
                    }
                )
            put(None)

        Thread(target=run, name="reader").start()
        explain_failure = 0.0
        try:
            while True:
                try:
                    line = await asyncio.wait_for(queue.get(), _PULSE)
                except asyncio.TimeoutError:
                    line = load_json(self.engine.load)
                if line is None:
                    return
                yield json.dumps(line, allow_nan=False) + "\n"
                if time.monotonic() - explain_failure > _PULSE:
                    explain_failure = time.monotonic()
                    yield json.dumps(load_json(self.engine.load)) + "\n"
        finally:
            cancel.set()


async def _body(request: HttpRequest) -> dict[str, Any]:
    received = bytearray()
    async for piece in request.stream():
        received += piece
        if len(received) > _MOST_BYTES:
            raise UserError(f"The request is larger than {_MOST_BYTES // 2**20} MiB.")
    try:
        body = json.loads(received)
    except (ValueError, RecursionError) as error:
        raise UserError("The request is not JSON.") from error
    if not isinstance(body, dict):
        raise UserError("The request is not a JSON object.")
    return body


def _refused(sentence: str, status: int) -> Response:
    return JSONResponse({"error": sentence}, status_code=status)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.engine.remote.server", description=__doc__)
    add_engine_options(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="default: %(default)s")
    options = parser.parse_args(arguments)
    key = os.environ.get(KEY_VARIABLE, "")
    try:
        if options.host not in _LOCAL and not key:
            raise UserError(
                f"Beyond this machine the engine needs a key: set {KEY_VARIABLE} here and for the pages."
            )
        if options.engine.startswith("http"):
            raise UserError(
                "An engine process needs an engine of its own: choose --engine transformers or vllm."
            )
        engine, notes = load_engine(options, show_progress)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{engine.model.slug} on {engine.model.device}, {engine.model.dtype_reason}",
        *notes,
        sep="\n",
        flush=True,
    )
    print(f"python app.py --engine http://{options.host}:{options.port}", flush=True)
    uvicorn.run(
        Service(engine, notes, key).app(),
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
