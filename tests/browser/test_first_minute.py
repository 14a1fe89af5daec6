"""What a stranger meets first, in Chromium: the recording that plays, the way to a live reply, the tour."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from demo.bench.app_process import free_port
from demo.conversation.scenarios import load_scenarios
from demo.conversation.session_file import open_file
from demo.conversation.settings import CAPPED, UNCAPPED
from demo.page.recordings import INTRO
from demo.page.waiting_page import WaitingPage
from tests.helpers.browser import (
    chromium_page,
    finished,
    one_turn,
    press_key,
    reply,
    say,
    start_first_scenario,
    user_messages,
)
from tests.helpers.hosted import hosted
from tests.helpers.scripted import ScriptedEngine

pytestmark = pytest.mark.browser
SIZES = [(1280, 720), pytest.param(1920, 1080, marks=pytest.mark.slow), (390, 844)]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with hosted(ScriptedEngine(), intro=open_file(INTRO)) as found:
        yield found


def recorded_text(branch: str) -> str:
    """The beginning of what the recording says."""
    return open_file(INTRO).turns[0].replies[branch].text.strip()[:20]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_recording_plays_at_once_under_three_lines(address, width, height):
    with chromium_page(address, width, height, touch=width < 500) as (page, watched):
        intro = page.locator(".intro")
        expect(intro).to_be_in_viewport(ratio=1)
        assert intro.locator("p").count() == 3
        expect(intro).to_contain_text("answers every message twice")
        for branch in (UNCAPPED, CAPPED):
            expect(reply(page, branch, 0)).to_contain_text(recorded_text(branch))
        expect(page.locator(".replay .play")).to_have_text("Pause")
        expect(page.locator(".tools")).to_have_count(0)
        assert watched.errors == []


def test_one_click_leads_to_a_live_reply(address):
    with chromium_page(address) as (page, watched):
        expect(reply(page, UNCAPPED, 0)).not_to_be_empty()
        with one_turn(page):
            page.locator(".try-live").click()
        expect(page.locator(".intro")).to_be_hidden()
        assert user_messages(page) == [load_scenarios()[0].turns[0]]
        expect(reply(page, UNCAPPED, 0)).to_contain_text("Hello there!")
        assert watched.errors == []


@pytest.mark.slow
def test_a_message_takes_the_place_of_the_recording(address):
    with chromium_page(address) as (page, watched):
        expect(reply(page, UNCAPPED, 0)).not_to_be_empty()
        with one_turn(page):
            say(page, "What is the sea?")
        expect(page.locator(".intro")).to_be_hidden()
        assert user_messages(page) == ["What is the sea?"]
        expect(page.locator(".replay")).to_be_hidden()
        with one_turn(page):
            say(page, "And the sky?")
        assert user_messages(page) == ["What is the sea?", "And the sky?"]
        assert watched.errors == []


@pytest.mark.slow
def test_shortcuts_do_nothing_to_the_recording(address):
    with chromium_page(address) as (page, watched):
        expect(reply(page, UNCAPPED, 0)).not_to_be_empty()
        for key in "ur":
            press_key(page, key)
        page.wait_for_timeout(300)
        expect(page.locator(".notice")).to_have_count(0)
        expect(page.locator(".intro")).to_be_visible()
        assert watched.errors == []


@pytest.mark.slow
def test_a_reloaded_conversation_comes_back_instead_of_the_recording(address):
    with chromium_page(address) as (page, _):
        with one_turn(page):
            say(page, "What is the sea?")
        page.reload()
        expect(page.locator(".notice")).to_contain_text("Your conversation is back")
        assert user_messages(page) == ["What is the sea?"]
        expect(page.locator(".intro")).to_be_hidden()


@pytest.mark.slow
def test_nothing_moves_for_users_who_asked_for_less_motion(address):
    with chromium_page(address) as (page, _):
        page.emulate_media(reduced_motion="reduce")
        page.reload()
        recording = open_file(INTRO)
        expect(page.locator('[data-branch="capped"] .turn')).to_have_count(len(recording.turns))
        expect(page.locator(".replay .play")).to_have_text("Replay")


@pytest.mark.slow
def test_the_page_that_waits_for_the_model_leads_to_the_live_one():
    """A click before the model is there is remembered: the live page starts the scenario by itself."""
    port = free_port()
    waiting = WaitingPage(open_file(INTRO), "127.0.0.1", port)
    with chromium_page(f"http://127.0.0.1:{port}/") as (page, watched):
        expect(reply(page, CAPPED, 0)).to_contain_text(recorded_text(CAPPED))
        button = page.locator(".try-live")
        button.click()
        expect(button).to_have_text("Loading the model\u2026")
        waiting.close()
        with hosted(ScriptedEngine(), port=port):
            expect(reply(page, UNCAPPED, 0)).to_contain_text("Hello there!", timeout=30_000)
            finished(page)
            assert user_messages(page) == [load_scenarios()[0].turns[0]]
            assert "#live" not in page.url, "a reload would start the scenario again"
        outside = [url for url in watched.outside if str(port) not in url]
        assert outside == []


@pytest.mark.slow
def test_further_scenarios_lie_in_groups_under_a_button(address):
    with chromium_page(address) as (page, watched):
        scenarios = load_scenarios()
        top = page.locator("#top button.scenario")
        expect(top).to_have_text([one.title for one in scenarios if one.first])
        further = page.locator("#all-scenarios")
        expect(further).to_be_hidden()
        page.locator("#more-scenarios").click()
        expect(further).to_be_visible()
        listed = further.locator("button.scenario")
        assert sorted(titles(listed)) == sorted(one.title for one in scenarios if not one.first)
        assert all(one.get_attribute("title") for one in listed.all())
        page.keyboard.press("Escape")
        expect(further).to_be_hidden()
        page.locator("#more-scenarios").click()
        with one_turn(page):
            further.get_by_text("Pirate tale").click()
        expect(further).to_be_hidden()
        expect(page.locator(".script b")).to_have_text("Pirate tale")
        assert watched.errors == []


@pytest.mark.slow
def test_a_scenario_runs_with_its_own_seed():
    engine = ScriptedEngine()
    pirate = next(one for one in load_scenarios() if one.seed)
    with hosted(engine) as found, chromium_page(found) as (page, _):
        page.locator("#more-scenarios").click()
        for turn in range(2):
            with one_turn(page):
                button = page.get_by_role("button", name=pirate.title, exact=True)
                (page.locator("#send") if turn else button).click()
            assert {request.sampling.seed for request in engine.requests} == {pirate.seed + turn}


@pytest.mark.slow
def test_the_tour_has_four_steps_and_is_offered_once(address):
    with chromium_page(address) as (page, watched):
        page.locator(".intro .start-tour").click()
        card = page.locator(".tour")
        seen = []
        for number in range(1, 5):
            expect(card.locator(".tour-count")).to_have_text(f"{number} of 4")
            expect(card).to_be_in_viewport(ratio=1)
            expect(page.locator(".tour-target")).to_have_count(1)
            seen.append(card.locator("h2").inner_text())
            page.keyboard.press("ArrowRight")
        assert len(set(seen)) == 4
        expect(card).to_be_hidden()
        expect(page.locator(".intro .start-tour")).to_be_hidden()
        page.reload()
        expect(page.locator(".intro")).to_be_visible()
        expect(page.locator(".intro .start-tour")).to_be_hidden()
        press_key(page, "?")
        page.locator("dialog.keys .start-tour").click()
        expect(card).to_be_visible()
        page.keyboard.press("Escape")
        expect(card).to_be_hidden()
        expect(page.locator(".tour-target")).to_have_count(0)
        assert watched.errors == []


@pytest.mark.slow
def test_a_long_note_is_one_line_until_it_is_opened():
    with hosted(ScriptedEngine()) as found, chromium_page(found) as (page, _):
        start_first_scenario(page)
        note = page.locator(".script summary")
        assert not whole(page, ".script summary")
        note.press("Enter")
        page.wait_for_timeout(100)
        assert whole(page, ".script summary")
        expect(page.locator(".script .blurb")).to_have_text(load_scenarios()[0].blurb)


@pytest.mark.slow
def test_a_content_warning_is_never_cut():
    with hosted(ScriptedEngine()) as found, chromium_page(found) as (page, _):
        warned = next(one for one in load_scenarios() if one.first and one.content_warning)
        with one_turn(page):
            page.get_by_role("button", name=warned.title, exact=True).click()
        warning = page.locator(".content-warning")
        expect(warning).to_have_text(warned.content_warning)
        assert whole(page, ".content-warning")


def titles(buttons: Locator) -> list[str]:
    return [text.strip() for text in buttons.all_text_contents()]


def whole(page: Page, selector: str) -> bool:
    """Whether all text of an element can be seen."""
    fits = "(e) => e.scrollWidth <= e.clientWidth + 1 && e.scrollHeight <= e.clientHeight + 1"
    return bool(page.locator(selector).evaluate(fits))
