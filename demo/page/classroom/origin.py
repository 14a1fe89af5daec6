"""Where a request comes from: this site's own page, this machine, and the address at which phones find it."""

from __future__ import annotations

import os
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import Request

from demo.page.classroom import pages
from demo.space import ON_SPACE


def is_same_site(request: Request) -> bool:
    """Whether no page of another site asks. A program, which sends no origin, may."""
    if request.method == "GET" and request.headers.get("sec-fetch-mode") == "navigate":
        return True  # a link leads here; the page itself holds nothing
    if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return False
    origin = request.headers.get("origin")
    if origin is None or request.headers.get("sec-fetch-site") == "same-origin":
        return True
    # A proxy may pass on the visitor's own Host in the second of these. A page could write it only after
    # asking first, and the class then still wants a code or a token.
    hosts = (request.headers.get(name, "").lower() for name in ("host", "x-forwarded-host"))
    own = urlsplit(origin).netloc.lower()
    return bool(own) and own in hosts


def is_from_this_machine(request: Request) -> bool:
    """Whether a browser on this machine asks, by an address of this machine and through no proxy."""
    forwarded = ("x-forwarded-for", "x-forwarded-host", "forwarded", "x-real-ip", "via")
    if os.environ.get(ON_SPACE) or any(name in request.headers for name in forwarded):
        return False
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    client = request.client.host if request.client is not None else ""
    return _is_loopback(client) and (host == "localhost" or _is_loopback(host))


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def phone_address(given: str, asked: str, root_path: str) -> str:
    """Where phones find the class.

    Args:
        given: what the person who started the program has said; empty for nothing.
        asked: the origin of the speaker's own page, as its browser says; it may be anything.
        root_path: the path under which a reverse proxy serves the page.
    """
    if given:
        return f"{given}/class"
    try:
        found = urlsplit(asked)
        host, port = found.hostname or "", found.port
    except ValueError:
        found, host, port = urlsplit(""), "", None
    if found.scheme not in ("http", "https") or not host or len(asked) > 200:
        return f"{root_path}/class"
    if host == "localhost" or _is_loopback(host):
        host = pages.lan_address() or host
    shown = f"[{host}]" if ":" in host else host
    return f"{found.scheme}://{shown}{f':{port}' if port else ''}{root_path}/class"
