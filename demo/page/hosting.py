"""A page that others visit: the flags for it, and what one visitor may ask for."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, fields

from demo.space import ON_SPACE
from demo.utils.errors import UserError

SHORTEST_PASSWORD = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """A visitor is an address. Behind one may sit a whole class, so the defaults are far above what one person does.

    per_minute, at_once: turns and readings of one address; characters: of one of them, all its texts together; file_mib_per_hour: of
    session files that one address opens, which stay in memory as long as its tabs; waiting: turns of all visitors that may wait for
    room in the engine.
    """

    per_minute: int = 240
    at_once: int = 64
    characters: int = 200_000
    file_mib_per_hour: int = 256
    waiting: int = 128

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            if getattr(self, name) < 1:
                raise UserError(f"{_flag(name)} must be 1 or more, not {getattr(self, name)}.")


_WHAT = {
    "per_minute": "replies a minute for one address",
    "at_once": "replies at once for one address",
    "characters": "characters of one message and its settings, or of a call by program with its history",
    "file_mib_per_hour": "MiB of session files that one address may open in an hour",
    "waiting": "turns that wait for a place; who comes then is asked to try later",
}


def add_hosting_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host",
        default="0.0.0.0" if os.environ.get(ON_SPACE) else "127.0.0.1",
        help="address to listen on (default: this machine only; on a Space, all)",
    )
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    group = parser.add_argument_group("for a page that others visit")
    group.add_argument(
        "--password",
        help="asked of every visitor; better given as PERSONA_DRIFT_PASSWORD, which no list of processes shows",
    )
    for field in fields(Limits):
        what = f"{_WHAT[field.name]} (default: %(default)s)"
        group.add_argument(_flag(field.name), type=int, default=field.default, metavar="N", help=what)


def limits_of(options: argparse.Namespace) -> Limits:
    """Raises UserError when one cannot be meant."""
    return Limits(**{field.name: getattr(options, f"most_{field.name}") for field in fields(Limits)})


def password_of(options: argparse.Namespace) -> str | None:
    """None where no one is asked for one. Raises UserError for a password that is soon guessed."""
    if not options.password:  # a Space's empty variable too
        return None
    if len(options.password) < SHORTEST_PASSWORD:
        raise UserError(f"The password needs {SHORTEST_PASSWORD} characters or more; choose a longer one.")
    return str(options.password)


def _flag(name: str) -> str:
    return f"--most-{name.replace('_', '-')}"
