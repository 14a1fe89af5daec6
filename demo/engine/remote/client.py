"""An engine in another process, perhaps on another machine: `python -m demo.engine.remote.server` there, this class here. See `protocol.Engine`.

Several pages may share one engine process. A page that has its engine elsewhere loads no model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event as CancelFlag
from typing import Any

import httpx

from demo.axis.axis import AssistantAxis
from demo.axis.files import axis_digest, axis_from_bytes
from demo.engine.protocol import Events, Load, ReadToken, Request, ended
from demo.engine.remote.codec import VERSION, event_from, load_from, read_from, request_json
from demo.utils.errors import UserError

_SILENCE = 30.0  # seconds without a sign of life, of which the engine gives several a second

_STALE = 1.0  # seconds

_UNKNOWN = Load(0, 0, 0, 0)

Lines = Generator[dict[str, Any], None, None]


@dataclass(frozen=True)
class RemoteModel:
    """What a page says about the model."""

    spec: str
    slug: str
    device: str
    dtype_reason: str


class RemoteEngine:
    """url: where `python -m demo.engine.remote.server` listens; key: what it was started with, if anything. Raises UserError when there is no
    engine, or one of another version."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url.rstrip("/")
        headers = {b"authorization": f"Bearer {key}".encode()} if key else {}
        self._load, self._looked = _UNKNOWN, 0.0
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx.Timeout(_SILENCE, connect=5.0),
            limits=httpx.Limits(max_connections=None),
            trust_env=False,  # an engine is no web page: never through a proxy
        )
        with self._plainly():
            about = self._http.get("/about")
            axis = self._http.get("/axis")
        self._refuse(about)
        self._refuse(axis)
        said = about.json()
        if said.get("version") != VERSION:
            raise UserError(
                f"The engine at {self.url} is of another version; start both from the same release."
            )
        self.model = RemoteModel(**said["model"])
        self.notes = [str(note) for note in said["notes"]]
        self.axis: AssistantAxis = axis_from_bytes(
            axis.content, said["axis"], f"the axis of the engine at {self.url}"
        )
        self._digest = axis_digest(self.axis)

    @property
    def load(self) -> Load:
        """How busy it is, as last heard; zeros when it cannot be asked."""
        if time.monotonic() - self._looked > _STALE:
            self._looked = time.monotonic()
            try:
                self._load = load_from(self._http.get("/load", timeout=2.0).json())
            except (httpx.HTTPError, ValueError, KeyError, UserError):
                self._load = _UNKNOWN
        return self._load

    def stream(self, requests: Sequence[Request], cancel: CancelFlag | None = None) -> Events:
        """Answer all requests in step. Raises UserError at once when the engine refuses them or cannot be reached."""
        asked = {"requests": [request_json(request) for request in requests], "axis": self._digest}
        events = self._events(self._ask("/stream", asked), cancel or CancelFlag())
        return ended(events, {request.branch: 0 for request in requests})

    def _events(self, lines: Lines, cancel: CancelFlag) -> Events:
        try:
            for data in lines:
                if cancel.is_set():
                    return
                event = event_from(data)
                if event is not None:
                    yield event
        finally:
            lines.close()

    def read(self, request: Request, cancel: CancelFlag | None = None) -> Iterator[list[ReadToken]]:
        """Read a finished chat. Raises UserError at once when the engine refuses it or cannot be reached."""
        lines = self._ask("/read", {"requests": [request_json(request)], "axis": self._digest})
        return self._parts(lines, cancel or CancelFlag())

    def _parts(self, lines: Lines, cancel: CancelFlag) -> Iterator[list[ReadToken]]:
        try:
            for data in lines:
                if cancel.is_set():
                    return
                if "read" in data:
                    yield read_from(data)
        finally:
            lines.close()

    def forget(self, branches: Sequence[str]) -> None:
        """Drop what is cached for these branches. An engine that is gone has forgotten them already."""
        try:
            self._http.post("/forget", json={"branches": list(branches)}, timeout=5.0)
        except httpx.HTTPError:
            return

    def _ask(self, path: str, body: dict[str, Any]) -> Lines:
        """Send a request; what comes back, a line at a time, once the engine has accepted it."""
        with self._plainly():
            response = self._http.send(self._http.build_request("POST", path, json=body), stream=True)
            if response.status_code != 200:
                response.read()
        self._refuse(response)
        return self._lines(response)

    def _lines(self, response: httpx.Response) -> Lines:
        try:
            with self._plainly(midway=True):
                for line in response.iter_lines():
                    data = json.loads(line)
                    if "load" in data:
                        self._load, self._looked = load_from(data), time.monotonic()
                    if "error" in data:
                        raise UserError(str(data["error"]))
                    if "end" in data:
                        return
                    yield data
                # The line that says the reply is whole never came.
                raise httpx.ReadError("the engine has gone")
        finally:
            response.close()

    def _refuse(self, response: httpx.Response) -> None:
        if response.status_code == 200:
            return
        try:
            reason = str(response.json()["error"])
        except (ValueError, KeyError, TypeError):
            reason = f"The engine process answered with status {response.status_code}: check the address given to --engine."
        raise UserError(reason)

    @contextmanager
    def _plainly(self, midway: bool = False) -> Iterator[None]:
        """Within the block a lost connection is one sentence for the reader."""
        try:
            yield
        except (httpx.HTTPError, ValueError) as error:
            self._load = _UNKNOWN
            # Without its address, which is nothing for a visitor of the page.
            if midway:
                reason = "ended in the middle of this reply; the conversation is kept. When it runs again, send the message once more."
            else:
                reason = (
                    "cannot be reached: start it with python -m demo.engine.remote.server, then try again."
                )
            raise UserError(f"The engine process {reason}") from error
