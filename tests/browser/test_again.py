"""The command that the page copies makes the same replies again, in a shell."""

from __future__ import annotations

import subprocess
import sys

import pytest
from playwright.sync_api import Page, expect

from demo.utils.paths import ROOT
from tests.helpers.browser import one_turn, reply, say

pytestmark = [pytest.mark.browser, pytest.mark.slow]
TYPED = ('It\'s "late",\nand `pwd` costs $HOME; what now?', "-Say it \\ again!")
COPIED = "() => document.querySelector('.how-copied:not([hidden])')?.textContent"


def mean_of(page: Page, branch: str, turn: int) -> str:
    foot = page.locator(f'[data-branch="{branch}"] .turn[data-turn="{turn}"] .select-turn').inner_text()
    return foot.split("mean ")[1].split()[0].replace("\u2212", "-")


def test_the_copied_command_makes_both_replies_of_the_second_turn_word_for_word(opened):
    page, _ = opened
    for text in TYPED:
        with one_turn(page):
            say(page, text)
    section = page.locator('[data-branch="capped"] .turn[data-turn="1"]')
    section.locator(".how").click()
    names = section.locator(".how-list dt")
    for name in (
        "Model",
        "Number format",
        "Chat template (digest)",
        "Date of the chat",
        "Seed",
        "Temperature",
    ):
        expect(names.filter(has_text=name)).to_have_count(1)
    section.get_by_role("button", name="Copy as a command").click()
    command = page.wait_for_function(COPIED).json_value()
    assert command.startswith("python -m demo.conversation.again ")
    here = command.replace("python", f"'{sys.executable}'", 1)
    done = subprocess.run(["sh", "-c", here], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for branch in ("uncapped", "capped"):
        text = reply(page, branch, 1).text_content()
        assert f"turn 2, {branch}, mean {mean_of(page, branch, 1)}\n{text}" in done.stdout
