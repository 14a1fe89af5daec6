"""What a speaker uses, in Chromium: the veil over new replies, text sizes, and the list of turns."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.helpers.browser import (
    chromium_page,
    one_turn,
    press_key,
    reply,
    say,
    send_messages,
    wait_until_still,
)
from tests.helpers.hosted import hosted
from tests.helpers.scripted import ScriptedEngine

pytestmark = pytest.mark.browser

# What would tell how the replies lie.
FIGURES = (".charts", ".summary-bar", '[data-branch="uncapped"] .chip', '[data-branch="capped"] .cap-action')


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with hosted(ScriptedEngine()) as found:
        yield found


@pytest.fixture
def page(address) -> Iterator[Page]:
    with chromium_page(address) as (found, watched):
        yield found
        assert watched.errors == []


def test_new_replies_wait_under_a_veil_until_a_key(page):
    send_messages(page, "Hello.")
    press_key(page, "v")
    expect(page.locator(".predict-button")).to_have_attribute("aria-pressed", "true")
    expect(reply(page, "capped", 0)).to_be_visible()
    for number, lift in enumerate(("key", "button"), start=1):
        with one_turn(page):
            say(page, f"Again {number}.")
        expect(page.locator(".veil")).to_contain_text("Both replies are ready")
        for branch in ("uncapped", "capped"):
            expect(reply(page, branch, number)).to_be_hidden()
        for part in FIGURES:
            expect(page.locator(part).first).to_be_hidden()
        assert "mean" not in page.locator("p.hidden-status").inner_text()
        expect(reply(page, "capped", 0)).to_be_visible()
        press_key(page, "v") if lift == "key" else page.locator(".show-replies").click()
        expect(page.locator(".veil")).to_be_hidden()
        expect(reply(page, "capped", number)).to_be_visible()
        for part in FIGURES:
            expect(page.locator(part).first).to_be_visible()
    press_key(page, "v")
    with one_turn(page):
        say(page, "Without the veil.")
    expect(page.locator(".veil")).to_be_hidden()


@pytest.mark.slow
def test_the_veil_gives_no_figures_to_the_arrow_keys(page):
    press_key(page, "v")
    with one_turn(page):
        say(page, "Hello.")
    page.locator('[data-branch="capped"] .log').focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".tooltip").first).to_be_hidden()
    press_key(page, "v")
    page.locator('[data-branch="capped"] .log').focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".tooltip").first).to_be_visible()
    expect(page.locator("#token-chart .hovertext")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("#token-chart .hovertext")).to_have_count(0)


@pytest.mark.slow
def test_another_conversation_is_shown_without_the_veil(page):
    press_key(page, "v")
    with one_turn(page):
        say(page, "Hello.")
    page.locator("#new-chat").click()
    expect(page.locator(".veil")).to_be_hidden()


def size_of(page: Page, selector: str) -> float:
    return float(page.locator(selector).first.evaluate("(e) => parseFloat(getComputedStyle(e).fontSize)"))


@pytest.mark.slow
def test_text_has_sizes_of_its_own_with_and_without_the_controls(page):
    send_messages(page, "Hello.")
    usual, axis = size_of(page, ".reply"), size_of(page, "#turn-chart .xtick text")
    press_key(page, "+")
    larger = size_of(page, ".reply")
    assert larger > usual
    expect(page.locator("#send")).to_be_visible()
    wait_until_still(page)
    assert size_of(page, "#turn-chart .xtick text") > axis, "the charts' text grows with it"
    press_key(page, "p")
    assert size_of(page, ".reply") == larger, "the chosen size holds while presenting"
    expect(page.locator("#send")).to_be_hidden()
    press_key(page, "-")
    press_key(page, "-")
    assert size_of(page, ".reply") < usual
    page.keyboard.press("Escape")
    page.reload()
    assert size_of(page, "#stage") < 16, "the choice is remembered"


@pytest.mark.slow
def test_any_turn_is_shown_by_keys_arrows_and_the_list(page):
    send_messages(page, "One.")
    turns = page.locator(".turn-list")
    expect(turns).to_be_hidden()
    send_messages(page, "Two.", "Three.")
    expect(turns.locator("select")).to_have_value("2")
    assert turns.locator("option").all_text_contents() == ["turn 1: One.", "turn 2: Two.", "turn 3: Three."]
    press_key(page, "[")
    expect(turns.locator("select")).to_have_value("1")
    expect(page.locator('[data-branch="capped"] .turn.shown .user')).to_contain_text("Two.")
    turns.locator(".back").click()
    expect(page.locator('[data-branch="capped"] .turn.shown .user')).to_contain_text("One.")
    expect(turns.locator(".back")).to_be_disabled()
    turns.locator("select").select_option("2")
    expect(page.locator('[data-branch="capped"] .turn.shown .user')).to_contain_text("Three.")
    expect(turns.locator(".on")).to_be_disabled()
    press_key(page, "]")
    expect(turns.locator("select")).to_have_value("2")


@pytest.mark.slow
def test_a_recording_waits_under_the_veil(page):
    """Otherwise the next turn would begin, and the text of this one would be shown."""
    page.locator(".open-button").click()
    page.locator(".shipped").select_option("menacing-demon")
    expect(page.locator(".replay")).to_be_visible()
    press_key(page, "v")
    page.locator(".speed").select_option("16")
    page.locator(".replay .play").click()
    expect(page.locator(".veil")).to_contain_text("Both replies are ready", timeout=30_000)
    page.wait_for_timeout(1500)
    expect(page.locator('[data-branch="capped"] .turn')).to_have_count(1)
    press_key(page, "v")
    expect(reply(page, "capped", 0)).to_be_visible()
    expect(page.locator('[data-branch="capped"] .turn')).to_have_count(2)
    expect(reply(page, "capped", 1)).to_be_hidden()
