"""What is said on the page is nobody else's: not another visitor's, not in a log, not in memory once the tab is closed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from gradio_client import Client

from demo.bench.browser_client import BrowserClient, last, refusals
from tests.helpers.hosted import hosted, turns_shown
from tests.trust import held

pytestmark = pytest.mark.slow
GROUP = "hosting"
SECRET = "xyzzy-nobody-else-may-read-this"


def test_one_cannot_see_or_change_what_is_another_s(patient):
    with hosted(patient) as address, BrowserClient(address) as mine, BrowserClient(address) as other:
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
        said = [message["content"] for request in patient.requests for message in request.messages]
        assert SECRET in said and "Another's" not in said and "Hello" not in said
    held("one visitor after another's conversation", len(asks) + 25, "nothing seen, nothing changed", GROUP)


def test_one_cannot_stop_another_s_reply(patient):
    patient.go.clear()
    with hosted(patient) as address, BrowserClient(address) as mine, BrowserClient(address) as other:
        updates = mine.send("a long story")
        next(updates)
        other.stop()
        other.new_chat()
        patient.go.set()
        ops = last(updates)
        assert not refusals(ops) and any(op["op"] == "turn" for op in ops)
    held("stop and new chat, pressed by another", 2, "the reply ran to its end", GROUP)


def test_no_log_holds_what_was_said(patient, capfd, caplog):
    with hosted(patient) as address, BrowserClient(address) as tab:
        last(tab.send(SECRET, **{"System prompt": SECRET}))
        patient.fail_after = 1
        last(tab.send(f"fail {SECRET}"))
        patient.fail_after, patient.refuse = None, True
        last(tab.send(f"refuse {SECRET}"))
        patient.refuse = False

        def broken(request: Any, cancel: Any = None) -> Any:
            raise ValueError(f"cannot read {request.messages}")

        patient.read = broken
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


def test_a_closed_tab_gives_its_memory_back_at_once_and_a_broken_heartbeat_ends_no_reply(patient):
    with hosted(patient) as address:
        with BrowserClient(address) as tab:
            tab.load()
            last(tab.send("Hello"))
        _until(lambda: patient.forgotten)
        patient.go.clear()
        broken = BrowserClient(address)
        with broken.http.stream("GET", f"gradio_api/heartbeat/{broken.session}"):
            broken.load()
            updates = broken.send("a long story")
            next(updates)
            count = len(patient.forgotten)
        _until(lambda: len(patient.forgotten) > count)
        patient.go.set()
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
