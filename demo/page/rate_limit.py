"""Rate limits: no visitor can use so much that the others are kept from using the page."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from threading import Lock
from typing import TYPE_CHECKING, Any

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.requests import Request

from demo.conversation.settings import BRANCHES
from demo.engine.protocol import Load
from demo.page.hosting import Limits, Network
from demo.space import ON_SPACE
from demo.utils.errors import UserError

if TYPE_CHECKING:  # it takes seconds, and the page that is shown while the model loads does without it
    import gradio as gr

# Login attempts of one address in a minute: enough for a class, and far too few to guess a password.
MOST_LOGINS = 60

# Session files are counted in units of so many bytes, because the limiter keeps an entry for each.
_FILE_UNIT = 256 * 1024

_SOON_S = 2  # after which a program may ask whether a reply has ended


class LaterError(UserError):
    """A limit that passes with time.

    Attributes:
        seconds: after which to try again.
    """

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds


@dataclass
class RateLimiter:
    """The limits of all visitors of a page. It may be used from any thread."""

    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self._per_minute = RateLimitItemPerMinute(self.limits.per_minute)
        self._files_per_hour = RateLimitItemPerHour(self.limits.file_mib_per_hour * 2**20 // _FILE_UNIT)
        self._recent = MovingWindowRateLimiter(MemoryStorage())
        self._running: Counter[str] = Counter()
        self._lock = Lock()

    @property
    def active(self) -> dict[str, int]:
        """The number of running turns of each address that has any."""
        with self._lock:
            return dict(self._running)

    @contextmanager
    def turn(self, address: str, characters: int, load: Load) -> Iterator[None]:
        """One turn of this visitor, from its start to its end. Raises UserError if it may not start."""
        self._check_size_and_load(characters, load)
        with self._lock:
            if self._running[address] >= self.limits.at_once:
                raise LaterError(
                    f"{self.limits.at_once} replies are being written for your address already, "
                    "and no more are allowed at once; wait for one to end.",
                    _SOON_S,
                )
            allowed = f"{self.limits.per_minute} replies a minute are allowed for one address"
            self._count(self._per_minute, address, 1, allowed)
            self._running[address] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[address] -= 1
                if not self._running[address]:
                    del self._running[address]

    def file(self, address: str, characters: int) -> None:
        """Count session files that this visitor opens. Raises UserError when there are too many."""
        allowed = f"{self.limits.file_mib_per_hour} MiB of session files an hour are allowed for one address"
        with self._lock:
            self._count(self._files_per_hour, address, 1 + characters // _FILE_UNIT, allowed)

    def _count(self, limit: RateLimitItem, address: str, cost: int, allowed: str) -> None:
        if not self._recent.hit(limit, address, cost=cost):
            left = self._recent.get_window_stats(limit, address).reset_time - time.time()
            seconds = max(1, round(left))
            raise LaterError(f"No more than {allowed}; try again in {seconds} s.", seconds)

    def _check_size_and_load(self, characters: int, load: Load) -> None:
        if characters > self.limits.characters:
            raise UserError(
                f"That is {characters:,} characters, and no more than {self.limits.characters:,} are allowed "
                "at once; send less."
            )
        waiting = load.waiting // len(BRANCHES)
        if waiting >= self.limits.waiting:
            raise LaterError(
                f"The engine is full and {waiting} visitors wait already; nothing is lost, "
                "so try again in a minute.",
                60,
            )


class LoginLimiter:
    """Limits login attempts. Right and wrong ones count alike, and simultaneous ones count in full."""

    def __init__(self) -> None:
        self._item = RateLimitItemPerMinute(MOST_LOGINS)
        self._recent = MovingWindowRateLimiter(MemoryStorage())

    def too_many(self, address: str) -> bool:
        """Count one more attempt of this address; True when it is over the limit."""
        return not self._recent.hit(self._item, address)

    def is_over(self, address: str) -> bool:
        """Whether this address is over the limit. Nothing is counted."""
        return not self._recent.test(self._item, address)


# The networks of proxies that are believed about the visitor's address; see `trust_proxies`.
_TRUSTED: list[Network] = []


def trust_proxies(networks: Sequence[Network]) -> None:
    """Believe proxies of these networks, and no others, when they report a visitor's address."""
    _TRUSTED[:] = networks


def address_of(request: gr.Request | Request | None) -> str:
    """The visitor's address.

    On a Space, and behind trusted proxies, it is the one that they report. Elsewhere a client could forge the
    header, so it is ignored.
    """
    if request is None:
        return "unknown"
    client: Any = request.client
    own = str(client.host) if client is not None else "unknown"
    if not os.environ.get(ON_SPACE) and not _is_trusted(own):
        return own
    # Every proxy appends the address it saw, so the last address that is not a proxy's is the visitor. The
    # visitor may have forged those before it.
    for entry in reversed(str(request.headers.get("x-forwarded-for") or "").split(",")):
        try:
            address = ip_address(entry.strip())
        except ValueError:
            continue
        if address.is_global if not _TRUSTED else not _is_trusted(entry.strip()):
            return str(address)
    return own


def _is_trusted(address: str) -> bool:
    try:
        return any(ip_address(address) in network for network in _TRUSTED)
    except ValueError:  # not an address, such as the name of a test client
        return False
