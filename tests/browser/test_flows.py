"""Smaller things that people do with the page, in Chromium, on the real model and the shipped axis."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.test_stage import demon, talk, users
from tests.helpers.browser import TURN_TIMEOUT, one_turn, reply, set_number

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_scenario_plays_itself_and_stops_when_told(opened):
    page, _ = opened
    demon(page, tokens=6)
    page.locator("body").click(position={"x": 2, "y": 2})
    page.keyboard.press("a")
    expect(page.locator('[data-branch="capped"] .turn')).to_have_count(3, timeout=TURN_TIMEOUT)
    page.keyboard.press("a")
    page.wait_for_function("!document.querySelector('#stop')?.offsetParent", timeout=TURN_TIMEOUT)
    said = page.locator('[data-branch="capped"] .turn').count()
    page.wait_for_timeout(3000)
    assert page.locator('[data-branch="capped"] .turn').count() == said


def test_a_key_answers_again_with_other_random_numbers(opened):
    page, _ = opened
    set_number(page, "temperature", 1)
    talk(page, "Tell me a story about a fox.", tokens=16)
    before = reply(page, "uncapped", 0).inner_text()
    page.locator("body").click(position={"x": 2, "y": 2})
    with one_turn(page):
        page.keyboard.press("r")
    assert users(page) == ["Tell me a story about a fox."]
    assert reply(page, "uncapped", 0).inner_text() != before


def test_a_conversation_is_closed_and_the_other_stays(opened):
    page, _ = opened
    talk(page, "Name a fruit.")
    page.locator("#new-chat").click()
    expect(page.locator(".tok")).to_have_count(0)
    talk(page, "Name a tree.")
    expect(page.locator(".talks .talk")).to_have_count(2)
    page.locator(".talks .talk.current .drop").click()
    expect(page.locator('[data-branch="uncapped"] .user')).to_contain_text("Name a fruit.")
    expect(page.locator(".talks")).to_be_hidden()
    talk(page, "And a nut.")
    assert users(page) == ["Name a fruit.", "And a nut."]


def test_a_plot_is_saved_as_png_and_as_svg(opened, tmp_path: Path):
    page, _ = opened
    demon(page)
    page.locator("#token-plot").hover()
    for title, kind, begins in (("png", "png", b"\x89PNG"), ("SVG", "svg", b"<svg")):
        with page.expect_download() as download:
            page.locator(f'#token-plot .modebar-btn[data-title*="{title}" i]').first.click()
        path = tmp_path / f"plot.{kind}"
        download.value.save_as(path)
        assert path.read_bytes().startswith(begins) and path.stat().st_size > 5000
