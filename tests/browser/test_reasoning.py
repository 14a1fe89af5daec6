"""A model that reasons before it answers, in Chromium, on an engine whose replies are known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from demo.axis.files import load_axis
from demo.conversation.settings import CAPPED
from demo.engine.protocol import Sampling
from demo.models.chat_template import LeftOut
from demo.models.default import DEFAULT_MODEL
from demo.page.layout import build_page, launch_options
from tests.helpers.browser import (
    BRANCHES,
    chromium_page,
    finished,
    one_turn,
    points,
    reply,
    say,
    set_number,
    wait_for_first_update,
)
from tests.helpers.scripted import FAULT, ScriptedEngine
from tests.helpers.steady import SteadyEngine

# In CI only: it starts a page of its own.
pytestmark = [pytest.mark.browser, pytest.mark.slow]
THOUGHTS = ("\n", "Who", " is", " asking?")
# The number of points of a trace of the token chart.
LENGTHS = """(role, branch) => document.querySelector("#token-chart").data.find(
  ({ meta }) => meta.role === role && meta.branch === branch).x.length"""


@contextmanager
def serving(engine: Any) -> Iterator[str]:
    """The address of a page whose model can reason."""
    axis, defaults = load_axis(DEFAULT_MODEL), Sampling()
    app = build_page(engine, axis, DEFAULT_MODEL, "scripted engine", (), defaults, thinking="optional")
    _, address, _ = app.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    try:
        yield address
    finally:
        app.close()


@contextmanager
def thinking_page(address: str) -> Iterator[Page]:
    """The page with *Thinking* switched on."""
    with chromium_page(address, 1400, 900) as (page, watched):
        wait_for_first_update(page)
        expect(page.locator("#span")).to_be_hidden()
        page.locator("#thinking input").check()
        expect(page.locator("#span")).to_be_visible()
        yield page
        assert watched.errors == []


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[ScriptedEngine, str]]:
    engine = ScriptedEngine(thoughts=THOUGHTS, left_out=(LeftOut(0, "system", True),))
    with serving(engine) as address:
        yield engine, address


@pytest.fixture
def engine(served: tuple[ScriptedEngine, str]) -> ScriptedEngine:
    return served[0]


@pytest.fixture
def page(served: tuple[ScriptedEngine, str]) -> Iterator[Page]:
    with thinking_page(served[1]) as page:
        yield page


def block(page: Page, branch: str, turn: int = 0) -> Locator:
    return page.locator(f'[data-branch="{branch}"] .turn[data-turn="{turn}"] details.reasoning')


def test_reasoning_is_open_while_it_is_written_and_closed_once_the_answer_begins():
    engine = SteadyEngine(rate=3, thoughts={"uncapped": 60, "capped": 40})
    with serving(engine) as address, thinking_page(address) as page:
        set_number(page, "max-new-tokens", 80)
        say(page, "Hello?")
        for branch in BRANCHES:
            expect(block(page, branch)).to_have_attribute("open", "")
            expect(block(page, branch).locator("summary")).to_have_text("Reasoning…")
            expect(page.locator(f'[data-branch="{branch}"] .chip')).to_contain_text("reasoning")
        for _ in range(2):  # the user closes it and opens it again, so it stays open
            block(page, "uncapped").locator("summary").click()
        expect(reply(page, CAPPED, 0)).to_be_empty()
        engine.pause = 0.001
        finished(page)
        expect(block(page, "uncapped")).to_have_attribute("open", "")
        expect(block(page, CAPPED)).not_to_have_attribute("open", "")
        expect(block(page, CAPPED).locator("summary")).to_have_text("Reasoning · 40 tokens")
        expect(block(page, CAPPED).locator(".tok")).to_have_count(40)
        expect(reply(page, CAPPED, 0).locator(".tok")).to_have_count(40)
        assert points(page)["tokenPoints"] == {"uncapped": 80, "capped": 80}
        page.wait_for_function(f"({LENGTHS})('reasoning-raw', 'uncapped') === 60")
        page.wait_for_function(f"({LENGTHS})('raw', 'uncapped') === 20")


def test_the_figures_of_a_turn_are_those_of_the_answer_with_the_reasoning_beside_them(page):
    with one_turn(page):
        say(page, "Hello?")
    assert reply(page, CAPPED, 0).inner_text() == "Hello there!", "no gap above the answer"
    expect(block(page, "uncapped").locator(".thoughts")).to_have_text("Who is asking? Hm.")
    foot = page.locator('[data-branch="uncapped"] .select-turn')
    expect(foot).to_have_text("turn 1 · mean −0.50, reasoning −1.00 · 8 tokens")
    expect(page.locator('[data-branch="uncapped"] .chip')).to_contain_text("−0.50")
    expect(page.locator(".cap-action")).to_have_text("cap: 67% of answer, 50% of reasoning")
    expect(page.locator(".summary-bar .sentence")).to_contain_text("67% of the answer, 50% of the reasoning")
    expect(page.locator(".key.tokens .reasoning-key")).to_be_visible()


def test_reasoning_is_opened_by_keyboard_and_its_tokens_can_be_tapped(page):
    with one_turn(page):
        say(page, "Hello?")
    page.locator('[data-branch="capped"] summary').focus()
    page.keyboard.press("Enter")
    expect(block(page, CAPPED)).to_have_attribute("open", "")
    page.locator('[data-branch="capped"] .thoughts .tok', has_text="asking").hover()
    expect(page.locator(".tooltip")).to_contain_text("reasoning")
    expect(page.locator(".tooltip")).to_contain_text('4: " asking?"')
    expect(page.locator("#token-chart .hoverlayer")).to_contain_text("capped, reasoning")
    page.keyboard.press("Space")
    expect(block(page, CAPPED)).not_to_have_attribute("open", "")


def test_left_out_text_is_noted_and_stays(page):
    note = page.locator(".left-out")
    expect(note).to_be_hidden()
    for text in ("Hello?", "Still there?"):
        with one_turn(page):
            say(page, text)
        expect(note).to_have_text(
            "This model’s chat template leaves out the system prompt, so it has no effect."
        )
    page.locator("#new-chat").click()
    expect(note).to_be_hidden()


def test_a_failed_branch_says_why_and_is_restored_with_its_reasoning(page, engine):
    engine.failing = CAPPED
    with one_turn(page):
        say(page, "Hello?")
    failed = page.locator('[data-branch="capped"] .finish')
    expect(failed).to_have_text(FAULT)
    expect(reply(page, "uncapped", 0)).to_have_text("Hello there!")
    expect(page.locator('[data-branch="uncapped"] .finish')).to_be_hidden()
    engine.failing = ""
    with one_turn(page):
        say(page, "And now?")
    expect(reply(page, CAPPED, 1)).to_have_text("Hello there!")
    page.reload()
    expect(page.locator(".notices")).to_contain_text("Your conversation is back")
    expect(failed.first).to_have_text(FAULT)
    expect(block(page, "uncapped", 1).locator("summary")).to_have_text("Reasoning · 5 tokens")


def test_a_saved_page_replays_reasoning_without_a_server(page, tmp_path):
    with one_turn(page):
        say(page, "Hello?")
    with page.expect_download() as download:
        page.locator("select.save").select_option("html")
    path = tmp_path / "session.html"
    download.value.save_as(path)
    page.goto(path.as_uri())
    page.wait_for_function("window.personaStage?.counts().tokenPoints.capped === 7")
    page.locator(".replay .play").click()
    expect(page.locator(".replay .play")).to_have_text("Replay")
    expect(reply(page, CAPPED, 0)).to_have_text("Hello there!")
    expect(block(page, CAPPED).locator(".thoughts")).to_have_text("Who is asking?")
