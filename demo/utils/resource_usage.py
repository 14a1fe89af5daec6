"""What this process takes of the machine's memory."""

from __future__ import annotations

import sys
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx


def resident_mib(pid: int | None = None) -> float:
    """Memory a process holds now, MiB: this one (the peak where the system does not tell the current value), or another."""
    try:
        pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20
    except (OSError, AttributeError):
        return peak_mib() if pid is None else float("nan")


def peak_mib() -> float:
    """The most memory this process has held, MiB; NaN where the system does not tell."""
    if resource is None:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


_STILL = 5  # counts alike


@dataclass(frozen=True, slots=True)
class Count:
    """minute: since counting began; files: open ones, sockets among them; rows, waiting: replies; kv_mib: KV cache."""

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
        """What there is more of than before. Memory is not compared, an allocator keeps what it had, nor KV cache: the engine's slots
        stay as large as they had to be."""
        names = ("threads", "files", "sockets", "temp_files", "rows", "waiting")
        more = {name: getattr(self, name) - getattr(before, name) for name in names}
        return {name: count for name, count in more.items() if count > 0}


class ResourceUsage:
    def __init__(self, address: str, pid: int, temp: Path) -> None:
        """temp: the folder in which the server makes its temp files."""
        self._address, self._temp, self._start = address, temp, time.monotonic()
        self._pid, self._process = pid, Path("/proc", str(pid))

    def count(self) -> Count:
        links = list(self._open_files())
        load = httpx.post(
            f"{self._address}gradio_api/run/info", json={"data": []}, timeout=60, trust_env=False
        )
        engine = load.json()["data"][0]["load"]
        return Count(
            round((time.monotonic() - self._start) / 60, 2),
            round(resident_mib(self._pid), 1),
            len(list((self._process / "task").iterdir())),
            len(links),
            sum(link.startswith("socket:") for link in links),
            sum(path.is_file() for path in self._temp.rglob("*")),
            engine["running"],
            engine["waiting"],
            round(engine["kv_bytes"] / 2**20, 2),
        )

    def settled(self, patience_s: float) -> Count:
        """The count once nobody is there: as soon as nothing runs and no connection closes any more, or when patience ends."""
        end = time.monotonic() + patience_s
        last, still = self.count(), 0
        while time.monotonic() < end:
            time.sleep(2)
            now = self.count()
            still = 0 if now.rows or now.files != last.files else still + 1
            if still == _STILL:
                return now
            last = now
        return last

    def _open_files(self) -> Iterator[str]:
        for link in (self._process / "fd").iterdir():
            try:
                yield str(link.readlink())
            except OSError:  # closed meanwhile
                continue
