"""What this process takes of the machine's memory."""

from __future__ import annotations

import sys
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


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
