"""Waiting for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], seconds: float = 30.0, interval: float = 0.01) -> None:
    """Return once the condition holds; it is checked every `interval` seconds.

    Raises:
        AssertionError: it does not hold within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(interval)
