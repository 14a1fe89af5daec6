"""What a researcher does on the page, in Chromium with the real model: forks, cut replies, seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.helpers.browser import press_key, reply, send_messages, set_number

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DEMON = "Play a demon. Who are you?"


def words_of(page: Page, branch: str, turn: int = 0) -> list[str]:
    return reply(page, branch, turn).locator(".tok").all_text_contents()


def pin(page: Page, branch: str, token: int, turn: int = 0) -> None:
    """Click a token, so that its card stays."""
    reply(page, branch, turn).locator(".tok").nth(token).click()
    expect(page.locator(".tooltip.pinned .fork-form")).to_be_visible()


def wait_for_end(page: Page, branch: str, turn: int = 0) -> None:
    expect(reply(page, branch, turn).locator("..").locator(".foot")).to_contain_text("tokens")
    expect(page.locator("#stop")).to_be_hidden()


def test_a_reply_goes_on_from_a_token_with_an_alternative(opened):
    page, _ = opened
    send_messages(page, DEMON, tokens=12)
    before, other = words_of(page, "capped"), words_of(page, "uncapped")
    pin(page, "capped", 4)
    choice = page.locator(".fork-form .choices button").first
    instead = choice.inner_text()
    choice.click()
    expect(page.locator(".conversation.current")).to_contain_text("Fork at turn 1, token 5")
    wait_for_end(page, "capped")
    after = words_of(page, "capped")
    assert after[:4] == before[:4] and after[4].strip() == instead.strip() != before[4].strip()
    assert words_of(page, "uncapped") == other
    expect(reply(page, "capped", 0).locator(".tok.given")).to_have_count(1)
    page.locator(".conversation button").first.click()
    expect(reply(page, "capped", 0).locator(".tok.given")).to_have_count(0)
    assert words_of(page, "capped") == before


def test_both_replies_begin_with_typed_words_and_the_keyboard_reaches_them(opened):
    page, _ = opened
    send_messages(page, DEMON, tokens=12)
    log = page.locator('.pane[data-branch="uncapped"] .log')
    log.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator(".fork-form")).to_be_visible()
    page.locator(".fork-form input[type=checkbox]").check()
    page.locator(".fork-form input[type=text]").fill("happily")
    page.keyboard.press("Enter")
    expect(page.locator(".conversation.current")).to_contain_text("Fork at turn 1, token 3")
    wait_for_end(page, "capped")
    begins = ["".join(words_of(page, branch)) for branch in ("uncapped", "capped")]
    start = begins[0][: begins[0].index("happily") + len("happily")]
    assert begins[1].startswith(start)


def test_the_card_of_a_token_closes_and_leaves_the_keys_alone(opened):
    page, _ = opened
    send_messages(page, DEMON, tokens=12)
    pin(page, "uncapped", 2)
    page.locator(".fork-form input[type=text]").press_sequentially("unraced")
    expect(page.locator(".fork-form input[type=text]")).to_have_value("unraced")
    page.keyboard.press("Escape")
    expect(page.locator(".tooltip")).to_be_hidden()
    pin(page, "uncapped", 2)
    page.locator(".charts h3").last.click()
    expect(page.locator(".tooltip")).to_be_hidden()


def test_a_cut_reply_goes_on(opened):
    page, _ = opened
    send_messages(page, DEMON, tokens=12)
    before, other = words_of(page, "capped"), words_of(page, "uncapped")
    section = reply(page, "capped", 0).locator("..")
    section.locator(".go-on").click()
    expect(reply(page, "capped", 0).locator(".tok").nth(14)).to_be_visible()
    assert words_of(page, "uncapped") == other, "the other reply stays in sight meanwhile"
    wait_for_end(page, "capped")
    assert words_of(page, "capped")[: len(before) - 1] == before[:-1]
    assert words_of(page, "uncapped") == other
    expect(page.locator(".conversations")).to_be_hidden()


def test_the_tree_of_forks_is_noted_filtered_saved_and_opened_again(opened, tmp_path: Path):
    page, _ = opened
    send_messages(page, DEMON, tokens=12)
    pin(page, "capped", 3)
    page.locator(".fork-form input[type=text]").fill("pancakes")
    page.keyboard.press("Enter")
    expect(page.locator(".conversation.current")).to_contain_text("Fork at turn 1, token 4")
    wait_for_end(page, "capped")
    press_key(page, "f")
    dialog = page.locator("dialog.forks")
    expect(dialog.locator(".tree-row")).to_have_count(2)
    expect(dialog.locator(".tree-row").last).to_contain_text("turn 1, capped, token 4")
    dialog.locator(".tree-row .star").last.click()
    expect(dialog.locator(".tree-row .star").last).to_have_attribute("aria-pressed", "true")
    note = dialog.locator(".tree-row .notes-of input").last
    note.fill("sweet")
    note.press("Tab")
    dialog.locator(".tree-words").fill("PANCAKES")
    expect(dialog.locator(".tree-count")).to_have_text("1 of 2 conversations")
    expect(dialog.locator(".tree-row.not-found")).to_have_count(1)
    dialog.locator(".tree-row").first.get_by_role("button", name="compare").click()
    expect(page.locator(".comparison")).to_be_visible()
    expect(page.locator(".comparison")).to_contain_text("pancakes")
    page.locator(".comparison").get_by_role("button", name="Close").click()
    with page.expect_download() as got:
        page.locator("select.save").select_option("json")
    path = tmp_path / "tree.session.json"
    got.value.save_as(path)
    [fork] = json.loads(path.read_text(encoding="utf-8"))["forks"]
    assert fork["star"] and fork["note"] == "sweet" and fork["point"]["words"].strip() == "pancakes"
    page.reload()
    expect(page.locator(".conversation")).to_have_count(2)
    page.locator(".open-button").click()
    page.locator("dialog.open-session input[type=file]").set_input_files(path)
    page.locator('dialog.open-session [data-how="read"]').click()
    expect(page.locator(".conversation")).to_have_count(4)
    press_key(page, "f")
    expect(dialog.locator(".tree ul ul .tree-row")).to_have_count(2)
    expect(dialog.locator(".tree-row .notes-of input").last).to_have_value("sweet")


def test_seeds_are_listed_with_their_numbers_mean_and_interval(opened):
    page, _ = opened
    page.locator("#settings .toggle-button").click()
    set_number(page, "seeds", 4)
    send_messages(page, DEMON, tokens=12)
    section = reply(page, "capped", 0).locator("..")
    section.locator(".seeds-button").click()
    box = section.locator(".seeds")
    expect(box.locator("li")).to_have_count(4)
    expect(box).to_contain_text("mean of 4 seeds")
    expect(box).to_contain_text("Capped minus uncapped, over 4 pairs")
    expect(box.locator("li b").nth(3)).to_contain_text("seed 3000")
    expect(box.locator("li b").first).to_contain_text("shown above")
    points = page.evaluate("""() => document.getElementById("turn-chart").data
        .filter(({ meta }) => meta.role === "interval").map(({ y }) => y)""")
    assert [len(y) for y in points if y] == [4, 4]
    assert all(low <= mean <= high for low, mean, high, _ in filter(None, points))


def test_panes_have_a_prompt_and_a_temperature_of_their_own_until_they_are_locked(opened):
    page, _ = opened
    page.locator("#settings .toggle-button").click()
    expect(page.locator("#pane-settings")).to_be_hidden()
    page.locator("#locked input").uncheck()
    page.locator("#own-capped textarea").fill("You are a pirate.")
    page.locator("#own-uncapped input[type=number]").fill("0.9")
    page.locator("#own-uncapped input[type=number]").blur()
    capped, uncapped = (page.locator(f'.pane[data-branch="{branch}"]') for branch in ("capped", "uncapped"))
    expect(capped.locator(".system")).to_contain_text("System prompt of this pane: You are a pirate.")
    expect(uncapped.locator(".system")).not_to_contain_text("pirate")
    send_messages(page, "Who are you?", tokens=8)
    for branch, name, value in (("capped", "System prompt", "pirate"), ("uncapped", "Temperature", "0.9")):
        section = reply(page, branch, 0).locator("..")
        expect(section.locator(".how")).to_contain_text("own settings")
        section.locator(".how").click()
        row = section.locator(".how-list dt", has_text=name).locator("+ dd")
        expect(row).to_contain_text(value)
    page.locator("#locked input").check()
    expect(page.locator("#pane-settings")).to_be_hidden()
    expect(capped.locator(".system")).to_contain_text("From your next message on: the model’s own default")


def test_a_third_pane_shows_another_floor(opened):
    page, _ = opened
    page.locator("#settings .toggle-button").click()
    page.locator("#steer-on input").check()
    set_number(page, "steer-alpha", 0)
    page.locator("#locked input").uncheck()
    box = page.locator(
        "#own-steered input[role=listbox], #own-steered [role=combobox], #own-steered input"
    ).last
    box.click()
    page.get_by_role("option", name="p50").click()
    send_messages(page, DEMON, tokens=8)
    third = page.locator('.pane[data-branch="steered"]')
    expect(third.locator(".note").first).to_have_text("capped at floor p50")
    section = reply(page, "steered", 0).locator("..")
    section.locator(".how").click()
    expect(section.locator(".how-list")).to_contain_text("floor p50, layers 14–28")
