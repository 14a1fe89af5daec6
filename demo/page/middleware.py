"""Middleware in front of the page: security headers, size limits, and only the endpoints that the page uses.

Gradio can also accept uploads, fetch other addresses, record and profile. Those endpoints are closed, and of
files only those that `serve` has named can be requested.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demo.conversation.session_file import MOST_BYTES
from demo.page.event_streams import EventStreams
from demo.page.rate_limit import MOST_LOGINS, LoginLimiter, address_of
from demo.space import ON_SPACE

if TYPE_CHECKING:
    from demo.page.completions.endpoint import Completions

# A session file in a request is JSON within JSON, so it is somewhat larger than the file.
MOST_BODY = MOST_BYTES + 16 * 2**20

# Gradio runs inline scripts and builds functions from text, so the policy cannot forbid either. It forbids
# every other server.
_POLICY = (
    "default-src 'self'",
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "font-src 'self' data:",
    "worker-src 'self' blob:",
    "object-src 'none'",
    "base-uri 'self'",
    "form-action 'self'",
)

# The endpoints of Gradio that the page and `gradio_client` use.
_ENDPOINTS = frozenset(
    [
        "app_id",
        "config",
        "favicon.ico",
        "info",
        "login",
        "login_check",
        "logout",
        "manifest.json",
        "reset",
        "robots.txt",
        "startup-events",
        "theme.css",
        "token",
        "user",
        "cancel",
        "queue/join",
        "queue/data",
    ]
)
_PREFIXES = ("api/", "assets/", "call/", "heartbeat/", "pwa_icon", "run/", "static/", "svelte/")


# The files that `serve` has made available, as absolute paths.
_SERVED: set[str] = set()


def middleware_options(
    password: str | None,
    root_path: str | None = None,
    completions: Completions | None = None,
    more: Sequence[Route] = (),
) -> dict[str, Any]:
    """The options of `Blocks.launch` that put the middleware in place.

    Args:
        password: every visitor must enter it; None for a page without a password.
        root_path: the path under which a proxy serves the page; None for none.
        completions: answers programs beside the page; None for a page alone.
        more: further routes, which do not ask for the password.
    """
    logins = LoginLimiter()
    routes = [*more, *([] if completions is None else completions.routes(password, logins))]
    around = Middleware(
        PageMiddleware,
        framed_by=framed_by(),
        root_path=root_path or "",
        logins=logins,
        more=frozenset(route.path.strip("/") for route in routes),
    )
    options: dict[str, Any] = {
        "app_kwargs": {"middleware": [around, Middleware(EventStreams)], "routes": routes},
        "root_path": root_path,
    }
    if password is not None:
        options |= {
            "auth": _login_check(password),
            "auth_message": "Enter any name and the password that you were given. "
            f"After {MOST_LOGINS} attempts from your address, wait a minute.",
        }
    return options


def framed_by() -> str:
    """The sites that may show the page in a frame, in the syntax of `frame-ancestors`."""
    # A Space is shown in a frame of the site's own page.
    on_space = "'self' https://huggingface.co https://*.huggingface.co https://*.hf.space"
    return on_space if os.environ.get(ON_SPACE) else "'self'"


def _login_check(password: str) -> Callable[[str, str], bool]:
    def is_right(name: str, entered: str) -> bool:
        return hmac.compare_digest(entered.encode(), password.encode())

    return is_right


def serve(path: Path) -> str:
    """Make one file available.

    Returns:
        Its address relative to the page, so that it also holds behind a proxy that adds a path.
    """
    import gradio as gr

    path = path.resolve()
    gr.set_static_paths([path])
    _SERVED.add(path.as_posix())
    return f"gradio_api/file={quote(path.as_posix())}"


class PageMiddleware:
    """ASGI middleware around the whole page."""

    def __init__(
        self,
        app: ASGIApp,
        framed_by: str = "'self'",
        root_path: str = "",
        logins: LoginLimiter | None = None,
        more: frozenset[str] = frozenset(),
    ) -> None:
        """Wrap `app`.

        Args:
            framed_by: the sites that may show the page in a frame, in the syntax of `frame-ancestors`.
            root_path: the path under which a proxy serves the page. Some proxies pass it on, others do not.
            logins: counts the attempts to log in; None for one of its own.
            more: further endpoints, besides the page's.
        """
        self._app, self._root_path, self._more = app, root_path, more
        self._logins = logins or LoginLimiter()
        self._headers = {
            "content-security-policy": "; ".join((*_POLICY, f"frame-ancestors {framed_by}")),
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = below(self._root_path, scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        refusal = _refusal(scope, self._more)
        if _path(scope) == "login" and self._logins.too_many(address_of(Request(scope))):
            detail = "There were too many login attempts from your address; wait a minute."
            refusal = JSONResponse({"detail": detail}, 429)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
            return
        await self._app(scope, _limited(receive), send_with_headers)


def below(root_path: str, scope: Scope) -> Scope:
    """The request without the path under which a proxy serves the page; some proxies pass it on."""
    if not root_path or not f"{scope['path']}/".startswith(f"{root_path}/"):
        return scope
    return {name: value for name, value in scope.items() if name != "raw_path"} | {
        "path": scope["path"].removeprefix(root_path) or "/"
    }


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix("/gradio_api").strip("/")


def _refusal(scope: Scope, more: frozenset[str]) -> JSONResponse | None:
    """The response to a request that must not reach the page; None for one that may.

    Args:
        more: endpoints besides the page's.
    """
    path = _path(scope)
    # Gradio itself would also read files of its own folders here, and fetch other addresses.
    served = path.startswith("file=") and path.removeprefix("file=") in _SERVED
    known = not path or path in _ENDPOINTS or path in more or path.startswith(_PREFIXES)
    if not known and not served:
        return JSONResponse({"detail": "This page has no such endpoint."}, 404)
    length = dict(scope["headers"]).get(b"content-length", b"0")
    if not length.isdigit() or int(length) > MOST_BODY:
        detail = f"A request may be no larger than {MOST_BODY // 2**20} MiB; send less."
        return JSONResponse({"detail": detail}, 413)
    return None


def _limited(receive: Receive) -> Receive:
    """Treats a client as disconnected once its body is too large.

    The length that it declares may be missing or wrong.
    """
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        return message if received <= MOST_BODY else {"type": "http.disconnect"}

    return receive_limited
