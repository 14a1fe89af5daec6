"""Session files: every token of a conversation with its readings, so that it can be replayed without a model.

The format is described in docs/session-file.md. A file may come from an untrusted source, so it is
checked field by field, and only text and finite numbers are used.
"""

from __future__ import annotations

import base64
import datetime
import gc
import json
import struct
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import orjson

from demo.axis.zones import zones_from_json
from demo.conversation.fork_json import forks_from, forks_json, notes_from, notes_json
from demo.conversation.forks import Fork, Notes
from demo.conversation.json_values import items, maybe, number, short, text
from demo.conversation.layers import layers_from_json, layers_json
from demo.conversation.path import states_kept
from demo.conversation.seeds import reply_means, seed_gap
from demo.conversation.settings import ALL_BRANCHES
from demo.conversation.settings_json import settings_from_json, settings_json
from demo.conversation.turns import Reply, Turn, rounded
from demo.engine.protocol import MOST_ALTERNATIVES, Alternative, FinishReason, Shift, State, Token
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError

NAME, VERSION = "persona-drift-session", 1

# A conversation of a hundred long turns is smaller than this. In memory, a file takes nine times its size.
MOST_BYTES = 8 * 1024**2

_FINISH = get_args(FinishReason)
_MOST_DIMENSIONS, _LARGEST_STATE, _LARGEST_SHIFT = 65_536, 1e12, 1e9


@dataclass(frozen=True)
class Recording:
    """The content of a session file.

    Attributes:
        model: name of the model that replied.
        marks: reference lines of the charts, for turns whose own settings are not known.
        blurb: what to watch for.
        map: the fixed part of the persona map, as `persona_map` returns it.
        date: the day on which the conversation began, YYYY-MM-DD; empty in files of earlier versions.
        notes: what a user has noted of the conversation.
        forks: conversations that were forked from this one or from one another, each after its parent.
    """

    model: str
    turns: list[Turn]
    marks: PlotMarks
    title: str = ""
    blurb: str = ""
    system_prompt: str = ""
    map: dict[str, Any] = field(default_factory=dict)
    date: str = ""
    notes: Notes = field(default_factory=Notes)
    forks: tuple[Fork, ...] = ()


def to_json(recording: Recording) -> dict[str, Any]:
    """The recording as the JSON object of a session file."""
    return {
        "format": NAME,
        "version": VERSION,
        "model": recording.model,
        "title": recording.title,
        "blurb": recording.blurb,
        "system_prompt": recording.system_prompt,
        **({"date": recording.date} if recording.date else {}),
        **notes_json(recording.notes),
        "marks": asdict(recording.marks),
        "map": recording.map,
        "turns": turns_json(recording.turns),
        **({"forks": forks} if (forks := forks_json(recording.turns, recording.forks, turns_json)) else {}),
    }


def turns_json(turns: Sequence[Turn], first: int = 0) -> list[dict[str, Any]]:
    """The turns of a conversation from number `first` on."""
    kept = states_kept(turns)
    return [turn_json(turn, kept[first + n]) for n, turn in enumerate(turns[first:])]


