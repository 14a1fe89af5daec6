"""A reverse proxy that serves the page under a path."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from demo.bench.app_process import free_port

# The address that the proxy reports for every visitor.
VISITOR = "203.0.113.9"


@contextmanager
def behind_a_proxy(address: str, path: str, strips: bool) -> Iterator[tuple[str, list[str]]]:
    """Serve `address` under `path`.

    Yields the address of the page there, and the list of paths that were asked for outside `path`.

    Args:
        strips: whether the proxy leaves the path out of the requests that it passes on.
    """
    outside: list[str] = []
    client = httpx.AsyncClient(timeout=None, trust_env=False)

    async def relay(request: Request) -> Response:
        asked = request.url.path
        if not f"{asked}/".startswith(f"{path}/"):
            outside.append(asked)
            return Response("outside", 404)
        target = asked.removeprefix(path) if strips else asked
        headers = {**request.headers, "x-forwarded-for": VISITOR, "x-forwarded-host": request.headers["host"]}
        passed = client.build_request(
            request.method,
            address.rstrip("/") + (target or "/"),
            params=request.query_params,
            headers=headers,
            content=await request.body(),
        )
        answer = await client.send(passed, stream=True)
        kept = {name: value for name, value in answer.headers.items() if name != "transfer-encoding"}
        return StreamingResponse(answer.aiter_raw(), answer.status_code, kept)

    methods = ["GET", "POST", "DELETE"]
    port = free_port()
    app = Starlette(routes=[Route("/{rest:path}", relay, methods=methods)])
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}{path}/", outside
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join()
