"""The path of a conversation and the layers of its replies, in Chromium with the real model and axis."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.helpers.browser import TURN_TIMEOUT, send_messages, wait_until_still

pytestmark = [pytest.mark.browser, pytest.mark.slow]
# The branches of the heat maps that are drawn, with the ends of their colour scales.
MAPS = """() => (document.querySelector("#layer-chart").data ?? [])
  .filter(({ type }) => type === "heatmap").map(({ meta, zmin, zmax }) => [meta.branch, zmin, zmax])"""
# The bands of the cap in the heat maps: their axes, edges and dashes.
BANDS = """() => document.querySelector("#layer-chart").layout.shapes
  .filter(({ type }) => type === "rect").map(({ yref, y0, y1, line }) => [yref, y0, y1, line.dash])"""
MEANS = """() => document.querySelector("#layer-chart").data
  .map(({ name, x, y }) => [name, x.length, y.every(Number.isFinite)])"""


def open_layers(page: Page, maps: int) -> None:
    page.locator("#layer-tab").click()
    page.wait_for_function(f"({MAPS})().length === {maps}", timeout=TURN_TIMEOUT)
    wait_until_still(page)


def test_the_length_of_each_path_is_shown_turn_by_turn(opened):
    page, _ = opened
    path = page.locator(".summary-bar .path")
    send_messages(page, "Play a demon. Who are you?", tokens=12)
    expect(path).to_be_hidden()
    send_messages(page, "What is 2 + 2?", "And 3 + 3?", tokens=12)
    lengths = [float(text) for text in path.locator(".lengths span").all_inner_texts()]
    path.locator("summary").click()
    expect(path).to_contain_text("a longer path is no proof of an attack")
    rows = [row.locator("th, td").all_inner_texts() for row in path.locator("tbody tr").all()]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert rows[0][1:] == ["–", "–", "0.00"] * 2
    for column, length in zip((1, 4), lengths, strict=True):
        steps = [float(row[column]) for row in rows[1:]]
        assert min(steps) > 0 and float(rows[2][column + 2]) == length
        assert sum(steps) == pytest.approx(length, abs=0.011)
    page.locator("#message textarea").click()
    expect(path.locator(".card")).to_be_hidden()
    page.keyboard.press("Escape")
    page.locator('[data-branch="uncapped"] .select-turn').first.click()
    expect(path).to_be_hidden()


def test_both_replies_have_their_layers_at_one_scale_and_a_saved_page_keeps_them(opened, tmp_path: Path):
    page, _ = opened
    send_messages(page, "Play a demon. Who are you?", "What do you want?", tokens=12)
    open_layers(page, 2)
    assert page.evaluate(MAPS) == [["uncapped", -1, 2], ["capped", -1, 2]]
    (one, first, last, dash), (other, *edges) = page.evaluate(BANDS)
    assert (one, other, dash) == ("y", "y2", "dash") and edges == [first, last, "solid"]
    page.locator('#layer-view [data-mode="change"]').click()
    page.wait_for_function(f"({MAPS})().length === 1")
    assert page.evaluate(MAPS) == [["capped", -1.5, 1.5]]
    page.locator('#layer-view [data-mode="means"]').click()
    page.wait_for_function(f"({MAPS})().length === 0")
    floors, *lines = page.evaluate(MEANS)
    assert floors == ["floors", last - first, True]
    names = ["uncapped", "capped, without the cap", "capped"]
    assert lines == [[name, 30, True] for name in names]
    expect(page.locator("#layer-view .ramp-key")).to_be_hidden()
    with page.expect_download() as download:
        page.locator("select.save").select_option("html")
    file = tmp_path / "saved.html"
    download.value.save_as(file)
    saved = page.context.new_page()
    errors: list[str] = []
    saved.on("pageerror", lambda error: errors.append(str(error)))
    saved.goto(file.as_uri())
    open_layers(saved, 2)
    status = saved.locator("#layer-view .panel-status")
    expect(status).to_be_hidden()
    saved.locator('[data-branch="uncapped"] .select-turn').first.click()
    expect(status).to_contain_text("were not looked at before this session was saved")
    expect(saved.locator("#layer-chart")).to_be_hidden()
    assert errors == []
