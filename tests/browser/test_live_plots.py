"""What the plots do while replies stream, in Chromium, on an engine that speaks at a steady rate."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from demo.axis.files import load_axis
from demo.engine.protocol import Sampling
from demo.models.default import DEFAULT_MODEL
from demo.page.layout import build_page, launch_options
from tests.helpers.browser import chromium_page, finished, points, say, set_number
from tests.helpers.steady import SteadyEngine

# In CI only: it starts a page of its own.
pytestmark = [pytest.mark.browser, pytest.mark.slow]
INKED = """(id) => {
  const sheet = document.querySelector(`#${id} ~ .ink`);
  return sheet.getContext("2d").getImageData(0, 0, sheet.width, sheet.height).data.some((value) => value > 0);
}"""
# Where the newest uncapped token of the token plot lies on the screen.
NEWEST = """() => {
  const plot = document.querySelector("#token-plot");
  const { left, top } = plot.querySelector(".nsewdrag").getBoundingClientRect();
  const { xaxis, yaxis } = plot._fullLayout;
  const { x, y } = plot.data.find((trace) => trace.meta.role === "raw" && trace.meta.branch === "uncapped");
  return [left + xaxis.d2p(x.at(-1)), top + yaxis.d2p(y.at(-1))];
}"""


@pytest.fixture
def streaming() -> Iterator[tuple[Page, SteadyEngine]]:
    """A page on which a long reply streams, at first so slowly that none of it is missed."""
    engine = SteadyEngine(rate=3)
    app = build_page(engine, load_axis(DEFAULT_MODEL), DEFAULT_MODEL, "scripted engine", (), Sampling())
    _, address, _ = app.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    try:
        with chromium_page(address) as (page, watched):
            set_number(page, "max-new-tokens", 400)
            page.evaluate("window.drawn = 0")
            say(page, "Tell me of the sea.")
            shown(page, 3)
            page.evaluate(
                "document.querySelector('#token-plot').on('plotly_afterplot', () => (window.drawn += 1))"
            )
            yield page, engine
            assert watched.errors == []
    finally:
        app.close()


def shown(page: Page, tokens: int) -> None:
    page.wait_for_function(f"window.personaStage.counts().tokenPoints.capped >= {tokens}", timeout=60_000)


def test_new_tokens_are_ink_and_plotly_draws_now_and_then(streaming):
    page, engine = streaming
    engine.pause = 0.04
    shown(page, 40)
    assert page.evaluate(INKED, "token-plot") and page.evaluate(INKED, "turn-plot")
    before = points(page)["updates"]
    shown(page, 140)
    assert points(page)["updates"] - before >= 25, "many more than Plotly's, on a busy machine too"
    assert page.evaluate("window.drawn") < 15, "Plotly draws to make room, not for every token"
    engine.pause = 0.001
    finished(page)
    page.wait_for_timeout(500)
    assert not page.evaluate(INKED, "token-plot") and not page.evaluate(INKED, "turn-plot"), (
        "all is Plotly's now"
    )
    lengths = page.evaluate(
        "document.querySelector('#token-plot').data.slice(0, 2).map((trace) => trace.x.length)"
    )
    assert lengths == [400, 400]
    assert points(page)["turnPoints"] == {"uncapped": 1, "capped": 1}


def test_a_zoom_and_a_card_stay_while_tokens_come(streaming):
    page, engine = streaming
    page.evaluate("Plotly.relayout('token-plot', { 'xaxis.range': [2, 8], 'yaxis.range': [-1, 1.5] })")
    shown(page, 10)
    assert page.evaluate("document.querySelector('#token-plot')._fullLayout.xaxis.range") == [2, 8]
    page.evaluate("Plotly.relayout('token-plot', { 'xaxis.autorange': true, 'yaxis.autorange': true })")
    page.locator("#token-plot").hover()  # a pointer over the plot: Plotly takes in what was ink
    page.wait_for_timeout(100)
    known = page.evaluate("document.querySelector('#token-plot').data[0].x.length")
    assert known >= 10
    page.mouse.move(*page.evaluate(NEWEST))
    label = page.locator("#token-plot .hoverlayer .hovertext")
    expect(label).to_contain_text("uncapped")
    said = label.text_content()
    shown(page, points(page)["tokenPoints"]["capped"] + 3)
    assert label.text_content() == said, "the card stays while tokens come"
    engine.pause = 0.001
    finished(page)
