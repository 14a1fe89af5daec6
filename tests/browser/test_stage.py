"""What a speaker, a teacher and a researcher do with the page, in Chromium, on the real model and the shipped axis."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from demo.conversation.session_file import loads
from tests.helpers.browser import (
    BRANCHES,
    TURN_TIMEOUT,
    chromium_page,
    one_turn,
    points,
    reply,
    running_app,
    say,
    set_number,
)

pytestmark = pytest.mark.browser


def talk(page: Page, *texts: str, tokens: int = 8) -> None:
    set_number(page, "max-new-tokens", tokens)
    for text in texts:
        with one_turn(page):
            say(page, text)


def users(page: Page, branch: str = "uncapped") -> list[str]:
    return [
        text.removeprefix("You: ")
        for text in page.locator(f'[data-branch="{branch}"] .user').all_text_contents()
    ]


def demon(page: Page, tokens: int = 16) -> None:
    set_number(page, "max-new-tokens", tokens)
    with one_turn(page):
        page.locator("button.scenario").first.click()


def saved(page: Page, kind: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.locator("select.save").select_option(kind)
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_the_lens_colours_tokens_and_the_card_tells_what_the_cap_did(opened):
    page, _ = opened
    demon(page)
    page.locator('button[data-look="lens"]').click()
    tones = page.locator('[data-branch="uncapped"] .tok.low, [data-branch="uncapped"] .tok.high')
    assert tones.count() == page.locator('[data-branch="uncapped"] .tok').count() > 4
    background = tones.first.evaluate("node => getComputedStyle(node).backgroundColor")
    assert background not in ("rgba(0, 0, 0, 0)", "")
    fired = page.locator('[data-branch="capped"] .tok.fired').first
    assert "underline" in fired.evaluate("node => getComputedStyle(node).textDecorationLine"), (
        "not by colour alone"
    )
    fired.hover()
    tip = page.locator(".tip")
    expect(tip).to_contain_text("Lifted at")
    expect(tip).to_contain_text("probability")
    assert tip.locator(".lifts i").count() == 8, "one bar a capped layer"
    page.locator('[data-branch="capped"] .log').focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".tok.here")).to_have_count(1)


def test_a_click_in_the_plot_flashes_the_token(opened):
    page, _ = opened
    talk(page, "Tell me about the sea.", tokens=24)
    page.wait_for_function("window.personaStage.counts().tokenPoints.uncapped > 10")
    point = page.evaluate(
        """() => {
          const plot = document.querySelector("#token-plot");
          const n = plot.data.findIndex((t) => t.meta.role === "raw" && t.meta.branch === "uncapped");
          const box = plot.querySelector(".nsewdrag").getBoundingClientRect();
          const { xaxis, yaxis } = plot._fullLayout;
          return [box.left + xaxis.d2p(plot.data[n].x[5]), box.top + yaxis.d2p(plot.data[n].y[5])];
        }"""
    )
    page.mouse.move(*point)
    page.mouse.click(*point)
    expect(
        page.locator('[data-branch="uncapped"] .tok.flash, [data-branch="capped"] .tok.flash')
    ).to_have_count(1)


@pytest.mark.slow
def test_layers_of_a_reply_are_shown_with_probe_and_band(opened):
    page, _ = opened
    demon(page)
    page.locator("#layer-tab").click()
    page.locator('#layer-view button[data-branch="capped"]').click()
    page.wait_for_function(
        "document.querySelector('#layer-plot').data?.[0].z?.length === 30", timeout=TURN_TIMEOUT
    )
    page.wait_for_function(
        "document.querySelector('#layer-plot').layout.shapes.length === 2", timeout=TURN_TIMEOUT
    )
    tokens = page.locator('[data-branch="capped"] .tok').count()
    row = page.evaluate("document.querySelector('#layer-plot').data[0].z[20].length")
    assert abs(row - tokens) <= 1, "a reply read again may be cut into tokens a little differently"
    page.locator('#layer-view button[data-mode="change"]').click()
    page.wait_for_timeout(500)
    below, inside = page.evaluate(
        "[2, 25].map((n) => Math.max(...document.querySelector('#layer-plot').data[0].z[n].map(Math.abs)))"
    )
    assert below < 0.01 < inside, "the cap changes nothing below its band, and something within"


@pytest.mark.slow
def test_undo_edit_again_and_fork(opened):
    page, _ = opened
    talk(page, "Name a fruit.", "Name a tree.")
    before = reply(page, "uncapped", 0).inner_text()
    page.locator(".tools button", has_text="undo").click()
    expect(page.locator('[data-branch="uncapped"] .turn')).to_have_count(1)
    assert page.locator("#message textarea").input_value() == "Name a tree."
    assert points(page)["turnPoints"] == {"uncapped": 1, "capped": 1}
    talk(page, "Name a bird.")
    page.locator(".tools button", has_text="fork").first.click()
    expect(page.locator(".talks .talk")).to_have_count(2)
    expect(page.locator('[data-branch="uncapped"] .turn')).to_have_count(1)
    assert users(page) == ["Name a fruit."] and reply(page, "uncapped", 0).inner_text() == before
    page.locator(".talks .talk button").first.click()
    expect(page.locator('[data-branch="uncapped"] .turn')).to_have_count(2)
    page.locator(".tools button", has_text="edit").first.click()
    page.locator(".rewrite textarea").fill("Name a colour.")
    with one_turn(page):
        page.locator(".rewrite textarea").press("Enter")
    assert users(page) == users(page, "capped") == ["Name a colour."]
    set_number(page, "temperature", 1)
    with one_turn(page):
        page.locator(".tools button", has_text="again").first.click()
    assert users(page) == ["Name a colour."]


@pytest.mark.slow
def test_one_pane_alone_more_seeds_and_a_steered_reply(opened):
    page, _ = opened
    talk(page, "Name a fruit.")
    page.locator("#settings .toggle-button").click()
    page.locator("#only label", has_text="Capped").last.click()
    talk(page, "Only you.")
    assert users(page) == ["Name a fruit."] and users(page, "capped") == ["Name a fruit.", "Only you."]
    page.locator("#only label", has_text="All").click()
    page.locator("#steer-on input").check()
    set_number(page, "seeds", 3)
    talk(page, "Name a tree.")
    expect(page.locator('.pane[data-branch="steered"]')).to_be_visible()
    expect(reply(page, "steered", 2)).not_to_be_empty()
    spread = "document.querySelector('#turn-plot').data.find((t) => t.meta.role === 'spread' && t.meta.branch === 'capped')"
    page.wait_for_function(f"{spread}.y.filter((value) => value !== null).length === 2")


@pytest.mark.slow
def test_a_transcript_is_read_and_its_user_messages_said_again(opened):
    page, _ = opened
    chat = [
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "I am the storm that waits. I have no name."},
        {"role": "user", "content": "And now?"},
        {"role": "assistant", "content": "Now I am your assistant. How can I help you today?"},
    ]
    set_number(page, "max-new-tokens", 8)
    page.locator(".opener").click()
    page.locator("dialog.open-session textarea").fill(json.dumps({"conversation": chat}))
    page.locator('button[data-how="read"]').click()
    page.wait_for_function("window.personaStage.counts().turnPoints.capped === 2", timeout=TURN_TIMEOUT)
    assert reply(page, "uncapped", 0).inner_text() == chat[1]["content"]
    plain, capped = (
        page.evaluate(
            "(b) => document.querySelector('#turn-plot').data.find((t) => t.meta.role === 'reply' && t.meta.branch === b).y",
            branch,
        )
        for branch in BRANCHES
    )
    assert all(low < high for low, high in zip(plain, capped, strict=True)), (
        "the same text, read under the cap"
    )
    page.locator(".opener").click()
    page.locator("dialog.open-session textarea").fill(json.dumps(chat))
    page.locator('button[data-how="replay"]').click()
    expect(page.locator(".talks .talk")).to_have_count(2)
    assert page.locator("#message textarea").input_value() == "Who are you?"
    page.locator(".opener").click()
    page.locator("dialog.open-session textarea").fill("no chat at all")
    page.locator('button[data-how="read"]').click()
    expect(page.locator(".notice").last).to_contain_text("not JSON", timeout=TURN_TIMEOUT)


def test_a_session_is_saved_in_every_form(opened, tmp_path):
    page, watched = opened
    demon(page)
    said = reply(page, "capped", 0).inner_text()
    path = saved(page, "json", tmp_path)
    recording = loads(path.read_text())
    assert recording.title == "Demon" and recording.turns[0].replies["capped"].text.strip() == said.strip()
    rows = list(csv.DictReader(saved(page, "csv", tmp_path).open()))
    assert (
        len([row for row in rows if row["branch"] == "capped" and row["special"] == "0"])
        == page.locator('[data-branch="capped"] .tok').count()
    )
    alone = saved(page, "html", tmp_path)
    page.goto(alone.as_uri())
    watched.outside = [url for url in watched.outside if url != alone.as_uri()]
    page.wait_for_function("window.personaStage?.counts().tokenPoints.capped > 4", timeout=20_000)
    assert reply(page, "capped", 0).inner_text() == said
    page.locator('[data-branch="capped"] .tok').first.hover()
    expect(page.locator(".tip")).to_contain_text("projection")


@pytest.mark.slow
def test_a_recorded_session_plays_with_no_model(opened, tmp_path):
    page, _ = opened
    demon(page)
    path = saved(page, "json", tmp_path)
    tokens = page.locator(".tok").count()
    with running_app("--replay", str(path)) as address:
        watcher = page.context.new_page()
        outside: list[str] = []
        watcher.on(
            "request",
            lambda r: None if r.url.startswith((address, "data:", "blob:")) else outside.append(r.url),
        )
        watcher.on("pageerror", lambda error: outside.append(str(error)))
        watcher.goto(address)
        watcher.wait_for_function("window.personaStage !== undefined", timeout=60_000)
        expect(watcher.locator(".tok")).to_have_count(tokens)
        watcher.locator(".replay select").select_option("0.5")
        watcher.locator(".replay .play").click()
        watcher.wait_for_function(
            "document.querySelector('.replay progress').value < 0.9 * document.querySelector('.replay progress').max"
        )
        watcher.locator(".replay select").select_option("16")
        expect(watcher.locator(".replay .play")).to_have_text("Replay", timeout=30_000)
        expect(watcher.locator(".tok")).to_have_count(tokens)
        shown = page.evaluate("window.personaStage.counts().tokenPoints.capped")
        watcher.wait_for_function(
            f"window.personaStage.counts().tokenPoints.capped === {shown}", timeout=10_000
        )
        watcher.locator("#map-tab").click()
        watcher.wait_for_function("document.querySelector('#map-plot').data?.length > 4")
        watcher.locator("#layer-tab").click()
        expect(watcher.locator(".notice").last).to_contain_text("No model is loaded")
        assert outside == []


def test_everything_by_keyboard_and_the_presentation_mode(opened):
    page, _ = opened
    demon(page, tokens=8)
    page.locator("body").click(position={"x": 2, "y": 2})
    with one_turn(page):
        page.keyboard.press("n")
    expect(page.locator('[data-branch="capped"] .turn')).to_have_count(2)
    page.keyboard.press("u")
    expect(page.locator('[data-branch="capped"] .turn')).to_have_count(1)
    page.keyboard.press("l")
    assert page.locator("#stage").get_attribute("data-view") == "lens"
    page.keyboard.press("c")
    expect(page.locator("#cap-on input")).not_to_be_checked()
    page.keyboard.press("c")
    page.keyboard.press("p")
    expect(page.locator("#message")).to_be_hidden()
    expect(page.locator("#token-plot")).to_be_in_viewport(ratio=0.9)
    expect(page.locator(".strip")).to_be_in_viewport(ratio=1)
    size = page.locator('[data-branch="capped"] .reply').first.evaluate(
        "node => parseFloat(getComputedStyle(node).fontSize)"
    )
    assert size >= 20
    with one_turn(page):
        page.keyboard.press("n")
    expect(page.locator('[data-branch="capped"] .turn')).to_have_count(2)
    page.wait_for_timeout(500)  # the script's next line has come into the box
    page.keyboard.press("p")
    page.keyboard.press("?")
    expect(page.locator("dialog.keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("nlp")
    assert page.locator("#message textarea").input_value().endswith("nlp"), (
        "letters are letters where one types"
    )


def test_the_strip_says_in_words_what_is_going_on(opened):
    page, _ = opened
    demon(page)
    expect(page.locator(".strip .sentence")).to_contain_text("Uncapped has left the Assistant range.")
    expect(page.locator(".strip .sentence")).to_contain_text("The cap acted on")
    assert page.locator(".strip .standing-now").count() == len(BRANCHES)
    expect(page.locator(".strip .gap")).to_contain_text("gap")


@pytest.mark.parametrize(
    ("width", "height", "theme"),
    [
        (1280, 720, "light"),
        *(
            pytest.param(*size, theme, marks=pytest.mark.slow)
            for size, theme in [
                ((390, 844), "dark"),
                ((1280, 720), "dark"),
                ((390, 844), "light"),
                ((1920, 1080), "light"),
                ((1920, 1080), "dark"),
            ]
        ),
    ],
)
def test_axe_finds_nothing_serious(address, width, height, theme):
    with chromium_page(address, width, height, query=f"?__theme={theme}") as (page, _):
        demon(page, tokens=8)
        page.wait_for_timeout(500)
        found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa"]})
        bad = [
            (v["id"], v["help"], [node["html"][:160] for node in v["nodes"][:3]])
            for v in found.response["violations"]
            if v["impact"] in ("serious", "critical")
        ]
        assert bad == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no sideways scrolling"
