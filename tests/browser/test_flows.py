"""Less frequent actions on the page in Chromium, with the real model and the shipped axis."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.helpers.browser import (
    TURN_TIMEOUT,
    finished,
    one_turn,
    press_key,
    reply,
    send_messages,
    set_number,
    start_first_scenario,
    user_messages,
)

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_autoplay_sends_the_script_until_it_is_turned_off(opened):
    page, _ = opened
    turns = page.locator('[data-branch="capped"] .turn')
    start_first_scenario(page, tokens=6)
    press_key(page, "a")
    expect(turns).to_have_count(3, timeout=TURN_TIMEOUT)
    page.keyboard.press("a")
    finished(page)
    sent = turns.count()
    page.wait_for_timeout(3000)  # nothing may happen in this time, which is longer than autoplay's pause
    assert turns.count() == sent


def test_shortcut_regenerates_with_other_random_numbers(opened):
    page, _ = opened
    set_number(page, "temperature", 1)
    send_messages(page, "Tell me a story about a fox.", tokens=16)
    before = reply(page, "uncapped", 0).inner_text()
    with one_turn(page):
        press_key(page, "r")
    assert user_messages(page) == ["Tell me a story about a fox."]
    assert reply(page, "uncapped", 0).inner_text() != before


def test_closing_a_conversation_keeps_the_other(opened):
    page, _ = opened
    conversations = page.locator(".conversations")
    send_messages(page, "Name a fruit.")
    page.locator("#new-chat").click()
    expect(page.locator(".tok")).to_have_count(0)
    send_messages(page, "Name a tree.")
    expect(conversations.locator(".conversation")).to_have_count(2)
    conversations.locator(".conversation.current .close").click()
    expect(page.locator('[data-branch="uncapped"] .user')).to_contain_text("Name a fruit.")
    expect(conversations).to_be_hidden()
    send_messages(page, "And a nut.")
    assert user_messages(page) == ["Name a fruit.", "And a nut."]


def test_chart_is_saved_as_png_and_as_svg(opened, tmp_path: Path):
    page, _ = opened
    start_first_scenario(page)
    page.locator("#token-chart").hover()
    for title, kind, begins in (("png", "png", b"\x89PNG"), ("SVG", "svg", b"<svg")):
        with page.expect_download() as download:
            page.locator(f'#token-chart .modebar-btn[data-title*="{title}" i]').first.click()
        path = tmp_path / f"chart.{kind}"
        download.value.save_as(path)
        assert path.read_bytes().startswith(begins) and path.stat().st_size > 5000
