"""Progress of long commands: a line on the terminal with the time left, and transformers kept quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Called with what is being done and how far it is: a fraction 0..1, or None where that is unknown.
Progress = Callable[[str, float | None], None]


class ConsoleProgress:
    """A `Progress` that prints to standard error.

    On a terminal it overwrites one line. Elsewhere, as in a log, a task has a line when it begins, when it
    ends, and every `log_every` seconds.
    """

    def __init__(self, log_every: float = 15.0) -> None:
        self._log_every = log_every
        self._message, self._logged = "", float("-inf")

    def __call__(self, message: str, fraction: float | None) -> None:
        text = message if fraction is None else f"{message}: {fraction:.0%}"
        ended = fraction is None or fraction >= 1
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="\n" if ended else "", file=sys.stderr, flush=True)
            return
        now = time.monotonic()
        if ended or message != self._message or now - self._logged >= self._log_every:
            print(text, file=sys.stderr, flush=True)
            self._message, self._logged = message, now


class ProgressLine:
    """Overwrites one line on a terminal; elsewhere, as in a log, prints a line every `log_every` seconds."""

    def __init__(self, label: str, *, log_every: float = 15.0) -> None:
        self._label = label
        self._started = time.monotonic()
        self._first: float | None = None
        self._last_log = float("-inf")
        self._log_every = log_every

    def update(self, fraction: float, note: str = "") -> None:
        """Show that `fraction` (0..1) of the work is done, and the time left by the speed so far."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._started = fraction, now
        done = fraction - self._first
        left = (now - self._started) * (1 - fraction) / done if done > 0 else None
        text = f"{self._label}: {fraction:4.0%} {note}"
        if left is not None:
            text += f", {_duration(left)} left"
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="\n" if fraction >= 1 else "", file=sys.stderr, flush=True)
        elif now - self._last_log >= self._log_every or fraction >= 1:
            self._last_log = now
            print(text, file=sys.stderr, flush=True)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Let transformers log only errors and show no progress bars; its settings are restored afterwards."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
