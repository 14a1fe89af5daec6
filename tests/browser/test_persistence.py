"""The page is reloaded, the line is cut, the server dies: what was said comes back."""

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
from tests.helpers.browser import TURN_TIMEOUT, chromium_page, one_turn, points, reply, say, set_number
from tests.helpers.relay import Relay
from tests.trust import held

pytestmark = pytest.mark.slow
GROUP = "faults"
STORY = "Write a very long story about a lighthouse, with many chapters."
BACK = "Your conversation is back"
LOST_REPLY = "The reply that was being written is lost; its message is in the box."


class Server:
    """`python app.py` on one port, as often as it is started."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/"
        self.start()

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
    """A browser that may complain: a reply that is cut off is an error to Gradio's scripts."""
    with chromium_page(address) as (page, _):
        yield page


def arrived(page: Page) -> None:
    page.wait_for_function("window.personaStage !== undefined", timeout=60_000)


def begin_a_story(page: Page) -> None:
    set_number(page, "max-new-tokens", 1000)
    say(page, STORY)
    page.wait_for_function(
        "document.querySelectorAll('.reply[data-turn=\"1\"] .tok').length > 4", timeout=TURN_TIMEOUT
    )


def first_turn(page: Page) -> tuple[list[str], dict]:
    """What both panes say and how many points the plots have."""
    counts = {kind: points(page)[kind] for kind in ("tokenPoints", "turnPoints")}
    return [reply(page, branch, 0).inner_text() for branch in ("uncapped", "capped")], counts


def expect_back_without_the_story(page: Page, before: tuple[list[str], dict]) -> None:
    """One turn, as it was, with every point of its plots; the message that got no reply waits in the box."""
    expect(page.locator(".notices")).to_contain_text(BACK, timeout=TURN_TIMEOUT)
    expect(page.locator(".notices")).to_contain_text(LOST_REPLY)
    expect(page.locator("#message textarea")).to_have_value(STORY)
    expect(page.locator("#stop")).to_be_hidden()
    assert first_turn(page) == before
    with one_turn(page):
        say(page, "What did I ask first?")
    assert reply(page, "capped", 1).inner_text().strip()
    expect(page.locator(".notices")).to_be_empty()


def test_a_reload_in_mid_reply_brings_the_conversation_back(page):
    page.locator("#system-prompt textarea").fill("Be brief.")
    with one_turn(page):
        say(page, "Name a colour.")
    before = first_turn(page)
    begin_a_story(page)
    page.reload()
    arrived(page)
    expect_back_without_the_story(page, before)
    expect(page.locator("#system-prompt textarea")).to_have_value("Be brief.")
    held(
        "the page reloaded in mid-reply",
        1,
        "the conversation came back, the message of the lost reply in the box",
        GROUP,
    )


def test_every_conversation_comes_back_and_only_in_its_own_tab(page):
    with one_turn(page):
        say(page, "Name a colour.")
    page.locator('.reply[data-turn="0"]').first.hover()
    page.get_by_role("button", name="fork").or_(page.locator(".tools button", has_text="fork")).first.click()
    expect(page.locator(".talks .talk")).to_have_count(2)
    with one_turn(page):
        say(page, "And another.")
    page.reload()
    arrived(page)
    expect(page.locator(".notices")).to_contain_text(BACK, timeout=TURN_TIMEOUT)
    expect(page.locator(".talks .talk")).to_have_count(2)
    expect(page.locator(".talks .talk").nth(1)).to_have_class("talk current")
    expect(reply(page, "capped", 1)).to_have_count(1)
    page.locator(".talks .talk").first.locator("button").first.click()
    expect(reply(page, "capped", 1)).to_have_count(0)
    expect(reply(page, "capped", 0)).to_have_count(1)

    second = page.context.new_page()  # same browser, same cookies
    second.goto(page.url)
    arrived(second)
    second.wait_for_timeout(2000)
    expect(second.locator(".reply")).to_have_count(0)
    with one_turn(second):
        say(second, "What is two and two?")
    expect(page.locator("body")).not_to_contain_text("two and two")
    held("two tabs of one browser, reloads and forks", 3, "each keeps its own, all of it", GROUP)


def test_a_server_that_dies_is_told_and_one_that_starts_again_gets_the_conversation():
    with serving() as server, chromium_page(server.address) as (page, _):
        with one_turn(page):
            say(page, "Name a colour.")
        before = first_turn(page)
        begin_a_story(page)
        server.kill()
        expect(page.get_by_text("Connection to the server was lost").first).to_be_visible(timeout=60_000)
        assert first_turn(page)[0] == before[0], "what was said can still be read"
        server.start()
        expect_back_without_the_story(page, before)
    held(
        "the server killed in mid-reply and started again",
        1,
        "the page says so and has its conversation back",
        GROUP,
    )


def test_a_line_that_is_cut_and_mended():
    with serving() as server:
        relay = Relay(server.port)
        with chromium_page(f"http://127.0.0.1:{relay.port}/") as (page, _):
            with one_turn(page):
                say(page, "Name a colour.")
            before = first_turn(page)
            begin_a_story(page)
            relay.cut()
            expect(page.get_by_text("Connection to the server was lost").first).to_be_visible(timeout=60_000)
            relay.mend()
            expect_back_without_the_story(page, before)
            # And while nothing was being said.
            relay.cut()
            page.wait_for_timeout(3000)
            relay.mend()
            page.wait_for_timeout(3000)
            with one_turn(page):
                say(page, "Still there?")
            assert reply(page, "capped", 2).inner_text().strip()
        relay.close()
    held("the line cut in mid-reply and while idle, and mended", 2, "the conversation went on", GROUP)


def test_a_full_storage_is_told_once_and_the_chat_goes_on(page):
    page.evaluate(
        "for (const n of [1e6, 1e5, 1e4, 1e3, 100, 1]) try { for (let i = 0; ; i++) sessionStorage[n + ':' + i] = 'a'.repeat(n) } catch {}"
    )
    notice = page.locator(".notices")
    for text, told in (("Name a colour.", True), ("And another.", False)):
        with one_turn(page):
            say(page, text)
        if told:
            expect(notice).to_contain_text("too long for the browser to keep")
        else:
            expect(notice).to_be_empty()
    assert reply(page, "capped", 1).inner_text().strip()
    expect(page.locator("#stop")).to_be_hidden()
    held("the browser's storage full", 1, "the chat went on", GROUP)


def test_a_browser_without_storage_works():
    with serving() as server, chromium_page(server.address) as (page, watched):
        page.add_init_script(
            "Object.defineProperty(window, 'sessionStorage', { get() { throw new DOMException('no', 'SecurityError') } })"
        )
        page.reload()
        arrived(page)
        with one_turn(page):
            say(page, "Name a colour.")
        assert reply(page, "capped", 0).inner_text().strip()
        assert not watched.outside
    held("a browser that refuses storage", 1, "the page works", GROUP)
