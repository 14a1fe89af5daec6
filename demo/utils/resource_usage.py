"""What a process uses of the machine: memory, threads, open files and sockets."""

from __future__ import annotations

import ctypes
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_SETTLED_AFTER = 5  # equal counts in a row

_POLL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Count:
    """What a server used at one moment.

    Attributes:
        minute: Minutes since counting began.
        mib: Resident memory.
        threads: Threads of the process.
        files: Open file descriptors, sockets included.
        sockets: Internet and Unix sockets that the system lists. A socket whose connection has ended but
            which was not released counts only as a file.
        temp_files: Files in the server's folder for temporary files.
        rows: Sequences that run.
        waiting: Sequences that wait.
        kv_mib: Size of the KV cache, MiB.
    """

    minute: float
    mib: float
    threads: int
    files: int
    sockets: int
    temp_files: int
    rows: int
    waiting: int
    kv_mib: float

    def beyond(self, before: Count) -> dict[str, float]:
        """The counts that are higher than `before`, by how much.

        Memory and KV cache are not compared: an allocator keeps what it had, and the engine's cache
        slots stay as large as they once had to be.
        """
        names = ("threads", "files", "sockets", "temp_files", "rows", "waiting")
        more = {name: getattr(self, name) - getattr(before, name) for name in names}
        return {name: count for name, count in more.items() if count > 0}


class ResourceUsage:
    """Counts what a running server uses."""

    def __init__(self, address: str, pid: int, temp: Path) -> None:
        """Watch the server at `address`, whose process is `pid` and which keeps temporary files in `temp`."""
        self._address, self._temp, self._start = address, temp, time.monotonic()
        self._process = psutil.Process(pid)

    def count(self) -> Count:
        """Count now. The engine's figures come from the server itself."""
        with self._process.oneshot():
            mib = self._process.memory_info().rss / 2**20
            threads, files = self._process.num_threads(), self._process.num_fds()
        sockets = len(self._process.net_connections(kind="all"))
        load = httpx.post(
            f"{self._address}gradio_api/run/info", json={"data": []}, timeout=60, trust_env=False
        )
        engine = load.json()["data"][0]["load"]
        return Count(
            minute=round((time.monotonic() - self._start) / 60, 2),
            mib=round(mib, 1),
            threads=threads,
            files=files,
            sockets=sockets,
            temp_files=sum(path.is_file() for path in self._temp.rglob("*")),
            rows=engine["running"],
            waiting=engine["waiting"],
            kv_mib=round(engine["kv_bytes"] / 2**20, 2),
        )

    def settled(self, patience_s: float) -> Count:
        """Count once nothing runs and no more connections close, at the latest after `patience_s` seconds."""
        end = time.monotonic() + patience_s
        last, equal = self.count(), 0
        while time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
            now = self.count()
            equal = 0 if now.rows or now.files != last.files else equal + 1
            if equal == _SETTLED_AFTER:
                return now
            last = now
        return last


def resident_mib(pid: int | None = None) -> float:
    """Memory that a process, by default this one, holds now, MiB; NaN where it cannot be read."""
    try:
        return psutil.Process(pid).memory_info().rss / 2**20
    except psutil.Error:
        return math.nan


def give_memory_back() -> None:
    """Return memory that is allocated but free to the system, where the C library can.

    glibc keeps the gaps between blocks that live longer, so a long run of large, short-lived tensors would
    hold more and more.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def peak_mib() -> float:
    """The most memory this process has held, MiB; NaN where the system does not report it."""
    if resource is None:
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
