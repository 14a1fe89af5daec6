"""An engine process as a user runs it: killed during a reply, restarted, and shared by two pages."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client
from playwright.sync_api import expect

from demo.bench.app_process import free_port
from demo.conversation.conversation import Conversation
from demo.conversation.settings import TurnSettings
from demo.engine.protocol import Sampling
from demo.engine.remote.client import RemoteEngine
from demo.utils.errors import UserError
from demo.utils.paths import ROOT
from tests.helpers.browser import TURN_TIMEOUT, chromium_page, finished, one_turn, reply, running_app, say
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.slow
STORY = "Write a very long story about a lighthouse, with many chapters."
SHOTS = os.environ.get("PERSONA_DRIFT_SHOTS")  # a folder for screenshots, to be looked at


class EngineProcess:
    """Started as a user does. It can be killed and started again at the same address."""

    def __init__(self, *flags: str) -> None:
        self.port, self._flags = free_port(), flags
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "demo.engine.remote.server", "--port", str(self.port), *self._flags]
        self._process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        wait_until(self._accepts_connections, 120)

    def _accepts_connections(self) -> bool:
        assert self._process.poll() is None, "demo.engine.remote.server ended"
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def process() -> Iterator[EngineProcess]:
    process = EngineProcess()
    yield process
    process.kill()


def settings(tokens: int) -> TurnSettings:
    return TurnSettings(Sampling(temperature=0, max_new_tokens=tokens), None)


def test_conversation_survives_a_killed_engine(process):
    engine, conversation = RemoteEngine(process.url), Conversation()
    for _ in conversation.send(engine, "Hello!", settings(8)):
        pass
    before = [turn.replies["capped"].text for turn in conversation.turns]
    story = conversation.send(engine, STORY, settings(500))
    for _ in range(12):
        next(story)
    process.kill()
    with pytest.raises(UserError, match="ended in the middle of this reply"):
        list(story)
    assert [turn.replies["capped"].text for turn in conversation.turns] == before
    with pytest.raises(UserError, match="cannot be reached: start it"):
        conversation.send(engine, STORY, settings(8))
    engine.forget(["anything"])
    assert engine.load.running == 0
    process.start()
    for _ in conversation.send(engine, "Go on.", settings(8)):
        pass
    assert len(conversation.turns) == 2 and conversation.turns[1].replies["capped"].finish is not None


def test_both_panes_report_a_lost_engine_and_recover(process):
    with running_app("--engine", process.url) as address, chromium_page(address) as (page, watched):
        with one_turn(page):
            say(page, "Hello!")
        first = reply(page, "capped", 0).inner_text()
        page.evaluate("document.querySelector('#max-new-tokens input[type=number]').focus()")
        say(page, STORY)
        page.wait_for_function(
            "document.querySelectorAll('section[data-turn=\"1\"] .tok').length > 8", timeout=TURN_TIMEOUT
        )
        process.kill()
        for branch in ("uncapped", "capped"):
            pane = page.locator(f'.pane[data-branch="{branch}"]')
            expect(pane.locator(".notice.error")).to_contain_text("This reply was lost", timeout=40_000)
            expect(pane.locator("section.turn")).to_have_count(1)
        expect(page.locator(".notices .notice")).to_contain_text("ended in the middle of this reply")
        expect(page.locator("#message textarea")).to_have_value(STORY)
        _screenshot(page, "lost")
        finished(page)
        page.locator("#send").click()
        expect(page.locator(".notices .notice").last).to_contain_text("cannot be reached", timeout=10_000)
        _screenshot(page, "unreachable")
        process.start()
        with one_turn(page):
            page.locator("#send").click()
        expect(page.locator(".pane .notice")).to_have_count(0)
        assert reply(page, "capped", 0).inner_text() == first
        assert reply(page, "uncapped", 1).inner_text() and reply(page, "capped", 1).inner_text()
        _screenshot(page, "back")
        assert watched.outside == []


def test_two_pages_share_one_engine(process):
    with running_app("--engine", process.url) as one, running_app("--engine", process.url) as other:
        clients = [Client(address, verbose=False) for address in (one, other)]
        replies = [
            client.submit("Hello!", [], "", api_name="/reply", max_new_tokens=24) for client in clients
        ]
        texts = [reply.result(timeout=120)["capped"]["text"] for reply in replies]
        assert texts[0] == texts[1] != ""
        assert all(client.predict(api_name="/info")["load"]["kv_budget"] > 0 for client in clients)


def _screenshot(page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), animations="disabled")
