"""Conversations are private: no other visitor sees them, no log holds them, a closed tab frees them."""

from __future__ import annotations

from typing import Any

import pytest
from gradio_client import Client

from demo.bench.browser_client import BrowserClient, last, refusals
from tests.helpers.hosted import hosted, turns_shown
from tests.helpers.waiting import wait_until
from tests.trust import held

pytestmark = pytest.mark.slow
GROUP = "hosting"
SECRET = "xyzzy-nobody-else-may-read-this"


def test_a_visitor_cannot_see_or_change_another_s_conversation(patient):
    with hosted(patient) as address, BrowserClient(address) as mine, BrowserClient(address) as other:
        mine.load()
        last(mine.send(SECRET, **{"System prompt": SECRET}))
        seen: list[Any] = [other.load(), other.config]
        requests: list[dict[str, Any]] = [{"do": "undo"}, {"do": "nothing"}]
        requests += [{"do": "save", "kind": kind} for kind in ("json", "csv", "html")]
        for index in (-1, 0, 1, 2, 10**9, "0", None, True, [0], {"a": 1}, 0.0):
            requests += [
                {"do": do, "turn": index, "conversation": index} for do in ("fork", "switch", "close")
            ]
        seen += [other.quick(**request) for request in requests]
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
        texts = [message["content"] for request in patient.requests for message in request.messages]
        assert SECRET in texts and "Another's" not in texts and "Hello" not in texts
    held(
        "attempts to see or change another visitor's conversation",
        len(requests) + 25,
        "nothing seen, nothing changed",
        GROUP,
    )


def test_a_visitor_cannot_stop_another_s_reply(patient):
    patient.go.clear()
    with hosted(patient) as address, BrowserClient(address) as mine, BrowserClient(address) as other:
        updates = mine.send("a long story")
        next(updates)
        other.stop()
        other.new_chat()
        patient.go.set()
        ops = last(updates)
        assert not refusals(ops) and any(op["op"] == "turn" for op in ops)
    held("stop and new chat pressed by another visitor", 2, "the reply ran to its end", GROUP)


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
        "messages that are answered, fail, are refused or cause an error",
        3 + len(attempts),
        "in no log",
        GROUP,
    )


def test_a_closed_tab_frees_its_cache_and_a_broken_heartbeat_ends_no_reply(patient):
    with hosted(patient) as address:
        with BrowserClient(address) as tab:
            tab.load()
            last(tab.send("Hello"))
        wait_until(lambda: patient.forgotten)
        patient.go.clear()
        broken = BrowserClient(address)
        with broken.http.stream("GET", f"gradio_api/heartbeat/{broken.session}"):
            broken.load()
            updates = broken.send("a long story")
            next(updates)
            count = len(patient.forgotten)
        wait_until(lambda: len(patient.forgotten) > count)
        patient.go.set()
        ops = last(updates)
        assert not refusals(ops) and any(op["op"] == "turn" for op in ops)
        assert not refusals(last(broken.send("and on"))), "the session still exists"
        assert turns_shown(broken) == ["a long story", "and on"]
    held(
        "a closed tab and a broken heartbeat",
        2,
        "KV cache freed at once; the reply and the session go on",
        GROUP,
    )
