"""An engine that runs in another process, perhaps on another machine, see `demo.engine.remote.server`.

Several pages may share one engine process. A page whose engine runs elsewhere loads no model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event as CancelFlag
from typing import Any

import httpx

from demo.axis.axis import AssistantAxis
from demo.axis.directions import FILE, Direction, Directions, load_directions
from demo.axis.files import axis_digest, axis_from_bytes
from demo.engine.protocol import Events, Load, ReadToken, Request, TooLongError, with_endings
from demo.engine.remote.codec import VERSION, event_from, load_from, read_from, request_json
from demo.models.loading import Thinking
from demo.utils.errors import UserError

_TIMEOUT = 30.0  # seconds without a line, of which the server sends several a second

_LOAD_MAX_AGE = 1.0  # seconds

_UNKNOWN_LOAD = Load(0, 0, 0, 0)

Lines = Generator[dict[str, Any], None, None]


@dataclass(frozen=True)
class RemoteModel:
    """What the engine process says about its model. Also see `demo.engine.options.NamedModel`."""

    spec: str
    slug: str
    device: str
    dtype_name: str
    dtype_reason: str
    thinking: Thinking = "never"
    revision: str | None = None
    digest: str | None = None
    base: bool = False
    template: str = ""


def _directions_from(content: bytes, axis: AssistantAxis) -> Directions:
    """The further directions in a file that the engine process has sent. Raises UserError."""
    with TemporaryDirectory() as folder:
        if content:
            (Path(folder) / FILE).write_bytes(content)
        return load_directions(Path(folder), axis)


class RemoteEngine:
    """A client of an engine process. See `protocol.Engine`."""

    def __init__(self, url: str, key: str = "") -> None:
        """Connect to an engine process and get its axis.

        Args:
            url: Where `python -m demo.engine.remote.server` listens.
            key: The key it was started with, if any.

        Raises:
            UserError: The engine cannot be reached, refuses the key, or is of another version.
        """
        self.url = url.rstrip("/")
        headers = {b"authorization": f"Bearer {key}".encode()} if key else {}
        self._load, self._load_time = _UNKNOWN_LOAD, 0.0
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx.Timeout(_TIMEOUT, connect=5.0),
            limits=httpx.Limits(max_connections=None),
            trust_env=False,  # an engine is not a website: never use a proxy
        )
        with self._readable_errors():
            about = self._http.get("/about")
            axis = self._http.get("/axis")
            directions = self._http.get("/directions")
        _check_status(about)
        _check_status(axis)
        data = about.json()
        if data.get("version") != VERSION:
            raise UserError(
                f"The engine at {self.url} is of another version; start both from the same release."
            )
        self.model = RemoteModel(**data["model"])
        self.notes = [str(note) for note in data["notes"]]
        self.axis: AssistantAxis = axis_from_bytes(
            axis.content, data["axis"], f"the axis of the engine at {self.url}"
        )
        self._digest = axis_digest(self.axis)
        _check_status(directions)
        self.directions: Mapping[str, Direction] = _directions_from(directions.content, self.axis)
        self.reads_plain = bool(data.get("reads_plain"))
        self.conditional_caps = bool(data.get("conditional_caps"))

    @property
    def load(self) -> Load:
        """How busy the engine is, at most a second old; zeros when it cannot be reached."""
        if time.monotonic() - self._load_time > _LOAD_MAX_AGE:
            self._load_time = time.monotonic()
            try:
                self._load = load_from(self._http.get("/load", timeout=2.0).json())
            except (httpx.HTTPError, ValueError, KeyError, UserError):
                self._load = _UNKNOWN_LOAD
        return self._load

    def stream(self, requests: Sequence[Request], cancel: CancelFlag | None = None) -> Events:
        """Answer all requests in step.

        Raises:
            UserError: At once, when the engine refuses the requests or cannot be reached.
        """
        body = {"requests": [request_json(request) for request in requests], "axis": self._digest}
        events = self._events(self._post("/stream", body), cancel or CancelFlag())
        return with_endings(events, {request.branch: 0 for request in requests})

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
        """Read a finished chat.

        Raises:
            UserError: At once, when the engine refuses the request or cannot be reached.
        """
        lines = self._post("/read", {"requests": [request_json(request)], "axis": self._digest})
        return self._chunks(lines, cancel or CancelFlag())

    def _chunks(self, lines: Lines, cancel: CancelFlag) -> Iterator[list[ReadToken]]:
        try:
            for data in lines:
                if cancel.is_set():
                    return
                if "read" in data:
                    yield read_from(data)
        finally:
            lines.close()

    def forget(self, branches: Sequence[str]) -> None:
        """Drop what is cached for these branches. An engine that cannot be reached is not an error here."""
        try:
            self._http.post("/forget", json={"branches": list(branches)}, timeout=5.0)
        except httpx.HTTPError:
            return

    # --- HTTP

    def _post(self, path: str, body: dict[str, Any]) -> Lines:
        """Send a request and, once the engine has accepted it, return the lines of its response."""
        with self._readable_errors():
            response = self._http.send(self._http.build_request("POST", path, json=body), stream=True)
            if response.status_code != 200:
                response.read()
        _check_status(response)
        lines = self._lines(response)
        next(lines)  # from here on, closing the lines closes the response
        return lines

    def _lines(self, response: httpx.Response) -> Lines:
        """The lines of a response, after an empty one that comes at once."""
        try:
            yield {}
            with self._readable_errors(streaming=True):
                for line in response.iter_lines():
                    data = json.loads(line)
                    if "load" in data:
                        self._load, self._load_time = load_from(data), time.monotonic()
                    if "error" in data:
                        raise UserError(str(data["error"]))
                    if "end" in data:
                        return
                    yield data
                raise httpx.ReadError("the stream ended without its last line")
        finally:
            response.close()

    @contextmanager
    def _readable_errors(self, streaming: bool = False) -> Iterator[None]:
        """Turn connection errors inside the block into a UserError.

        It does not name the engine's address, which the page's visitors need not know.
        """
        try:
            yield
        except (httpx.HTTPError, ValueError) as error:
            self._load = _UNKNOWN_LOAD
            if streaming:
                reason = (
                    "ended in the middle of this reply; the conversation is kept. "
                    "When it runs again, send the message once more."
                )
            else:
                reason = (
                    "cannot be reached: start it with python -m demo.engine.remote.server, then try again."
                )
            raise UserError(f"The engine process {reason}") from error


def _check_status(response: httpx.Response) -> None:
    """Raises UserError, in the engine's own words, when it has refused a request."""
    if response.status_code == 200:
        return
    try:
        data = response.json()
        reason = str(data["error"])
        if "context" in data:
            raise TooLongError(int(data["tokens"]), int(data["context"]))
    except (ValueError, KeyError, TypeError):
        reason = (
            f"The engine process answered with status {response.status_code}: "
            "check the address given to --engine."
        )
    raise UserError(reason)
