"""What one visitor may take, so that the others get their turn: replies, places, characters, files."""

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
from tests.trust import held

pytestmark = pytest.mark.slow
GROUP = "hosting"


def test_too_many_a_minute_are_refused_with_the_time_to_wait_and_the_chat_stays(patient):
    with hosted(patient, Limits(per_minute=3)) as address, BrowserClient(address) as tab:
        for number in range(3):
            assert not refusals(last(tab.send(f"message {number}")))
        (said,) = refusals(last(tab.send("one too many")))
        assert "No more than 3 replies a minute" in said and said.endswith(" s.")
        assert refusals(last(tab.slow(do="regenerate", turn=0))), "the stage's own buttons count too"
        with pytest.raises(Exception, match="No more than 3 replies a minute"):
            Client(address, verbose=False).predict("and by program", api_name="/reply")
        assert turns_shown(tab) == [f"message {number}" for number in range(3)]
        assert patient.answered == 3
    held(
        "replies a minute for one address",
        6,
        "3 given, 3 refused with the time to wait; the chat stayed",
        GROUP,
    )


def test_too_many_at_once_are_refused_until_one_ends(patient):
    patient.go.clear()
    with hosted(patient, Limits(at_once=2)) as address, ThreadPoolExecutor(2) as pool:
        tabs = [BrowserClient(address) for _ in range(3)]
        running = [tab.send("slow") for tab in tabs[:2]]
        for updates in running:
            next(updates)
        (said,) = refusals(last(tabs[2].send("no room")))
        assert "2 replies are being written for your address already" in said
        patient.go.set()
        for done in [pool.submit(last, updates) for updates in running]:
            assert not refusals(done.result(timeout=30))
        assert not refusals(last(tabs[2].send("room again")))
    held("replies at once for one address", 4, "the third of two refused, let in when one had ended", GROUP)


def test_a_place_is_given_back_when_the_visitor_vanishes_in_mid_reply(patient):
    patient.go.clear()
    with hosted(patient, Limits(at_once=1)) as address:
        with BrowserClient(address) as gone:
            next(gone.send("never read"))
        patient.go.set()
        with BrowserClient(address) as tab:
            for _ in range(50):
                if not refusals(last(tab.send("is there room?"))):
                    break
            else:
                pytest.fail("the place was never given back")


def test_too_long_and_too_full_are_refused(patient):
    with hosted(patient, Limits(characters=1000, waiting=4)) as address, BrowserClient(address) as tab:
        (said,) = refusals(last(tab.send("a" * 1001)))
        assert "no more than 1,000" in said
        (said,) = refusals(last(tab.send("a", **{"System prompt": "b" * 1000})))
        assert "no more than 1,000" in said, "all texts count"
        client = Client(address, verbose=False)
        with pytest.raises(Exception, match="no more than 1,000"):
            client.predict("a", [{"user": "b" * 500, "uncapped": "c" * 500, "capped": ""}], api_name="/reply")
        with pytest.raises(Exception, match="no more than 1,000"):
            client.predict([{"role": "user", "content": "a" * 1001}], api_name="/read")
        patient.queued = 8
        (said,) = refusals(last(tab.send("a")))
        assert "All places are taken and 4 visitors wait" in said
        assert patient.answered == 0
    held("longer than allowed, and more waiting than allowed", 5, "each refused in one sentence", GROUP)


def test_what_nobody_foresaw_at_the_door_is_one_sentence_and_the_chat_stays(patient, monkeypatch):
    def broken(engine: object) -> None:
        raise ValueError("what the visitor said")

    with hosted(patient) as address, BrowserClient(address) as tab:
        last(tab.send("Hello"))
        with monkeypatch.context() as patch:
            patch.setattr(type(patient), "load", property(broken))
            (said,) = refusals(last(tab.send("and on")))
        assert "That failed (ValueError)" in said and "visitor said" not in said
        assert not refusals(last(tab.send("and on")))
        assert turns_shown(tab) == ["Hello", "and on"]


def test_files_that_stay_in_memory_are_counted(patient):
    with hosted(patient, Limits(file_mib_per_hour=1)) as address, BrowserClient(address) as tab:
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


def test_the_doorman_forgets_who_is_not_inside(patient):
    rate_limiter = RateLimiter(Limits(per_minute=10_000))
    for number in range(500):
        with rate_limiter.turn(f"10.0.{number // 256}.{number % 256}", 1, patient.load):
            assert len(rate_limiter._inside) == 1
    assert not rate_limiter._inside


def test_settings_out_of_range_are_one_sentence_each(patient):
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
    with hosted(patient) as address, BrowserClient(address) as tab:
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
