"""The page in Chromium, with the real model and the shipped axis, used as a user would use it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.helpers.browser import (
    BRANCHES,
    RUNNING,
    TURN_TIMEOUT,
    begin_a_long_story,
    finished,
    one_turn,
    points,
    reply,
    say,
    set_number,
)

pytestmark = pytest.mark.browser


def test_both_panes_stream_and_both_charts_gain_points(opened):
    page, _ = opened
    set_number(page, "max-new-tokens", 48)
    say(page, "Tell me a long story about the sea.")
    counts = (
        "() => ['uncapped', 'capped'].map(b => document.querySelectorAll(`[data-branch=${b}] .tok`).length)"
    )
    # At one moment, because the browser may be slower than the replies.
    page.wait_for_function(f"({RUNNING})() && ({counts})().every(n => n > 0)", timeout=TURN_TIMEOUT)
    early = page.evaluate(counts)
    finished(page)
    late = page.evaluate(counts)
    assert all(after > before for before, after in zip(early, late, strict=True))
    shown = points(page)
    for branch in BRANCHES:
        expect(reply(page, branch, 0)).not_to_be_empty()
        assert shown["tokenPoints"][branch] > 10
        assert shown["turnPoints"][branch] == 1
    with one_turn(page):
        say(page, "And the moon?")
    assert points(page)["turnPoints"] == {"uncapped": 2, "capped": 2}


def test_scenario_starts_with_one_click_and_the_cap_acts(opened):
    page, _ = opened
    set_number(page, "max-new-tokens", 24)
    with one_turn(page):
        page.locator("button.scenario").first.click()
    expect(page.locator("#system-prompt textarea")).to_have_value(re.compile("You are"))
    assert page.locator('[data-branch="capped"] .tok.fired').count() > 0
    assert page.locator('[data-branch="uncapped"] .tok.fired').count() == 0
    expect(page.locator('[data-branch="capped"] .cap-action')).to_contain_text("% of its tokens")
    # The script's next message is in the box.
    expect(page.locator("#message textarea")).not_to_have_value("")


def test_stop_ends_the_turn_and_keeps_its_tokens(opened):
    page, _ = opened
    begin_a_long_story(page)
    with one_turn(page):
        page.locator("#stop").click()
        expect(page.locator("#stop")).to_be_hidden(timeout=10_000)
    stopped = [reply(page, branch, 0).inner_text() for branch in BRANCHES]
    expect(page.locator(".finish").first).to_contain_text("Stopped")
    set_number(page, "max-new-tokens", 8)
    with one_turn(page):
        say(page, "Thanks.")
    expect(reply(page, "capped", 1)).not_to_be_empty()
    assert [reply(page, branch, 0).inner_text() for branch in BRANCHES] == stopped, "no token may follow"


@pytest.mark.slow
def test_token_limit_is_reported_and_new_chat_clears_the_page(opened):
    page, _ = opened
    set_number(page, "max-new-tokens", 8)
    say(page, "Tell me a long story.")
    expect(page.locator(".finish").first).to_contain_text("token limit", timeout=TURN_TIMEOUT)
    finished(page)
    page.locator("#new-chat").click()
    expect(page.locator(".tok")).to_have_count(0)
    assert points(page)["turnPoints"] == {"uncapped": 0, "capped": 0}
    say(page, "Hello again.")
    expect(reply(page, "uncapped", 0)).not_to_be_empty(timeout=TURN_TIMEOUT)


@pytest.mark.slow
def test_new_chat_during_a_turn_stays_empty(opened):
    page, _ = opened
    begin_a_long_story(page)
    page.locator("#new-chat").click()
    expect(page.locator("#stop")).to_be_hidden(timeout=10_000)
    expect(page.locator(".tok")).to_have_count(0)
    set_number(page, "max-new-tokens", 8)
    with one_turn(page):
        say(page, "Hello.")
    for branch in BRANCHES:
        expect(page.locator(f'[data-branch="{branch}"] .turn')).to_have_count(1)
        expect(reply(page, branch, 0)).not_to_be_empty()
        assert page.locator(f'[data-branch="{branch}"] .tok').count() <= 8, "no token of the story may follow"


def test_invalid_settings_are_refused_in_one_sentence_and_nothing_is_lost(opened):
    page, _ = opened
    set_number(page, "first-layer", 25)
    set_number(page, "last-layer", 18)
    say(page, "Hello there.")
    notice = page.locator(".notices .notice").last
    expect(notice).to_contain_text("from a lower to a higher number", timeout=TURN_TIMEOUT)
    assert notice.inner_text().count(". ") == 0
    expect(page.locator("#message textarea")).to_have_value("Hello there.")
    assert page.locator(".tok").count() == 0
    set_number(page, "first-layer", 18)
    set_number(page, "last-layer", 25)
    set_number(page, "max-new-tokens", 8)
    page.locator("#send").click()
    expect(reply(page, "capped", 0)).not_to_be_empty(timeout=TURN_TIMEOUT)


def test_empty_message_is_refused(opened):
    page, _ = opened
    say(page, "   ")
    expect(page.locator(".notices .notice").last).to_contain_text(
        "Write a message first", timeout=TURN_TIMEOUT
    )


def test_chat_text_is_never_markup(opened):
    page, _ = opened
    set_number(page, "max-new-tokens", 8)
    say(page, "<img src=x onerror='window.hacked=1'><b>bold</b>")
    expect(reply(page, "capped", 0)).not_to_be_empty(timeout=TURN_TIMEOUT)
    finished(page)
    assert page.evaluate("window.hacked") is None
    assert page.locator("#stage .log img, #stage .log b").count() == 0


def test_evaluation_of_the_loaded_model_is_on_the_page(opened):
    page, _ = opened
    page.locator("#evaluation button").first.click()
    expect(page.locator("#evaluation table").first).to_be_visible()
    expect(page.locator("#evaluation")).to_contain_text("Persona susceptibility")
    images = page.locator("#evaluation img")
    assert images.count() == 4
    for number in range(4):
        images.nth(number).scroll_into_view_if_needed()
        assert images.nth(number).evaluate("image => image.decode().then(() => image.naturalWidth > 100)")
