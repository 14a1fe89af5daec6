"""The page while the model is being loaded: the intro plays, and a click leads to the live page.

It is served by a small server of its own, which makes room for the page's server on the same port. Gradio
cannot show a page before it knows what the model is. Where the model has no axis yet, another page takes the
intro's place (`show`).
"""

from __future__ import annotations

import os
import socket
import threading
import time

import uvicorn
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from demo.conversation.session_file import Recording
from demo.page.middleware import below
from demo.page.recordings import waiting_html
from demo.page.stage.component import plotly_script
from demo.utils.errors import UserError

# Where Gradio looks for a free port. Gradio itself takes seconds to import.
_FIRST_PORT = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
_PORTS = range(_FIRST_PORT, _FIRST_PORT + int(os.environ.get("GRADIO_NUM_PORTS", "100")))
_START_SECONDS = 10


class WaitingPage:
    """Serves the waiting page in a thread.

    Attributes:
        port: where it listens.
    """

    def __init__(
        self, intro: Recording | None, host: str, port: int | None, root_path: str | None = None
    ) -> None:
        """Start to serve.

        Args:
            intro: None for a page that something else is shown on.
            port: None for the first free one.
            root_path: the path under which a reverse proxy serves the page.

        Raises:
            UserError: the port is taken.
        """
        self._root_path = root_path or ""
        self._html = "" if intro is None else waiting_html(intro, self._root_path)
        self._instead: ASGIApp | None = None
        self.port = _free_port(host) if port is None else port
        config = uvicorn.Config(
            self._answer,
            host,
            self.port,
            interface="asgi3",
            log_level="error",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        # The server would take over the signals, which end the program.
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise UserError(f"Port {self.port} is taken by another program; choose another with --port.")
            time.sleep(0.01)

    def _serve(self) -> None:
        try:
            self._server.run()
        except SystemExit:  # the port is taken
            return

    def show(self, app: ASGIApp | None) -> None:
        """Answer every request with `app` from now on; None for the intro."""
        self._instead = app

    def close(self) -> None:
        """Free the port."""
        self._server.should_exit = True
        self._thread.join()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The page and its script; what programs ask for is answered once the model is there."""
        if scope["type"] != "http":
            return
        if self._instead is not None:
            await self._instead(below(self._root_path, scope), receive, send)
            return
        path, response = str(scope["path"]), _not_yet()
        if path.endswith("/plotly.min.js"):
            response = FileResponse(plotly_script(), media_type="text/javascript")
        elif not path.endswith("/config") and "/gradio_api" not in path and "/v1/" not in path:
            # It must not be kept: the same address soon shows another page.
            response = HTMLResponse(self._html, headers={"Cache-Control": "no-store"})
        await response(scope, receive, send)


def _not_yet() -> Response:
    detail = {"detail": "The model is being loaded; try again in a moment."}
    return JSONResponse(detail, 503, headers={"Retry-After": "2"})


def _free_port(host: str) -> int:
    """The first port that is free. Raises UserError when none is."""
    for port in _PORTS:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise UserError(f"No port from {_PORTS[0]} to {_PORTS[-1]} is free; choose one with --port.")
