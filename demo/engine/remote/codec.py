"""Requests and events as JSON, for an engine in another process.

Only plain data travels, so received bytes can never run code.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, TypeVar, get_args

from demo.engine.protocol import (
    Alternative,
    Cap,
    Event,
    FinishReason,
    Load,
    PromptEvent,
    ReadToken,
    Request,
    Sampling,
    Shift,
    Span,
    Steer,
    Token,
    TokenEvent,
    WaitEvent,
    as_coordinates,
)
from demo.models.chat_template import LeftOut, Message
from demo.utils.errors import UserError

VERSION = 9

_EVENTS: dict[str, type[WaitEvent] | type[PromptEvent] | type[TokenEvent]] = {
    "wait": WaitEvent,
    "prompt": PromptEvent,
    "token": TokenEvent,
}

_EVENT_NAMES = {kind: name for name, kind in _EVENTS.items()}

_ROLES = {"system", "user", "assistant"}

T = TypeVar("T")


def request_json(request: Request) -> dict[str, Any]:
    """A request as JSON values."""
    return asdict(request)


def request_from(data: Any) -> Request:
    """The request in JSON values. Raises UserError when they are malformed."""
    try:
        steer, first, previous = data["steer"], data.get("first"), data.get("previous")
        return Request(
            str(data["branch"]),
            tuple(_message(message) for message in data["messages"]),
            Sampling(**data["sampling"]),
            _cap(data["cap"]),
            None
            if steer is None
            else Steer(int(steer["layer"]), float(steer["alpha"]), str(steer.get("direction", ""))),
            _span(data.get("span", "both")),
            bool(data.get("thinking", False)),
            None if data.get("date") is None else datetime.date.fromisoformat(data["date"]).isoformat(),
            _cap(data.get("also")),
            tuple(map(str, data.get("along", ()))),
            bool(data.get("plain", False)),
            None if first is None else tuple(map(float, first)),
            tuple(part if isinstance(part, str) else int(part) for part in data.get("opening", ())),
            previous=None if previous is None else tuple(map(float, previous)),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"The request cannot be read ({error!r}).") from error


def _cap(data: Any) -> Cap | None:
    if data is None:
        return None
    layers, floors = tuple(map(int, data["layers"])), tuple(map(float, data["floors"]))
    below = data.get("only_below")
    return Cap(
        layers,
        floors,
        str(data.get("direction", "")),
        bool(data.get("downward", False)),
        None if below is None else float(below),
    )


def _message(data: Any) -> Message:
    role, content = data["role"], data["content"]
    if role not in _ROLES or not isinstance(content, str):
        raise ValueError("a message needs a role and text")
    message = Message(role=role, content=content)
    if isinstance(data.get("reasoning"), str) and role == "assistant":
        message["reasoning"] = data["reasoning"]
    return message


def _span(value: Any) -> Span:
    if value not in get_args(Span):
        raise ValueError("span must be both, answer or reasoning")
    return value


def event_json(event: Event) -> dict[str, Any]:
    """An event as JSON values, under the name of its kind."""
    return {_EVENT_NAMES[type(event)]: asdict(event)}


def event_from(data: dict[str, Any]) -> Event | None:
    """The event in a line of JSON, None for other lines. Raises UserError when it is malformed."""
    for name, kind in _EVENTS.items():
        if name in data:
            return _decode(kind, data[name])
    return None


def read_json(tokens: Sequence[ReadToken]) -> dict[str, Any]:
    """A chunk of a finished chat as JSON values."""
    return {"read": [asdict(token) for token in tokens]}


def read_from(data: dict[str, Any]) -> list[ReadToken]:
    """The tokens in a line of JSON. Raises UserError when they are malformed."""
    return [_decode(ReadToken, token) for token in data["read"]]


def load_json(load: Load) -> dict[str, Any]:
    """An engine's load as JSON values."""
    return {"load": asdict(load)}


def load_from(data: dict[str, Any]) -> Load:
    """The load in a line of JSON. Raises UserError when it is malformed."""
    return _decode(Load, data["load"])


def _decode(kind: type[T], data: Any) -> T:
    """A dataclass from JSON values. Unknown names are ignored, because another version may send more."""
    try:
        names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
        values = {name: data[name] for name in names if name in data}
        for name, value in values.items():
            if name == "token":
                values[name] = _decode(Token, value)
            elif name in ("shift", "step"):
                values[name] = None if value is None else _decode(Shift, value)
            elif name in ("alternatives", "plain_alternatives"):
                values[name] = tuple(Alternative(*one) for one in value)
            elif name == "left_out":
                values[name] = tuple(_decode(LeftOut, one) for one in value)
            elif isinstance(value, list):  # JSON has no tuples
                values[name] = as_coordinates(value) if name == "coordinates" else tuple(value)
        decoded = kind(**values)
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"The engine process sent something that cannot be read ({error!r}).") from error
    reason = getattr(decoded, "finish_reason", None)
    if reason is not None and reason not in get_args(FinishReason):
        raise UserError(f"The engine process sent an unknown finish reason ({reason!r}).")
    return decoded
