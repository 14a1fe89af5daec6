"""Requests and events as JSON, for an engine in another process. Plain data only: nothing that is received can run anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, TypeVar, get_args

from demo.engine.protocol import (
    Cap,
    Event,
    FinishReason,
    Load,
    PromptEvent,
    ReadToken,
    Request,
    Sampling,
    Steer,
    TokenEvent,
    WaitEvent,
    as_coordinates,
)
from demo.models.chat_template import Message
from demo.utils.errors import UserError

VERSION = 1

_EVENTS: dict[str, type[WaitEvent] | type[PromptEvent] | type[TokenEvent]] = {
    "wait": WaitEvent,
    "prompt": PromptEvent,
    "token": TokenEvent,
}

_NAMES = {kind: name for name, kind in _EVENTS.items()}

_ROLES = {"system", "user", "assistant"}

T = TypeVar("T")


def request_json(request: Request) -> dict[str, Any]:
    return asdict(request)


def request_from(data: Any) -> Request:
    """Raises UserError on anything malformed."""
    try:
        cap, steer = data["cap"], data["steer"]
        return Request(
            str(data["branch"]),
            tuple(_message(one) for one in data["messages"]),
            Sampling(**data["sampling"]),
            None if cap is None else Cap(tuple(map(int, cap["layers"])), tuple(map(float, cap["floors"]))),
            None if steer is None else Steer(int(steer["layer"]), float(steer["alpha"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"The request cannot be read ({error!r}).") from error


def _message(data: Any) -> Message:
    role, content = data["role"], data["content"]
    if role not in _ROLES or not isinstance(content, str):
        raise ValueError("a message needs a role and text")
    return Message(role=role, content=content)


def event_json(event: Event) -> dict[str, Any]:
    return {_NAMES[type(event)]: asdict(event)}


def event_from(data: dict[str, Any]) -> Event | None:
    """None for a line that is no event. Raises UserError on anything malformed."""
    for name, kind in _EVENTS.items():
        if name in data:
            return _made(kind, data[name])
    return None


def read_json(tokens: Sequence[ReadToken]) -> dict[str, Any]:
    return {"read": [asdict(token) for token in tokens]}


def read_from(data: dict[str, Any]) -> list[ReadToken]:
    """Raises UserError on anything malformed."""
    return [_made(ReadToken, token) for token in data["read"]]


def load_json(load: Load) -> dict[str, Any]:
    return {"load": asdict(load)}


def load_from(data: dict[str, Any]) -> Load:
    """Raises UserError on anything malformed."""
    return _made(Load, data["load"])


def _made(kind: type[T], data: Any) -> T:
    """JSON has no tuples, and another version may send more than is known here."""
    try:
        given = {field.name: data[field.name] for field in fields(kind) if field.name in data}  # type: ignore[arg-type]
        for name, value in given.items():
            if isinstance(value, list):
                given[name] = as_coordinates(value) if name == "coordinates" else tuple(value)
        made = kind(**given)
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"The engine process sent something that cannot be read ({error!r}).") from error
    reason = getattr(made, "finish_reason", None)
    if reason is not None and reason not in get_args(FinishReason):
        raise UserError(f"The engine process sent an unknown end of a reply ({reason!r}).")
    return made
