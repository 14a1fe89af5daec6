"""What the page shows beside the projection on the axis, in Chromium with the real model and axis."""

from __future__ import annotations

import csv
import re

import pytest
from playwright.sync_api import Page, expect

from tests.helpers.browser import BRANCHES, reply, send_messages, set_number, wait_until_still

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# How many points the trace of a role and a branch holds, in the charts of tokens and of turns.
POINTS = """([role, branch]) => ["token-chart", "turn-chart"].map((id) =>
  document.getElementById(id).data.find(({ meta }) => meta.role === role && meta.branch === branch)
    .y.filter((y) => y !== null).length)"""


def open_settings(page: Page) -> None:
    page.locator("#settings .toggle-button").click()
    wait_until_still(page)


def choose_second(page: Page, name: str) -> None:
    """Choose the second direction."""
    open_settings(page)
    box = page.locator("#second input").first
    box.click()
    box.press("Control+a")
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    expect(box).to_have_value(re.compile(name))


def has_points(page: Page, role: str, branch: str, turns: int) -> None:
    """Both charts have points of this trace: tokens, and so many turns."""
    page.wait_for_function(
        f"([role, branch, turns]) => {{ const [tokens, means] = ({POINTS})([role, branch]);"
        " return tokens > 4 && means === turns; }",
        arg=[role, branch, turns],
    )


def test_the_plain_reading_and_the_share_of_the_shift_are_shown_at_default_settings(opened):
    page, _ = opened
    send_messages(page, "Play a demon. Who are you?", "What do you want from me?", tokens=12)
    has_points(page, "plain", "capped", 2)
    assert page.evaluate(POINTS, ["second", "uncapped"]) == [0, 0]
    expect(page.locator(".plain-key")).to_be_visible()
    expect(page.locator(".second-key")).to_be_hidden()
    expect(reply(page, "capped", 1).locator("..").locator(".foot")).to_contain_text("read without the cap: ")
    expect(page.locator(".summary-bar .share")).to_contain_text("% of the shift on the axis")
    open_settings(page)
    page.locator("#plain-reading input").uncheck()
    send_messages(page, "And now?", tokens=12)
    expect(page.locator(".plain-key")).to_be_hidden()
    expect(reply(page, "capped", 2).locator("..").locator(".foot")).not_to_contain_text("without the cap")


def test_a_second_direction_is_drawn_coloured_capped_and_exported(opened, tmp_path):
    page, _ = opened
    choose_second(page, "zealot")
    page.locator("#second-use").get_by_label("As well as the axis").check()
    send_messages(page, "Write two lines about the sea.", tokens=12)
    for branch in ("uncapped", "capped"):
        has_points(page, "second", branch, 1)
    expect(page.locator(".second-name")).to_contain_text("zealot")
    expect(page.locator(".summary-bar .along")).to_contain_text("zealot")
    foot = reply(page, "capped", 0).locator("..")
    foot.locator(".how").click()
    expect(foot.locator(".how-list")).to_contain_text("zealot, kept from falling")
    page.locator('[data-display="lens"]').click()
    page.locator(".lens-of").select_option("second")
    coloured = page.locator(".tok.second-low, .tok.second-high").first
    expect(coloured).to_be_visible()
    with page.expect_download() as got:
        page.locator("select.save").select_option("csv")
    path = tmp_path / "tokens.csv"
    got.value.save_as(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["along zealot"] for row in rows if row["branch"] == "capped" and row["projection_after"])
    assert {row["second_cap"] for row in rows if row["branch"] == "capped"} == {"zealot"}


def test_a_direction_that_cannot_be_capped_is_refused_and_nothing_is_lost(opened):
    page, _ = opened
    choose_second(page, "zealot")
    page.locator("#second-use").get_by_label("Instead of the axis").check()
    for control in ("first-layer", "last-layer"):
        page.locator(f"#{control} input").fill("1")
        page.locator(f"#{control} input").blur()
    page.locator("#message textarea").fill("Hello")
    page.locator("#send").click()
    expect(page.locator(".notices")).to_contain_text("has vectors at layers")
    expect(page.locator("#message textarea")).to_have_value("Hello")


def test_a_cap_for_some_replies_says_of_each_where_it_begins_and_whether_it_acts(opened):
    page, _ = opened
    open_settings(page)
    expect(page.locator("#only-below-on input")).to_be_checked()  # as the axis says
    set_number(page, "only-below", -50)
    send_messages(page, "Play a demon. Who are you?", tokens=12)
    texts = ["".join(reply(page, branch, 0).locator(".tok").all_text_contents()) for branch in BRANCHES]
    assert texts[0] == texts[1] != ""
    notes = page.locator('.pane[data-branch="capped"] .begins')
    alone = re.compile(r"^Begins at −?\d+\.\d\d, not below −50\.00: the cap leaves it alone\.$")
    expect(notes).to_have_text([alone])
    expect(page.locator('.pane[data-branch="capped"] .cap-action')).to_have_text(
        "cap leaves this reply alone"
    )
    expect(page.locator(".summary-bar .sentence")).to_contain_text("The cap leaves the capped reply alone.")
    set_number(page, "only-below", 50)
    send_messages(page, "What do you want from me?", tokens=12)
    expect(notes).to_have_text([alone, re.compile(r"^Begins at −?\d+\.\d\d, below 50\.00\.$")])
    expect(page.locator('.pane[data-branch="capped"] .cap-action')).to_contain_text("cap acted on ")
    assert page.locator('.pane[data-branch="uncapped"] .begins:visible').count() == 0
    page.locator("#only-below-on input").uncheck()
    expect(page.locator("#only-below")).to_have_count(0)
    send_messages(page, "And now?", tokens=12)
    expect(reply(page, "capped", 2).locator("..").locator(".begins")).to_be_hidden()
