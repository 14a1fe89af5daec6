"""What stands before the page: security headers on every answer, no oversized bodies, no doors but those in use."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demo.conversation.session_file import MOST_BYTES
from demo.page.rate_limit import MOST_LOGINS, LoginLimiter, address_of
from demo.space import ON_SPACE

# A session file inside a request is JSON inside JSON: a little larger than the file.
MOST_BODY = MOST_BYTES + 16 * 2**20

# Gradio runs inline scripts and builds functions from text, so a policy cannot forbid either; what it does forbid is any other server.
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

# What the page and `gradio_client` use of Gradio, and nothing else: it also takes uploads, fetches other addresses, records and profiles.
_DOORS = frozenset(
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

_FOLDERS = ("api/", "assets/", "call/", "heartbeat/", "pwa_icon", "run/", "static/", "svelte/")


class PageMiddleware:
    """ASGI middleware around the whole page."""

    def __init__(self, app: ASGIApp, framed_by: str = "'self'") -> None:
        """framed_by: the sites that may show the page in a frame, as the policy `frame-ancestors` names them."""
        self._app = app
        self._knocks = LoginLimiter()
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

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        refusal = _refusal(scope)
        if _path(scope) == "login" and self._knocks.too_many(address_of(Request(scope))):
            refusal = JSONResponse(
                {"detail": "Too many have tried to log in from your address; wait a minute."}, 429
            )
        if refusal is not None:
            await refusal(scope, receive, send_guarded)
            return
        await self._app(scope, _bounded(receive), send_guarded)


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix("/gradio_api").strip("/")


def _refusal(scope: Scope) -> JSONResponse | None:
    path = _path(scope)
    # Under file= Gradio would also read files of its own folders, and fetch addresses.
    served = path.startswith("file=") and is_served(path.removeprefix("file="))
    if path and not served and path not in _DOORS and not path.startswith(_FOLDERS):
        return JSONResponse({"detail": "This page does not offer that."}, 404)
    length = dict(scope["headers"]).get(b"content-length", b"0")
    if not length.isdigit() or int(length) > MOST_BODY:
        return JSONResponse({"detail": f"No more than {MOST_BODY // 2**20} MiB are taken at once."}, 413)
    return None


def _bounded(receive: Receive) -> Receive:
    """Ends a body whose length was not announced where it gets too long, as if the visitor had hung up."""
    taken = 0

    async def receive_bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return message if taken <= MOST_BODY else {"type": "http.disconnect"}

    return receive_bounded


def middleware_options(password: str | None) -> dict[str, Any]:
    """What `Blocks.launch` needs to put the guard in place. password: asked of every visitor; None: no one is asked."""
    on_space = bool(os.environ.get(ON_SPACE))
    # A Space is shown inside the site's own page.
    framed_by = "'self' https://huggingface.co https://*.huggingface.co https://*.hf.space"
    more: dict[str, Any] = {
        "app_kwargs": {
            "middleware": [Middleware(PageMiddleware, framed_by=framed_by if on_space else "'self'")]
        }
    }
    if password is not None:
        more |= {
            "auth": _opens_with(password),
            "auth_message": "Any name will do; the password was given to you. "
            f"After {MOST_LOGINS} attempts from your address, wait a minute.",
        }
    return more


def _opens_with(password: str) -> Callable[[str, str], bool]:
    def opens(name: str, given: str) -> bool:
        return hmac.compare_digest(given.encode(), password.encode())

    return opens


_SERVED: set[str] = set()


def serve(path: Path) -> str:
    """Make this one file reachable. Gives its address, relative to the page: it also holds behind a proxy under a path."""
    path = path.resolve()
    gr.set_static_paths([path])
    _SERVED.add(path.as_posix())
    return f"gradio_api/file={quote(path.as_posix())}"


def is_served(path: str) -> bool:
    """path: absolute, as a visitor's request names it."""
    return path in _SERVED
