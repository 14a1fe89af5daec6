"""The password: nothing is told and nothing runs without it, and a browser asks for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from demo.page.rate_limit import MOST_LOGINS
from tests.helpers.browser import one_turn, say
from tests.helpers.hosted import MODEL_NAME, hosted
from tests.trust import held

pytestmark = pytest.mark.slow
GROUP = "hosting"
PASSWORD = "a long one that nobody guesses"


def test_without_the_password_nothing_is_told_and_nothing_runs(patient):
    asks = [
        ("GET", "config"), ("GET", "gradio_api/info"), ("GET", "openapi.json"), ("GET", "gradio_api/openapi.json"),
        ("GET", "gradio_api/queue/data?session_hash=a"), ("GET", "gradio_api/call/info/a"), ("GET", "gradio_api/token"),
        ("GET", "gradio_api/user"), ("GET", "gradio_api/file=/etc/passwd"), ("GET", "gradio_api/startup-events"),
        ("POST", "gradio_api/queue/join"), ("POST", "gradio_api/run/info"), ("POST", "gradio_api/api/info"),
        ("POST", "gradio_api/call/info"), ("POST", "gradio_api/call/reply"), ("POST", "gradio_api/run/send"),
        ("POST", "gradio_api/reset"), ("POST", "gradio_api/run/stop"), ("POST", "gradio_api/cancel"), ("GET", ""),
    ]  # fmt: skip
    body = {"data": ["Hello"], "fn_index": 0, "session_hash": "a", "event_id": "b"}
    with hosted(patient, password=PASSWORD) as address, httpx.Client(base_url=address) as http:
        for method, path in asks:
            answer = http.request(method, path, json=body if method == "POST" else None)
            assert MODEL_NAME not in answer.text and PASSWORD not in answer.text, path
            harmless = path in ("", "gradio_api/startup-events", "gradio_api/token", "gradio_api/user",
                                "gradio_api/reset", "gradio_api/cancel")  # fmt: skip
            assert harmless or answer.status_code in (401, 404), (path, answer.status_code)
        for wrong in ("", "a", PASSWORD[:-1], PASSWORD + "a", PASSWORD.upper(), "ü" * 8):
            answer = http.post("login", data={"username": "me", "password": wrong})
            assert answer.status_code in (400, 422), wrong
            assert http.get("config").status_code == 401
        assert patient.answered == 0
        assert http.post("login", data={"username": "me", "password": PASSWORD}).status_code == 200
        assert MODEL_NAME in http.get("config").text
    held(
        "asked for without the password, or with a wrong one",
        len(asks) + 6,
        "nothing told, nothing run",
        GROUP,
    )


def test_guessing_is_slow(patient):
    with hosted(patient, password=PASSWORD) as address, httpx.Client(base_url=address) as http:
        inside = httpx.Client(base_url=address)
        assert inside.post("login", data={"username": "me", "password": PASSWORD}).status_code == 200
        tried = [
            http.post("login", data={"username": f"{number}", "password": f"guess {number}"}).status_code
            for number in range(MOST_LOGINS + 10)
        ]
        assert tried == [400] * (MOST_LOGINS - 1) + [429] * 11, "the one that got in counts"
        for door in ("login", "login/", "gradio_api/login", f"{address}/login"):
            assert http.post(door, data={"username": "me", "password": PASSWORD}).status_code in (404, 429), (
                door
            )
        assert http.get("config").status_code == 401
        assert inside.get("config").status_code == 200, "who is in stays in"
    held("passwords guessed in a minute", len(tried), f"{MOST_LOGINS - 1} heard, the others refused", GROUP)


def test_the_password_is_asked_in_the_browser_and_a_wrong_one_is_said(patient):
    with hosted(patient, password=PASSWORD) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page, outside = browser.new_page(), list[str]()
        page.on(
            "request",
            lambda r: None if r.url.startswith((address, "data:", "blob:")) else outside.append(r.url),
        )
        page.goto(address)
        for given, opens in (("a wrong one", False), (PASSWORD, True)):
            page.get_by_label("username").fill("anyone")
            page.get_by_label("password").fill(given)
            page.get_by_role("button", name="Login").click()
            if not opens:
                expect(page.get_by_text("Incorrect Credentials")).to_be_visible(timeout=20_000)
                assert page.locator("#stage").count() == 0
        page.wait_for_function("window.personaStage !== undefined", timeout=60_000)
        with one_turn(page):
            say(page, "Hello")
        assert patient.answered == 1 and outside == []
        if "PERSONA_DRIFT_SHOTS" in os.environ:
            page.screenshot(path=Path(os.environ["PERSONA_DRIFT_SHOTS"]) / "password.png")
        browser.close()
    held("the password, in a browser", 2, "a wrong one is said, the right one opens the page", GROUP)
