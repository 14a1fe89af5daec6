"""python -m demo.engine.remote.server: an engine process without a page.

Any number of pages can share it: python app.py --engine http://HOST:PORT

It answers over HTTP with lines of JSON. A complete stream ends with a line that says so; a stream
without that line was cut off. The server stores nothing and logs nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event as CancelFlag
from threading import Thread
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from demo.axis.directions import FILE, Directions, save_directions
from demo.axis.files import axis_digest, axis_to_bytes
from demo.engine.options import KEY_VARIABLE, ServedEngine, add_engine_options, load_engine
from demo.engine.protocol import Request, TooLongError
from demo.engine.remote.codec import VERSION, event_json, load_json, read_json, request_from
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.progress import ConsoleProgress

DEFAULT_PORT = 8100

MAX_REQUEST_BYTES = 64 * 1024**2

_HEARTBEAT = 0.2  # seconds between load lines

_LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")

Lines = Iterable[dict[str, Any]]


@dataclass(frozen=True)
class Service:
    """Serves one engine to every client that has the key.

    Attributes:
        notes: What the pages tell users about the engine.
        key: The secret that clients must send; empty for none.
        max_request_bytes: Larger requests are refused.
    """

    engine: ServedEngine
    notes: list[str]
    key: str = ""
    max_request_bytes: int = MAX_REQUEST_BYTES

    def app(self) -> Starlette:
        """The web application."""
        get = {"/about": self.about, "/axis": self.axis, "/directions": self.directions, "/load": self.load}
        post = {"/stream": self.stream, "/read": self.read, "/forget": self.forget}
        return Starlette(
            routes=[
                *(Route(path, self._protected(handler)) for path, handler in get.items()),
                *(Route(path, self._protected(handler), methods=["POST"]) for path, handler in post.items()),
            ]
        )

    def _protected(self, handler: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
        """A handler that asks for the key and turns errors into responses."""

        async def endpoint(request: HttpRequest) -> Response:
            # Back to the bytes that were sent: compare_digest accepts only ASCII text.
            given = request.headers.get("authorization", "").encode("latin-1")
            if self.key and not hmac.compare_digest(given, f"Bearer {self.key}".encode()):
                return _refused(
                    f"The engine asks for a key: set {KEY_VARIABLE} to the one it was started with.", 401
                )
            try:
                response: Response = await handler(request)
                return response
            except TooLongError as error:
                return _refused(str(error), 400, tokens=error.tokens, context=error.context)
            except UserError as error:
                return _refused(str(error), 400)
            except ClientDisconnect:
                return Response(status_code=400)

        return endpoint

    # --- handlers

    async def about(self, request: HttpRequest) -> Response:
        model = self.engine.model
        named = {
            "spec": model.spec,
            "slug": model.slug,
            "revision": model.revision,
            "digest": model.digest,
            "base": model.base,
            "device": str(model.device),
            "dtype_name": model.dtype_name,
            "dtype_reason": model.dtype_reason,
            "thinking": model.thinking,
            "template": model.template,
        }
        manifest = json.loads(axis_to_bytes(self.engine.axis)[1])
        about = {
            "model": named,
            "notes": self.notes,
            "axis": manifest,
            "reads_plain": self.engine.reads_plain,
            "conditional_caps": self.engine.conditional_caps,
        }
        return JSONResponse({"version": VERSION, **about})

    async def axis(self, request: HttpRequest) -> Response:
        return Response(axis_to_bytes(self.engine.axis)[0], media_type="application/octet-stream")

    async def directions(self, request: HttpRequest) -> Response:
        return Response(self._directions_file, media_type="application/octet-stream")

    async def load(self, request: HttpRequest) -> Response:
        return JSONResponse(load_json(self.engine.load))

    async def stream(self, request: HttpRequest) -> Response:
        requests, cancel = await self._requests(request), CancelFlag()
        # Raises UserError here, before the response has begun, when the engine refuses the requests.
        events = await asyncio.to_thread(self.engine.stream, requests, cancel)
        return self._streamed((event_json(event) for event in events), cancel)

    async def read(self, request: HttpRequest) -> Response:
        requests, cancel = await self._requests(request), CancelFlag()
        if len(requests) != 1:
            raise UserError("One chat is read at a time: send a single request.")
        chunks = await asyncio.to_thread(self.engine.read, requests[0], cancel)
        return self._streamed((read_json(chunk) for chunk in chunks), cancel)

    async def forget(self, request: HttpRequest) -> Response:
        branches = (await self._body(request)).get("branches")
        if not isinstance(branches, list):
            raise UserError("Name the branches to forget.")
        self.engine.forget([str(branch) for branch in branches])
        return JSONResponse({})

    # --- requests

    @cached_property
    def _digest(self) -> str:
        return axis_digest(self.engine.axis)

    @cached_property
    def _directions_file(self) -> bytes:
        """The further directions as their file, directions.safetensors; empty without any."""
        found = Directions(self.engine.directions.values(), self._digest)
        with TemporaryDirectory() as folder:
            save_directions(found, Path(folder))
            return (Path(folder) / FILE).read_bytes() if found else b""

    async def _requests(self, request: HttpRequest) -> list[Request]:
        """The engine requests in the body. Raises UserError, also when the page shows another axis."""
        body = await self._body(request)
        if body.get("axis") != self._digest:
            raise UserError(
                "The engine process now has another model or axis than this page was started with: "
                "restart the page."
            )
        requests = body.get("requests")
        if not isinstance(requests, list) or not requests:
            raise UserError("The request cannot be read (no requests).")
        return [request_from(data) for data in requests]

    async def _body(self, request: HttpRequest) -> dict[str, Any]:
        received = bytearray()
        async for piece in request.stream():
            received += piece
            if len(received) > self.max_request_bytes:
                raise UserError(f"The request is larger than {self.max_request_bytes // 2**20} MiB.")
        try:
            body = json.loads(received)
        except (ValueError, RecursionError) as error:
            raise UserError("The request is not JSON.") from error
        if not isinstance(body, dict):
            raise UserError("The request is not a JSON object.")
        return body

    # --- responses

    def _streamed(self, work: Lines, cancel: CancelFlag) -> Response:
        return StreamingResponse(self._lines(work, cancel), media_type="application/x-ndjson")

    async def _lines(self, work: Lines, cancel: CancelFlag) -> AsyncIterator[str]:
        """The lines of `work`, which runs in a thread, with load lines in between as a heartbeat.

        A client that disconnects cancels the work.
        """
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None]()

        def put(line: dict[str, Any] | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(queue.put_nowait, line)

        Thread(target=_run, args=(work, put), name="reader").start()
        last_load = 0.0
        try:
            while True:
                try:
                    line = await asyncio.wait_for(queue.get(), _HEARTBEAT)
                except asyncio.TimeoutError:
                    line = load_json(self.engine.load)
                if line is None:
                    return
                yield json.dumps(line, allow_nan=False) + "\n"
                if time.monotonic() - last_load > _HEARTBEAT:
                    last_load = time.monotonic()
                    yield json.dumps(load_json(self.engine.load)) + "\n"
        finally:
            cancel.set()


def _run(work: Lines, put: Callable[[dict[str, Any] | None], None]) -> None:
    """Put all lines of `work`, then a line that says how it ended, then None."""
    try:
        for line in work:
            put(line)
        put({"end": True})
    except UserError as error:
        put({"error": str(error)})
    except Exception as error:  # the client learns no details
        put({"error": f"The engine failed ({type(error).__name__})."})
    put(None)


def _refused(sentence: str, status: int, **figures: int) -> Response:
    return JSONResponse({"error": sentence, **figures}, status_code=status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo.engine.remote.server",
        description="An engine process without a page. "
        "Any number of pages can share it: python app.py --engine http://HOST:PORT",
    )
    add_engine_options(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="default: %(default)s")
    return parser


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Load the engine and serve it until the process is stopped."""
    options = _parser().parse_args(arguments)
    key = os.environ.get(KEY_VARIABLE, "")
    if options.host not in _LOCAL_HOSTS and not key:
        raise UserError(
            f"Beyond this machine the engine needs a key: set {KEY_VARIABLE} here and for the pages."
        )
    if options.engine.startswith("http"):
        raise UserError("An engine process needs an engine of its own: choose --engine transformers or vllm.")
    engine, notes = load_engine(options, ConsoleProgress())
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


if __name__ == "__main__":
    raise SystemExit(main())
