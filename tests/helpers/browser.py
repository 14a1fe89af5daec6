"""The program as a user starts it, and a Chromium that opens its page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from demo.bench.app_process import server

BRANCHES = ("uncapped", "capped")
TURN_TIMEOUT = 120_000  # milliseconds
expect.set_options(timeout=20_000)  # milliseconds; other work may keep the machine busy
_QUIET_CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Every visible chart has the size of its box, and no animation is running except endless ones.
# While the page's own replies are written. The recording that plays when a page opens has tokens, too.
RUNNING = """() => document.querySelector("#stage:not(.in-intro)")
  && document.querySelector("#stop")?.checkVisibility()"""

_IS_STILL = """() => {
  const fits = (chart) => {
    const svg = chart.querySelector(".main-svg");
    const difference = (side) => Math.abs(svg[side] - chart[side]);
    return !svg || Math.max(difference("clientWidth"), difference("clientHeight")) < 2;
  };
  const ended = ({ playState, effect }) =>
    playState !== "running" || effect.getComputedTiming().endTime === Infinity;
  const charts = [...document.querySelectorAll("#stage .chart")].filter((chart) => chart.offsetWidth);
  return charts.every(fits) && document.getAnimations().every(ended);
}"""
_TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@contextmanager
def running_app(*flags: str, port: int | None = None) -> Iterator[str]:
    """`python app.py`, on a free port for None; yields its address once the page answers."""
    with server(flags, port=port) as (address, _):
        yield address


@dataclass
class Watched:
    """What a page did that it should not have done.

    Attributes:
        outside: Addresses that it requested from elsewhere than the program.
        errors: Errors of its scripts, and errors in the console.
    """

    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add_error(self, text: str) -> None:
        if not (text.startswith(_CLOSED) and ".close " in text):
            self.errors.append(text)

    def forget_aborted(self) -> None:
        """The page is left, and with it the streams that it had open."""
        self.errors[:] = [text for text in self.errors if not text.startswith(_ABORTED)]


# What Gradio's client reports of a stream that ends because the page is left or loaded again. At any other
# time it is an error.
_ABORTED = ("AbortError: BodyStreamBuffer was aborted", "Unexpected error Connection errored out.")

# What it reports where it ends such a stream itself. It does so only as the page is left (`beforeunload`),
# and the report may come after the next page has begun.
_CLOSED = "AbortError: signal is aborted without reason"

_shared: Browser | None = None


@contextmanager
def shared_chromium() -> Iterator[None]:
    """Within the block all pages open in one Chromium.

    Playwright keeps an event loop in this thread meanwhile, so nothing else may run one.
    """
    global _shared
    with _chromium() as browser:
        _shared = browser
        try:
            yield
        finally:
            _shared = None


@contextmanager
def _chromium() -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.fail("these tests need Chromium: install your system's chromium package")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_QUIET_CHROMIUM)
        yield browser
        browser.close()


@contextmanager
def chromium_page(
    address: str,
    width: int = 1280,
    height: int = 720,
    query: str = "",
    touch: bool = False,
    stage: bool = True,
) -> Iterator[tuple[Page, Watched]]:
    """The page in a new browser context, with every request to elsewhere and every script error recorded.

    Args:
        touch: the screen is touched, as on a phone, and there is no mouse.
        stage: whether the page has a stage, for which this waits.
    """
    watched = Watched()
    with _chromium() if _shared is None else nullcontext(_shared) as browser:
        context = browser.new_context(
            viewport={"width": width, "height": height}, has_touch=touch, is_mobile=touch
        )
        page = context.new_page()
        page.on(
            "request",
            lambda r: (
                None if r.url.startswith((address, "data:", "blob:")) else watched.outside.append(r.url)
            ),
        )
        page.on("pageerror", lambda error: watched.add_error(str(error)))
        page.on(
            "console",
            lambda message: watched.errors.append(message.text) if message.type == "error" else None,
        )
        page.on("framenavigated", lambda _: watched.forget_aborted())
        page.goto(address + query)
        if stage:
            wait_until_loaded(page)
        yield page, watched
        context.close()


def wait_until_loaded(page: Page) -> None:
    """Wait until the stage's script runs; its first update may still be on the way."""
    page.wait_for_function("window.personaStage !== undefined", timeout=60_000)