def dumps(recording: Recording) -> str:
    """The text of a session file."""
    return json.dumps(to_json(recording), ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def turn_json(turn: Turn, states: Container[str] = ALL_BRANCHES) -> dict[str, Any]:
    """A turn with all its replies, and with its settings where they are known.

    Args:
        states: the branches whose reply keeps its mean state.
    """
    return {
        "user": turn.user,
        **({} if turn.settings is None else {"settings": settings_json(turn.settings)}),
        "branches": {
            branch: reply_json(turn.replies[branch], branch in states)
            for branch in ALL_BRANCHES
            if branch in turn.replies
        },
        **gap_json(turn),
    }


def gap_json(turn: Turn) -> dict[str, Any]:
    """How much the cap lifts the mean over all seeds of a turn; nothing for a turn with one seed."""
    return {} if (gap := seed_gap(turn)) is None else {"seed_gap": gap.as_json()}


def reply_json(reply: Reply, state: bool = True) -> dict[str, Any]:
    """A reply with its tokens, its summary and its further samples. state: whether with its mean state."""
    data: dict[str, Any] = {"tokens": [token_json(token) for token in reply.tokens], **summary_json(reply)}
    if state and reply.state is not None:
        packed = struct.pack(f"<{len(reply.state)}f", *reply.state)
        data["state"] = base64.b64encode(packed).decode()
    if reply.layers is not None:
        data["layers"] = layers_json(reply.layers)
    if reply.samples:
        data["samples"] = [reply_json(sample) for sample in reply.samples]
    return data


def summary_json(reply: Reply) -> dict[str, Any]:
    """The figures that summarise a reply, so that readers of the file need not compute them.

    They are described in docs/session-file.md.
    """
    return {
        "finish": reply.finish,
        "mean": rounded(reply.mean),
        "user_mean": rounded(reply.user_projection),
        **({} if reply.start is None else {"start": rounded(reply.start)}),
        "fired": reply.fired,
        "count": len(reply.read),
        "limit": reply.limit,
        "place": None if reply.place is None else [rounded(value) for value in reply.place],
        **({"reasoning_mean": rounded(reply.reasoning_mean)} if reply.reasoning else {}),
        **({} if reply.plain_mean is None else {"plain_mean": rounded(reply.plain_mean)}),
        **({"along": [rounded(value) for value in along]} if (along := reply.along_means) else {}),
        **({} if (means := reply_means(reply)) is None else {"seeds": means.as_json()}),
        **({} if reply.shift is None else {"shift": _shift_json(reply.shift)}),
        **({} if reply.step is None else {"step": _shift_json(reply.step)}),
        **({"fault": reply.fault} if reply.fault else {}),
    }


def _shift_json(shift: Shift) -> dict[str, Any]:
    # From the rounded numbers, so that a file that was opened is saved again as it was.
    kept = Shift(round(shift.length, 4), round(shift.along, 4))
    return {"length": kept.length, "along": kept.along, "share": rounded(kept.share)}


def token_json(token: Token, *, live: bool = False, running: bool = False) -> dict[str, Any]:
    """A token with short keys and without empty entries, because thousands of them are sent.

    Args:
        live: leave out what the page does not show of a reply that was not recorded: the times and places of
            single tokens, and the projection before the clamp where the clamp changed nothing.
        running: leave out the alternatives, which the page gets when the reply is finished.
    """
    before, after = rounded(token.before), rounded(token.after)
    data: dict[str, Any] = (
        {"t": token.text, "a": after} if live else {"t": token.text, "b": before, "a": after}
    )
    if live and before != after:
        data["b"] = before
    if token.special:
        data["s"] = 1
    if token.given:
        data["f"] = 1
    if token.reasoning:
        data["r"] = 1
    if token.correction > 0:
        data["k"] = [rounded(value) for value in token.corrections]
    if token.probability is not None:
        data["p"] = rounded(token.probability)
    if token.plain is not None:
        data["q"] = rounded(token.plain)
    if token.along:
        data["g"] = [rounded(value) for value in token.along]
    if token.also > 0:
        data["z"] = rounded(token.also)
    if not running:
        data |= {
            key: found
            for key, alternatives in (("l", token.alternatives), ("o", token.plain_alternatives))
            if (found := _alternatives_json(alternatives))
        }
    if live:
        return data
    if token.token_id is not None:
        data["i"] = token.token_id
    if token.at is not None:
        data["m"] = token.at
    if token.coordinates is not None:
        data["x"] = [rounded(value) for value in token.coordinates]
    return data


def _alternatives_json(alternatives: Sequence[Alternative]) -> list[list[Any]]:
    return [[token_id, text, rounded(probability)] for token_id, text, probability in alternatives]


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Parsing creates many objects and no garbage; collecting meanwhile would double the time it takes.

    `loads` pauses it until the parsed JSON is freed, because going through that takes as long again.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def open_file(path: Path) -> Recording:
    """Read a session file. Raises UserError when it is not one."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} is larger than {MOST_BYTES // 2**20} MiB, so it is not a session file.")
        return loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}); give a saved session file."
        ) from error


@_garbage_collection_paused()
def loads(text: str) -> Recording:
    """Read a session file. Raises UserError for anything else."""
    return from_json(parsed(text))


@_garbage_collection_paused()
def parsed(text: str) -> Any:
    """Parse the JSON of a session file. Raises UserError.

    orjson is faster than json and accepts neither NaN nor lone halves of surrogate pairs.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UserError(f"This session file is damaged ({short(error)}); save the session again.") from error


@_garbage_collection_paused()
def from_json(data: Any) -> Recording:
    """The inverse of `to_json`; `data` may be anything. Raises UserError if it is not a valid session."""
    try:
        if not isinstance(data, dict) or data.get("format") != NAME:
            raise UserError("This is not a session file of this program; choose one that was saved here.")
        if data.get("version") != VERSION:
            raise UserError(
                f"This session file has version {data.get('version')!r}, "
                f"but this program reads version {VERSION}; update the program."
            )
        marks = _marks(data["marks"])
        turns = [_turn(turn, marks) for turn in items(data["turns"])]
        return Recording(
            model=text(data["model"]),
            turns=turns,
            marks=marks,
            title=text(data.get("title", "")),
            blurb=text(data.get("blurb", "")),
            system_prompt=text(data.get("system_prompt", "")),
            map=_map(data.get("map") or {}),
            date=_date(data.get("date", "")),
            notes=notes_from(data),
            forks=forks_from(data.get("forks", []), turns, lambda turn: _turn(turn, marks)),
        )
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RecursionError,
        struct.error,
    ) as error:
        raise UserError(f"This session file is damaged ({short(error)}); save the session again.") from error


def _turn(data: dict[str, Any], marks: PlotMarks) -> Turn:
    replies = {
        branch: _reply(data["branches"][branch]) for branch in ALL_BRANCHES if branch in data["branches"]
    }
    if not replies:
        raise ValueError("a turn without replies")
    settings = data.get("settings")  # files of earlier versions have none
    return Turn(
        text(data["user"]), replies, None if settings is None else settings_from_json(settings, marks)
    )


