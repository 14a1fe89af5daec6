"""One line of progress on the terminal, with the time that is left."""

from __future__ import annotations

import sys
import time


class ProgressLine:
    """Overwrites one line on a terminal; elsewhere (a log) prints a line now and then."""

    def __init__(self, label: str, *, log_every: float = 15.0) -> None:
        self._label = label
        self._started = time.monotonic()
        self._first: float | None = None
        self._last_log = float("-inf")
        self._log_every = log_every

    def update(self, fraction: float, note: str = "") -> None:
        """fraction 0..1 of the work done; the time left counts from the first update."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._started = fraction, now
        done = fraction - self._first
        left = (now - self._started) * (1 - fraction) / done if done > 0 else None
        text = f"{self._label}: {fraction:4.0%} {note}" + (
            f", {_duration(left)} left" if left is not None else ""
        )
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="\n" if fraction >= 1 else "", file=sys.stderr, flush=True)
        elif now - self._last_log >= self._log_every or fraction >= 1:
            self._last_log = now
            print(text, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
