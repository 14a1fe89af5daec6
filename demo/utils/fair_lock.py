"""A lock that is handed over in the order in which threads asked for it."""

from __future__ import annotations

from collections import deque
from threading import Lock


class FairLock:
    """Like `threading.Lock`, as a context manager. Not reentrant.

    A thread that releases a plain lock and asks again at once nearly always gets it, so that another one can
    wait for minutes.
    """

    def __init__(self) -> None:
        self._guard = Lock()
        self._held = False
        self._gates: deque[Lock] = deque()  # one locked gate for each waiting thread

    def __enter__(self) -> None:
        with self._guard:
            if not self._held:
                self._held = True
                return
            gate = Lock()
            gate.acquire()
            self._gates.append(gate)
        gate.acquire()  # until the thread before hands the lock over, which stays held

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._gates:
                self._gates.popleft().release()
            else:
                self._held = False