def _reply(data: dict[str, Any]) -> Reply:
    finish = data.get("finish")
    if finish is not None and finish not in _FINISH:
        raise ValueError(f"finish {finish!r}")
    samples = [_reply(sample) for sample in items(data.get("samples", []))]
    limit, user = int(number(data["limit"])), maybe(data.get("user_mean"))
    tokens = [_token(token) for token in items(data["tokens"])]
    if len({len(token.along) for token in tokens if token.along}) > 1:
        raise ValueError("tokens that were read along different directions")
    return Reply(
        limit,
        tokens,
        finish or "cancelled",
        user,
        samples,
        text(data.get("fault", "")),
        _state(data.get("state")),
        None if data.get("shift") is None else _shift(data["shift"]),
        None if data.get("step") is None else _shift(data["step"]),
        None if data.get("layers") is None else layers_from_json(data["layers"]),
        maybe(data.get("start")),
    )


def _state(data: object) -> State | None:
    if data is None:
        return None
    packed = base64.b64decode(text(data), validate=True)
    if len(packed) > 4 * _MOST_DIMENSIONS:
        raise ValueError("a state of too many numbers")
    values = tuple(number(value) for (value,) in struct.iter_unpack("<f", packed))
    if any(abs(value) > _LARGEST_STATE for value in values):
        raise ValueError("a state with a number that no model has")
    return values


def _shift(data: dict[str, Any]) -> Shift:
    length, along = number(data["length"]), number(data["along"])
    if not abs(along) <= length * 1.001 + 1e-3 <= _LARGEST_SHIFT:
        raise ValueError("a shift that is longer along the axis than at all")
    return Shift(length, along)


def _token(data: dict[str, Any]) -> Token:
    place = [number(value) for value in items(data["x"])] if "x" in data else None
    corrections = tuple([number(value) for value in items(data["k"])]) if "k" in data else ()
    return Token(
        text=text(data["t"]),
        before=maybe(data.get("b")),
        after=maybe(data.get("a")),
        corrections=corrections,
        special=bool(data.get("s")),
        coordinates=(place[0], place[1], place[2]) if place and len(place) == 3 else None,
        probability=maybe(data.get("p")),
        at=None if data.get("m") is None else int(number(data["m"])),
        reasoning=bool(data.get("r")),
        plain=maybe(data.get("q")),
        along=tuple(number(value) for value in items(data.get("g", []))),
        also=number(data.get("z", 0)),
        alternatives=_alternatives(data.get("l", [])),
        plain_alternatives=_alternatives(data.get("o", [])),
        token_id=None if data.get("i") is None else _token_id(data["i"]),
        given=bool(data.get("f")),
    )


def _token_id(data: object) -> int:
    token = int(number(data))
    if token < 0:
        raise ValueError("a token that no model has")
    return token


def _alternatives(data: object) -> tuple[Alternative, ...]:
    found = items(data)
    if len(found) > MOST_ALTERNATIVES:
        raise ValueError("a token with too many alternatives")
    read = [Alternative(int(number(one)), text(words), number(chance)) for one, words, chance in found]
    if not all(one.token_id >= 0 and 0 <= one.probability <= 1 for one in read):
        raise ValueError("an alternative that no model has")
    return tuple(read)


def _marks(data: dict[str, Any]) -> PlotMarks:
    layers = data.get("cap_layers")
    return PlotMarks(
        probe_layer=int(number(data["probe_layer"])),
        floor=maybe(data.get("floor")),
        floor_name=None if data.get("floor_name") is None else text(data["floor_name"]),
        floor_at_probe=bool(data.get("floor_at_probe", True)),
        cap_layers=None if layers is None else _pair(layers, int),
        zones=zones_from_json(data.get("zones")),
        assistant=bool(data.get("assistant", True)),
    )


def _map(data: dict[str, Any]) -> dict[str, Any]:
    if "roles" not in data:
        return {"missing": text(data["missing"])} if "missing" in data else {}
    return {
        "roles": [[text(name), _place(place), number(value)] for name, place, value in items(data["roles"])],
        "default": _place(data["default"]),
        "variance": [number(value) for value in items(data.get("variance", []))],
        "notes": [text(note) for note in items(data.get("notes", []))],
    }


def _place(data: object) -> list[float]:
    values = [number(value) for value in items(data)]
    if len(values) != 3:
        raise ValueError("a place without three coordinates")
    return values


def _pair(data: object, kind: Any) -> Any:
    first, second = (kind(number(value)) for value in items(data))
    return first, second


def is_date(day: str) -> bool:
    """Whether it is a day, YYYY-MM-DD, or empty."""
    try:
        return not day or datetime.date.fromisoformat(day).isoformat() == day
    except ValueError:
        return False


def _date(data: object) -> str:
    day = text(data)
    if not is_date(day):
        raise ValueError(f"date {short(day)}")
    return day
