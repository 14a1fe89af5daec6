"""`python app.py` with a model that has no axis: made on the page, killed meanwhile, and live at the end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from demo.axis.files import load_axis
from demo.axis.store import AXES_VARIABLE
from demo.bench.app_process import await_page, free_port
from demo.models.default import ensure_default_model, model_cache_dir
from demo.utils.paths import ROOT
from tests.helpers.browser import chromium_page, one_turn, reply
from tests.helpers.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The default model under a name for which no axis ships."""
    folder = tmp_path / "nameless"
    folder.mkdir()
    for path in ensure_default_model(model_cache_dir(), lambda *_: None).iterdir():
        (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@contextmanager
def started(model: Path, log: Path, monkeypatch) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The program. Yields its address once it answers."""
    monkeypatch.setenv(AXES_VARIABLE, str(model.parent / "axes"))
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with log.open("a") as file:
        command = [sys.executable, "app.py", "--model", str(model), "--port", str(port), "--intro", "none"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
        try:
            await_page(address, process)
            yield address, process
        finally:
            process.kill()
            process.wait(timeout=30)


def state(address: str) -> dict:
    return httpx.get(f"{address}/state", timeout=60, trust_env=False).json()


def post(address: str, path: str, **body: object) -> httpx.Response:
    return httpx.post(f"{address}/{path}", json=body, timeout=120, trust_env=False)


def test_from_nothing_to_a_chart_with_a_crash_on_the_way(model, log, monkeypatch):
    with started(model, log, monkeypatch) as (address, process):
        wait_until(lambda: state(address)["offers"]["quick"]["minutes"] is not None, 120, interval=0.5)
        post(address, "start", preset="quick")
        wait_until(lambda: state(address)["share"] > 0.05, 300, interval=0.5)
        assert post(address, "chat", messages=[{"role": "user", "content": "Name a fruit."}]).text.strip()
        seen = state(address)
        assert seen["phase"] == "running" and seen["replies"]
        process.kill()
    with started(model, log, monkeypatch) as (address, _):
        assert state(address)["offers"]["quick"]["done"] > 0
        with chromium_page(f"{address}/", stage=False) as (page, _):
            page.get_by_role("button", name="Go on with Quick").click()
            page.locator(".live").click(timeout=1_200_000)
            page.wait_for_selector("#stage .turn", timeout=120_000)
            reply(page, "capped", 0).locator(".tok").first.wait_for(timeout=120_000)
        with chromium_page(f"{address}/") as (page, _), one_turn(page):
            page.locator("button.scenario").first.click()
    (folder,) = (model.parent / "axes").glob("nameless-*")
    assert load_axis(folder).manifest["gates"].keys() >= {"split_half", "role_order", "auc"}
    assert not (folder / ".unfinished").exists()


def test_it_ends_promptly_while_an_axis_is_made(model, log, monkeypatch):
    with started(model, log, monkeypatch) as (address, process):
        post(address, "start", preset="standard")
        wait_until(lambda: state(address)["phase"] == "running", 120)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert "Traceback" not in log.read_text() and "terminate called" not in log.read_text()
