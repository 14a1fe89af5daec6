"""The page without a model in Chromium: a replay from any turn, and what the page explains."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from demo.page.recordings import ENDING, FOLDER, open_shipped
from tests.helpers.browser import chromium_page, running_app, user_messages, wait_until_still

# In CI only: it starts a page of its own.
pytestmark = [pytest.mark.browser, pytest.mark.slow]
NAME = "menacing-demon"
CHARTS = ("token-chart", "turn-chart")
SET_RANGE = """(range) => Promise.all(["token-chart", "turn-chart"].map(
  (id) => Plotly.relayout(document.getElementById(id), { "yaxis.range": range })))"""
# The texts of labels that overlap, in pairs.
OVERLAPS = """(id) => {
  const labels = [...document.querySelectorAll(`#${id} .annotation`)]
    .map((label) => [label.textContent, label.getBoundingClientRect()])
    .filter(([, box]) => box.height > 0);
  const apart = (one, other) => one.right <= other.left + 1 || other.right <= one.left + 1
    || one.bottom <= other.top + 1 || other.bottom <= one.top + 1;
  return labels.flatMap(([text, box], n) => labels.slice(n + 1)
    .filter(([, other]) => !apart(box, other)).map(([other]) => [text, other]));
}"""
BANDS = """(id) => Object.fromEntries(document.getElementById(id).layout.shapes
  .filter(({ type }) => type === "rect").map(({ name, y0, y1 }) => [name, [y0, y1]]))"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running_app("--replay", str(FOLDER / f"{NAME}{ENDING}")) as address:
        yield address


@pytest.fixture
def viewer(address: str) -> Iterator[Page]:
    with chromium_page(address) as (page, watched):
        expect(page.locator(".replay .play")).to_have_text("Replay")
        yield page
        assert watched.errors == [] and watched.outside == []


def test_labels_beside_the_charts_overlap_at_no_range_and_bands_follow_it(viewer):
    zones = open_shipped(NAME).marks.zones
    assert zones is not None
    for chart in CHARTS:
        viewer.locator(f"#{chart} .annotation").first.wait_for(timeout=60_000)
    for low, high in ((-0.75, 1.5), (-10, 10), (-60, 80), (0.6, 1.1), (0.99, 30), (-30, 0.8)):
        viewer.evaluate(SET_RANGE, [low, high])
        wait_until_still(viewer)
        for chart in CHARTS:
            assert viewer.evaluate(OVERLAPS, chart) == [], f"{chart} from {low} to {high}"
            ends = viewer.evaluate(BANDS, chart)
            for name, value in (("band-role", zones.low), ("band-assistant", zones.high)):
                share = min(1, max(0, (value - low) / (high - low)))
                expected = [0, share] if name == "band-role" else [share, 1]
                assert ends[name] == pytest.approx(expected, abs=1e-3)


def test_a_reply_has_the_same_zone_in_the_header_the_sentence_and_for_screen_readers(viewer):
    recording = open_shipped(NAME)
    zones, last = recording.marks.zones, recording.turns[-1]
    assert zones is not None
    names = {branch: zones.name_of(reply.mean) for branch, reply in last.replies.items() if reply.mean}
    for branch, name in names.items():
        chip = viewer.locator(f'[data-branch="{branch}"] .chip')
        expect(chip).to_contain_text(f"· {name}")
        assert zones.measured() in (chip.get_attribute("title") or "")
        if len(set(names.values())) > 1:
            expect(viewer.locator(".sentence")).to_contain_text(f"{branch} {name}")
    expect(viewer.locator(".zones-key.role")).to_be_visible()


def test_a_replay_goes_to_any_turn_with_the_turns_before_it_complete(viewer):
    messages = [turn.user for turn in open_shipped(NAME).turns]
    replies = viewer.locator('[data-branch="capped"] .reply')
    expect(replies).to_have_count(len(messages))
    words = replies.all_inner_texts()
    forward, jump = viewer.locator(".replay .next-turn"), viewer.locator(".replay .jump")
    expect(forward).to_be_disabled()
    expect(jump.locator("option")).to_have_count(len(messages))
    # At this speed a turn begins and stays without tokens, however slow the machine is.
    viewer.locator(".replay .speed option").first.evaluate("option => (option.value = '0')")
    viewer.locator(".replay .speed").select_option("0")
    jump.select_option("1")
    expect(viewer.locator(".replay .play")).to_have_text("Pause")
    for turn in (1, 2, 3):
        expect(jump).to_have_value(str(turn))
        assert user_messages(viewer) == messages[: turn + 1]
        assert replies.all_inner_texts() == [*words[:turn], ""]
        if turn < 3:
            forward.click()
    viewer.locator(".replay .previous-turn").click()
    assert user_messages(viewer) == messages[:3], "a turn that has just begun leads to the one before"
    viewer.locator(".replay .all").click()
    assert replies.all_inner_texts() == words


def test_the_page_without_a_model_explains_what_the_recording_shows(viewer):
    marks = open_shipped(NAME).marks
    viewer.locator("#about button").first.click()
    expect(viewer.locator("#about")).to_contain_text(f"read at decoder layer {marks.probe_layer}")
    assert marks.cap_layers is not None
    expect(viewer.locator("#about")).to_contain_text("At layers {} to {}".format(*marks.cap_layers))
    viewer.locator("#layer-tab").click()
    expect(viewer.locator("#layer-view .panel-status")).to_contain_text("not loaded here")
    expect(viewer.locator(".notices .notice")).to_have_count(0)
