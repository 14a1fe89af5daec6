"""The charts while replies stream, in Chromium, on an engine that generates at a steady rate."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from demo.axis.files import load_axis
from demo.engine.protocol import Sampling
from demo.models.default import DEFAULT_MODEL
from demo.page.layout import build_page, launch_options
from tests.helpers.browser import (
    BRANCHES,
    chromium_page,
    finished,
    one_turn,
    points,
    say,
    set_number,
    wait_for_first_update,
    wait_until_still,
)
from tests.helpers.steady import SteadyEngine

# In CI only: it starts a page of its own.
pytestmark = [pytest.mark.browser, pytest.mark.slow]
# Tokens of a reply: so many that a page far behind does not reach the end before a test is through.
LENGTH = 1000
# Whether anything is drawn on a chart's overlay.
OVERLAY_DRAWN = """(id) => {
  const canvas = document.querySelector(`#${id} ~ .overlay`);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.some((value) => value > 0);
}"""
OVERLAY_EMPTY = f"(id) => !({OVERLAY_DRAWN})(id)"
# How many pixels of a branch's pane lie below what is shown.
BELOW = """(branch) => {
  const log = document.querySelector(`[data-branch="${branch}"] .log`);
  return log.scrollHeight - log.scrollTop - log.clientHeight;
}"""
# Where the newest uncapped token of the token chart lies on the screen.
NEWEST = """() => {
  const chart = document.querySelector("#token-chart");
  const { left, top } = chart.querySelector(".nsewdrag").getBoundingClientRect();
  const { xaxis, yaxis } = chart._fullLayout;
  const { x, y } = chart.data.find(({ meta }) => meta.role === "raw" && meta.branch === "uncapped");
  return [left + xaxis.d2p(x.at(-1)), top + yaxis.d2p(y.at(-1))];
}"""


@pytest.fixture
def streaming() -> Iterator[tuple[Page, SteadyEngine]]:
    """A page on which a long reply streams, at first so slowly that a test sees every token of it."""
    engine = SteadyEngine(rate=3)
    app = build_page(engine, load_axis(DEFAULT_MODEL), DEFAULT_MODEL, "scripted engine", (), Sampling())
    _, address, _ = app.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    try:
        with chromium_page(address) as (page, watched):
            wait_for_first_update(page)
            set_number(page, "max-new-tokens", LENGTH)
            page.evaluate("window.drawn = 0")
            say(page, "Tell me of the sea.")
            wait_for_tokens(page, 3)
            page.evaluate(
                "document.querySelector('#token-chart').on('plotly_afterplot', () => (window.drawn += 1))"
            )
            yield page, engine
            assert watched.errors == []
    finally:
        app.close()


def wait_for_tokens(page: Page, tokens: int) -> None:
    page.wait_for_function(f"window.personaStage.counts().tokenPoints.capped >= {tokens}", timeout=60_000)


def test_overlay_draws_new_tokens_and_plotly_redraws_rarely(streaming):
    page, engine = streaming
    engine.pause = 0.04
    wait_for_tokens(page, 40)
    assert page.evaluate(OVERLAY_DRAWN, "token-chart") and page.evaluate(OVERLAY_DRAWN, "turn-chart")
    before = points(page)["updates"]
    wait_for_tokens(page, 140)
    assert points(page)["updates"] - before >= 25, "there must be many more updates than Plotly redraws"
    assert page.evaluate("window.drawn") < 15, "Plotly redraws to make room, not for every token"
    engine.pause = 0.001
    finished(page)
    for chart in ("token-chart", "turn-chart"):
        page.wait_for_function(OVERLAY_EMPTY, arg=chart)
    lengths = page.evaluate(
        "document.querySelector('#token-chart').data.slice(0, 2).map((trace) => trace.x.length)"
    )
    assert lengths == [LENGTH, LENGTH], "Plotly holds all points when the turn is over"
    assert points(page)["turnPoints"] == {"uncapped": 1, "capped": 1}


def test_zoom_and_hover_text_stay_while_tokens_arrive(streaming):
    page, engine = streaming
    page.evaluate("Plotly.relayout('token-chart', { 'xaxis.range': [2, 8], 'yaxis.range': [-1, 1.5] })")
    wait_for_tokens(page, 10)
    assert page.evaluate("document.querySelector('#token-chart')._fullLayout.xaxis.range") == [2, 8]
    page.evaluate("Plotly.relayout('token-chart', { 'xaxis.autorange': true, 'yaxis.autorange': true })")
    page.locator("#token-chart").hover()  # a pointer over the chart makes Plotly take the overlay's points
    page.wait_for_function("document.querySelector('#token-chart').data[0].x.length >= 10")
    page.mouse.move(*page.evaluate(NEWEST))
    label = page.locator("#token-chart .hoverlayer .hovertext")
    expect(label).to_contain_text("uncapped")
    text = label.text_content()
    wait_for_tokens(page, points(page)["tokenPoints"]["capped"] + 3)
    assert label.text_content() == text, "the hover text must stay while tokens arrive"
    engine.pause = 0.001
    finished(page)


def test_small_steps_up_leave_the_end_though_tokens_arrive_all_the_time(streaming):
    page, engine = streaming
    engine.pause = 0.02
    wait_for_tokens(page, 200)  # longer than the pane
    page.locator('[data-branch="capped"] .log').hover()
    for _ in range(15):  # as a touchpad scrolls: each step is shorter than what counts as the end
        page.mouse.wheel(0, -6)
        page.wait_for_timeout(60)
    tokens = points(page)["tokenPoints"]["capped"]
    wait_for_tokens(page, tokens + 20)
    assert page.evaluate(BELOW, "capped") > 60
    engine.pause = 0.001
    finished(page)


def test_panes_follow_the_replies_until_the_reader_scrolls_back(streaming):
    page, engine = streaming
    engine.pause = 0.02
    wait_for_tokens(page, 300)  # longer than the pane
    engine.pause = 0.3
    page.locator('[data-branch="capped"] .log').hover()
    page.mouse.wheel(0, -90)
    page.wait_for_function(f"({BELOW})('capped') > 60")
    place = page.evaluate("document.querySelector('[data-branch=\"capped\"] .log').scrollTop")
    wait_for_tokens(page, points(page)["tokenPoints"]["capped"] + 6)
    assert page.evaluate("document.querySelector('[data-branch=\"capped\"] .log').scrollTop") == place
    assert page.evaluate(BELOW, "uncapped") < 12, "the other pane still follows"
    engine.pause = 0.001
    finished(page)
    set_number(page, "max-new-tokens", 100)
    for _ in range(2):  # a new message scrolls both panes to their end, and they stay there
        with one_turn(page):
            say(page, "And the moon?")
        wait_until_still(page)
        assert [page.evaluate(BELOW, branch) < 12 for branch in BRANCHES] == [True, True]
