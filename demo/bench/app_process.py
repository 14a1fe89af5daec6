"""Running `python app.py` in a process of its own, for measurements and tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from demo.utils.paths import ROOT


def free_port() -> int:
    """A port of this machine that no program listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(
    flags: Sequence[str], environment: Mapping[str, str] | None = None, port: int | None = None
) -> Iterator[tuple[str, int]]:
    """Run `python app.py` on a free port, without an intro unless `flags` ask for one.

    Args:
        flags: Its command line.
        environment: Variables in addition to those of this process.
        port: None for a free one.

    Yields:
        The page's address and the process id, once the page answers.

    Raises:
        RuntimeError: The program ended or did not answer in time.
    """
    port = free_port() if port is None else port
    command_line = [sys.executable, "app.py", "--port", str(port), "--intro", "none", *flags]
    process = subprocess.Popen(command_line, cwd=ROOT, env={**os.environ, **(environment or {})})
    address = f"http://127.0.0.1:{port}/"
    try:
        # With an intro the page answers before the live one does.
        await_page(f"{address}config" if "--intro" in flags else address, process)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


def await_page(address: str, process: subprocess.Popen[Any]) -> None:
    """Wait until the page answers. Raises RuntimeError when its process ends, or does not answer in time."""
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"app.py ended with status {process.returncode}")
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("app.py did not answer")
