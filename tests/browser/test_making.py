"""The page of a model without an axis, in Chromium: from nothing to the live page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from demo.bench.app_process import free_port
from demo.conversation.session_file import open_file
from demo.page.making_page import MakingPage
from demo.page.recordings import INTRO
from demo.page.waiting_page import WaitingPage
from tests.helpers.browser import chromium_page, finished, reply, user_messages
from tests.helpers.hosted import hosted
from tests.helpers.making import CHECKS, REPLIES, ROLES, ScriptedMaker
from tests.helpers.scripted import ScriptedEngine

pytestmark = pytest.mark.browser


@pytest.fixture
def maker() -> ScriptedMaker:
    return ScriptedMaker()


@pytest.fixture
def address(maker: ScriptedMaker) -> Iterator[str]:
    with closing(WaitingPage(None, "127.0.0.1", free_port())) as waiting:
        waiting.show(MakingPage(maker).app)  # type: ignore[arg-type]
        yield f"http://127.0.0.1:{waiting.port}/"


def heading(page: Page):
    return page.locator("#job-title")


def test_a_preset_is_offered_with_its_time_started_stopped_and_continued(maker, address):
    with chromium_page(address, stage=False) as (page, watched):
        quick = page.get_by_role("button", name="Quick")
        expect(heading(page)).to_have_text("tiny-model has no axis yet")
        expect(quick).to_contain_text("90 roles")
        offers = {name: type(offer)(offer.roles, 2.2, 0) for name, offer in maker.now.offers.items()}
        maker.set(phase="ready", offers=offers)
        expect(quick).to_contain_text("about 2 min here")
        quick.click()
        expect(heading(page)).to_have_text("Making the axis of tiny-model")
        expect(page.locator(".progress")).to_contain_text("25% · 1 min 30 s left")
        page.get_by_role("button", name="Stop").click()
        expect(heading(page)).to_have_text("Stopped")
        page.get_by_role("button", name="Go on with Quick").click()
        expect(page.locator(".progress")).to_be_visible()
        assert maker.started == ["quick", "quick"]
        assert watched.errors == [] and watched.outside == []


def test_it_is_seen_happening(maker, address):
    maker.start("quick")
    maker.set(roles=ROLES[:5], replies=REPLIES, halves=0.5)
    with chromium_page(address, stage=False) as (page, watched):
        dots = page.locator(".strip circle")
        expect(dots).to_have_count(5)
        expect(page.locator(".agreement")).to_contain_text("0.50")
        expect(page.locator(".replies li").first).to_contain_text("ghost (not in its role)")
        maker.set(roles=ROLES, halves=0.9)
        expect(dots).to_have_count(len(ROLES))
        expect(page.locator(".agreement")).to_contain_text("0.90")
        frame = page.locator(".strip").bounding_box()
        assert frame is not None
        for dot in dots.all():
            box = dot.bounding_box()
            assert (
                box and frame["x"] <= box["x"] and box["x"] + box["width"] <= frame["x"] + frame["width"] + 1
            )
        assert watched.errors == []


def test_one_can_talk_to_the_model_meanwhile_and_a_refused_message_is_not_lost(maker, address):
    with chromium_page(address, stage=False) as (page, _):
        say, log = page.locator("[name=say]"), page.locator(".chat .log")
        say.fill("Hi")
        say.press("Enter")
        expect(log).to_contain_text("Hello from the model.")
        say.fill("too long")
        say.press("Enter")
        expect(log).to_contain_text("does not fit")
        expect(say).to_have_value("too long")
        say.fill("And now?")
        say.press("Enter")
        expect(log.locator(".model").last).to_have_text("Hello from the model.")
        assert [message["content"] for message in maker.chats[-1]] == [
            "Hi",
            "Hello from the model.",
            "And now?",
        ]


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (390, 844)])
def test_axe_finds_nothing_and_the_page_does_not_scroll_sideways(maker, address, width, height):
    maker.start("quick")
    maker.set(roles=ROLES, replies=REPLIES, halves=0.5, checks=CHECKS)
    with chromium_page(address, width, height, touch=width < 500, stage=False) as (page, _):
        expect(page.locator(".strip circle")).to_have_count(len(ROLES))
        found = Axe().run(page)
        assert [(v["id"], v["nodes"][0]["html"][:160]) for v in found.response["violations"]] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
def test_a_visitor_of_the_intro_is_led_here_and_from_here_to_the_first_scenario(maker):
    port = free_port()
    with (
        closing(WaitingPage(open_file(INTRO), "127.0.0.1", port)) as waiting,
        chromium_page(f"http://127.0.0.1:{port}/") as (page, _),
    ):
        expect(page.locator(".intro")).to_be_visible()
        waiting.show(MakingPage(maker).app)  # type: ignore[arg-type]
        expect(heading(page)).to_have_text("tiny-model has no axis yet")
        maker.set(phase="done", roles=ROLES, checks=CHECKS)
        expect(page.locator(".checks li")).to_have_count(2)
        expect(page.locator(".sentence")).to_contain_text("It passes 1 of its 2 checks")
        page.locator(".live").click()
        waiting.close()
        with hosted(ScriptedEngine(), port=port):
            expect(reply(page, "uncapped", 0)).to_contain_text("Hello there!", timeout=60_000)
            finished(page)
            assert len(user_messages(page)) == 1
