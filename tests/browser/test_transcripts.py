"""Chats from elsewhere in Chromium: long ones, files with several chats, and other encodings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.helpers.browser import TURN_TIMEOUT, reply, user_messages

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TURNS = 60


def chat(name: str, turns: int, words: int) -> dict[str, object]:
    """A chat whose replies have so many words, most of which are a token."""
    messages: list[dict[str, str]] = []
    for number in range(1, turns + 1):
        messages.append({"role": "user", "content": f"Tell me about {name} {number}."})
        messages.append({"role": "assistant", "content": " ".join(words * [f"It is {name} {number}."])})
    return {"title": name, "messages": messages}


def open_file(page: Page, path: Path, how: str = "read") -> None:
    page.locator(".open-button").click()
    dialog = page.locator("dialog.open-session")
    dialog.locator("input[type=file]").set_input_files(path)
    expect(dialog.locator("textarea")).not_to_have_value("")
    dialog.locator(f'[data-how="{how}"]').click()


def test_a_long_transcript_is_cut_and_stopped_and_its_layers_are_read(opened, tmp_path: Path):
    page, _ = opened
    path = tmp_path / "long.json"
    path.write_text(json.dumps(chat("hill", TURNS, 80)))
    open_file(page, path)
    blurb = page.locator(".script .blurb")
    expect(blurb).to_contain_text(f"of {TURNS} are read", timeout=TURN_TIMEOUT)
    expect(blurb).to_contain_text("context of 8,192 tokens")
    expect(page.locator("#stop")).to_be_visible()
    first = page.locator('[data-branch="uncapped"] .turn[data-turn="0"] .select-turn')
    expect(first).not_to_contain_text("mean –", timeout=TURN_TIMEOUT)
    page.locator("#stop").click()
    expect(page.locator("#stop")).to_be_hidden(timeout=TURN_TIMEOUT)
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator(".notices")).to_contain_text("stopped after 0 of")
    assert 2 < len(user_messages(page)) < TURNS
    assert reply(page, "capped", 1).inner_text().startswith("It is hill 2.")
    first.click()
    page.locator("#layer-tab").click()
    page.wait_for_function("document.querySelector('#layer-chart').data?.length", timeout=TURN_TIMEOUT)
    expect(page.locator("#layer-view .panel-status")).to_be_hidden()
    page.locator(".open-button").click()
    assert json.loads(page.locator("dialog.open-session textarea").input_value())["title"] == "hill"
    page.locator("dialog.open-session .close").click()
    page.locator("#new-chat").click()
    expect(page.locator(".conversations .conversation")).to_have_count(2)
    page.locator(".conversations .close").first.click()
    expect(page.locator(".turn")).to_have_count(0)


def test_the_page_asks_which_of_several_chats_to_open(opened, tmp_path: Path):
    page, _ = opened
    path = tmp_path / "several.jsonl"
    lines = "\n".join(json.dumps(chat(name, 1, 1)) for name in ("hill", "pond"))
    path.write_text(lines, encoding="utf-16")
    open_file(page, path)
    choice = page.locator(".which-chat")
    expect(choice).to_be_visible(timeout=TURN_TIMEOUT)
    expect(page.locator(".chat-count")).to_contain_text("2 chats")
    choice.select_option(label="2. pond")
    page.locator('dialog.open-session [data-how="read"]').click()
    expect(reply(page, "capped", 0)).to_have_text("It is pond 1.", timeout=TURN_TIMEOUT)
    expect(page.locator(".script")).to_contain_text("chat 2 of 2")
    expect(page.locator("#stop")).to_be_hidden(timeout=TURN_TIMEOUT)


def test_a_file_that_is_no_text_is_refused_in_the_dialog(opened, tmp_path: Path):
    page, _ = opened
    path = tmp_path / "latin.json"
    path.write_bytes("Grüße".encode("latin-1"))
    page.locator(".open-button").click()
    page.locator("dialog.open-session input[type=file]").set_input_files(path)
    expect(page.locator(".file-problem")).to_contain_text("not text in UTF-8")
