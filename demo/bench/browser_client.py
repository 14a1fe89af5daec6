"""A client that behaves like a browser: own session, heartbeat, and the page's private endpoints.

For measurements and for tests with hostile input. `gradio_client` reaches only the named endpoints;
the page's own buttons are private and take what the browser's event held.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property, reduce
from typing import Any

import httpx
from gradio_client.utils import apply_diff

Ops = list[dict[str, Any]]

TIMEOUT_S = 120.0


class Refused(RuntimeError):
    """The server answered with an error instead of an event.

    Attributes:
        status: The HTTP status, or 0 for an event that failed.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:300]}")
        self.status = status


class BrowserClient:
    """One browser tab, as a context manager: leaving it closes all connections, as closing a tab does."""

    def __init__(self, address: str, session: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Prepare a tab.

        Args:
            address: The page's address.
            session: The session to claim, such as another visitor's; a new random one by default.
            headers: Sent with every request.
        """
        self.session = session or secrets.token_hex(8)
        self._open = ExitStack()
        timeout = httpx.Timeout(TIMEOUT_S)
        # Only the page itself is contacted, even if the environment names a proxy.
        self.http = self._open.enter_context(
            httpx.Client(base_url=address, timeout=timeout, headers=headers, trust_env=False)
        )

    def __enter__(self) -> BrowserClient:
        try:
            self._open.enter_context(self.http.stream("GET", f"gradio_api/heartbeat/{self.session}"))
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @cached_property
    def config(self) -> dict[str, Any]:
        """The page's components and events, as its browser code receives them."""
        return dict(_checked(self.http.get("config")).json())

    def load(self) -> Ops:
        """Open the page."""
        # What runs in the browser alone has no function on the server.
        served = (one for one in self.config["dependencies"] if one["backend_fn"])
        return last(self.trigger(next(one for one in served if "load" in (t[1] for t in one["targets"]))))

    def send(self, text: str, **settings: Any) -> Iterator[Ops]:
        """Type a message and press Send. settings: values by label, in place of the page's initial ones."""
        labels = {p["props"].get("label"): p["id"] for p in self.config["components"]}
        changed = {self._component("message"): text}
        changed |= {labels[name]: value for name, value in settings.items()}
        return self.trigger(self._event("send", "click"), changed)

    def quick(self, **request: Any) -> Ops:
        """Make a request of the stage that needs no model, such as do="fork", turn=0."""
        return last(self.trigger(self._event("stage-block", "select"), event_data=request))

    def slow(self, **request: Any) -> Iterator[Ops]:
        """Make a request of the stage that needs the model, such as do="regenerate", turn=0."""
        return self.trigger(self._event("stage-block", "submit"), event_data=request)

    def new_chat(self) -> Ops:
        """Press New chat."""
        return last(self.trigger(self._event("new-chat", "click")))

    def stop(self) -> None:
        """Press Stop."""
        body = {"data": [None], "session_hash": self.session}
        _checked(self.http.post("gradio_api/run/stop", json=body))

    def trigger(
        self, dependency: dict[str, Any], changed: Mapping[int, Any] | None = None, event_data: Any = None
    ) -> Iterator[Ops]:
        """Trigger an event of the page. Closing the iterator closes the connection.

        Args:
            dependency: The event, from `config`.
            changed: New values of components, by component id.
            event_data: What the browser sends along with the event.

        Returns:
            The stage's operations, one update after the other.
        """
        values = {**self._values, **(changed or {})}
        body = {
            "data": [values[part] for part in dependency["inputs"]],
            "fn_index": dependency["id"],
            "session_hash": self.session,
            "event_data": event_data,
        }
        event = _checked(self.http.post("gradio_api/queue/join", json=body)).json()["event_id"]
        shown: Any = None
        with self.http.stream("GET", "gradio_api/queue/data", params={"session_hash": self.session}) as lines:
            for message in _messages(lines):
                if message.get("event_id") != event:
                    continue
                output = message.get("output", {})
                if message["msg"] in ("process_generating", "process_completed"):
                    if not message["success"]:
                        raise Refused(0, str(output.get("error")))
                    data = output.get("data") or []
                    whole = message["msg"] == "process_completed" or shown is None
                    shown = data if whole else [apply_diff(*pair) for pair in zip(shown, data, strict=True)]
                    yield _ops(shown)
                if message["msg"] == "process_completed":
                    return
        raise Refused(0, "the stream ended before its event did")

    @cached_property
    def _values(self) -> dict[int, Any]:
        """Initial values of the components, by id."""
        return {part["id"]: part["props"].get("value") for part in self.config["components"]}

    def _component(self, elem_id: str) -> int:
        return next(p["id"] for p in self.config["components"] if p["props"].get("elem_id") == elem_id)

    def _event(self, elem_id: str, event: str) -> dict[str, Any]:
        target = [self._component(elem_id), event]
        return next(dict(d) for d in self.config["dependencies"] if target in d["targets"])


def last(updates: Iterator[Ops]) -> Ops:
    """Wait for the end of an event and return its last update."""
    return reduce(lambda _, newer: newer, updates, [])


def refusals(ops: Ops) -> list[str]:
    """The error notices of the page in these operations."""
    return [op["text"] for op in ops if op["op"] == "notice" and op.get("level") == "error"]


def _ops(data: list[Any]) -> Ops:
    """The stage's operations; the stage is the first output of every event."""
    value = data[0] if data else None
    return list(json.loads(value)["ops"]) if isinstance(value, str) and value.startswith("{") else []


def _messages(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """Server-sent messages, up to the end of the stream."""
    if response.is_error:
        response.read()
    for line in _checked(response).iter_lines():
        if line.startswith("data:"):
            message = json.loads(line[5:])
            if message["msg"] == "close_stream":
                return
            yield message


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise Refused(response.status_code, response.text)
    return response
