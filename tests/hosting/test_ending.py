"""How the program ends when the system asks it to, with SIGTERM."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import IO

import httpx
import pytest
from gradio_client import Client

from demo.bench.app_process import await_page, free_port
from demo.utils.paths import ROOT

PROMPTLY_S = 15  # far less than the replies and the extraction would take


def start(log: IO[str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=log, stderr=log, text=True)


def end(process: subprocess.Popen[str], log: Path, *statuses: int) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=PROMPTLY_S) in statuses
    assert "terminate called" not in log.read_text() and "Traceback" not in log.read_text()


@pytest.mark.slow
def test_the_page_ends_promptly_and_without_an_abort_in_the_middle_of_replies(tmp_path):
    port, log = free_port(), tmp_path / "log"
    answered = Event()

    def talk() -> None:
        with suppress(Exception):  # the server ends before it has answered
            client = Client(f"http://127.0.0.1:{port}", verbose=False)
            client.predict("Tell me a story.", [], "", True, 0, 1000, api_name="/reply")
            answered.set()

    with log.open("w") as file:
        process = start(file, "app.py", "--port", str(port))
        await_page(f"http://127.0.0.1:{port}/config", process)  # the live page, not the one that waits
        talkers = [Thread(target=talk, daemon=True) for _ in range(3)]
        for talker in talkers:
            talker.start()
        while not running(port):
            time.sleep(0.05)
        end(process, log, 128 + signal.SIGTERM)
    assert not answered.is_set(), "the replies had ended before, so this proves nothing"


def running(port: int) -> int:
    """The number of sequences that run."""
    answer = httpx.post(
        f"http://127.0.0.1:{port}/gradio_api/run/info", json={"data": []}, timeout=60, trust_env=False
    )
    return int(answer.json()["data"][0]["load"]["running"])


@pytest.mark.slow
def test_an_extraction_ends_promptly_in_the_middle_of_rollouts(tmp_path):
    log, out = tmp_path / "log", tmp_path / "axis"
    with log.open("w") as file:
        process = start(file, "-m", "demo.extraction", "--preset", "quick", "--out", str(out))
        while "rollouts" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        end(process, log, 128 + signal.SIGTERM, -signal.SIGTERM)
