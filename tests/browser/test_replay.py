"""The page without a model in Chromium: a replay from any turn, and what the page explains."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from demo.page.recordings import ENDING, FOLDER, open_shipped
from tests.helpers.browser import chromium_page, running_app, user_messages

# In CI only: it starts a page of its own.
pytestmark = [pytest.mark.browser, pytest.mark.slow]
NAME = "menacing-demon"


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
