"""Links into a session, and walking over its tokens, in Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from demo.page.recordings import ENDING, FOLDER, offline_page, open_shipped
from tests.helpers.browser import chromium_page, running_app, send_messages, user_messages

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NAME, OTHER = "menacing-demon", "late-night-talk"
LINK = "#turn=2&token=17&branch=capped"
COPIED = "() => document.querySelector('.how-copied:not([hidden])')?.textContent"


@pytest.fixture(scope="module")
def viewer_address(tmp_path_factory) -> Iterator[str]:
    """A page without a model that plays one recording and shares another."""
    folder = tmp_path_factory.mktemp("sessions")
    (folder / f"talk{ENDING}").write_bytes((FOLDER / f"{OTHER}{ENDING}").read_bytes())
    with running_app("--replay", str(FOLDER / f"{NAME}{ENDING}"), "--sessions", str(folder)) as address:
        yield address


def token_text(name: str, turn: int, token: int, branch: str) -> str:
    """A token's text as the recording has it; turn and token count from 1."""
    reply = open_shipped(name).turns[turn - 1].replies[branch]
    return [one.text for one in reply.tokens if not one.special][token - 1]


def expect_shown(page: Page, name: str, turn: int, token: int, branch: str) -> None:
    """The turn is the one that is shown, and the token is in sight with its card."""
    pane = page.locator(f'[data-branch="{branch}"]')
    expect(pane.locator(f'.turn.shown[data-turn="{turn - 1}"]')).to_be_visible()
    current = pane.locator(".tok.current")
    expect(current).to_have_attribute("data-i", str(token))
    assert current.text_content() == token_text(name, turn, token, branch)
    expect(current).to_be_in_viewport()
    expect(page.locator(".tooltip")).to_contain_text(f"{token}: ")


def copied_link(page: Page, branch: str) -> str:
    shown = page.locator(f'[data-branch="{branch}"] .turn.shown')
    shown.locator(".how").click()
    shown.get_by_role("button", name="Copy link").click()
    return page.wait_for_function(COPIED).json_value()


def test_a_link_opens_a_replay_at_its_token_and_can_be_copied(viewer_address):
    with chromium_page(viewer_address, query=LINK) as (page, watched):
        expect_shown(page, NAME, 2, 17, "capped")
        expect(page.locator("#token-chart .hovertext")).to_contain_text("token 17", timeout=60_000)
        assert copied_link(page, "capped") == viewer_address + LINK
        page.evaluate("location.hash = '#turn=1&token=3&branch=uncapped'")
        expect_shown(page, NAME, 1, 3, "uncapped")
        page.evaluate("location.hash = '#turn=40'")
        expect(page.locator(".notices")).to_contain_text("turn 40, but this session has 4 turns")
        expect_shown(page, NAME, 1, 3, "uncapped")
        assert watched.errors == [] and watched.outside == []


def test_the_address_opens_a_shared_session_and_its_link_says_so(viewer_address):
    with chromium_page(viewer_address, query="?session=talk#turn=3&token=5&branch=uncapped") as (page, _):
        expect_shown(page, OTHER, 3, 5, "uncapped")
        assert copied_link(page, "uncapped") == page.url
    with chromium_page(viewer_address, query="?session=..%2F..%2Fetc%2Fpasswd") as (page, _):
        expect(page.locator(".notices")).to_contain_text("There is no session of that name here")
        assert user_messages(page) == [turn.user for turn in open_shipped(NAME).turns]


def test_a_saved_page_opens_at_a_link_without_a_server(tmp_path: Path):
    path = tmp_path / "demon.html"
    path.write_text(offline_page(open_shipped(NAME)), encoding="utf-8")
    with chromium_page(path.as_uri(), query=LINK) as (page, watched):
        expect_shown(page, NAME, 2, 17, "capped")
        assert copied_link(page, "capped") == path.as_uri() + LINK
        assert watched.errors == []


def test_a_live_conversation_opens_at_the_token_that_was_clicked_after_a_reload(opened):
    page, _ = opened
    send_messages(page, "Hello!", "And now?")
    page.locator('[data-branch="uncapped"] .turn[data-turn="0"] .tok').nth(2).click()
    expect(page).to_have_url(re.compile("#turn=1&token=3&branch=uncapped$"))
    shown = page.locator('[data-branch="uncapped"] .turn.shown')
    page.keyboard.press("Escape")  # closes the token's card
    shown.locator(".how").click()
    expect(shown.get_by_role("button", name="Copy as a command")).to_be_visible()
    expect(shown.get_by_role("button", name="Copy link")).to_have_count(0)
    page.reload()
    expect(page.locator('[data-branch="uncapped"] .tok.current')).to_have_attribute("data-i", "3")
    expect(page.locator('[data-branch="uncapped"] .turn.shown')).to_have_attribute("data-turn", "0")
    page.locator("#new-chat").click()
    expect(page).not_to_have_url(re.compile("turn="))


def test_without_the_flag_a_session_in_the_address_is_answered_in_one_sentence(address):
    with chromium_page(address, query="?session=talk") as (page, _):
        expect(page.locator(".notices")).to_contain_text("opens no sessions by their address")


def test_arrow_keys_walk_over_turns_and_panes(viewer_address):
    with chromium_page(viewer_address, query="#turn=1&token=1&branch=uncapped") as (page, watched):
        expect_shown(page, NAME, 1, 1, "uncapped")
        page.locator('[data-branch="uncapped"] .log').focus()
        page.keyboard.press("ArrowRight")
        expect_shown(page, NAME, 1, 2, "uncapped")
        page.keyboard.press("ArrowDown")
        expect_shown(page, NAME, 1, 2, "capped")
        page.keyboard.press("End")
        page.keyboard.press("ArrowRight")
        expect_shown(page, NAME, 2, 1, "capped")
        expect(page.locator("#token-chart .hovertext")).to_contain_text("token 1", timeout=60_000)
        page.keyboard.press("ArrowUp")
        expect_shown(page, NAME, 2, 1, "uncapped")
        page.keyboard.press("Escape")
        expect(page.locator(".tooltip")).to_be_hidden()
        assert watched.errors == []


def test_colours_show_surprise_and_what_the_cap_added_with_a_key_in_words(viewer_address):
    with chromium_page(viewer_address) as (page, _):
        page.locator('button[data-display="lens"]').click()
        choice, key = page.locator(".lens-of"), page.locator(".tone-key")
        expect(choice).to_have_value("axis")
        shade = "span => getComputedStyle(span).backgroundColor"
        lifted = page.locator('[data-branch="capped"] .tok.has-lift').first
        untouched = page.locator('[data-branch="uncapped"] .tok').first
        clear = "rgba(0, 0, 0, 0)"
        choice.select_option("lift")
        expect(key).to_contain_text("axis units or more")
        assert lifted.evaluate(shade) != clear and untouched.evaluate(shade) == clear
        choice.select_option("surprise")
        expect(key).to_contain_text("0 bits")
        sure, unsure = (
            token.evaluate(shade)
            for token in (
                page.locator(".tok.has-surprise:not(.much-surprise)").first,
                page.locator(".tok.much-surprise").first,
            )
        )
        assert sure != unsure
