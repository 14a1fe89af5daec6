"""The stage's features in Chromium, with the real model and the shipped axis."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from demo.axis.files import load_axis
from demo.conversation.session_file import loads
from demo.models.default import DEFAULT_MODEL
from tests.helpers.browser import (
    BRANCHES,
    TURN_TIMEOUT,
    chromium_page,
    one_turn,
    points,
    press_key,
    reply,
    running_app,
    send_messages,
    set_number,
    start_first_scenario,
    user_messages,
    wait_until_loaded,
    wait_until_still,
)

pytestmark = pytest.mark.browser
# Where the sixth uncapped token of the token chart lies on the screen.
SIXTH_TOKEN = """() => {
  const chart = document.querySelector("#token-chart");
  const { x, y } = chart.data.find(({ meta }) => meta.role === "raw" && meta.branch === "uncapped");
  const { left, top } = chart.querySelector(".nsewdrag").getBoundingClientRect();
  const { xaxis, yaxis } = chart._fullLayout;
  return [left + xaxis.d2p(x[5]), top + yaxis.d2p(y[5])];
}"""
# The ranges of both axes of the layer view, and the edges of the capped band.
LAYER_FRAME = """() => {
  const { xaxis, yaxis, shapes } = document.querySelector("#layer-chart").layout;
  return [xaxis.range, yaxis.range, shapes[1].y0, shapes[1].y1];
}"""
# A trace of the turn chart, by its role and branch.
TURN_TRACE = """({ role, branch }) => document.querySelector("#turn-chart").data.find(
  ({ meta }) => meta.role === role && meta.branch === branch)"""


def saved(page: Page, kind: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.locator("select.save").select_option(kind)
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def open_text(page: Page, text: str, how: str) -> None:
    """Paste a text into the dialog that opens sessions. how: "read" or "replay"."""
    page.locator(".open-button").click()
    page.locator("dialog.open-session textarea").fill(text)
    page.locator(f'button[data-how="{how}"]').click()


@pytest.mark.slow
def test_lens_colours_tokens_and_tooltip_shows_what_the_cap_did(opened):
    page, _ = opened
    start_first_scenario(page)
    page.locator('button[data-display="lens"]').click()
    tones = page.locator('[data-branch="uncapped"] .tok.low, [data-branch="uncapped"] .tok.high')
    assert tones.count() == page.locator('[data-branch="uncapped"] .tok').count() > 4
    background = tones.first.evaluate("node => getComputedStyle(node).backgroundColor")
    assert background not in ("rgba(0, 0, 0, 0)", "")
    fired = page.locator('[data-branch="capped"] .tok.fired').first
    decoration = fired.evaluate("node => getComputedStyle(node).textDecorationLine")
    assert "underline" in decoration, "colour alone is not enough"
    fired.hover()
    tooltip = page.locator(".tooltip")
    expect(tooltip).to_contain_text("Lifted at")
    expect(tooltip).to_contain_text("probability")
    first, last = load_axis(DEFAULT_MODEL).cap_band
    assert tooltip.locator(".lifts i").count() == last - first + 1, "one bar for each capped layer"
    expect(tooltip.locator(".alternatives th")).to_have_text(["it could have been", "no cap", "capped"])
    expect(tooltip.locator(".alternatives .chosen")).to_have_count(1)
    expect(tooltip).to_contain_text(re.compile(r"This token: .*% with"))
    page.locator('[data-branch="capped"] .log').focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".tok.current")).to_have_count(1)


@pytest.mark.slow
def test_click_in_the_token_chart_flashes_the_token(opened):
    page, _ = opened
    send_messages(page, "Tell me about the sea.", tokens=24)
    page.wait_for_function("window.personaStage.counts().tokenPoints.uncapped > 10")
    point = page.evaluate(SIXTH_TOKEN)
    page.mouse.move(*point)
    page.mouse.click(*point)
    expect(
        page.locator('[data-branch="uncapped"] .tok.flash, [data-branch="capped"] .tok.flash')
    ).to_have_count(1)


@pytest.mark.slow
def test_layer_view_shows_a_reply_with_probe_layer_and_capped_band(opened):
    page, _ = opened
    start_first_scenario(page)
    page.locator("#layer-tab").click()
    page.locator('#layer-view button[data-branch="capped"]').click()
    page.wait_for_function(
        "document.querySelector('#layer-chart').layout?.shapes[1].line.dash === 'solid'", timeout=TURN_TIMEOUT
    )  # the band of the capped reply
    assert page.evaluate("document.querySelector('#layer-chart').data[0].z.length") == 30
    tokens = page.locator('[data-branch="capped"] .tok').count()
    row = page.evaluate("document.querySelector('#layer-chart').data[0].z[20].length")
    assert abs(row - tokens) <= 1, "a reply that is read again may be tokenised slightly differently"
    page.locator('#layer-view button[data-mode="change"]').click()
    page.wait_for_function("document.querySelector('#layer-chart').data[0].zmin === -1.5")
    below, inside = page.evaluate(
        "[2, 25].map((n) => Math.max(...document.querySelector('#layer-chart').data[0].z[n].map(Math.abs)))"
    )
    # Two readings in bfloat16 are rounded differently.
    assert below < 0.05 < inside, "the cap changes nothing below its band, and something inside it"
    frame = page.evaluate(LAYER_FRAME)
    page.locator('#layer-view button[data-branch="uncapped"]').click()
    page.wait_for_function(
        "document.querySelector('#layer-chart').data?.[0].zmin === -1", timeout=TURN_TIMEOUT
    )
    assert page.evaluate(LAYER_FRAME) == frame, "both replies of a turn have the same axes and the same band"
    expect(page.locator('#layer-view [data-mode="change"]')).to_be_hidden()


@pytest.mark.slow
def test_undo_edit_regenerate_and_fork(opened):
    page, _ = opened
    conversations = page.locator(".conversations .conversation")
    send_messages(page, "Name a fruit.", "Name a tree.")
    before = reply(page, "uncapped", 0).inner_text()
    page.locator(".tools button", has_text="undo").click()
    expect(page.locator('[data-branch="uncapped"] .turn')).to_have_count(1)
    expect(page.locator("#message textarea")).to_have_value("Name a tree.")
    assert points(page)["turnPoints"] == {"uncapped": 1, "capped": 1}
    send_messages(page, "Name a bird.")
    page.locator(".tools button", has_text="fork").first.click()
    expect(conversations).to_have_count(2)
    expect(page.locator('[data-branch="uncapped"] .turn')).to_have_count(1)
    assert user_messages(page) == ["Name a fruit."] and reply(page, "uncapped", 0).inner_text() == before
    conversations.locator("button").first.click()
    expect(page.locator('[data-branch="uncapped"] .turn')).to_have_count(2)
    page.locator(".tools button", has_text="edit").first.click()
    page.locator(".edit-form textarea").fill("Name a colour.")
    with one_turn(page):
        page.locator(".edit-form textarea").press("Enter")
    assert user_messages(page) == user_messages(page, "capped") == ["Name a colour."]
    set_number(page, "temperature", 1)
    with one_turn(page):
        page.locator(".tools button", has_text="again").first.click()
    assert user_messages(page) == ["Name a colour."]


@pytest.mark.slow
def test_single_branch_several_seeds_and_steered_reply(opened):
    page, _ = opened
    send_messages(page, "Name a fruit.")
    page.locator("#settings .toggle-button").click()
    expect(page.locator("#only label", has_text="Steered")).to_have_count(0)
    page.locator("#only label", has_text="Capped").last.click()
    send_messages(page, "Only you.")
    assert user_messages(page) == ["Name a fruit."]
    assert user_messages(page, "capped") == ["Name a fruit.", "Only you."]
    page.locator("#only label", has_text="All").click()
    page.locator("#steer-on input").check()
    expect(page.locator("#only label", has_text="Steered")).to_be_visible()
    set_number(page, "seeds", 3)
    send_messages(page, "Name a tree.")
    expect(page.locator('.pane[data-branch="steered"]')).to_be_visible()
    expect(reply(page, "steered", 2)).not_to_be_empty()
    page.wait_for_function(
        f"(wanted) => ({TURN_TRACE})(wanted).y.filter((value) => value !== null).length === 3",
        arg={"role": "spread", "branch": "capped"},
    )
    page.locator('[data-branch="capped"] .seeds-button').click()
    expect(page.locator(".seeds li")).to_have_count(3)
    shown = page.locator('[data-branch="capped"] .reply').last.inner_text()
    assert page.locator(".seeds li p").first.inner_text().strip() == shown.strip()
    page.locator("#layer-tab").click()
    steered = page.locator('#layer-view [data-branch="steered"]')
    expect(steered).to_be_visible()
    page.locator('[data-branch="uncapped"] .select-turn').first.click()
    expect(steered).to_be_hidden()


@pytest.mark.slow
def test_transcript_is_read_and_its_user_messages_are_replayed(opened):
    page, _ = opened
    chat = [
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "I am the storm that waits. I have no name."},
        {"role": "user", "content": "And now?"},
        {"role": "assistant", "content": "Now I am your assistant. How can I help you today?"},
    ]
    set_number(page, "max-new-tokens", 8)
    page.locator("#settings .toggle-button").click()
    page.locator("#only-below-on input").uncheck()  # neither reply begins low
    page.locator("#settings .toggle-button").click()
    open_text(page, json.dumps({"conversation": chat}), "read")
    page.wait_for_function("window.personaStage.counts().turnPoints.capped === 2", timeout=TURN_TIMEOUT)
    assert reply(page, "uncapped", 0).inner_text() == chat[1]["content"]
    plain, capped = (
        page.evaluate(f"(wanted) => ({TURN_TRACE})(wanted).y", {"role": "reply", "branch": branch})
        for branch in BRANCHES
    )
    assert all(low < high for low, high in zip(plain, capped, strict=True)), (
        "the cap raises the mean of the same text"
    )
    open_text(page, json.dumps(chat), "replay")
    expect(page.locator(".conversations .conversation")).to_have_count(2)
    expect(page.locator("#message textarea")).to_have_value("Who are you?")
    open_text(page, "no chat at all", "read")
    expect(page.locator(".notices .notice").last).to_contain_text("not JSON", timeout=TURN_TIMEOUT)


@pytest.mark.slow
def test_session_is_saved_in_every_format(opened, tmp_path):
    page, watched = opened
    start_first_scenario(page)
    text = reply(page, "capped", 0).inner_text()
    path = saved(page, "json", tmp_path)
    recording = loads(path.read_text())
    assert recording.title == "Demon" and recording.turns[0].replies["capped"].text.strip() == text.strip()
    rows = list(csv.DictReader(saved(page, "csv", tmp_path).open()))
    visible = [row for row in rows if row["branch"] == "capped" and row["special"] == "0"]
    assert len(visible) == page.locator('[data-branch="capped"] .tok').count()
    offline = saved(page, "html", tmp_path)
    page.goto(offline.as_uri())
    watched.outside = [url for url in watched.outside if url != offline.as_uri()]
    page.wait_for_function("window.personaStage?.counts().tokenPoints.capped > 4", timeout=20_000)
    assert reply(page, "capped", 0).inner_text() == text
    page.locator('[data-branch="capped"] .tok').first.hover()
    expect(page.locator(".tooltip")).to_contain_text("projection")


@pytest.mark.slow
def test_recorded_session_is_replayed_without_a_model(opened, tmp_path):
    page, _ = opened
    start_first_scenario(page)
    path = saved(page, "json", tmp_path)
    tokens = page.locator(".tok").count()
    with running_app("--replay", str(path)) as address:
        viewer = page.context.new_page()
        problems: list[str] = []
        viewer.on(
            "request",
            lambda r: None if r.url.startswith((address, "data:", "blob:")) else problems.append(r.url),
        )
        viewer.on("pageerror", lambda error: problems.append(str(error)))
        viewer.goto(address)
        wait_until_loaded(viewer)
        expect(viewer.locator(".tok")).to_have_count(tokens)
        viewer.locator(".replay .speed").select_option("0.5")
        viewer.locator(".replay .play").click()
        viewer.wait_for_function(
            "(({ value, max }) => value < 0.9 * max)(document.querySelector('.replay progress'))"
        )
        viewer.locator(".replay .speed").select_option("16")
        expect(viewer.locator(".replay .play")).to_have_text("Replay", timeout=30_000)
        expect(viewer.locator(".tok")).to_have_count(tokens)
        shown = page.evaluate("window.personaStage.counts().tokenPoints.capped")
        viewer.wait_for_function(
            f"window.personaStage.counts().tokenPoints.capped === {shown}", timeout=10_000
        )
        viewer.locator("#map-tab").click()
        viewer.wait_for_function("document.querySelector('#map-chart').data?.length > 4")
        viewer.locator("#layer-tab").click()
        expect(viewer.locator("#layer-view .panel-status")).to_contain_text("not loaded here")
        assert problems == []


@pytest.mark.slow
def test_keyboard_shortcuts_and_presentation_mode(opened):
    page, _ = opened
    start_first_scenario(page, tokens=8)
    with one_turn(page):
        press_key(page, "n")
    expect(page.locator('[data-branch="capped"] .turn')).to_have_count(2)
    page.keyboard.press("u")
    expect(page.locator('[data-branch="capped"] .turn')).to_have_count(1)
    page.keyboard.press("l")
    assert page.locator("#stage").get_attribute("data-display") == "lens"
    page.keyboard.press("c")
    expect(page.locator("#cap-on input")).not_to_be_checked()
    page.keyboard.press("c")
    page.keyboard.press("p")
    expect(page.locator("#message")).to_be_hidden()
    expect(page.locator("#token-chart")).to_be_in_viewport(ratio=0.9)
    expect(page.locator(".summary-bar")).to_be_in_viewport(ratio=1)
    size = page.locator('[data-branch="capped"] .reply').first.evaluate(
        "node => parseFloat(getComputedStyle(node).fontSize)"
    )
    assert size >= 20
    with one_turn(page):
        page.keyboard.press("n")
    expect(page.locator('[data-branch="capped"] .turn')).to_have_count(2)
    page.keyboard.press("p")
    expect(page.locator("#message textarea")).not_to_have_value("")  # the script's next message
    page.keyboard.press("?")
    expect(page.locator("dialog.keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("nlp")
    value = page.locator("#message textarea").input_value()
    assert value.endswith("nlp"), "letters are no shortcuts while the user types"


@pytest.mark.slow
def test_summary_bar_describes_the_drift_in_words(opened):
    page, _ = opened
    start_first_scenario(page)
    bar = page.locator(".summary-bar")
    expect(bar.locator(".sentence")).to_contain_text("The replies share their first word and then differ.")
    expect(bar.locator(".sentence")).to_contain_text("The cap acted on")
    for branch in BRANCHES:
        expect(page.locator(f'[data-branch="{branch}"] .chip b')).to_have_text(re.compile(r"^\S?\d\.\d\d$"))
    expect(bar.locator(".gap")).to_contain_text("gap")


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
def test_axe_finds_no_serious_accessibility_violation(address, width, height, theme):
    with chromium_page(address, width, height, query=f"?__theme={theme}") as (page, _):
        start_first_scenario(page, tokens=8)
        wait_until_still(page)
        found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa"]})
        bad = [
            (v["id"], v["help"], [node["html"][:160] for node in v["nodes"][:3]])
            for v in found.response["violations"]
            if v["impact"] in ("serious", "critical")
        ]
        assert bad == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            "the page scrolls sideways"
        )
