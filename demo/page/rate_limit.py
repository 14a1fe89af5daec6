"""Lets a visitor's turns in, up to the limits, so that none keeps the others out."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from threading import Lock
from typing import Any

import gradio as gr
from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.requests import Request

from demo.conversation.settings import BRANCHES
from demo.engine.protocol import Load
from demo.page.hosting import Limits
from demo.space import ON_SPACE
from demo.utils.errors import UserError

# A minute, of one address: a class gets in, and no guessing gets anywhere.
MOST_LOGINS = 60

_FILE_UNIT = 256 * 1024  # the count keeps an entry for each


@dataclass
class RateLimiter:
    """For all visitors of a page, on any thread."""

    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self._per_minute = RateLimitItemPerMinute(self.limits.per_minute)
        self._files_per_hour = RateLimitItemPerHour(self.limits.file_mib_per_hour * 2**20 // _FILE_UNIT)
        self._recent = MovingWindowRateLimiter(MemoryStorage())
        self._inside: Counter[str] = Counter()
        self._lock = Lock()

    @contextmanager
    def turn(self, who: str, characters: int, load: Load) -> Iterator[None]:
        """One turn of this visitor, from its start to its end. Raises UserError, one sentence, if it may not start."""
        self._check_size_and_room(characters, load)
        with self._lock:
            if self._inside[who] >= self.limits.at_once:
                raise UserError(
                    f"{self.limits.at_once} replies are being written for your address already, and no more are allowed at once; wait for "
                    "one to end."
                )
            self._count(
                self._per_minute,
                who,
                1,
                f"{self.limits.per_minute} replies a minute are given to one address",
            )
            self._inside[who] += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside[who] -= 1
                if not self._inside[who]:
                    del self._inside[who]

    def file(self, who: str, characters: int) -> None:
        """Texts that are opened and stay. Raises UserError when there have been too many."""
        most = self.limits.file_mib_per_hour
        with self._lock:
            said = f"{most} MiB of session files are opened for one address in an hour"
            self._count(self._files_per_hour, who, 1 + characters // _FILE_UNIT, said)

    def _count(self, limit: RateLimitItem, who: str, cost: int, said: str) -> None:
        if not self._recent.hit(limit, who, cost=cost):
            seconds = self._recent.get_window_stats(limit, who).reset_time - time.time()
            raise UserError(f"No more than {said}; try again in {max(1, round(seconds))} s.")

    def _check_size_and_room(self, characters: int, load: Load) -> None:
        if characters > self.limits.characters:
            raise UserError(
                f"That is {characters:,} characters, and no more than {self.limits.characters:,} are taken at once; send less."
            )
        waiting = load.waiting // len(BRANCHES)
        if waiting >= self.limits.waiting:
            raise UserError(
                f"All places are taken and {waiting} visitors wait for one already; nothing is lost, so try again in a minute."
            )


class LoginLimiter:
    """Attempts to log in, right and wrong ones: counted as they come, so that a thousand at once are no way around it."""

    def __init__(self) -> None:
        self._item = RateLimitItemPerMinute(MOST_LOGINS)
        self._recent = MovingWindowRateLimiter(MemoryStorage())

    def too_many(self, who: str) -> bool:
        """Count one more of this address. Those who are in already notice nothing of it."""
        return not self._recent.hit(self._item, who)


def address_of(request: gr.Request | Request | None) -> str:
    """Who asks. On a Space that is what its proxies say; elsewhere such a header can be made up, so it is not looked at."""
    if request is None:
        return "unknown"
    forwarded = str(request.headers.get("x-forwarded-for") or "") if os.environ.get(ON_SPACE) else ""
    # Every proxy adds whom it saw at the end: from there, the first address of the public net is the visitor. What stands further
    # ahead the visitor may have written.
    for part in reversed(forwarded.split(",")):
        try:
            if ip_address(part.strip()).is_global:
                return part.strip()
        except ValueError:
            continue
    client: Any = request.client
    return str(client.host) if client is not None else "unknown"