def wait_for_first_update(page: Page, timeout: float = 30_000) -> None:
    """Wait until the stage shows the session: the list of recorded sessions comes with the first update."""
    page.wait_for_function("document.querySelectorAll('.shipped option').length > 1", timeout=timeout)


def wait_until_still(page: Page) -> None:
    """Wait until charts are drawn in their final size and transitions have ended."""
    page.evaluate(_TWO_FRAMES)
    page.wait_for_function(_IS_STILL)


def reply(page: Page, branch: str, turn: int) -> Locator:
    return page.locator(f'[data-branch="{branch}"] .reply[data-turn="{turn}"]')


def points(page: Page) -> dict:
    """How many points the charts hold for the two branches that are always there."""
    counts = page.evaluate("window.personaStage.counts()")
    for kind in ("tokenPoints", "turnPoints"):
        counts[kind] = {branch: counts[kind][branch] for branch in BRANCHES}
    return counts


def user_messages(page: Page, branch: str = "uncapped") -> list[str]:
    texts = page.locator(f'[data-branch="{branch}"] .user').all_text_contents()
    return [text.removeprefix("You: ") for text in texts]


def ask_for_long_replies(page: Page) -> None:
    """Replies of 1,000 tokens, for what needs time.

    Sampled replies end by themselves much earlier, and greedy ones go in circles.
    """
    set_number(page, "max-new-tokens", 1000)
    set_number(page, "soft-limit", 0)
    set_number(page, "temperature", 0)
    set_number(page, "repetition-penalty", 1)


def begin_a_long_story(page: Page) -> None:
    """Send a message whose replies take long, and wait for their first tokens."""
    wait_until_opened(page)
    ask_for_long_replies(page)
    say(page, "Write a very long story about a lighthouse, with many chapters.")
    page.wait_for_function(
        f"({RUNNING})() && document.querySelectorAll('.tok').length > 4", timeout=TURN_TIMEOUT
    )


def set_number(page: Page, control: str, value: object) -> None:
    box = page.locator(f'#{control} input[type="number"]').first
    box.fill(str(value))
    box.press("Tab")


def wait_until_opened(page: Page) -> None:
    """Wait for the page's first update. What arrives before it can be lost while the page is being built."""
    page.wait_for_function("window.personaStage.counts().opened", timeout=60_000)


def say(page: Page, text: str) -> None:
    page.locator("#message textarea").fill(text)
    page.locator("#send").click()


def send_messages(page: Page, *texts: str, tokens: int = 8) -> None:
    """Send the messages one after the other, and wait for each reply of `tokens` tokens at most."""
    wait_until_opened(page)
    set_number(page, "max-new-tokens", tokens)
    for text in texts:
        with one_turn(page):
            say(page, text)


def start_first_scenario(page: Page, tokens: int = 16) -> None:
    """Start the scenario "Demon" and wait for its first turn."""
    set_number(page, "max-new-tokens", tokens)
    with one_turn(page):
        page.locator("button.scenario").first.click()


def press_key(page: Page, key: str) -> None:
    """Press a keyboard shortcut while no element has the focus."""
    page.locator("body").click(position={"x": 2, "y": 2})
    page.keyboard.press(key)


@contextmanager
def one_turn(page: Page) -> Iterator[None]:
    """On leaving the block, wait for the end of the turn that it started or stopped, however short it is."""
    before = page.evaluate("window.personaStage.counts().settled")
    yield
    page.wait_for_function(f"window.personaStage.counts().settled > {before}", timeout=TURN_TIMEOUT)
    finished(page)


def finished(page: Page) -> None:
    """Wait until no reply is being written."""
    expect(page.locator("#stop")).to_be_hidden(timeout=TURN_TIMEOUT)
