"""What one visitor may use, so that others can take their turn: replies, places, characters, files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest
from gradio_client import Client

from demo.bench.browser_client import BrowserClient, Refused, last, refusals
from demo.page.hosting import Limits
from demo.page.rate_limit import RateLimiter, address_of
from tests.helpers.hosted import hosted, turns_shown
from tests.helpers.waiting import wait_until
from tests.trust import held

pytestmark = pytest.mark.slow
GROUP = "hosting"


def test_too_many_replies_a_minute_are_refused_and_the_conversation_stays(patient):
    with hosted(patient, Limits(per_minute=3)) as address, BrowserClient(address) as tab:
        for number in range(3):
            assert not refusals(last(tab.send(f"message {number}")))
        (notice,) = refusals(last(tab.send("one too many")))
        assert "No more than 3 replies a minute" in notice and notice.endswith(" s.")
        assert refusals(last(tab.slow(do="regenerate", turn=0))), "the stage's own buttons count too"
        with pytest.raises(Exception, match="No more than 3 replies a minute"):
            Client(address, verbose=False).predict("and by program", api_name="/reply")
        assert turns_shown(tab) == [f"message {number}" for number in range(3)]
        assert patient.answered == 3
    held(
        "replies per minute for one address",
        6,
        "3 given, 3 refused with the time to wait; the conversation stays",
        GROUP,
    )


def test_too_many_replies_at_once_are_refused_until_one_ends(patient):
    patient.go.clear()
    with hosted(patient, Limits(at_once=2)) as address, ThreadPoolExecutor(2) as pool:
        tabs = [BrowserClient(address) for _ in range(3)]
        running = [tab.send("slow") for tab in tabs[:2]]
        for updates in running:
            next(updates)
        (notice,) = refusals(last(tabs[2].send("no room")))
        assert "2 replies are being written for your address already" in notice
        patient.go.set()
        for done in [pool.submit(last, updates) for updates in running]:
            assert not refusals(done.result(timeout=30))
        assert not refusals(last(tabs[2].send("room again")))
    held(
        "simultaneous replies for one address",
        4,
        "a third is refused while two run, and accepted after one has ended",
        GROUP,
    )


def test_a_visitor_who_vanishes_during_a_reply_frees_the_place(patient):
    patient.go.clear()
    with hosted(patient, Limits(at_once=1)) as address:
        with BrowserClient(address) as gone:
            next(gone.send("never read"))
        patient.go.set()
        with BrowserClient(address) as tab:
            wait_until(lambda: not refusals(last(tab.send("is there room?"))))


def test_texts_that_are_too_long_and_a_full_queue_are_refused(patient):
    with hosted(patient, Limits(characters=1000, waiting=4)) as address, BrowserClient(address) as tab:
        (notice,) = refusals(last(tab.send("a" * 1001)))
        assert "no more than 1,000" in notice
        (notice,) = refusals(last(tab.send("a", **{"System prompt": "b" * 1000})))
        assert "no more than 1,000" in notice, "all texts count"
        client = Client(address, verbose=False)
        with pytest.raises(Exception, match="no more than 1,000"):
            client.predict("a", [{"user": "b" * 500, "uncapped": "c" * 500, "capped": ""}], api_name="/reply")
        with pytest.raises(Exception, match="no more than 1,000"):
            client.predict([{"role": "user", "content": "a" * 1001}], api_name="/read")
        patient.queued = 8
        (notice,) = refusals(last(tab.send("a")))
        assert "The engine is full and 4 visitors wait" in notice
        assert patient.answered == 0
    held("texts that are too long, and a full queue", 5, "each refused in one sentence", GROUP)


def test_an_unexpected_error_before_a_turn_is_one_sentence_and_the_conversation_stays(patient):
    with hosted(patient) as address, BrowserClient(address) as tab:
        last(tab.send("Hello"))
        patient.load_error = ValueError("what the visitor said")
        (notice,) = refusals(last(tab.send("and on")))
        patient.load_error = None
        assert "That failed (ValueError)" in notice and "visitor said" not in notice
        assert not refusals(last(tab.send("and on")))
        assert turns_shown(tab) == ["Hello", "and on"]


def test_session_files_beyond_the_hourly_limit_are_refused(patient):
    with hosted(patient, Limits(file_mib_per_hour=1)) as address, BrowserClient(address) as tab:
        last(tab.send("Hello"))
        file = next(op["text"] for op in tab.quick(do="save", kind="json") if op["op"] == "download")
        file = file.rstrip() + " " * 400_000
        assert not refusals(last(tab.slow(do="open", text=file)))
        assert not refusals(tab.quick(do="restore", conversations=[file], current=0))
        for notices in (
            refusals(last(tab.slow(do="open", text=file))),
            refusals(tab.quick(do="restore", conversations=[file], current=0)),
        ):
            assert "No more than 1 MiB of session files" in notices[0]
        assert not refusals(last(tab.send("and the chat goes on")))
    held("session files beyond an address's hourly limit", 2, "refused with the time to wait", GROUP)


@pytest.mark.parametrize(
    ("forwarded", "on_space", "address"),
    [
        ("8.8.8.8", False, "127.0.0.1"),
        ("8.8.8.8", True, "8.8.8.8"),
        ("1.1.1.1, 8.8.8.8", True, "8.8.8.8"),
        ("1.1.1.1, 8.8.8.8, 10.0.0.7", True, "8.8.8.8"),
        ("<script>, 10.0.0.7", True, "127.0.0.1"),
        ("", True, "127.0.0.1"),
    ],
)
def test_only_a_space_s_own_proxy_is_believed_about_addresses(monkeypatch, forwarded, on_space, address):
    if on_space:
        monkeypatch.setenv("SPACE_ID", "somebody/something")
    else:
        monkeypatch.delenv("SPACE_ID", raising=False)
    request = SimpleNamespace(
        headers={"x-forwarded-for": forwarded}, client=SimpleNamespace(host="127.0.0.1")
    )
    assert address_of(cast(gr.Request, request)) == address


def test_the_rate_limiter_forgets_addresses_with_no_running_turn(patient):
    rate_limiter = RateLimiter(Limits(per_minute=10_000))
    for number in range(500):
        with rate_limiter.turn(f"10.0.{number // 256}.{number % 256}", 1, patient.load):
            assert len(rate_limiter.active) == 1
    assert not rate_limiter.active


def test_settings_out_of_range_are_refused_in_one_sentence_each(patient):
    wrong: dict[str, tuple[Any, ...]] = {
        "Temperature": (-1, 1e9, "hot", None, [1]),
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
    with hosted(patient) as address, BrowserClient(address) as tab:
        for label, values in wrong.items():
            for value in values:
                try:
                    notices = refusals(last(tab.send("Hello", **{label: value})))
                except Refused as refused:  # by Gradio, before the page's own checks
                    notices = [str(refused)]
                assert all(len(text) < 400 and "Traceback" not in text for text in notices)
                count += 1
        assert not refusals(last(tab.send("Hello")))
    held(
        "settings out of range, sent without the page's own checks",
        count,
        "refused or clipped; the conversation continues",
        GROUP,
    )
