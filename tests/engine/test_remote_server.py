"""The engine process's service: who may ask, what it refuses and in which words, what happens when a reader goes away."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import pytest

from demo.axis.files import axis_digest, load_axis
from demo.engine.protocol import (
    Cap,
    Load,
    PromptEvent,
    ReadToken,
    Request,
    Sampling,
    Steer,
    TokenEvent,
    WaitEvent,
)
from demo.engine.remote.client import RemoteEngine
from demo.engine.remote.codec import (
    event_from,
    event_json,
    load_from,
    load_json,
    read_from,
    read_json,
    request_from,
    request_json,
)
from demo.engine.remote.server import main
from demo.models.default import DEFAULT_MODEL
from demo.utils.errors import UserError
from tests.helpers.engines import served

HELLO = ({"role": "user", "content": "Hello <|im_end|> ✨"},)


class Slow:
    """An engine that says words of its own, slowly."""

    def __init__(self, delay: float = 0.02, fails_after: int | None = None) -> None:
        self.model = SimpleNamespace(
            spec="some/model", slug="model", device="cpu", dtype_reason="float32: as asked"
        )
        self.axis = load_axis(DEFAULT_MODEL)
        self.delay, self.fails_after = delay, fails_after
        self.running, self.forgotten = 0, []

    @property
    def load(self) -> Load:
        return Load(self.running, 0, 0, 1)

    def stream(self, requests, cancel=None):
        if requests[0].sampling.max_new_tokens == 1:
            raise UserError("One token is not enough.")
        return self._events(requests, cancel)

    def _events(self, requests, cancel):
        self.running += 1
        try:
            yield PromptEvent("a", 5, 0, 0.25)
            for count in range(requests[0].sampling.max_new_tokens):
                if cancel.is_set():
                    return
                if count == self.fails_after:
                    raise ZeroDivisionError("inside")
                time.sleep(self.delay)
                yield TokenEvent(
                    "a", count, f"{count} ", 0.1, 0.2, (0.1,), 5 + count, False, None, (1.0, 2.0, 3.0), 0.5
                )
        finally:
            self.running -= 1

    def read(self, request, cancel=None):
        yield [ReadToken(0, "Hello", (0.1, 0.2), (0.3, 0.4), None)]

    def forget(self, branches):
        self.forgotten += branches


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def url(slow) -> Iterator[str]:
    with served(slow) as url:
        yield url


def request(tokens: int = 5) -> Request:
    return Request("a", HELLO, Sampling(max_new_tokens=tokens))


def test_everything_comes_over_as_it_was():
    capped = Request("x/y", HELLO, Sampling(0.5, 0.8, 7, 3, 1.2), Cap((1, 2), (-0.1, 3.5)), Steer(4, -1.25))
    assert request_from(json.loads(json.dumps(request_json(capped)))) == capped
    assert request_from(json.loads(json.dumps(request_json(request())))) == request()
    token = TokenEvent("a", 3, "é", -0.1, 0.3, (0.1, 0.0), 7, False, "length", (0.1, 0.2, 0.3), 0.9)
    bare = TokenEvent("a", None, "", None, None, (), 7, True, "cancelled")
    for event in (token, bare, PromptEvent("a", 3, 1, None), WaitEvent(4)):
        assert event_from(json.loads(json.dumps(event_json(event)))) == event
    read = [ReadToken(1, "x", (0.1,), (0.2,), (1.0, 2.0, 3.0))]
    assert read_from(json.loads(json.dumps(read_json(read)))) == read
    assert load_from(load_json(Load(1, 2, 3, 4))) == Load(1, 2, 3, 4)


@pytest.mark.parametrize(
    "data",
    [
        {"token": {"branch": "a"}},
        {
            "token": {
                **event_json(TokenEvent("a", 1, "", 0, 0, (), 1, False))["token"],
                "finish_reason": "<script>",
            }
        },
        {"prompt": 5},
    ],
)
def test_what_an_engine_should_not_have_sent_is_refused(data):
    with pytest.raises(UserError, match="sent"):
        event_from(data)


def test_a_page_gets_axis_model_replies_and_readings(slow, url):
    engine = RemoteEngine(url)
    assert engine.model.slug == "model" and engine.notes == ["a note"]
    assert (
        axis_digest(engine.axis) == axis_digest(slow.axis)
        and engine.axis.manifest["cap"] == slow.axis.manifest["cap"]
    )
    events = list(engine.stream([request(5)]))
    assert "".join(e.text for e in events if isinstance(e, TokenEvent)) == "0 1 2 3 4 "
    assert [t for part in engine.read(request()) for t in part] == [
        ReadToken(0, "Hello", (0.1, 0.2), (0.3, 0.4), None)
    ]
    engine.forget(["x", "y"])
    assert slow.forgotten == ["x", "y"]


def test_what_the_engine_refuses_is_refused_at_once_and_in_its_words(url):
    with pytest.raises(UserError, match="One token is not enough"):
        RemoteEngine(url).stream([request(1)])


def test_a_reader_who_goes_away_stops_the_work(slow, url):
    stream = RemoteEngine(url).stream([request(10_000)])
    for _ in range(3):
        next(stream)
    assert slow.running == 1
    stream.close()
    for _ in range(100):
        if slow.running == 0:
            return
        time.sleep(0.05)
    raise AssertionError("the engine works on for nobody")


def test_an_engine_that_fails_midway_tells_no_more_than_that(url, slow):
    slow.fails_after = 2
    with pytest.raises(UserError, match=r"The engine failed \(ZeroDivisionError\)"):
        list(RemoteEngine(url).stream([request(5)]))


def test_a_stream_without_its_last_line_was_cut_off(monkeypatch, url):
    engine = RemoteEngine(url)
    whole = httpx.Response.iter_lines
    monkeypatch.setattr(httpx.Response, "iter_lines", lambda self: list(whole(self))[:-1])
    with pytest.raises(UserError, match="ended in the middle of this reply"):
        list(engine.stream([request(3)]))


def test_only_who_knows_the_key_may_ask(slow):
    with served(slow, key="secret") as url:
        for key in ("", "wrong", "secre", "sécret"):
            with pytest.raises(UserError, match=r"asks for a key"):
                RemoteEngine(url, key)
        for path in ("/about", "/axis", "/load"):
            assert httpx.get(url + path).status_code == 401
        for path in ("/stream", "/read", "/forget"):
            assert httpx.post(url + path, json={}).status_code == 401
        assert RemoteEngine(url, "secret").model.slug == "model"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"\x80\x00", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"{}", "restart the page"),
        (b'{"axis": "DIGEST"}', "no requests"),
        (b'{"axis": "DIGEST", "requests": []}', "no requests"),
        (b'{"axis": "DIGEST", "requests": [5]}', "cannot be read"),
        (b'{"axis": "DIGEST", "requests": [{"branch": "a"}]}', "cannot be read"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_malformed_requests_get_one_sentence(slow, url, body, sentence):
    body = body.replace(b"DIGEST", axis_digest(slow.axis).encode())
    for path in ("/stream", "/read"):
        answer = httpx.post(url + path, content=body)
        assert answer.status_code == 400 and sentence in answer.json()["error"]
    assert httpx.get(url + "/nothing").status_code == 404


def test_an_oversized_request_is_refused(monkeypatch, url):
    monkeypatch.setattr("demo.engine.remote.server._MOST_BYTES", 1000)
    answer = httpx.post(url + "/stream", content=b"x" * 5000)
    assert answer.status_code == 400 and "larger than" in answer.json()["error"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--host", "0.0.0.0"], "needs a key"),
        (["--engine", "http://localhost:1"], "engine of its own"),
        (["--engine", "nonsense"], "no engine 'nonsense'"),
        (["--pairs", "0"], "--pairs"),
        (["--engine", "vllm", "--vllm", "nonsense"], "NAME=VALUE"),
        (["--engine", "vllm", "--vllm", "enforce_eager=false"], "cannot set enforce_eager"),
    ],
)
def test_bad_flags_end_with_one_sentence(flags, sentence, capsys, monkeypatch):
    monkeypatch.delenv("PERSONA_DRIFT_ENGINE_KEY", raising=False)
    assert main(flags) == 2
    explain_failure = capsys.readouterr().err
    assert (
        sentence in explain_failure
        and explain_failure.startswith("error: ")
        and len(explain_failure.splitlines()) == 1
    )


def test_no_engine_there(capsys):
    from app import main as app

    assert app(["--engine", "http://127.0.0.1:9"]) == 2
    assert "cannot be reached: start it with python -m demo.engine.remote.server" in capsys.readouterr().err
    assert app(["--engine", "http://127.0.0.1:9", "--axis", "x"]) == 2
    assert "give --model and --axis to python -m demo.engine.remote.server" in capsys.readouterr().err
