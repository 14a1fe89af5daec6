"""What this process takes of the machine's memory."""

from __future__ import annotations

import sys
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def resident_mib() -> float:
    """Memory this process holds now, MiB (the peak where the system does not tell the current value)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20
    except (OSError, AttributeError):
        return peak_mib()


def peak_mib() -> float:
    """The most memory this process has held, MiB; NaN where the system does not tell."""
    if resource is None:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
