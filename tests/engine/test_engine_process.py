"""`python -m demo.engine.remote.server` as a process of its own: killed in mid-reply, started again, shared by two pages."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client
from playwright.sync_api import expect

from demo.conversation.conversation import Conversation
from demo.conversation.settings import TurnSettings
from demo.engine.protocol import Sampling
from demo.engine.remote.client import RemoteEngine
from demo.utils.errors import UserError
from demo.utils.paths import ROOT
from tests.helpers.browser import TURN_TIMEOUT, chromium_page, finished, one_turn, reply, running_app, say
from tests.helpers.engines import free_port

pytestmark = pytest.mark.slow
STORY = "Write a very long story about a lighthouse, with many chapters."
SHOTS = os.environ.get("PERSONA_DRIFT_SHOTS")  # a folder for what the browser shows, to be looked at


class EngineProcess:
    """Started as a user does; may be killed and started again at the same address."""

    def __init__(self, *flags: str) -> None:
        self.port, self._flags = free_port(), flags
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "demo.engine.remote.server", "--port", str(self.port), *self._flags]
        self._process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        for _ in range(600):
            assert self._process.poll() is None, "demo.engine.remote.server ended"
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError("demo.engine.remote.server did not answer")

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


def test_killed_in_mid_reply_nothing_of_the_conversation_is_lost(process):
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


def test_the_page_says_so_in_both_panes_and_goes_on_when_it_is_back(process):
    with running_app("--engine", process.url) as address, chromium_page(address) as (page, watched):
        with one_turn(page):
            say(page, "Hello!")
        said = reply(page, "capped", 0).inner_text()
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
        _shot(page, "lost")
        finished(page)
        page.locator("#send").click()
        expect(page.locator(".notices .notice").last).to_contain_text("cannot be reached", timeout=10_000)
        _shot(page, "unreachable")
        process.start()
        with one_turn(page):
            page.locator("#send").click()
        expect(page.locator(".pane .notice")).to_have_count(0)
        assert reply(page, "capped", 0).inner_text() == said
        assert reply(page, "uncapped", 1).inner_text() and reply(page, "capped", 1).inner_text()
        _shot(page, "back")
        assert watched.outside == []


def test_two_pages_share_one_engine(process):
    with running_app("--engine", process.url) as one, running_app("--engine", process.url) as other:
        clients = [Client(address, verbose=False) for address in (one, other)]
        jobs = [client.submit("Hello!", [], "", api_name="/reply", max_new_tokens=24) for client in clients]
        texts = [job.result(timeout=120)["capped"]["text"] for job in jobs]
        assert texts[0] == texts[1] != ""
        assert all(client.predict(api_name="/info")["load"]["kv_budget"] > 0 for client in clients)


def _shot(page, name: str) -> None:
    if SHOTS:
        page.wait_for_timeout(400)
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))
