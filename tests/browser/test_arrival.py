"""The first moments of a page in Chromium: a message may overtake the page's own first update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import Event

import pytest
from playwright.sync_api import expect

from demo.page.chat_handlers import ChatHandlers, PageUpdate
from tests.helpers.browser import (
    TURN_TIMEOUT,
    chromium_page,
    one_turn,
    points,
    reply,
    say,
    wait_for_first_update,
)
from tests.helpers.hosted import hosted

pytestmark = [pytest.mark.browser, pytest.mark.slow]
BOTH = {"uncapped": 1, "capped": 1}


def replace_first_update(monkeypatch: pytest.MonkeyPatch, update: Callable) -> None:
    """Make a page's first update the result of `update(real)`, where `real()` gives the program's own."""
    original = ChatHandlers.open
    monkeypatch.setattr(ChatHandlers, "open", lambda *args: update(lambda: original(*args)))


def delayed_until(event: Event) -> Callable:
    """For `replace_first_update`: the program's own update, held back until the event is set."""

    def update(real):
        assert event.wait(TURN_TIMEOUT / 1000)
        return real()

    return update


@pytest.mark.trust("a message that overtakes the page's first update", "the conversation stays", "faults")
def test_turn_that_overtakes_the_first_update_stays(monkeypatch, patient):
    turn_shown = Event()
    replace_first_update(monkeypatch, delayed_until(turn_shown))
    with hosted(patient) as address, chromium_page(address) as (page, watched):
        with one_turn(page):
            say(page, "Hello")
        turn_shown.set()
        wait_for_first_update(page)
        expect(reply(page, "capped", 0)).not_to_be_empty()
        assert points(page)["turnPoints"] == BOTH
        assert watched.errors == []


def test_refusal_that_overtakes_the_first_update_stays(monkeypatch, patient):
    refused = Event()
    replace_first_update(monkeypatch, delayed_until(refused))
    with hosted(patient) as address, chromium_page(address) as (page, watched):
        say(page, " ")
        notice = page.locator(".notices .notice")
        expect(notice).to_be_visible()
        refused.set()
        wait_for_first_update(page)
        expect(notice).to_be_visible()
        assert watched.errors == []


@pytest.mark.trust(
    "the turn's updates lost, the page's first one comes after them",
    "the turn is shown, and counts as ended",
    "faults",
)
def test_first_update_alone_shows_the_turn(monkeypatch, patient):
    """Gradio may merge the turn's updates with the first one; then only the first one arrives."""
    turn_over = Event()
    original = ChatHandlers.answer

    def without_stage_updates(*args):
        for update in original(*args):
            yield replace(update, stage=None)
        turn_over.set()

    replace_first_update(monkeypatch, delayed_until(turn_over))
    monkeypatch.setattr(ChatHandlers, "answer", without_stage_updates)
    with hosted(patient) as address, chromium_page(address) as (page, watched):
        with one_turn(page):
            say(page, "Hello")
        expect(reply(page, "capped", 0)).not_to_be_empty()
        assert points(page)["turnPoints"] == BOTH
        assert page.evaluate("sessionStorage.getItem('persona-drift:draft')") is None
        assert watched.errors == []


@pytest.mark.trust("the page's first update lost", "asked for again, and the conversation stays", "faults")
def test_lost_first_update_is_requested_again(monkeypatch, patient):
    replace_first_update(monkeypatch, lambda real: PageUpdate())
    with hosted(patient) as address, chromium_page(address) as (page, watched):
        with one_turn(page):
            say(page, "Hello")
        wait_for_first_update(page, timeout=15_000)
        expect(reply(page, "capped", 0)).not_to_be_empty()
        assert points(page)["turnPoints"] == BOTH
        assert watched.errors == []
