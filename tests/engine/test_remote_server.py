"""The server of an engine process: its key, its refusals, and clients that disconnect."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from threading import Event
from types import SimpleNamespace

import httpx
import pytest

from demo.axis.directions import Direction, all_directions
from demo.axis.files import axis_digest, load_axis
from demo.engine.protocol import (
    Cap,
    Load,
    PromptEvent,
    ReadToken,
    Request,
    Sampling,
    Steer,
    Token,
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


class SlowEngine:
    """Yields a token every 0.02 seconds until it reaches the limit, fails or is cancelled."""

    def __init__(self) -> None:
        self.model = SimpleNamespace(
            spec="some/model",
            slug="model",
            device="cpu",
            dtype_name="float32",
            template="0123456789ab",
            dtype_reason="float32: as asked",
            revision=None,
            digest="d1",
            base=False,
            thinking="optional",
        )
        self.axis = load_axis(DEFAULT_MODEL)
        self.reads_plain = self.conditional_caps = True
        self.directions: Mapping[str, Direction] = all_directions(self.axis, None)
        self.fails_after: int | None = None  # tokens
        self.running, self.stopped = 0, Event()
        self.forgotten: list[str] = []

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
                if cancel.wait(0.02):
                    return
                if count == self.fails_after:
                    raise ZeroDivisionError("inside")
                yield TokenEvent(
                    "a", count, Token(f"{count} ", 0.1, 0.2, (0.1,), False, (1.0, 2.0, 3.0), 0.5), 5 + count
                )
        finally:
            self.running -= 1
            self.stopped.set()

    def read(self, request, cancel=None):
        yield [ReadToken(0, "Hello", (0.1, 0.2), (0.3, 0.4), None)]

    def forget(self, branches):
        self.forgotten += branches


@pytest.fixture
def slow() -> SlowEngine:
    return SlowEngine()


@pytest.fixture
def url(slow) -> Iterator[str]:
    with served(slow) as url:
        yield url


def request(tokens: int = 5) -> Request:
    return Request("a", HELLO, Sampling(max_new_tokens=tokens))


def test_json_preserves_requests_events_and_loads():
    capped = Request("x/y", HELLO, Sampling(0.5, 0.8, 7, 3, 1.2), Cap((1, 2), (-0.1, 3.5)), Steer(4, -1.25))
    assert request_from(json.loads(json.dumps(request_json(capped)))) == capped
    assert request_from(json.loads(json.dumps(request_json(request())))) == request()
    token = TokenEvent("a", 3, Token("é", -0.1, 0.3, (0.1, 0.0), False, (0.1, 0.2, 0.3), 0.9), 7, "length")
    bare = TokenEvent("a", None, Token("", None, None, (), True), 7, "cancelled")
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
                **event_json(TokenEvent("a", 1, Token("", 0, 0, (), False), 1))["token"],
                "finish_reason": "<script>",
            }
        },
        {"prompt": 5},
    ],
)
def test_malformed_events_are_refused(data):
    with pytest.raises(UserError, match="sent"):
        event_from(data)


def test_a_client_gets_axis_model_replies_and_readings(slow, url):
    engine = RemoteEngine(url)
    assert engine.model.slug == "model" and engine.notes == ["a note"]
    assert axis_digest(engine.axis) == axis_digest(slow.axis)
    assert engine.axis.manifest["cap"] == slow.axis.manifest["cap"]
    assert engine.reads_plain and engine.conditional_caps
    assert list(engine.directions) == list(slow.directions) == ["PC1", "PC2", "PC3"]
    for name, direction in slow.directions.items():
        got, layer = engine.directions[name], slow.axis.probe_layer
        assert (got.layers, got.poles, got.floors.keys()) == (
            direction.layers,
            direction.poles,
            direction.floors.keys(),
        )
        assert got.to_units(1.0, layer) == pytest.approx(direction.to_units(1.0, layer), rel=1e-3)
    events = list(engine.stream([request(5)]))
    assert "".join(e.token.text for e in events if isinstance(e, TokenEvent)) == "0 1 2 3 4 "
    read = [token for chunk in engine.read(request()) for token in chunk]
    assert read == [ReadToken(0, "Hello", (0.1, 0.2), (0.3, 0.4), None)]
    engine.forget(["x", "y"])
    assert slow.forgotten == ["x", "y"]


def test_an_engine_without_directions_sends_none(slow):
    slow.directions = {}
    with served(slow) as url:
        assert RemoteEngine(url).directions == {}


def test_a_refusal_arrives_at_once_and_in_the_engines_words(url):
    with pytest.raises(UserError, match="One token is not enough"):
        RemoteEngine(url).stream([request(1)])


def test_a_client_that_disconnects_stops_the_work(slow, url):
    stream = RemoteEngine(url).stream([request(10_000)])
    for _ in range(3):
        next(stream)
    assert slow.running == 1
    stream.close()
    assert slow.stopped.wait(5), "the engine works on without a client"
    assert slow.running == 0


def test_an_engine_failure_reveals_only_its_kind(url, slow):
    slow.fails_after = 2
    with pytest.raises(UserError, match=r"The engine failed \(ZeroDivisionError\)"):
        list(RemoteEngine(url).stream([request(5)]))


def test_a_stream_without_its_last_line_was_cut_off(monkeypatch, url):
    engine = RemoteEngine(url)
    whole = httpx.Response.iter_lines
    monkeypatch.setattr(httpx.Response, "iter_lines", lambda self: list(whole(self))[:-1])
    with pytest.raises(UserError, match="ended in the middle of this reply"):
        list(engine.stream([request(3)]))


def test_every_path_requires_the_key(slow):
    with served(slow, key="secret") as url:
        for key in ("", "wrong", "secre", "sécret"):
            with pytest.raises(UserError, match=r"asks for a key"):
                RemoteEngine(url, key)
        for path in ("/about", "/axis", "/directions", "/load"):
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
def test_malformed_requests_are_refused_in_one_sentence(slow, url, body, sentence):
    body = body.replace(b"DIGEST", axis_digest(slow.axis).encode())
    for path in ("/stream", "/read"):
        answer = httpx.post(url + path, content=body)
        assert answer.status_code == 400 and sentence in answer.json()["error"]
    assert httpx.get(url + "/nothing").status_code == 404


def test_an_oversized_request_is_refused(slow):
    with served(slow, max_request_bytes=1000) as url:
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
def test_invalid_flags_end_with_one_sentence(flags, sentence, capsys, monkeypatch):
    monkeypatch.delenv("PERSONA_DRIFT_ENGINE_KEY", raising=False)
    assert main(flags) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and sentence in printed and len(printed.splitlines()) == 1


def test_a_page_without_its_engine_process_ends_with_one_sentence(capsys):
    from app import main as app

    assert app(["--engine", "http://127.0.0.1:9"]) == 2
    assert "cannot be reached: start it with python -m demo.engine.remote.server" in capsys.readouterr().err
    assert app(["--engine", "http://127.0.0.1:9", "--axis", "x"]) == 2
    assert "give --model, --base and --axis to python -m demo.engine.remote.server" in capsys.readouterr().err
