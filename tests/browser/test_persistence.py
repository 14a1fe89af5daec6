"""The page is reloaded, the connection breaks, or the server dies: the conversation comes back."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, expect

from demo.utils.paths import ROOT
from tests.helpers.browser import (
    BRANCHES,
    TURN_TIMEOUT,
    ask_for_long_replies,
    chromium_page,
    one_turn,
    points,
    reply,
    say,
    user_messages,
    wait_for_first_update,
    wait_until_loaded,
)
from tests.helpers.relay import Relay
from tests.trust import held

pytestmark = pytest.mark.slow
GROUP = "faults"
STORY = "Write a very long story about a lighthouse, with many chapters."
RESTORED = "Your conversation is back"
REPLY_LOST = "The reply that was being written is lost; your message is back in the box."
CONNECTION_LOST = "Connection to the server was lost"  # Gradio's own message
FILL_STORAGE = """for (const n of [1e6, 1e5, 1e4, 1e3, 100, 1]) {
  try { for (let i = 0; ; i++) sessionStorage[n + ':' + i] = 'a'.repeat(n) } catch {}
}"""
REFUSE_STORAGE = """Object.defineProperty(window, 'sessionStorage', {
  get() { throw new DOMException('no', 'SecurityError') },
})"""


class Server:
    """`python app.py`, which can be killed and started again on the same port."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/"
        self.start("--intro", "none")

    def start(self, *flags: str) -> None:
        command = [sys.executable, "app.py", "--port", str(self.port), *flags]
        self._process = subprocess.Popen(command, cwd=ROOT)
        for _ in range(600):
            try:
                urllib.request.urlopen(self.address, timeout=2).close()
                return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError("app.py did not answer")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    """A page that may report errors: a reply that breaks off is an error to Gradio's scripts."""
    with chromium_page(address) as (page, _):
        yield page


def begin_a_story(page: Page, turn: int = 1) -> None:
    ask_for_long_replies(page)
    say(page, STORY)
    tokens = f"document.querySelectorAll('.reply[data-turn=\"{turn}\"] .tok')"
    page.wait_for_function(f"{tokens}.length > 4", timeout=TURN_TIMEOUT)


def first_turn(page: Page) -> tuple[list[str], dict]:
    """The first reply in both panes, and how many points the charts have."""
    counts = {kind: points(page)[kind] for kind in ("tokenPoints", "turnPoints")}
    return [reply(page, branch, 0).inner_text() for branch in BRANCHES], counts


def expect_restored_without_the_story(page: Page, before: tuple[list[str], dict]) -> None:
    """The first turn is as it was, with every point; the message without a reply is back in the box."""
    expect(page.locator(".notices")).to_contain_text(RESTORED, timeout=TURN_TIMEOUT)
    expect(page.locator(".notices")).to_contain_text(REPLY_LOST)
    expect(page.locator("#message textarea")).to_have_value(STORY)
    expect(page.locator("#stop")).to_be_hidden()
    assert first_turn(page) == before
    with one_turn(page):
        say(page, "What did I ask first?")
    assert reply(page, "capped", 1).inner_text().strip()
    expect(page.locator(".notices")).to_be_empty()


def test_reload_during_a_reply_restores_the_conversation(page):
    page.locator("#system-prompt textarea").fill("Be brief.")
    with one_turn(page):
        say(page, "Name a colour.")
    before = first_turn(page)
    begin_a_story(page)
    page.reload()
    wait_until_loaded(page)
    expect_restored_without_the_story(page, before)
    expect(page.locator("#system-prompt textarea")).to_have_value("Be brief.")
    held(
        "the page reloaded in mid-reply",
        1,
        "the conversation came back, the message of the lost reply in the box",
        GROUP,
    )


def test_reload_during_the_first_reply_puts_its_message_back(page):
    begin_a_story(page, 0)
    page.reload()
    wait_until_loaded(page)
    expect(page.locator("#message textarea")).to_have_value(STORY)
    expect(page.locator(".notices")).to_contain_text(REPLY_LOST)
    expect(page.locator(".notices")).not_to_contain_text(RESTORED)
    with one_turn(page):
        say(page, "Name a colour.")
    assert user_messages(page) == ["Name a colour."]


