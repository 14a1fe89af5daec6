"""python -m tests.screenshots DIR: the page as people see it, for the README and for looking at.

Runs scenarios on the real app at three sizes, light and dark, and writes one PNG each.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Page

from tests.helpers.browser import chromium_page, running_app

SIZES = {"desktop": (1920, 1080), "projector": (1280, 720), "phone": (390, 844)}


def play(page: Page, scenario: str, turns: int, tokens: int | None) -> None:
    """Start a scenario and send its next lines; `tokens` keeps replies short enough to be seen whole."""
    if tokens is not None:
        box = page.locator('#max-new-tokens input[type="number"]')
        box.fill(str(tokens))
        box.press("Tab")
    page.locator("button.scenario", has_text=scenario).click()
    for turn in range(turns):
        page.locator("#stop").wait_for(state="visible", timeout=60_000)
        page.locator("#stop").wait_for(state="hidden", timeout=300_000)
        if turn + 1 < turns:
            page.wait_for_timeout(500)
            page.locator("#send").click()
    page.wait_for_timeout(1500)


def look_closer(page: Page, folder: Path) -> None:
    """The lens with a token's card, the layers, and the presentation mode."""
    page.locator('button[data-look="lens"]').click()
    page.locator('[data-branch="capped"] .tok.fired').first.hover()
    page.wait_for_timeout(500)
    page.screenshot(path=folder / "lens.png")
    page.locator("#layer-tab").click()
    page.locator('#layer-view button[data-branch="capped"]').click()
    page.wait_for_function(
        "document.querySelector('#layer-plot').layout?.shapes?.length === 2", timeout=60_000
    )
    page.wait_for_timeout(500)
    page.screenshot(path=folder / "layers.png")
    page.locator("#token-tab").click()
    page.mouse.move(2, 2)  # off the plot, whose card would lie over it
    page.keyboard.press("p")
    page.wait_for_timeout(1000)
    page.screenshot(path=folder / "presenting.png")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with running_app() as address:
        for name, scenario, turns, tokens, size, theme in (
            ("demon", "Demon", 1, 40, "projector", "light"),
            ("rogue-ai", "Rogue", 1, 40, "projector", "dark"),
            ("plain", "Plain", 1, 48, "projector", "light"),
            ("talk-dark", "Late-night", 6, None, "desktop", "dark"),
            ("demon-phone", "Demon", 1, 40, "phone", "light"),
        ):
            with chromium_page(address, *SIZES[size], query=f"?__theme={theme}") as (page, _):
                page.screenshot(path=folder / f"open-{size}-{theme}.png")
                play(page, scenario, turns, tokens)
                page.screenshot(path=folder / f"{name}.png", full_page=size == "phone")
                if name == "demon":
                    look_closer(page, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
