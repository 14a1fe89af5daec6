"""The persona map in Chromium: its moving markers, its labels and names, and a browser without WebGL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect

from demo.axis.axis import AssistantAxis
from demo.axis.files import load_axis, save_axis
from tests.helpers.axes import with_components
from tests.helpers.browser import chromium_page, running_app, send_messages

# In CI only: it starts a page of its own.
pytestmark = [pytest.mark.browser, pytest.mark.slow]
# Where the last point of each reply's trace is drawn, in pixels. Plotly does not draw empty traces.
MARKERS = """() => {
  const traces = [...document.querySelectorAll('#map-chart .scatterlayer .trace')].slice(4);
  return traces.map((trace) => [...trace.querySelectorAll('.point')].at(-1).getAttribute('transform'));
}"""
RECORD_MARKERS = f"""() => {{
  window.seen = [new Set(), new Set()];
  const record = (markers) => markers.length === 2 && markers.forEach((at, branch) => seen[branch].add(at));
  setInterval(() => record(({MARKERS})()), 20);
}}"""
COUNT_DRAWINGS = """() => {
  window.drawings = 0;
  document.querySelector('#map-chart').on('plotly_afterplot', () => (window.drawings += 1));
}"""
# Texts and boxes of the labels that are always shown.
LABELS = """() => [...document.querySelectorAll('#map-chart .textpoint text')].map((text) => {
  const { left, right, top, bottom } = text.getBoundingClientRect();
  return { text: text.textContent, left, right, top, bottom };
})"""


def axis_with_map() -> AssistantAxis:
    """The shipped axis with invented components: PC1 is the axis itself, and the roles lie on a spiral."""
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
    page.wait_for_function("document.querySelectorAll('#map-chart .scatterlayer .trace').length >= 4")


def once_unchanged(page: Page, script: str) -> Any:
    """The script's value as soon as it is the same at two polls in a row."""
    page.evaluate("window.lastValue = undefined")
    page.wait_for_function(
        f"""() => {{
          const value = JSON.stringify(({script})());
          const same = value === window.lastValue;
          window.lastValue = value;
          return same;
        }}""",
        polling=300,
    )
    return page.evaluate(script)


def resize(page: Page, width: int) -> None:
    """Change the page's width and wait until the map has been drawn for it."""
    before = page.evaluate("drawings")
    page.set_viewport_size({"width": width, "height": 720})
    page.wait_for_function(f"drawings > {before}")


def test_markers_of_both_branches_move_and_roles_have_names(address):
    with chromium_page(address) as (page, watched):
        open_map(page)
        assert page.evaluate(MARKERS) == []
        page.evaluate(RECORD_MARKERS)
        send_messages(page, "Tell me about the sea.", tokens=64)
        moves = page.evaluate("seen.map((places) => places.size)")
        assert min(moves) > 4, moves
        moved_to = once_unchanged(page, MARKERS)
        assert len(moved_to) == 2
        page.evaluate(COUNT_DRAWINGS)
        resize(page, 1320)
        resize(page, 1280)
        assert once_unchanged(page, MARKERS) == moved_to, (
            "a new drawing must have the markers in the same place"
        )
        send_messages(page, "And the moon?")
        trail = page.evaluate(
            "document.querySelector('#map-chart').data.slice(-3, -1).map((trace) => trace.x.length)"
        )
        assert trail == [2, 2]
        dot = page.locator("#map-chart .scatterlayer .trace").first.locator(".point").first.bounding_box()
        assert dot is not None
        page.mouse.move(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2)
        expect(page.locator("#map-chart .hoverlayer")).to_contain_text("role 0")
        expect(page.locator("#map-chart .hoverlayer")).to_contain_text("projection −0.70")
        assert watched.errors == [] and watched.outside == []


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1280, 720), (390, 844)])
def test_labels_do_not_overlap(address, width, height):
    with chromium_page(address, width, height) as (page, watched):
        open_map(page)
        for view in ("12", "13"):
            page.locator(f'#map-view [data-view="{view}"]').click()
            page.wait_for_function(f"document.querySelector('#map-chart').layout.uirevision === '{view}'")
            labels = once_unchanged(page, LABELS)
            assert {"default Assistant", "role 0", "role 59"} <= {label["text"] for label in labels}
            for index, a in enumerate(labels):
                for b in labels[:index]:
                    apart = (
                        a["right"] <= b["left"] or b["right"] <= a["left"]
                        or a["bottom"] <= b["top"] or b["bottom"] <= a["top"]
                    )  # fmt: skip
                    assert apart, (a, b)
        assert watched.errors == []


def test_token_chart_is_complete_after_leaving_the_map(address):
    with chromium_page(address) as (page, watched):
        open_map(page)
        send_messages(page, "Hello.")
        page.locator("#token-tab").click()
        expect(page.locator("#map-view")).to_be_hidden()
        page.wait_for_function(
            "(({ uncapped, capped }) => uncapped > 0 && capped > 0)(personaStage.counts().tokenPoints)"
        )
        assert watched.errors == []


def test_without_webgl_the_map_stays_2d_with_a_message(address):
    with chromium_page(address) as (page, watched):
        open_map(page)
        page.evaluate("HTMLCanvasElement.prototype.getContext = () => null")
        page.locator('#map-view [data-view="3d"]').click()
        expect(page.locator("#map-view .panel-status")).to_be_visible()
        assert page.locator('#map-view [data-view="12"]').get_attribute("aria-pressed") == "true"
        assert page.locator("#map-chart .scatterlayer .trace").count() == 4
        assert watched.errors == []


def test_axis_without_components_has_a_message_instead_of_a_map(tmp_path):
    axis = replace(axis_with_map(), pca=None)
    save_axis(axis, tmp_path)
    assert json.loads((tmp_path / "axis.json").read_text())["roles"]
    with running_app("--axis", str(tmp_path)) as address, chromium_page(address) as (page, watched):
        page.locator("#map-tab").click()
        expect(page.locator("#map-view .notes")).to_contain_text("There is no map for this axis")
        expect(page.locator("#map-chart")).to_be_hidden()
        assert watched.errors == []
