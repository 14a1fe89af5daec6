"""Two visitors on one page: replies side by side, waiting in the queue, closing a tab."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from gradio_client import Client
from playwright.sync_api import Page, expect

from tests.helpers.browser import (
    TURN_TIMEOUT,
    begin_a_long_story,
    chromium_page,
    finished,
    one_turn,
    reply,
    running_app,
    say,
    wait_for_first_update,
)

pytestmark = pytest.mark.slow


def another_visitor(page: Page) -> Page:
    """The same page in a browser context of its own: no cookies or storage in common."""
    browser = page.context.browser
    assert browser is not None
    other = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
    other.goto(page.url)
    wait_for_first_update(other)
    return other


def running(client: Client) -> int:
    return client.predict(api_name="/info")["load"]["running"]


def seconds_until_idle(client: Client, most: float) -> float:
    start = time.monotonic()
    while running(client) and time.monotonic() - start < most:
        time.sleep(0.2)
    return time.monotonic() - start


@pytest.mark.trust("a tab closed in mid-reply", "its rows are free, the others go on", "hosting")
def test_replies_run_side_by_side_and_closing_a_tab_frees_its_sequences(opened, address):
    page, _ = opened
    client = Client(address, verbose=False)
    other = another_visitor(page)
    begin_a_long_story(other)
    with one_turn(page):
        say(page, "Which day comes after Monday?")
        line = page.locator(".load")
        expect(line).to_contain_text("4 replies are being written on this machine", timeout=TURN_TIMEOUT)
        assert "of 2048 MiB" in line.inner_text()
    assert reply(page, "capped", 0).inner_text().strip()
    assert running(client) == 2, "the other visitor's story must continue"
    other.context.close()
    assert seconds_until_idle(client, 20) < 20
    with one_turn(page):
        say(page, "And after that?")
    expect(page.locator(".load")).to_be_hidden()


@pytest.fixture(scope="module")
def one_at_a_time() -> Iterator[str]:
    """A page that answers one conversation at a time."""
    with running_app("--pairs", "1") as address:
        yield address


def test_waiting_visitor_sees_the_queue_and_can_stop(one_at_a_time):
    with chromium_page(one_at_a_time) as (page, watched):
        other = another_visitor(page)
        begin_a_long_story(other)
        say(page, "Which day comes after Monday?")
        waiting = page.locator('[data-branch="uncapped"] .wait').last
        expect(waiting).to_have_text("waiting: 1 conversation is ahead…", timeout=TURN_TIMEOUT)
        expect(page.locator(".load")).to_contain_text("2 waiting")
        page.locator("#stop").click()
        expect(page.locator("#stop")).to_be_hidden(timeout=10_000)
        say(page, "Which day comes after Monday?")
        expect(waiting).to_contain_text("is ahead", timeout=TURN_TIMEOUT)
        other.locator("#stop").click()
        expect(reply(page, "capped", 1)).not_to_be_empty(timeout=TURN_TIMEOUT)
        finished(page)
        assert watched.errors == []
