"""A visitor as the server sees a browser: page state of its own, a heartbeat, private endpoints. For measurements and hostile tests.

`gradio_client` only reaches the named endpoints; the page's own buttons are private and take what the browser's event held.
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

PATIENCE_S = 120.0


class Refused(RuntimeError):
    """The server answered with something other than an event; status: HTTP's, 0 for an event that failed."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:300]}")
        self.status = status


class BrowserClient:
    """One tab. Use as a context manager; leaving it closes every connection, as a closed tab does."""

    def __init__(self, address: str, session: str = "", headers: Mapping[str, str] | None = None) -> None:
        """session: another visitor's, to try to get at it."""
        self.session = session or secrets.token_hex(8)
        self._open = ExitStack()
        timeout = httpx.Timeout(PATIENCE_S)
        # Only the page itself is asked, whatever proxies the machine names.
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
        return dict(_checked(self.http.get("config")).json())

    @cached_property
    def _values(self) -> dict[int, Any]:
        return {part["id"]: part["props"].get("value") for part in self.config["components"]}

    def _named(self, elem_id: str) -> int:
        return next(p["id"] for p in self.config["components"] if p["props"].get("elem_id") == elem_id)

    def _event(self, elem_id: str, event: str) -> dict[str, Any]:
        target = [self._named(elem_id), event]
        return next(dict(d) for d in self.config["dependencies"] if target in d["targets"])

    def load(self) -> Ops:
        """Open the page."""
        page = next(d for d in self.config["dependencies"] if "load" in (t[1] for t in d["targets"]))
        return last(self.ask(page))

    def send(self, text: str, **settings: Any) -> Iterator[Ops]:
        """Type a message and press Send. settings: by label, instead of what the page opens with."""
        labels = {p["props"].get("label"): p["id"] for p in self.config["components"]}
        changed = {self._named("message"): text} | {labels[name]: value for name, value in settings.items()}
        return self.ask(self._event("send", "click"), changed)

    def quick(self, **what: Any) -> Ops:
        """One of the stage's buttons that need no model: do="fork", turn=0."""
        return last(self.ask(self._event("stage-block", "select"), event_data=what))

    def slow(self, **what: Any) -> Iterator[Ops]:
        """One that does."""
        return self.ask(self._event("stage-block", "submit"), event_data=what)

    def new_chat(self) -> Ops:
        return last(self.ask(self._event("new-chat", "click")))

    def stop(self) -> None:
        body = {"data": [None], "session_hash": self.session}
        _checked(self.http.post("gradio_api/run/stop", json=body))

    def ask(
        self, dependency: dict[str, Any], changed: Mapping[int, Any] | None = None, event_data: Any = None
    ) -> Iterator[Ops]:
        """Trigger an event; the stage's operations, one update after the other. Closing the iterator hangs up."""
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
                    fresh = message["msg"] == "process_completed" or shown is None
                    shown = data if fresh else [apply_diff(*pair) for pair in zip(shown, data, strict=True)]
                    yield _ops(shown)
                if message["msg"] == "process_completed":
                    return
        raise Refused(0, "the stream ended before its event did")


def last(updates: Iterator[Ops]) -> Ops:
    return reduce(lambda _, newer: newer, updates, [])


def refusals(ops: Ops) -> list[str]:
    """What the page says it did not do."""
    return [op["text"] for op in ops if op["op"] == "notice" and op.get("level") == "error"]


def _ops(data: list[Any]) -> Ops:
    """Of an event's outputs, the stage is the first."""
    value = data[0] if data else None
    return list(json.loads(value)["ops"]) if isinstance(value, str) and value.startswith("{") else []


def _messages(response: httpx.Response) -> Iterator[dict[str, Any]]:
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
