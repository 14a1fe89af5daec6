"""The persona map in Chromium: what moves, what can be read off it, and what a browser without WebGL sees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect

from demo.axis.axis import AssistantAxis
from demo.axis.files import load_axis, save_axis
from tests.helpers.axes import with_components
from tests.helpers.browser import chromium_page, one_turn, running_app, say, set_number

# In CI only: it starts a page of its own.
pytestmark = [pytest.mark.browser, pytest.mark.slow]
TURN_TIMEOUT = 120_000
# Where the last point of each reply's trace is drawn, in pixels. An empty trace is not in the picture.
MARKERS = """() => {
  const traces = [...document.querySelectorAll('#map-plot .scatterlayer .trace')].slice(4);
  return traces.map((trace) => [...trace.querySelectorAll('.point')].at(-1).getAttribute('transform'));
}"""
WATCH_MARKERS = f"""() => {{
  window.seen = [new Set(), new Set()];
  setInterval(() => ({MARKERS})().forEach((at, branch, all) => all.length === 2 && seen[branch].add(at)), 20);
}}"""
# Texts and boxes of the labels that are always shown.
LABELS = """() => [...document.querySelectorAll('#map-plot .textpoint text')].map((text) => {
  const { left, right, top, bottom } = text.getBoundingClientRect();
  return { text: text.textContent, left, right, top, bottom };
})"""


def axis_with_map() -> AssistantAxis:
    """The shipped axis with made-up components: PC1 is the axis itself, and the roles lie on a spiral."""
    axis = load_axis("smollm2-135m-instruct")
    pca = with_components(axis).pca
    assert pca is not None
    pca[0] = axis.unit
    turns = torch.linspace(0, 12, 60)
    roles = [
        {"name": f"role {n}", "n": 1, "projection": x, "pc": [x, y, z]}
        for n, (x, y, z) in enumerate(torch.stack([turns / 9 - 0.7, turns.sin(), turns.cos()], 1).tolist())
    ]
    return replace(axis, pca=pca, manifest={**axis.manifest, "roles": roles})


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("axis")
    save_axis(axis_with_map(), folder)
    with running_app("--axis", str(folder)) as address:
        yield address


def open_map(page: Page) -> None:
    page.locator("#map-tab").click()
    page.wait_for_function("document.querySelectorAll('#map-plot .scatterlayer .trace').length >= 4")


def answer(page: Page, text: str, tokens: int) -> None:
    set_number(page, "max-new-tokens", tokens)
    with one_turn(page):
        say(page, text)


def test_both_markers_move_and_a_role_tells_its_name(address):
    with chromium_page(address) as (page, watched):
        open_map(page)
        assert page.evaluate(MARKERS) == []
        page.evaluate(WATCH_MARKERS)
        answer(page, "Tell me about the sea.", 64)
        moves = page.evaluate("seen.map((places) => places.size)")
        assert min(moves) > 4, moves
        page.wait_for_timeout(500)
        settled = page.evaluate(MARKERS)
        assert len(settled) == 2
        page.set_viewport_size({"width": 1281, "height": 720})
        page.set_viewport_size({"width": 1280, "height": 720})
        page.wait_for_timeout(500)
        assert page.evaluate(MARKERS) == settled, "where it has moved to is where a fresh drawing puts it"
        answer(page, "And the moon?", 8)
        trail = page.evaluate(
            "document.querySelector('#map-plot').data.slice(-3, -1).map((trace) => trace.x.length)"
        )
        assert trail == [2, 2]
        dot = page.locator("#map-plot .scatterlayer .trace").first.locator(".point").first.bounding_box()
        assert dot is not None
        page.mouse.move(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2)
        expect(page.locator("#map-plot .hoverlayer")).to_contain_text("role 0")
        expect(page.locator("#map-plot .hoverlayer")).to_contain_text("projection −0.70")
        assert watched.errors == [] and watched.outside == []


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1280, 720), (390, 844)])
def test_labels_do_not_lie_on_one_another(address, width, height):
    with chromium_page(address, width, height) as (page, watched):
        open_map(page)
        for view in ("12", "13"):
            page.locator(f'#map-view [data-view="{view}"]').click()
            page.wait_for_timeout(600)
            labels = page.evaluate(LABELS)
            assert {"default Assistant", "role 0", "role 59"} <= {label["text"] for label in labels}
            for index, a in enumerate(labels):
                for b in labels[:index]:
                    apart = (
                        a["right"] <= b["left"] or b["right"] <= a["left"]
                        or a["bottom"] <= b["top"] or b["bottom"] <= a["top"]
                    )  # fmt: skip
                    assert apart, (a, b)
        assert watched.errors == []


def test_the_token_plot_catches_up_when_the_map_is_put_away(address):
    with chromium_page(address) as (page, watched):
        open_map(page)
        answer(page, "Hello.", 8)
        page.locator("#token-tab").click()
        expect(page.locator("#map-view")).to_be_hidden()
        page.wait_for_function(
            "(({ uncapped, capped }) => uncapped > 0 && capped > 0)(personaStage.counts().tokenPoints)"
        )
        assert watched.errors == []


def test_without_webgl_the_map_stays_flat_and_says_so(address):
    with chromium_page(address) as (page, watched):
        open_map(page)
        page.evaluate("HTMLCanvasElement.prototype.getContext = () => null")
        page.locator('#map-view [data-view="3d"]').click()
        expect(page.locator("#map-view .flat")).to_be_visible()
        assert page.locator('#map-view [data-view="12"]').get_attribute("aria-pressed") == "true"
        assert page.locator("#map-plot .scatterlayer .trace").count() == 4
        assert watched.errors == []


def test_an_axis_without_components_says_why_there_is_no_map(tmp_path):
    axis = replace(axis_with_map(), pca=None)
    save_axis(axis, tmp_path)
    assert json.loads((tmp_path / "axis.json").read_text())["roles"]
    with running_app("--axis", str(tmp_path)) as address, chromium_page(address) as (page, watched):
        page.locator("#map-tab").click()
        expect(page.locator("#map-view .notes")).to_contain_text("There is no map for this axis")
        expect(page.locator("#map-plot")).to_be_hidden()
        assert watched.errors == []