def test_all_conversations_are_restored_in_their_own_tab_only(page):
    conversations = page.locator(".conversations .conversation")
    with one_turn(page):
        say(page, "Name a colour.")
    page.locator(".tools button", has_text="fork").first.click()
    expect(conversations).to_have_count(2)
    with one_turn(page):
        say(page, "And another.")
    page.reload()
    wait_until_loaded(page)
    expect(page.locator(".notices")).to_contain_text(RESTORED, timeout=TURN_TIMEOUT)
    expect(conversations).to_have_count(2)
    expect(conversations.nth(1)).to_have_class("conversation current")
    expect(reply(page, "capped", 1)).to_have_count(1)
    conversations.first.locator("button").first.click()
    expect(reply(page, "capped", 1)).to_have_count(0)
    expect(reply(page, "capped", 0)).to_have_count(1)

    second = page.context.new_page()  # the same browser and cookies
    second.goto(page.url)
    wait_until_loaded(second)
    wait_for_first_update(second)
    expect(second.locator(".reply")).to_have_count(0)
    with one_turn(second):
        say(second, "What is two and two?")
    expect(second.locator('[data-branch="capped"] .reply')).to_have_count(1)
    expect(page.locator("body")).not_to_contain_text("two and two")
    held("two tabs of one browser, reloads and forks", 3, "each keeps its own, all of it", GROUP)


def test_entries_of_an_earlier_version_are_restored(page):
    with one_turn(page):
        say(page, "Name a colour.")
    before = first_turn(page)
    page.evaluate(
        """() => {
          for (const name of Object.keys(sessionStorage).filter((key) => key.includes(":conversation:"))) {
            sessionStorage.setItem(name.replace(":conversation:", ":talk:"), sessionStorage.getItem(name));
            sessionStorage.removeItem(name);
          }
        }"""
    )
    page.reload()
    wait_until_loaded(page)
    expect(page.locator(".notices")).to_contain_text(RESTORED, timeout=TURN_TIMEOUT)
    assert first_turn(page) == before
    names = page.evaluate("Object.keys(sessionStorage)")
    assert not any(":talk:" in name for name in names), "they are stored under the new name"


def test_conversation_survives_a_server_that_dies_and_restarts():
    with serving() as server, chromium_page(server.address) as (page, _):
        with one_turn(page):
            say(page, "Name a colour.")
        before = first_turn(page)
        begin_a_story(page)
        server.kill()
        expect(page.get_by_text(CONNECTION_LOST).first).to_be_visible(timeout=60_000)
        assert first_turn(page)[0] == before[0], "earlier replies must stay readable"
        server.start()
        expect_restored_without_the_story(page, before)
    held(
        "the server killed in mid-reply and started again",
        1,
        "the page says so and has its conversation back",
        GROUP,
    )


def test_conversation_survives_a_connection_that_breaks_and_recovers():
    with serving() as server:
        relay = Relay(server.port)
        with chromium_page(f"http://127.0.0.1:{relay.port}/") as (page, _):
            with one_turn(page):
                say(page, "Name a colour.")
            before = first_turn(page)
            begin_a_story(page)
            relay.cut()
            expect(page.get_by_text(CONNECTION_LOST).first).to_be_visible(timeout=60_000)
            relay.mend()
            expect_restored_without_the_story(page, before)
            # Once more while no reply is being written: the page shows nothing of it that could be awaited.
            relay.cut()
            page.wait_for_timeout(3000)
            relay.mend()
            page.wait_for_timeout(3000)
            with one_turn(page):
                say(page, "Still there?")
            assert reply(page, "capped", 2).inner_text().strip()
        relay.close()
    held("the line cut in mid-reply and while idle, and mended", 2, "the conversation went on", GROUP)


def test_full_storage_is_reported_once_and_the_chat_continues(page):
    page.evaluate(FILL_STORAGE)
    notice = page.locator(".notices")
    with one_turn(page):
        say(page, "Name a colour.")
    expect(notice).to_contain_text("too long for the browser to store")
    with one_turn(page):
        say(page, "And another.")
    expect(notice).to_be_empty()
    assert reply(page, "capped", 1).inner_text().strip()
    expect(page.locator("#stop")).to_be_hidden()
    held("the browser's storage full", 1, "the chat went on", GROUP)


def test_page_works_in_a_browser_without_storage():
    with serving() as server, chromium_page(server.address) as (page, watched):
        page.add_init_script(REFUSE_STORAGE)
        page.reload()
        wait_until_loaded(page)
        with one_turn(page):
            say(page, "Name a colour.")
        assert reply(page, "capped", 0).inner_text().strip()
        assert not watched.outside
    held("a browser that refuses storage", 1, "the page works", GROUP)
