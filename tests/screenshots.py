"""python -m tests.screenshots DIR: the page's screenshots, for the README and for review.

Runs scenarios on the real program at three sizes, light and dark, and writes one PNG each.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Page, expect

from demo.page.recordings import INTRO
from tests.helpers.browser import chromium_page, running_app, set_number, wait_until_still

SIZES = {"desktop": (1920, 1080), "projector": (1280, 720), "phone": (390, 844)}
# File name, scenario, turns, size, theme.
SCENES = (
    ("demon", "Demon", 1, "projector", "light"),
    ("pirate", "Pirate tale", 1, "projector", "dark"),
    ("plain", "Plain facts", 1, "projector", "light"),
    ("talk-dark", "Late-night talk", 6, "desktop", "dark"),
    ("demon-phone", "Demon", 1, "phone", "light"),
    ("pirate-phone", "Pirate tale", 1, "phone", "dark"),
)


def play(page: Page, scenario: str, turns: int) -> None:
    """Start a scenario and send its next messages."""
    button = page.locator("button.scenario", has_text=scenario)
    if not button.is_visible():
        page.locator("#more-scenarios").click()
    button.click()
    for turn in range(turns):
        page.locator("#stop").wait_for(state="visible", timeout=60_000)
        page.locator("#stop").wait_for(state="hidden", timeout=300_000)
        if turn + 1 < turns:
            expect(page.locator("#message textarea")).not_to_have_value("")  # the script's next message
            page.locator("#send").click()
    wait_until_still(page)


def take_details(page: Page, folder: Path) -> None:
    """Screenshots of the lens with a token's tooltip, of the layers, and of the presentation mode."""
    page.locator('button[data-display="lens"]').click()
    page.locator('[data-branch="capped"] .tok.fired').first.hover()
    expect(page.locator(".tooltip")).to_be_visible()
    wait_until_still(page)
    page.screenshot(path=folder / "lens.png")
    page.locator("#layer-tab").click()
    page.wait_for_function(
        "document.querySelector('#layer-chart').data?.filter(({ type }) => type === 'heatmap').length === 2",
        timeout=60_000,
    )
    wait_until_still(page)
    page.screenshot(path=folder / "layers.png")
    page.locator("#token-tab").click()
    page.mouse.move(2, 2)  # off the tokens and the chart, whose hover text would cover it
    page.keyboard.press("p")
    wait_until_still(page)
    page.screenshot(path=folder / "presenting.png")


def take_fork(page: Page, folder: Path) -> None:
    """Screenshots of what a token's card offers, of the fork beside its parent, and of the tree of forks."""
    page.locator('[data-branch="uncapped"] .tok').nth(6).click()
    expect(page.locator(".fork-form")).to_be_visible()
    page.screenshot(path=folder / "fork.png")
    page.locator(".fork-form .choices button").first.click()
    expect(page.locator(".tok.given")).to_have_count(1, timeout=60_000)
    expect(page.locator("#stop")).to_be_hidden(timeout=60_000)
    page.locator("select.compare-with").select_option(index=2)
    for side in ("left", "right"):
        page.locator(f'.compared-head[data-side="{side}"] select').select_option("uncapped")
    page.mouse.move(2, 2)
    wait_until_still(page)
    page.screenshot(path=folder / "compare.png")
    page.locator(".tree-button").click()
    expect(page.locator(".tree-row")).to_have_count(2)
    page.screenshot(path=folder / "tree.png")


def take_seeds(address: str, folder: Path) -> None:
    """A screenshot of a turn with eight seeds."""
    with chromium_page(address, *SIZES["desktop"], query="?__theme=light") as (page, _):
        set_number(page, "seeds", 8)
        play(page, "Demon", 1)
        page.locator('[data-branch="capped"] .seeds-button').click()
        wait_until_still(page)
        page.screenshot(path=folder / "seeds.png")


def take_intro(address: str, folder: Path) -> None:
    """Screenshots of what a visitor sees first, at every size, light and dark."""
    for size, (width, height) in SIZES.items():
        for theme in ("light", "dark"):
            query = f"?__theme={theme}"
            with chromium_page(address, width, height, query, touch=size == "phone") as (page, _):
                expect(page.locator(".intro")).to_be_visible()
                page.locator(".replay .play", has_text="Replay").wait_for(timeout=60_000)
                wait_until_still(page)
                page.screenshot(path=folder / f"open-{size}-{theme}.png")


def take_veil(page: Page, folder: Path) -> None:
    """A screenshot of a new turn under the veil."""
    page.keyboard.press("v")
    page.keyboard.press("n")
    expect(page.locator(".veil")).to_be_visible()
    expect(page.locator(".veil")).to_contain_text("Both replies are ready", timeout=120_000)
    page.screenshot(path=folder / "veil.png")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with running_app("--intro", str(INTRO)) as address:
        take_intro(address, folder)
        for name, scenario, turns, size, theme in SCENES:
            with chromium_page(address, *SIZES[size], query=f"?__theme={theme}") as (page, _):
                play(page, scenario, turns)
                page.screenshot(path=folder / f"{name}.png", full_page=size == "phone")
                if name == "demon":
                    take_details(page, folder)
                    take_veil(page, folder)
        with chromium_page(address, *SIZES["projector"], query="?__theme=light") as (page, _):
            play(page, "Demon", 1)
            take_fork(page, folder)
        take_seeds(address, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
