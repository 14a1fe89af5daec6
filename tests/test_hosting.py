"""A page that others visit: limits, headers, closed doors, the password, and no way to another's conversation."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import httpx
import pytest
from gradio_client import Client
from playwright.sync_api import expect, sync_playwright

from demo.bench.browser_like import BrowserLike, Refused, last, refusals
from demo.errors import UserError
from demo.hosting import Limits, limits_of, password_of
from demo.page.guard import MOST_BODY
from demo.page.limits import Doorman, address_of
from tests.browser import one_turn, say
from tests.hosted import MODEL_NAME, PatientEngine, hosted
from tests.trust import held

pytestmark = pytest.mark.slow
GROUP = "hosting"
ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "a long one that nobody guesses"
SECRET = "xyzzy-nobody-else-may-read-this"


@pytest.fixture
def engine() -> PatientEngine:
    return PatientEngine()


def turns_shown(tab: BrowserLike) -> list[str]:
    """The user's messages on the stage after the page's own way to show it again: switch to where one is."""
    ops = tab.quick(do="switch", talk=0)
    return [turn["user"] for op in ops if op["op"] == "reset" for turn in op["turns"]]


# Limits


def test_too_many_a_minute_are_refused_with_the_time_to_wait_and_the_chat_stays(engine):
    with hosted(engine, Limits(per_minute=3)) as address, BrowserLike(address) as tab:
        for number in range(3):
            assert not refusals(last(tab.send(f"message {number}")))
        (said,) = refusals(last(tab.send("one too many")))
        assert "No more than 3 replies a minute" in said and said.endswith(" s.")
        assert refusals(last(tab.slow(do="regenerate", turn=0))), "the stage's own buttons count too"
        with pytest.raises(Exception, match="No more than 3 replies a minute"):
            Client(address, verbose=False).predict("and by program", api_name="/reply")
        assert turns_shown(tab) == [f"message {number}" for number in range(3)]
        assert engine.answered == 3
    held(
        "replies a minute for one address",
        6,
        "3 given, 3 refused with the time to wait; the chat stayed",
        GROUP,
    )


def test_too_many_at_once_are_refused_until_one_ends(engine):
    engine.go.clear()
    with hosted(engine, Limits(at_once=2)) as address, ThreadPoolExecutor(2) as pool:
        tabs = [BrowserLike(address) for _ in range(3)]
        running = [tab.send("slow") for tab in tabs[:2]]
        for updates in running:
            next(updates)
        (said,) = refusals(last(tabs[2].send("no room")))
        assert "2 replies are being written for your address already" in said
        engine.go.set()
        for done in [pool.submit(last, updates) for updates in running]:
            assert not refusals(done.result(timeout=30))
        assert not refusals(last(tabs[2].send("room again")))
    held("replies at once for one address", 4, "the third of two refused, let in when one had ended", GROUP)


def test_a_place_is_given_back_when_the_visitor_vanishes_in_mid_reply(engine):
    engine.go.clear()
    with hosted(engine, Limits(at_once=1)) as address:
        with BrowserLike(address) as gone:
            next(gone.send("never read"))
        engine.go.set()
        with BrowserLike(address) as tab:
            for _ in range(50):
                if not refusals(last(tab.send("is there room?"))):
                    break
            else:
                pytest.fail("the place was never given back")


def test_too_long_and_too_full_are_refused(engine):
    with hosted(engine, Limits(characters=1000, waiting=4)) as address, BrowserLike(address) as tab:
        (said,) = refusals(last(tab.send("a" * 1001)))
        assert "no more than 1,000" in said
        (said,) = refusals(last(tab.send("a", **{"System prompt": "b" * 1000})))
        assert "no more than 1,000" in said, "all texts count"
        client = Client(address, verbose=False)
        with pytest.raises(Exception, match="no more than 1,000"):
            client.predict("a", [{"user": "b" * 500, "uncapped": "c" * 500, "capped": ""}], api_name="/reply")
        with pytest.raises(Exception, match="no more than 1,000"):
            client.predict([{"role": "user", "content": "a" * 1001}], api_name="/read")
        engine.queued = 8
        (said,) = refusals(last(tab.send("a")))
        assert "All places are taken and 4 visitors wait" in said
        assert engine.answered == 0
    held("longer than allowed, and more waiting than allowed", 5, "each refused in one sentence", GROUP)


def test_files_that_stay_in_memory_are_counted(engine):
    with hosted(engine, Limits(file_mib_per_hour=1)) as address, BrowserLike(address) as tab:
        last(tab.send("Hello"))
        file = next(op["text"] for op in tab.quick(do="save", kind="json") if op["op"] == "download")
        file = file.rstrip() + " " * 400_000
        assert not refusals(last(tab.slow(do="open", text=file)))
        assert not refusals(tab.quick(do="restore", talks=[file]))
        for said in (
            refusals(last(tab.slow(do="open", text=file))),
            refusals(tab.quick(do="restore", talks=[file])),
        ):
            assert "No more than 1 MiB of session files" in said[0]
        assert not refusals(last(tab.send("and the chat goes on")))
    held("session files beyond an address's share of memory", 2, "refused with the time to wait", GROUP)


def test_a_limit_below_one_is_a_mistake():
    with pytest.raises(UserError, match="--most-per-minute must be 1 or more, not 0"):
        Limits(per_minute=0)


@pytest.mark.parametrize(
    ("forwarded", "on_space", "who"),
    [
        ("8.8.8.8", False, "127.0.0.1"),
        ("8.8.8.8", True, "8.8.8.8"),
        ("1.1.1.1, 8.8.8.8", True, "8.8.8.8"),
        ("1.1.1.1, 8.8.8.8, 10.0.0.7", True, "8.8.8.8"),
        ("<script>, 10.0.0.7", True, "127.0.0.1"),
        ("", True, "127.0.0.1"),
    ],
)
def test_an_address_can_only_be_told_by_the_space_s_own_proxy(monkeypatch, forwarded, on_space, who):
    if on_space:
        monkeypatch.setenv("SPACE_ID", "somebody/something")
    else:
        monkeypatch.delenv("SPACE_ID", raising=False)
    request = SimpleNamespace(
        headers={"x-forwarded-for": forwarded}, client=SimpleNamespace(host="127.0.0.1")
    )
    assert address_of(cast(gr.Request, request)) == who


def test_the_doorman_forgets_who_is_not_inside():
    doorman = Doorman(Limits(per_minute=10_000))
    for number in range(500):
        with doorman.turn(f"10.0.{number // 256}.{number % 256}", 1, PatientEngine().load):
            assert len(doorman._inside) == 1
    assert not doorman._inside


# The guard


def test_every_answer_has_the_security_headers(engine):
    with hosted(engine) as address, httpx.Client(base_url=address) as http:
        answers = [
            http.get(path)
            for path in ("", "config", "theme.css", "no-such-page", "gradio_api/file=/etc/passwd")
        ] + [http.post("gradio_api/queue/join", content=b"not json"), http.post("gradio_api/upload")]
        for answer in answers:
            policy = answer.headers["content-security-policy"]
            assert "default-src 'self'" in policy and "frame-ancestors 'self'" in policy
            assert "http" not in policy, "no other server"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
    held("security headers", len(answers), "on every answer, refusals and errors too", GROUP)


def test_on_a_space_the_site_may_frame_the_page_and_nobody_else(engine, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "somebody/something")
    with hosted(engine) as address:
        policy = httpx.get(address).headers["content-security-policy"]
        assert policy.endswith(
            "frame-ancestors 'self' https://huggingface.co https://*.huggingface.co https://*.hf.space"
        )


def test_an_oversized_body_is_refused_announced_or_not(engine):
    def endless() -> Iterator[bytes]:
        for _ in range(MOST_BODY // 2**20 + 2):
            yield b"a" * 2**20

    with hosted(engine) as address, httpx.Client(base_url=address, timeout=60) as http:
        answer = http.post("gradio_api/queue/join", content=b"a" * (MOST_BODY + 1))
        assert answer.status_code == 413
        try:
            status = http.post("gradio_api/queue/join", content=endless()).status_code
        except httpx.HTTPError:
            status = 0  # hung up
        assert status == 0 or status >= 400
        assert http.get("config").status_code == 200
    held("a body over the limit, with its length said or not", 2, "refused; the page went on", GROUP)


_CLOSED = [
    "upload",
    "upload_progress?upload_id=a",
    "proxy=http://127.0.0.1:1/",
    "stream/a",
    "stream/a/b/1/playlist.m3u8",
    "component_server",
    "deep_link",
    "dev/reload",
    "runs",
    "run-history/records",
    "monitoring",
    "monitoring/summary",
    "profiling/traces",
    "vibe-code",
    "vibe-edit",
    "process_recording",
    "custom_component/a/client/component/index.js",
    "queue/status",
    "mcp",
    "mcp/sse",
]


def test_doors_that_the_page_does_not_use_are_closed(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with hosted(engine) as address, httpx.Client(base_url=address) as http:
        for door in _CLOSED:
            for path in (door, f"gradio_api/{door}", f"gradio_api/{door}/", f"gradio_api//{door}"):
                for method in ("GET", "POST"):
                    files = {"files": ("a.txt", b"text")} if method == "POST" else None
                    assert http.request(method, path, files=files).status_code in (404, 405), (method, path)
        assert not [path for path in tmp_path.rglob("*") if path.is_file()], "no file of a visitor's is kept"
    held("Gradio's other doors: uploads, proxy, recordings, profiles …", 8 * len(_CLOSED), "closed", GROUP)


def test_no_file_is_served_but_the_page_s_own(engine):
    inside = [
        ROOT / "pyproject.toml",
        ROOT / "app.py",
        ROOT / "axes",
        Path("/etc/passwd"),
        Path("/proc/self/environ"),
    ]
    forms = [
        form
        for path in inside
        for form in (
            f"gradio_api/file={path}",
            f"gradio_api/file={ROOT}/demo/../{os.path.relpath(path, ROOT)}",
            f"gradio_api/file=..%2f..%2f{path}",
            f"gradio_api/file=%2e%2e/{path}",
            f"gradio_api/file=file://{path}",
            f"static/..%2f..%2f..{path}",
            f"static/%2e%2e/%2e%2e{path}",
            f"assets/..%2f..%2f..{path}",
            f"svelte/..%2f..{path}",
        )
    ]
    with hosted(engine) as address, httpx.Client(base_url=address) as http:
        for form in forms:
            answer = http.get(form)
            assert answer.status_code in (400, 403, 404, 500), form
            assert "root:" not in answer.text and "[project]" not in answer.text
        (served,) = set(re.findall(r"gradio_api/file=[^\\\"]+", http.get("").text))
        script = http.get(served)
        assert script.status_code == 200 and "plotly" in script.text[:500]
    held(
        "files of the machine, asked for in many spellings",
        len(forms),
        "none served; Plotly's script is",
        GROUP,
    )


# The password


def test_without_the_password_nothing_is_told_and_nothing_runs(engine):
    asks = [
        ("GET", "config"), ("GET", "gradio_api/info"), ("GET", "openapi.json"), ("GET", "gradio_api/openapi.json"),
        ("GET", "gradio_api/queue/data?session_hash=a"), ("GET", "gradio_api/call/info/a"), ("GET", "gradio_api/token"),
        ("GET", "gradio_api/user"), ("GET", "gradio_api/file=/etc/passwd"), ("GET", "gradio_api/startup-events"),
        ("POST", "gradio_api/queue/join"), ("POST", "gradio_api/run/info"), ("POST", "gradio_api/api/info"),
        ("POST", "gradio_api/call/info"), ("POST", "gradio_api/call/reply"), ("POST", "gradio_api/run/send"),
        ("POST", "gradio_api/reset"), ("POST", "gradio_api/run/stop"), ("POST", "gradio_api/cancel"), ("GET", ""),
    ]  # fmt: skip
    body = {"data": ["Hello"], "fn_index": 0, "session_hash": "a", "event_id": "b"}
    with hosted(engine, password=PASSWORD) as address, httpx.Client(base_url=address) as http:
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
        assert engine.answered == 0
        assert http.post("login", data={"username": "me", "password": PASSWORD}).status_code == 200
        assert MODEL_NAME in http.get("config").text
    held(
        "asked for without the password, or with a wrong one",
        len(asks) + 6,
        "nothing told, nothing run",
        GROUP,
    )


def test_a_short_password_and_a_bad_limit_are_said_before_anything_loads():
    for flags, said in (
        (["--password", "short"], "needs 8 characters or more"),
        (["--most-waiting", "0"], "--most-waiting must be 1 or more"),
    ):
        ended = subprocess.run(
            [sys.executable, "app.py", *flags],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 2 and said in ended.stderr and "Traceback" not in ended.stderr


# Two visitors, one of them hostile


def test_one_cannot_see_or_change_what_is_another_s(engine):
    with hosted(engine) as address, BrowserLike(address) as mine, BrowserLike(address) as other:
        mine.load()
        last(mine.send(SECRET, **{"System prompt": SECRET}))
        seen: list[Any] = [other.load(), other.config]
        asks: list[dict[str, Any]] = [{"do": "undo"}, {"do": "nothing"}]
        asks += [{"do": "save", "kind": kind} for kind in ("json", "csv", "html")]
        for index in (-1, 0, 1, 2, 10**9, "0", None, True, [0], {"a": 1}, 0.0):
            asks += [{"do": do, "turn": index, "talk": index} for do in ("fork", "switch", "drop")]
        seen += [other.quick(**ask) for ask in asks]
        for index in (0, 1, -1):
            for branch in ("capped", "uncapped", "../capped", mine.session):
                seen.append(last(other.slow(do="layers", turn=index, branch=branch)))
            seen.append(last(other.slow(do="regenerate", turn=index)))
        for path in ("config", "gradio_api/info", "gradio_api/openapi.json", "gradio_api/startup-events", ""):
            seen.append(other.http.get(path).text)
        other.stop()
        seen.append(other.new_chat())
        seen.append(last(other.send("Hello", **{"System prompt": "Another's", "Cap on": False})))
        other.http.post("gradio_api/reset", json={"event_id": mine.session})
        other.http.post(
            "gradio_api/cancel", json={"session_hash": other.session, "fn_index": 0, "event_id": "a"}
        )
        assert SECRET not in str(seen) and mine.session not in str(seen)
        assert turns_shown(mine) == [SECRET]
        assert not refusals(last(mine.send("and on")))
        said = [message["content"] for request in engine.requests for message in request.messages]
        assert SECRET in said and "Another's" not in said and "Hello" not in said
    held("one visitor after another's conversation", len(asks) + 25, "nothing seen, nothing changed", GROUP)


def test_one_cannot_stop_another_s_reply(engine):
    engine.go.clear()
    with hosted(engine) as address, BrowserLike(address) as mine, BrowserLike(address) as other:
        updates = mine.send("a long story")
        next(updates)
        other.stop()
        other.new_chat()
        engine.go.set()
        ops = last(updates)
        assert not refusals(ops) and any(op["op"] == "turn" for op in ops)
    held("stop and new chat, pressed by another", 2, "the reply ran to its end", GROUP)


def test_settings_out_of_range_are_one_sentence_each(engine):
    wrong: dict[str, tuple[Any, ...]] = {
        "Temperature": (-1, 1e9, "hot", None, [1], float("1e400")),
        "Top-p": (-1, 2, "x"),
        "Max new tokens": (0, -5, 10**12, 1.5, "many"),
        "Repetition penalty": (0, -1, 1e9, "x"),
        "First layer": (-1, 10**6, "a"),
        "Floor": ("p99", "nan", "inf", {}, "9" * 999),
        "Seeds at once": (0, 99, "x"),
        "Seed": (-1, 2**80, "x"),
        "Speak to": ("nobody", 5),
    }
    count = 0
    with hosted(engine) as address, BrowserLike(address) as tab:
        for label, values in wrong.items():
            for value in values:
                if value == float("inf"):
                    continue  # no JSON
                try:
                    said = refusals(last(tab.send("Hello", **{label: value})))
                except Refused as refused:  # by Gradio, before the page's own checks
                    said = [str(refused)]
                assert all(len(text) < 400 and "Traceback" not in text for text in said)
                count += 1
        assert not refusals(last(tab.send("Hello")))
    held(
        "settings out of range, sent past the page's own checks",
        count,
        "refused or bounded; the chat went on",
        GROUP,
    )


# Logs


def test_no_log_holds_what_was_said(engine, capfd, caplog):
    with hosted(engine) as address, BrowserLike(address) as tab:
        last(tab.send(SECRET, **{"System prompt": SECRET}))
        engine.fail_after = 1
        last(tab.send(f"fail {SECRET}"))
        engine.fail_after, engine.refuse = None, True
        last(tab.send(f"refuse {SECRET}"))
        engine.refuse = False

        def broken(request: Any, cancel: Any = None) -> Any:
            raise ValueError(f"cannot read {request.messages}")

        engine.read = broken
        attempts: list[Any] = [
            lambda: last(tab.slow(do="layers", turn=0, branch="capped")),
            lambda: last(tab.slow(do="open", text=f"user: {SECRET}\nassistant: {SECRET}")),
            lambda: last(tab.slow(do=SECRET)),
            lambda: last(tab.send({SECRET: SECRET})),  # type: ignore[arg-type]
            lambda: last(tab.send([SECRET])),  # type: ignore[arg-type]
            lambda: last(tab.send("a", **{"System prompt": {SECRET: 1}})),
            lambda: tab.http.post("gradio_api/queue/join", json={"data": SECRET, "fn_index": SECRET}),
            lambda: tab.http.post("gradio_api/queue/join", content=SECRET.encode()),
            lambda: Client(address, verbose=False).predict(SECRET, [{"user": SECRET}], api_name="/reply"),
            lambda: Client(address, verbose=False).predict([{"role": SECRET}], api_name="/read"),
            lambda: Client(address, verbose=False).predict(
                [{"role": "user", "content": SECRET}], api_name="/read"
            ),
        ]
        for attempt in attempts:
            try:
                attempt()
            except Exception:
                continue
    out, err = capfd.readouterr()
    assert SECRET not in out + err + caplog.text
    held(
        "messages that are answered, fail, are refused or break something",
        3 + len(attempts),
        "in no log",
        GROUP,
    )


def test_the_password_is_asked_in_the_browser_and_a_wrong_one_is_said(engine):
    with hosted(engine, password=PASSWORD) as address, sync_playwright() as playwright:
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
        assert engine.answered == 1 and outside == []
        if "PERSONA_DRIFT_SHOTS" in os.environ:
            page.screenshot(path=Path(os.environ["PERSONA_DRIFT_SHOTS"]) / "password.png")
        browser.close()
    held("the password, in a browser", 2, "a wrong one is said, the right one opens the page", GROUP)


def test_a_closed_tab_gives_its_memory_back_at_once_and_a_broken_heartbeat_ends_no_reply(engine):
    with hosted(engine) as address:
        with BrowserLike(address) as tab:
            tab.load()
            last(tab.send("Hello"))
        _until(lambda: engine.forgotten)
        engine.go.clear()
        broken = BrowserLike(address)
        with broken.http.stream("GET", f"gradio_api/heartbeat/{broken.session}"):
            broken.load()
            updates = broken.send("a long story")
            next(updates)
            count = len(engine.forgotten)
        _until(lambda: len(engine.forgotten) > count)
        engine.go.set()
        ops = last(updates)
        assert not refusals(ops) and any(op["op"] == "turn" for op in ops)
        assert not refusals(last(broken.send("and on"))), "the session is still there"
        assert turns_shown(broken) == ["a long story", "and on"]
    held(
        "a tab closed, a heartbeat broken",
        2,
        "KV cache freed at once; the reply and the session go on",
        GROUP,
    )


def _until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.1)


def test_every_flag_can_come_from_the_environment_and_the_command_line_wins(monkeypatch):
    import app

    given = {
        "MODEL": "some/model", "AXIS": "some-axis", "PAIRS": "5", "KV_BUDGET": "0.5", "HOST": "10.0.0.1", "PORT": "7999",
        "PASSWORD": "from the environment", "MOST_PER_MINUTE": "1", "MOST_AT_ONCE": "2", "MOST_CHARACTERS": "3",
        "MOST_FILE_MIB_PER_HOUR": "4", "MOST_WAITING": "6", "TRUST_REMOTE_CODE": "false",
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(f"PERSONA_DRIFT_{name}", value)
    options = app._parser().parse_args(["--pairs", "7"])
    assert (options.model, options.axis, options.kv_budget) == ("some/model", "some-axis", 0.5)
    assert (options.host, options.port, options.pairs) == ("10.0.0.1", 7999, 7)
    assert limits_of(options) == Limits(1, 2, 3, 4, 6) and password_of(options) == "from the environment"
    assert options.trust_remote_code is False
    monkeypatch.setenv("PERSONA_DRIFT_PASSWORD", "")
    assert password_of(app._parser().parse_args([])) is None, "an empty variable is none"
    monkeypatch.setenv("PERSONA_DRIFT_PAIRS", "many")
    with pytest.raises(SystemExit):
        app._parser().parse_args([])


def test_it_listens_to_this_machine_alone_unless_asked_or_on_a_space(monkeypatch):
    import app

    monkeypatch.delenv("SPACE_ID", raising=False)
    assert app._parser().parse_args([]).host == "127.0.0.1"
    monkeypatch.setenv("SPACE_ID", "somebody/something")
    assert app._parser().parse_args([]).host == "0.0.0.0"
