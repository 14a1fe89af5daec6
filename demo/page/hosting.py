"""Command-line flags for hosting the page for others, and the limits for one visitor."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from demo.space import ON_SPACE
from demo.utils.errors import UserError

SHORTEST_PASSWORD = 8

MOST_STUDENTS, LARGEST_CLASS = 30, 200  # who talk to the model at once: unless told otherwise, and at most

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Limits:
    """Rate limits. A visitor is an IP address.

    A whole class may share one address, so the defaults are far above what one person needs.

    Attributes:
        per_minute: turns and readings of one address in a minute.
        at_once: turns and readings of one address that run at once.
        characters: of one turn or reading, all its texts together.
        file_mib_per_hour: MiB of session files that one address opens in an hour. They stay in memory as
            long as its tabs.
        waiting: turns of all visitors that may wait for capacity in the engine.
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


_HELP = {
    "per_minute": "replies per minute for one address",
    "at_once": "replies at once for one address",
    "characters": "characters of one message and its settings, or of an API call with its history",
    "file_mib_per_hour": "MiB of session files that one address may open in an hour",
    "waiting": "turns that may wait for capacity; further ones are refused",
}


def add_hosting_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "--host", help="address to listen on (default: this machine only; with --class and on a Space, all)"
    )
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    group = parser.add_argument_group("hosting the page for others")
    group.add_argument(
        "--root-path",
        metavar="/PATH",
        help="the path under which a reverse proxy serves the page, whether or not it passes the path on",
    )
    group.add_argument(
        "--trusted-proxies",
        metavar="ADDRESS,…",
        help="addresses or networks of reverse proxies whose X-Forwarded-For names the visitor",
    )
    group.add_argument(
        "--password",
        help="every visitor must enter it; better set as PERSONA_DRIFT_PASSWORD, "
        "which the list of processes does not show",
    )
    group.add_argument(
        "--sessions",
        metavar="FOLDER",
        help="let visitors open the session files (NAME.session.json) directly in this folder by the address "
        "?session=NAME, which may end with #turn=4&token=17 (default: none)",
    )
    group.add_argument(
        "--openai",
        action="store_true",
        help="also answer requests of OpenAI's chat completions API, at /v1 (default: off); with a password, "
        "it is the API key",
    )
    for field in fields(Limits):
        text = f"{_HELP[field.name]} (default: %(default)s)"
        group.add_argument(_flag(field.name), type=int, default=field.default, metavar="N", help=text)


def add_class_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of class mode."""
    group = parser.add_argument_group("a class")
    group.add_argument(
        "--class",
        dest="class_mode",
        action="store_true",
        help="open a class: students chat on their phones and a board shows all conversations; without "
        "--host the page then listens on all addresses of this machine",
    )
    group.add_argument(
        "--class-address",
        metavar="URL",
        default="",
        help="where phones find this page, such as http://192.168.1.5:7860 (default: this machine's address "
        "in its network, or the one at which the speaker has opened the board)",
    )
    group.add_argument(
        "--class-size",
        type=int,
        default=MOST_STUDENTS,
        metavar="N",
        help="students who talk to the model at once; further ones wait (default: %(default)s)",
    )


def class_address_of(options: argparse.Namespace) -> str:
    """Where phones find the page; empty to find it out. Raises UserError for what is no such address."""
    address = (options.class_address or "").rstrip("/")
    if address and not re.fullmatch(r"https?://[^\s/?#]+(/[\w.~-]+)*", address):
        raise UserError(
            "--class-address takes an address such as http://192.168.1.5:7860, "
            f"not {options.class_address!r}."
        )
    if not 1 <= options.class_size <= LARGEST_CLASS:
        raise UserError(f"--class-size must lie between 1 and {LARGEST_CLASS}, not {options.class_size}.")
    return address


def host_of(options: argparse.Namespace) -> str:
    """The address to listen on: of a class, or on a Space, all of this machine unless one is named."""
    if options.host:
        return str(options.host)
    return "0.0.0.0" if options.class_mode or os.environ.get(ON_SPACE) else "127.0.0.1"


def add_intro_option(parser: argparse.ArgumentParser) -> None:
    """Add the flag."""
    parser.add_argument(
        "--intro",
        metavar="FILE",
        help="the recorded session that plays when a visitor arrives, or none (default: one that comes with "
        "the program)",
    )


def root_path_of(options: argparse.Namespace) -> str | None:
    """The path of the page behind a proxy; None when there is none. Raises UserError if it is no path."""
    path = (options.root_path or "").rstrip("/")
    if path and not re.fullmatch(r"(/[\w.~-]+)+", path):
        raise UserError(f"--root-path takes a path such as /persona-drift, not {options.root_path!r}.")
    return path or None


def proxies_of(options: argparse.Namespace) -> tuple[Network, ...]:
    """The networks of trusted proxies. Raises UserError for a text that is not an address or network."""
    texts = [text.strip() for text in (options.trusted_proxies or "").split(",") if text.strip()]
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError as error:
        raise UserError(
            "--trusted-proxies takes addresses or networks, such as 127.0.0.1,10.0.0.0/8, "
            f"not {options.trusted_proxies!r}."
        ) from error


def sessions_folder_of(options: argparse.Namespace) -> Path | None:
    """The folder of sessions that visitors may open; None for none. Raises UserError if it is no folder."""
    if not options.sessions:  # a Space passes an unset variable as an empty one
        return None
    folder = Path(options.sessions)
    if not folder.is_dir():
        raise UserError(f"--sessions takes a folder of session files, not {options.sessions!r}.")
    return folder.resolve()


def limits_of(options: argparse.Namespace) -> Limits:
    """The limits from the flags. Raises UserError when one is below 1."""
    return Limits(**{field.name: getattr(options, f"most_{field.name}") for field in fields(Limits)})


def password_of(options: argparse.Namespace) -> str | None:
    """The password; None when there is none. Raises UserError for one that is too short."""
    if not options.password:  # a Space passes an unset variable as an empty one
        return None
    if len(options.password) < SHORTEST_PASSWORD:
        raise UserError(f"The password needs {SHORTEST_PASSWORD} characters or more; choose a longer one.")
    return str(options.password)


def _flag(name: str) -> str:
    return f"--most-{name.replace('_', '-')}"
