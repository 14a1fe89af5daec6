"""Starting the app as a user does, and a Chromium that looks at it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from demo.bench.page_load import server

BRANCHES = ("uncapped", "capped")
TURN_TIMEOUT = 120_000
_QUIET_CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def running_app(*flags: str) -> Iterator[str]:
    """`python app.py` on a free port; gives the address once the page answers."""
    with server(flags) as (address, _):
        yield address


@dataclass
class Watched:
    """What a page did that it should not have done."""

    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def chromium_page(
    address: str, width: int = 1280, height: int = 720, query: str = ""
) -> Iterator[tuple[Page, Watched]]:
    """A fresh browser on the page, with every request to elsewhere and every script error noted."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.fail("these tests need Chromium: install your system's chromium package")
    watched = Watched()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_QUIET_CHROMIUM)
        page = browser.new_context(viewport={"width": width, "height": height}).new_page()
        page.on(
            "request",
            lambda r: (
                None if r.url.startswith((address, "data:", "blob:")) else watched.outside.append(r.url)
            ),
        )
        page.on("pageerror", lambda error: watched.errors.append(str(error)))
        page.on(
            "console",
            lambda message: watched.errors.append(message.text) if message.type == "error" else None,
        )
        page.goto(address + query)
        page.wait_for_function("window.personaStage !== undefined", timeout=60_000)
        yield page, watched
        browser.close()


def reply(page: Page, branch: str, turn: int):
    return page.locator(f'[data-branch="{branch}"] .reply[data-turn="{turn}"]')


def points(page: Page) -> dict:
    """How many points the plots hold, of the two branches that are always there."""
    counts = page.evaluate("window.personaStage.counts()")
    for kind in ("tokenPoints", "turnPoints"):
        counts[kind] = {branch: counts[kind][branch] for branch in BRANCHES}
    return counts


def set_number(page: Page, control: str, value: object) -> None:
    box = page.locator(f'#{control} input[type="number"]').first
    box.fill(str(value))
    box.press("Tab")


def say(page: Page, text: str) -> None:
    page.locator("#message textarea").fill(text)
    page.locator("#send").click()


@contextmanager
def one_turn(page: Page) -> Iterator[None]:
    """What happens within the block starts a turn; on leaving, its end has come. However short, it is not missed."""
    before = page.evaluate("window.personaStage.counts().settled")
    yield
    page.wait_for_function(f"window.personaStage.counts().settled > {before}", timeout=TURN_TIMEOUT)
    finished(page)


def finished(page: Page) -> None:
    expect(page.locator("#stop")).to_be_hidden(timeout=TURN_TIMEOUT)
