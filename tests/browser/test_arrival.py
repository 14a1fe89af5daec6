"""A page's first moments in Chromium: a message may be faster than the page's own first update, or meet it on the way."""

from __future__ import annotations

import time

import gradio as gr
import pytest
from playwright.sync_api import expect

from demo.page.chat_handlers import ChatHandlers
from tests.helpers.browser import chromium_page, one_turn, points, reply, say
from tests.helpers.hosted import hosted
from tests.helpers.scripted import PatientEngine

pytestmark = [pytest.mark.browser, pytest.mark.slow]
BOTH = {"uncapped": 1, "capped": 1}


def arriving(monkeypatch: pytest.MonkeyPatch, arrive) -> None:
    """Have `arrive(open)` stand in for what a page first gets; `open` gives it."""
    real = ChatHandlers.open

    def opened(self: ChatHandlers, session, request: gr.Request, *cap):
        return arrive(lambda: real(self, session, request, *cap))

    opened.__annotations__ = {"request": gr.Request}  # by which Gradio knows to pass it
    monkeypatch.setattr(ChatHandlers, "open", opened)


def once_answered(patient: PatientEngine, seconds: float):
    """For `arriving`: so long after the whole turn."""

    def late(first):
        while not patient.answered:
            time.sleep(0.05)
        time.sleep(seconds)
        return first()

    return late


@pytest.mark.trust("a message that overtakes the page's first update", "the conversation stays", "faults")
def test_a_message_that_overtakes_the_first_update_stays(monkeypatch, patient):
    arriving(monkeypatch, once_answered(patient, 1))
    with hosted(patient) as address, chromium_page(address) as (page, watched):
        with one_turn(page):
            say(page, "Hello")
        page.wait_for_function("document.querySelectorAll('.shipped option').length > 1")
        expect(reply(page, "capped", 0)).not_to_be_empty()
        assert points(page)["turnPoints"] == BOTH
        assert watched.errors == []


@pytest.mark.trust(
    "the turn's updates lost, the page's first one comes after them",
    "the turn is shown, and counts as ended",
    "faults",
)
def test_a_first_update_that_is_all_that_arrives_is_enough(monkeypatch, patient):
    """As a browser sees it that got the turn's updates and this one as one."""
    silent = ChatHandlers.answer

    def unheard(self, *args):
        for _stage, *others in silent(self, *args):
            yield gr.skip(), *others

    arriving(monkeypatch, once_answered(patient, 0.5))
    monkeypatch.setattr(ChatHandlers, "answer", unheard)
    with hosted(patient) as address, chromium_page(address) as (page, watched):
        with one_turn(page):
            say(page, "Hello")
        expect(reply(page, "capped", 0)).not_to_be_empty()
        assert points(page)["turnPoints"] == BOTH
        assert page.evaluate("sessionStorage.getItem('persona-drift:draft')") is None
        assert watched.errors == []


@pytest.mark.trust("the page's first update lost", "asked for again, and the conversation stays", "faults")
def test_a_first_update_that_is_lost_is_asked_for(monkeypatch, patient):
    arriving(monkeypatch, lambda first: gr.skip())
    with hosted(patient) as address, chromium_page(address) as (page, watched):
        with one_turn(page):
            say(page, "Hello")
        page.wait_for_function("document.querySelectorAll('.shipped option').length > 1", timeout=15_000)
        expect(reply(page, "capped", 0)).not_to_be_empty()
        assert points(page)["turnPoints"] == BOTH
        assert watched.errors == []
