"""The password: without it the page returns no data and runs nothing, and a browser asks for it."""

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

_REQUESTS = (
    ("GET", ""), ("GET", "config"), ("GET", "openapi.json"), ("GET", "gradio_api/openapi.json"),
    ("GET", "gradio_api/info"), ("GET", "gradio_api/queue/data?session_hash=a"),
    ("GET", "gradio_api/call/info/a"), ("GET", "gradio_api/token"), ("GET", "gradio_api/user"),
    ("GET", "gradio_api/file=/etc/passwd"), ("GET", "gradio_api/startup-events"),
    ("POST", "gradio_api/queue/join"), ("POST", "gradio_api/run/info"), ("POST", "gradio_api/api/info"),
    ("POST", "gradio_api/call/info"), ("POST", "gradio_api/call/reply"), ("POST", "gradio_api/run/send"),
    ("POST", "gradio_api/reset"), ("POST", "gradio_api/run/stop"), ("POST", "gradio_api/cancel"),
)  # fmt: skip
# These answer without the password too, but reveal and change nothing.
_HARMLESS = (
    "",
    "gradio_api/startup-events",
    "gradio_api/token",
    "gradio_api/user",
    "gradio_api/reset",
    "gradio_api/cancel",
)


def log_in(http: httpx.Client, password: str, path: str = "login", user: str = "me") -> int:
    """Try to log in. Returns the HTTP status."""
    return http.post(path, data={"username": user, "password": password}).status_code


def test_without_the_password_no_data_is_returned_and_nothing_runs(patient):
    body = {"data": ["Hello"], "fn_index": 0, "session_hash": "a", "event_id": "b"}
    wrong = ("", "a", PASSWORD[:-1], PASSWORD + "a", PASSWORD.upper(), "ü" * 8)
    with hosted(patient, password=PASSWORD) as address, httpx.Client(base_url=address) as http:
        for method, path in _REQUESTS:
            response = http.request(method, path, json=body if method == "POST" else None)
            assert MODEL_NAME not in response.text and PASSWORD not in response.text, path
            assert path in _HARMLESS or response.status_code in (401, 404), (path, response.status_code)
        for password in wrong:
            assert log_in(http, password) in (400, 422), password
            assert http.get("config").status_code == 401
        assert patient.answered == 0
        assert log_in(http, PASSWORD) == 200
        assert MODEL_NAME in http.get("config").text
    held(
        "requests without the password or with a wrong one",
        len(_REQUESTS) + len(wrong),
        "no data returned, nothing run",
        GROUP,
    )


def test_password_guesses_are_limited(patient):
    with hosted(patient, password=PASSWORD) as address, httpx.Client(base_url=address) as http:
        logged_in = httpx.Client(base_url=address)
        assert log_in(logged_in, PASSWORD) == 200
        statuses = [log_in(http, f"guess {number}", user=f"{number}") for number in range(MOST_LOGINS + 10)]
        assert statuses == [400] * (MOST_LOGINS - 1) + [429] * 11, "the successful login counts too"
        for path in ("login", "login/", "gradio_api/login", f"{address}/login"):
            assert log_in(http, PASSWORD, path) in (404, 429), path
        assert http.get("config").status_code == 401
        assert logged_in.get("config").status_code == 200, "an earlier login stays valid"
    held(
        "passwords guessed within a minute",
        len(statuses),
        f"{MOST_LOGINS - 1} checked, the others refused",
        GROUP,
    )


def test_the_browser_asks_for_the_password_and_a_wrong_one_is_reported(patient):
    with hosted(patient, password=PASSWORD) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page, outside = browser.new_page(), list[str]()
        page.on(
            "request",
            lambda r: None if r.url.startswith((address, "data:", "blob:")) else outside.append(r.url),
        )
        page.goto(address)
        for password, opens in (("a wrong one", False), (PASSWORD, True)):
            page.get_by_label("username").fill("anyone")
            page.get_by_label("password").fill(password)
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
    held("logging in with a browser", 2, "a wrong password is reported, the right one opens the page", GROUP)
