"""The comparison of two conversations in Chromium, without a model and with one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from demo.conversation.session_file import dumps
from demo.page.recordings import ENDING, FOLDER, open_shipped
from tests.helpers.browser import (
    chromium_page,
    one_turn,
    running_app,
    say,
    send_messages,
    start_first_scenario,
    wait_until_still,
)

# In CI only: it starts a page of its own.
pytestmark = [pytest.mark.browser, pytest.mark.slow]
FIRST, SECOND = "menacing-demon", "late-night-talk"
COMPARED = """() => Object.fromEntries(document.querySelector("#turn-chart").data
  .filter(({ meta }) => meta.role === "compared").map(({ meta, y }) => [meta.branch, [...y]]))"""
# The texts as they are read on the page: without the words for screen readers.
TEXTS = """(boxes) => boxes.map((box) => {
  const copy = box.cloneNode(true);
  for (const spoken of copy.querySelectorAll(".spoken")) spoken.remove();
  return copy.textContent;
})"""
COPIED = "() => navigator.clipboard.readText()"


@pytest.fixture(scope="module")
def viewer_address() -> Iterator[str]:
    with running_app("--replay", str(FOLDER / f"{FIRST}{ENDING}")) as address:
        yield address


@pytest.fixture(params=[(1280, 720), (390, 844)], ids=["wide", "phone"])
def viewer(viewer_address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page without a model, with two recordings open, the second shown."""
    with chromium_page(viewer_address, *request.param) as (page, watched):
        expect(page.locator(".replay .play")).to_have_text("Replay")
        expect(page.locator(".compare-with")).to_be_hidden()
        page.locator(".open-button").click()
        page.locator(".shipped").select_option(SECOND)
        expect(page.locator(".conversation")).to_have_count(2)
        yield page
        assert watched.errors == [] and watched.outside == []


def compare_with(page: Page, title: str) -> None:
    page.locator(".compare-with").select_option(label=title)
    page.locator(".compared-turn").first.wait_for()


def test_two_recordings_stand_side_by_side_with_the_words_that_differ_marked(viewer):
    one, other = open_shipped(SECOND), open_shipped(FIRST)
    compare_with(viewer, f"1. {other.title}")
    expect(viewer.locator(".panes")).to_be_hidden()
    expect(viewer.locator(".compared-turn")).to_have_count(max(len(one.turns), len(other.turns)))
    for side, recording in (("left", one), ("right", other)):
        found = viewer.locator(f'[data-side="{side}"] .compared-text').evaluate_all(TEXTS)
        assert found[: len(recording.turns)] == [turn.replies["capped"].text for turn in recording.turns]
    means = viewer.evaluate(COMPARED)
    for branch in ("uncapped", "capped"):
        assert means[branch] == [round(turn.replies[branch].mean, 4) for turn in other.turns]
    expect(viewer.locator(".compared-key")).to_contain_text(other.title)
    settings = viewer.locator(".compared-settings")
    expect(settings).to_contain_text("System prompt")
    expect(settings).to_contain_text(other.turns[0].settings.system_prompt)
    expect(viewer.locator(".compared-turn").last).to_contain_text("no such turn on this side")
    left, right = (recording.turns[0].replies["capped"].mean for recording in (one, other))
    sign = "−" if right < left else ""
    difference = f"right mean minus left mean: {sign}{abs(round(right, 4) - round(left, 4)):.2f}"
    expect(viewer.locator(".compared-gap").first).to_contain_text(difference)
    viewer.locator(".conversation button").first.click()
    expect(viewer.locator('.compared-head[data-side="left"]')).to_contain_text(other.title)
    expect(viewer.locator('.compared-head[data-side="right"]')).to_contain_text(one.title)
    expect(viewer.locator(".compared-turn").last).to_contain_text("left: no such turn on this side")
    viewer.locator(".end-comparison").click()
    expect(viewer.locator(".panes")).to_be_visible()
    assert all(line == [] for line in viewer.evaluate(COMPARED).values())


