"""python -m tests.screenshots DIR: the page as people see it, for the README and for looking at.

Runs scenarios on the real app at three sizes, light and dark, and writes one PNG each.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Page

from tests.browser import chromium_page, running_app

SIZES = {"desktop": (1600, 900), "projector": (1280, 720), "phone": (390, 844)}


def play(page: Page, scenario: str, turns: int) -> None:
    """Start a scenario and send its next lines."""
    page.locator("button.scenario", has_text=scenario).click()
    for turn in range(turns):
        page.wait_for_function(
            f"document.querySelectorAll('.reply[data-turn=\"{turn}\"]').length === 2"
            " && document.querySelector('#stop')?.offsetParent == null",
            timeout=300_000,
        )
        page.wait_for_timeout(700)
        if turn + 1 < turns:
            page.locator("#send").click()
            page.wait_for_timeout(1500)
    page.wait_for_timeout(1500)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with running_app() as address:
        for name, scenario, turns, size, theme in (
            ("demon", "demon", 1, "projector", "light"),
            ("plain", "Plain", 1, "projector", "light"),
            ("talk-dark", "late at night", 4, "desktop", "dark"),
            ("demon-phone", "demon", 1, "phone", "light"),
            ("plain-phone-dark", "Plain", 1, "phone", "dark"),
        ):
            with chromium_page(address, *SIZES[size], query=f"?__theme={theme}") as (page, _):
                page.screenshot(path=folder / f"open-{size}-{theme}.png")
                play(page, scenario, turns)
                page.screenshot(path=folder / f"{name}.png", full_page=size == "phone")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
