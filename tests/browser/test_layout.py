"""Where things lie on the page, in Chromium: on a projector, a phone, while presenting, without a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from demo.bench.app_process import free_port
from demo.page.layout import launch_options
from demo.page.middleware import middleware_options
from demo.page.recordings import offline_page, open_shipped, shipped
from demo.page.viewer import build_viewer
from tests.helpers.browser import (
    chromium_page,
    one_turn,
    press_key,
    say,
    start_first_scenario,
    wait_for_first_update,
    wait_until_loaded,
    wait_until_still,
)
from tests.helpers.hosted import hosted
from tests.helpers.scripted import ScriptedEngine
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.browser
PHONE = (390, 844)
PROJECTOR = (1280, 720)
LONG, SHORT = 160, 20  # words of a reply that is longer than a pane, and of one that is not
# Of each pane: the height that is left for text, and where its newest turn lies from the log's upper edge.
PANES = """() => [...document.querySelectorAll("#stage .pane:not([hidden])")].map((pane) => {
  const log = pane.querySelector(".log");
  const frame = log.getBoundingClientRect();
  const { paddingTop, paddingBottom } = getComputedStyle(log);
  const turn = [...log.querySelectorAll(".turn")].at(-1)?.getBoundingClientRect() ?? frame;
  return {
    text: log.clientHeight - parseFloat(paddingTop) - parseFloat(paddingBottom),
    view: log.clientHeight, first: turn.top - frame.top, last: turn.bottom - frame.top,
    top: frame.top, bottom: frame.bottom,
  };
})"""
# The smallest type size of all texts that are visible on the stage, and those texts. Charts draw their own.
SMALLEST_TEXT = """() => {
  const visible = (node) => node.offsetParent && node.offsetWidth > 1 && !node.closest(".chart, select");
  const texts = [...document.querySelectorAll("#stage *")].filter((node) => visible(node)
    && [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()));
  const size = (node) => parseFloat(getComputedStyle(node).fontSize);
  const least = Math.min(...texts.map(size));
  return [least, texts.filter((node) => size(node) === least).map((node) => node.textContent.slice(0, 40))];
}"""

# A token's card ends above the message box.
CARD_IS_CLEAR = """() => document.querySelector(".tooltip").getBoundingClientRect().bottom
  <= document.querySelector("#say").getBoundingClientRect().top"""


class StoppedEngine(ScriptedEngine):
    """Answers when it is told to stop, or else after half a minute."""

    started = stopped = False

    def _events(self, cancel: Any) -> Iterator[Any]:
        self.started = True
        self.stopped = cancel.wait(30)
        yield from super()._events(cancel)


def answering(words: int) -> ScriptedEngine:
    return ScriptedEngine(words=[f" word{n}" for n in range(words)])


@pytest.fixture(scope="module")
def long_replies() -> Iterator[str]:
    with hosted(answering(LONG)) as address:
        yield address


@pytest.fixture(scope="module")
def viewer() -> Iterator[str]:
    """The address of the page without a model."""
    page = build_viewer("Recorded", open_shipped(shipped()[0]))
    port = free_port()
    options = launch_options() | middleware_options(None)
    page.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True, **options)
    yield f"http://127.0.0.1:{port}/"
    page.close()


def panes(page: Page) -> list[dict[str, float]]:
    wait_until_still(page)
    return page.evaluate(PANES)


def newest_turn_is_in_sight(page: Page) -> None:
    for pane in panes(page):
        fits = pane["last"] - pane["first"] <= pane["view"] - 16
        at = f"{pane}"
        assert pane["first"] >= 0, f"the newest turn's beginning is above the pane: {at}"
        assert pane["first"] < pane["view"] / 2 or pane["last"] <= pane["view"], at
        assert not fits or pane["last"] <= pane["view"], f"the newest turn ends below the pane: {at}"


def scroll_up(page: Page) -> None:
    """Scroll both panes to their beginning, as a reader does."""
    for log in page.locator("#stage .pane:not([hidden]) .log").all():
        log.hover()
        page.mouse.wheel(0, -5000)
    page.wait_for_function(
        "[...document.querySelectorAll('#stage .log')].every((log) => log.scrollTop === 0)"
    )


@pytest.mark.slow
@pytest.mark.parametrize("words", [pytest.param(SHORT, marks=pytest.mark.slow), LONG])
def test_newest_turn_is_in_sight_after_presenting_reading_reload_and_opening_again(words):
    with hosted(answering(words)) as address, chromium_page(address, *PROJECTOR) as (page, watched):
        for text in ("One.", "Two.", "Three.", "Four."):
            with one_turn(page):
                say(page, text)
        assert all(pane["last"] <= pane["view"] for pane in panes(page)), (
            "a live reply is followed to its end"
        )
        scroll_up(page)
        press_key(page, "p")
        newest_turn_is_in_sight(page)
        page.keyboard.press("l")
        page.keyboard.press("l")
        newest_turn_is_in_sight(page)
        page.keyboard.press("Escape")
        newest_turn_is_in_sight(page)
        scroll_up(page)
        page.reload()
        wait_until_loaded(page)
        expect(page.locator("#stage .turn")).to_have_count(8)
        newest_turn_is_in_sight(page)
        page.locator(".tools button", has_text="fork").last.click()
        expect(page.locator(".conversations .conversation")).to_have_count(2)
        page.locator(".conversation:not(.current) button").first.click()
        expect(page.locator(".conversation.current button").first).to_be_visible()
        newest_turn_is_in_sight(page)
        assert watched.errors == []


@pytest.mark.slow
def test_reader_who_has_scrolled_up_stays_there_while_a_reply_is_written(patient):
    patient.words = [f" word{n}" for n in range(LONG)]
    with hosted(patient) as address, chromium_page(address, *PROJECTOR) as (page, _):
        with one_turn(page):
            say(page, "One.")
        patient.go.clear()
        with one_turn(page):
            say(page, "Two.")
            expect(page.locator("#stage .turn")).to_have_count(4)
            scroll_up(page)
            patient.go.set()
        assert [pane["first"] > 0 for pane in panes(page)] == [True, True]
        tops = page.evaluate("[...document.querySelectorAll('#stage .log')].map((log) => log.scrollTop)")
        assert tops[:2] == [0, 0]


@pytest.mark.parametrize(("tab", "least"), [("token-tab", 260), ("map-tab", 200)])
@pytest.mark.slow
def test_panes_of_a_projector_hold_many_lines(long_replies, tab, least):
    with chromium_page(long_replies, *PROJECTOR) as (page, _):
        with one_turn(page):
            page.locator("button.scenario").first.click()
        page.locator(f"#{tab}").click()
        assert [pane["text"] >= least for pane in panes(page)] == [True, True], panes(page)
        charts, message = page.locator("#stage .charts"), page.locator("#say")
        expect(charts).to_be_in_viewport(ratio=0.99)
        expect(message).to_be_in_viewport(ratio=1)


@pytest.mark.slow
def test_panes_of_the_default_model_hold_as_many_lines_and_no_warning_stands_over_them(address):
    with chromium_page(address, *PROJECTOR) as (page, _):
        start_first_scenario(page)
        expect(page.locator("#gates")).to_have_count(0)
        for tab, least in (("token-tab", 260), ("map-tab", 200)):
            page.locator(f"#{tab}").click()
            assert min(pane["text"] for pane in panes(page)) >= least, tab


@pytest.mark.parametrize("size", [PROJECTOR, (1920, 1080)])
@pytest.mark.slow
def test_pages_without_a_model_use_the_whole_height(viewer, size, tmp_path):
    saved: Path = tmp_path / "page.html"
    saved.write_text(offline_page(open_shipped(shipped()[0])), encoding="utf-8")
    with chromium_page(viewer, *size) as (page, _):
        wait_for_first_update(page)
        for name in ("replay", "offline page"):
            newest_turn_is_in_sight(page)
            assert min(pane["text"] for pane in panes(page)) >= 260, name
            bottom = page.locator("#stage .charts").evaluate("node => node.getBoundingClientRect().bottom")
            assert size[1] - 16 <= bottom <= size[1], (
                f"{name}: the charts end at {bottom} of {size[1]} pixels"
            )
            if name == "replay":
                page.goto(saved.as_uri())
                page.locator("#stage .turn").first.wait_for()
        assert page.evaluate("document.documentElement.scrollHeight <= innerHeight"), "the saved page scrolls"


@pytest.mark.slow
def test_phone_opens_at_the_top_and_shows_both_replies_above_the_message_box(long_replies):
    with chromium_page(long_replies, *PHONE, touch=True) as (page, watched):
        wait_for_first_update(page)
        wait_until_still(page)
        assert page.evaluate("scrollY") == 0
        expect(page.locator("#send")).to_be_in_viewport(ratio=1)
        scenario = page.locator("button.scenario").first.bounding_box()
        drawer = page.locator("#settings .toggle-button").bounding_box()
        assert scenario is not None and drawer is not None
        assert scenario["x"] + scenario["width"] < drawer["x"] - 8, "no scenario can be read and tapped"
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        with one_turn(page):
            page.locator("#message textarea").fill("Hello.")
            page.locator("#send").tap()
        message = page.locator("#say").bounding_box()
        assert message is not None
        uncapped, capped = panes(page)
        assert uncapped["top"] >= 0
        assert capped["bottom"] <= message["y"]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            "the page scrolls sideways"
        )
        assert watched.errors == []


@pytest.mark.parametrize("branch", ["uncapped", "capped"])
@pytest.mark.slow
def test_tap_on_a_token_shows_its_card_until_the_next_tap(long_replies, branch):
    with chromium_page(long_replies, *PHONE, touch=True) as (page, _):
        with one_turn(page):
            say(page, "Hello.")
        card = page.locator(".tooltip")
        page.locator(f'[data-branch="{branch}"] .tok').last.tap()
        expect(card).to_contain_text("projection")
        expect(card).to_be_in_viewport(ratio=1)
        page.wait_for_function(CARD_IS_CLEAR)  # the page may still be moving when the turn has ended
        page.locator(f'[data-branch="{branch}"] .note').tap()
        expect(card).to_be_hidden()


@pytest.mark.slow
def test_question_is_typed_and_sent_while_presenting_and_escape_leaves(long_replies):
    with chromium_page(long_replies, *PROJECTOR) as (page, watched):
        with one_turn(page):
            page.locator("button.scenario").first.click()
        press_key(page, "p")
        button = page.locator(".present-button")
        expect(button).to_have_text("Leave presentation")
        box = page.locator("#message textarea")
        expect(box).to_be_hidden()
        page.keyboard.press("/")
        expect(box).to_be_in_viewport(ratio=1)
        expect(box).to_be_focused()
        assert box.evaluate("node => parseFloat(getComputedStyle(node).fontSize)") >= 20
        box.fill("")
        page.keyboard.type("plan?")
        assert box.input_value() == "plan?"
        expect(page.locator("dialog[open]")).to_have_count(0)
        page.keyboard.press("Escape")
        expect(box).to_be_hidden()
        expect(button).to_have_text("Leave presentation")
        page.keyboard.press("/")
        with one_turn(page):
            page.keyboard.press("Enter")
            expect(box).to_be_hidden()
        expect(page.locator('[data-branch="capped"] .user').last).to_contain_text("plan?")
        page.keyboard.press("Escape")
        expect(button).to_have_text("Present")
        expect(box).to_be_visible()
        assert watched.errors == []


@pytest.mark.slow
def test_reply_can_be_stopped_while_presenting():
    engine = StoppedEngine()
    with hosted(engine) as address, chromium_page(address, *PROJECTOR) as (page, _):
        say(page, "Hello.")
        expect(page.locator("#stop")).to_be_visible()
        wait_until(lambda: engine.started)
        press_key(page, "p")
        page.keyboard.press("s")  # the button is hidden here
        wait_until(lambda: engine.stopped, seconds=20)


@pytest.mark.slow
@pytest.mark.parametrize("display", ["marks", "prose"])
def test_no_text_stays_small_while_presenting(long_replies, display):
    with chromium_page(long_replies, *PROJECTOR) as (page, _):
        with one_turn(page):
            say(page, "Hello.")
        page.locator(f'button[data-display="{display}"]').click()
        press_key(page, "p")
        wait_until_still(page)
        least, texts = page.evaluate(SMALLEST_TEXT)
        assert least >= 15, texts
        shown = '[data-branch="capped"] ' + (".formatted" if display == "prose" else ".reply")
        size = page.locator(shown).first.evaluate("node => parseFloat(getComputedStyle(node).fontSize)")
        assert size >= 20
        assert min(pane["text"] for pane in panes(page)) >= 200


@pytest.mark.parametrize(
    ("size", "theme"), [(PROJECTOR, "light"), pytest.param(PHONE, "dark", marks=pytest.mark.slow)]
)
def test_axe_finds_nothing_in_the_presentation_mode(long_replies, size, theme):
    with chromium_page(long_replies, size[0], size[1], f"?__theme={theme}") as (page, _):
        with one_turn(page):
            say(page, "Hello.")
        press_key(page, "p")
        page.keyboard.press("/")
        wait_until_still(page)
        found: Any = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa"]})
        bad = [(v["id"], v["nodes"][0]["html"][:200]) for v in found.response["violations"]]
        assert bad == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