def test_the_branches_of_one_conversation_are_compared(viewer):
    recording = open_shipped(SECOND)
    compare_with(viewer, "this conversation")
    same = [turn.replies["uncapped"].text == turn.replies["capped"].text for turn in recording.turns]
    assert True in same and False in same, "the recording shows both"
    for index, row in enumerate(viewer.locator(".compared-turn").all()):
        if same[index]:
            expect(row).to_contain_text("the same words")
            expect(row.locator("mark")).to_have_count(0)
    expect(viewer.locator(".compared-turn mark.left").first).to_contain_text("only left: ")
    expect(viewer.locator(".compared-settings dt")).to_have_text(["Cap"])
    viewer.get_by_label("Branch on the left").select_option("capped")
    expect(viewer.locator(".compared-turn mark")).to_have_count(0)
    expect(viewer.locator(".compared-settings")).to_contain_text("their settings are the same")


@pytest.mark.parametrize(("width", "height", "theme"), [(1280, 720, "light"), (390, 844, "dark")])
def test_axe_finds_nothing_in_a_comparison_and_it_does_not_scroll_sideways(
    viewer_address, width, height, theme
):
    with chromium_page(viewer_address, width, height, f"?__theme={theme}") as (page, watched):
        page.locator(".open-button").click()
        page.locator(".shipped").select_option(SECOND)
        compare_with(page, "1. Demon")
        wait_until_still(page)
        found: Any = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa"]})
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found.response["violations"]] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator(".compared-body").evaluate("(body) => body.scrollWidth <= body.clientWidth")
        assert watched.errors == []


def test_another_model_has_units_of_its_own_and_a_closed_conversation_ends_the_comparison(viewer_address):
    recording = replace(open_shipped(FIRST), model="another-model", title="Elsewhere")
    with chromium_page(viewer_address) as (page, watched):
        page.locator(".open-button").click()
        page.locator("dialog.open-session textarea").fill(dumps(recording))
        page.locator('dialog.open-session [data-how="read"]').click()
        expect(page.locator(".conversation")).to_have_count(2)
        page.locator(".conversation button").first.click()
        compare_with(page, "2. Elsewhere")
        expect(page.locator(".units-note")).to_contain_text("right: another-model at layer 20")
        expect(page.locator(".compared-gap", has_text="minus")).to_have_count(0)
        expect(page.locator(".compared-key")).to_contain_text("in its own units")
        page.locator(".conversation .close").last.click()
        expect(page.locator(".notice")).to_contain_text(
            "“Elsewhere” was closed, so the comparison has ended."
        )
        expect(page.locator(".comparison")).to_be_hidden()
        expect(page.locator(".compare-with")).to_be_hidden()
        assert watched.errors == []


def test_the_comparison_follows_a_live_conversation(opened):
    page, _ = opened
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    start_first_scenario(page, tokens=12)
    page.locator("#new-chat").click()
    expect(page.locator('[data-branch="capped"] .reply')).to_have_count(0)
    send_messages(page, "Hello! Who are you?", tokens=12)
    compare_with(page, "1. Demon")
    expect(page.locator(".compared-turn")).to_have_count(1)
    expect(page.locator(".compared-settings")).to_contain_text("System prompt")
    with one_turn(page):
        say(page, "And what do you want?")
        expect(page.locator(".compared-turn").last).to_contain_text("being written")
    expect(page.locator(".compared-turn")).to_have_count(2)
    expect(page.locator(".compared-turn").last.locator('[data-side="left"]')).to_contain_text("mean")
    page.locator(".conversation button").first.click()
    expect(page.locator('.compared-head[data-side="right"] .compared-title')).to_have_text("Free chat")
    expect(page.locator(".compared-turn")).to_have_count(2)
    expect(page.locator(".compare-with option:checked")).to_have_text("2. Free chat")
    page.locator(".copy-comparison").click()
    expect(page.locator(".compared-status")).to_contain_text("Copied")
    copied = page.evaluate(COPIED)
    assert "- left: Demon, capped" in copied and "- right: Free chat, capped" in copied
    right = page.evaluate(COMPARED)["capped"]
    assert f"{right[1]:.2f}".replace("-", "−") in copied.splitlines()[-3], copied
