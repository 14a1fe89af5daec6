"""The OpenAI-compatible endpoint: shapes, the cap, refusals, limits, the password, and clients that leave."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from threading import Event
from typing import Any

import httpx
import pytest

from demo.engine.protocol import Alternative, PromptEvent, Token, TokenEvent
from demo.models.chat_template import LeftOut
from demo.page.hosting import Limits
from demo.page.rate_limit import MOST_LOGINS
from tests.helpers.hosted import MODEL_NAME, hosted
from tests.helpers.scripted import FAULT, ScriptedEngine

CHAT = "v1/chat/completions"
CAPPED = f"{MODEL_NAME}:capped"
PASSWORD = "a long one that nobody guesses"
HELLO = [{"role": "user", "content": "Hello"}]


class ChattyEngine(ScriptedEngine):
    """Its tokens have alternatives. A reply to "on and on" ends when it is cancelled, and sets `ended`."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = Event()

    def _events(self, cancel):
        if self.requests[0].messages[-1]["content"] != "on and on":
            yield from super()._events(cancel)
            return
        yield PromptEvent(self.requests[0].branch, 10, 0, None)
        while not cancel.wait(0.01):
            yield TokenEvent(self.requests[0].branch, 1, Token(" on", 0.0, 0.0, (), False), 11)
        self.ended.set()

    def _reply(self, request):
        likely = (Alternative(7, "Hi", 0.8), Alternative(8, "Hey", 0.15))
        return [
            Token(t.text, t.before, t.after, t.corrections, False, probability=0.75, alternatives=likely)
            for t in super()._reply(request)
        ]


@pytest.fixture(scope="module")
def engine() -> ChattyEngine:
    return ChattyEngine()


@pytest.fixture(scope="module")
def http(engine: ChattyEngine) -> Iterator[httpx.Client]:
    with hosted(engine, openai=True) as address, httpx.Client(base_url=address, timeout=30) as client:
        yield client


def post(http: httpx.Client, messages: Any = HELLO, model: str = MODEL_NAME, **more: Any) -> httpx.Response:
    return http.post(CHAT, json={"model": model, "messages": messages, **more})


def answer(http: httpx.Client, **more: Any) -> dict[str, Any]:
    """The first choice of a response."""
    response = post(http, **more)
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]


def chunks_of(http: httpx.Client, **more: Any) -> list[dict[str, Any]]:
    """The chunks of a stream, which must end as one does."""
    response = post(http, stream=True, **more)
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return list(map(json.loads, lines))


def test_both_models_are_listed(http):
    listed = http.get("v1/models").json()
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == [MODEL_NAME, CAPPED]
    assert all(set(one) == {"id", "object", "created", "owned_by"} for one in listed["data"])


def test_a_plain_reply_has_openai_s_shape_and_every_token_s_projection(http):
    found = post(http).json()
    assert (found["object"], found["model"]) == ("chat.completion", MODEL_NAME)
    assert found["usage"]["prompt_tokens"] == 10 and found["usage"]["completion_tokens"] == 4
    assert found["usage"]["total_tokens"] == 14
    (choice,) = found["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hello there!", "refusal": None}
    assert (choice["finish_reason"], choice["logprobs"]) == ("stop", None)
    assert choice["projections"] == {
        "probe_layer": 2,
        "cap": None,
        "start": None,
        "mean": {"before": -0.5, "after": -0.5},
        "acted": 0,
        "content_tokens": 3,
        "tokens": [
            {"text": word, "before": -0.5, "after": -0.5, "added": 0.0} for word in ("Hello", " there", "!")
        ],
    }
    assert "projections" not in answer(http, projections=False)


@pytest.mark.parametrize("asked", [{"model": CAPPED}, {"cap": True}])
def test_the_cap_is_asked_for_by_the_model_s_name_or_a_field(http, engine, asked):
    projections = answer(http, **asked)["projections"]
    assert projections["cap"] == {"layers": [1, 2], "floor": "p25"}
    assert projections["acted"] == 2 and projections["mean"]["after"] == pytest.approx(-0.5 + 1 / 3, abs=1e-3)
    assert [token["added"] for token in projections["tokens"]] == [0.5, 0.0, 0.5]
    assert engine.requests[0].cap.layers == (1, 2)


def test_a_threshold_reaches_the_engine_and_the_response_says_where_the_reply_begins(
    http, engine, monkeypatch
):
    monkeypatch.setattr(engine, "start", -0.31237)
    projections = answer(http, cap=True, only_below=-0.06)["projections"]
    assert projections["cap"] == {"layers": [1, 2], "floor": "p25", "only_below": -0.06}
    assert projections["start"] == -0.3124 and engine.requests[0].cap.only_below == -0.06
    assert "only_below" not in answer(http, cap=True, only_below="off")["projections"]["cap"]


def test_floor_and_layers_reach_the_engine(http, engine):
    projections = answer(http, cap=True, floor="p75", layers=[2, 3])["projections"]
    assert projections["cap"] == {"layers": [2, 3], "floor": "p75"}
    assert engine.requests[0].cap.layers == (2, 3)
    floors = engine.requests[0].cap.floors
    answer(http, cap=True, floor="p05", layers=[2, 3])
    assert all(low < high for low, high in zip(engine.requests[0].cap.floors, floors, strict=True))


def test_sampling_and_messages_reach_the_engine(http, engine):
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    said = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "Hi", "type": "text"},
        {"role": "assistant", "content": "Yes?", "refusal": None, "annotations": []},
        {"role": "user", "content": parts, "name": "me"},
    ]
    more = {"temperature": 0, "top_p": 0.5, "max_tokens": 7, "seed": 3, "n": 2, "user": "me", "tools": []}
    found = post(http, said, **more).json()
    assert [choice["index"] for choice in found["choices"]] == [0, 1]
    first, second = engine.requests
    assert [(one["role"], one["content"]) for one in first.messages] == [
        ("system", "Be kind."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "Hello")
    ]  # fmt: skip
    sampling = first.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens) == (0, 0.5, 7)
    assert sampling.repetition_penalty == 1 and sampling.seed == 3 and second.sampling.seed == 1003
    assert set(engine.forgotten) >= {first.branch, second.branch}
    answer(http)
    without = engine.requests[0].sampling
    answer(http, max_completion_tokens=9)
    assert (without.temperature, without.top_p) == (1, 1) and without.seed != engine.requests[0].sampling.seed
    assert engine.requests[0].sampling.max_new_tokens == 9


def test_a_stream_says_what_the_whole_reply_says(http):
    whole = answer(http, model=CAPPED, seed=1)
    found = chunks_of(http, model=CAPPED, seed=1, stream_options={"include_usage": True})
    assert {chunk["object"] for chunk in found} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in found}) == 1
    usage = found.pop()
    assert usage["choices"] == [] and usage["usage"]["total_tokens"] == 14
    assert all(chunk["usage"] is None for chunk in found)
    deltas = [chunk["choices"][0] for chunk in found]
    assert deltas[0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(one["delta"].get("content", "") for one in deltas) == whole["message"]["content"]
    assert [one["finish_reason"] for one in deltas] == [None] * (len(deltas) - 1) + ["stop"]
    tokens = [token for one in deltas for token in one.get("projections", {}).get("tokens", [])]
    assert deltas[-1]["projections"] | {"tokens": tokens} == whole["projections"]
    assert "usage" not in chunks_of(http)[-1]


@pytest.mark.parametrize(
    ("stop", "text", "tokens"),
    [
        (["o th"], "Hell", ["Hell"]),
        ("there", "Hello ", ["Hello", " "]),
        (["!?", "never"], "Hello there!", ["Hello", " there", "!"]),
        (["re!", "there!"], "Hello ", ["Hello", " "]),
    ],
)
def test_a_reply_ends_before_a_stop_text_wherever_its_tokens_part_it(http, stop, text, tokens):
    choice = answer(http, stop=stop)
    assert (choice["message"]["content"], choice["finish_reason"]) == (text, "stop")
    assert [token["text"] for token in choice["projections"]["tokens"]] == tokens
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks_of(http, stop=stop)]
    assert "".join(delta.get("content", "") for delta in deltas) == text


def test_log_probabilities_have_openai_s_shape(http):
    content = answer(http, logprobs=True, top_logprobs=1)["logprobs"]["content"]
    assert [one["token"] for one in content] == ["Hello", " there", "!"]
    assert content[0]["logprob"] == pytest.approx(math.log(0.75)) and content[0]["bytes"] == list(b"Hello")
    (likeliest,) = content[0]["top_logprobs"]
    assert likeliest == {"token": "Hi", "logprob": pytest.approx(math.log(0.8)), "bytes": list(b"Hi")}
    streamed = [chunk["choices"][0]["logprobs"] for chunk in chunks_of(http, logprobs=True)]
    assert [one["content"][0]["token"] for one in streamed if one] == ["Hello", " there", "!"]


@pytest.mark.parametrize(
    ("wrong", "says", "param"),
    [
        ({"model": "gpt-4"}, "There is no model 'gpt-4' here", "model"),
        ({"messages": []}, "messages is wrong", "messages"),
        ({"messages": "Hello"}, "messages is wrong", "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role is wrong", "messages.0.role"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "x"}]}, "must be the user's", "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "text only",
            ...,
        ),
        ({"temperature": 9}, "Temperature must lie between", None),
        ({"temperature": "0.5"}, "temperature is wrong", "temperature"),
        ({"max_tokens": 0}, "must be at least 1", None),
        ({"n": 99}, "n is wrong", "n"),
        ({"stop": [""]}, "stop.0 is wrong", "stop.0"),
        ({"top_logprobs": 2}, "needs logprobs", "top_logprobs"),
        ({"best_of": 2}, "has no field best_of", "best_of"),
        ({"tools": [{"type": "function"}]}, "cannot do what tools asks for", "tools"),
        ({"frequency_penalty": 1}, "cannot do what frequency_penalty asks for", "frequency_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format asks for", "response_format"),
        ({"floor": "p25"}, "need cap: true", "cap"),
        ({"only_below": 0.5}, "need cap: true", "cap"),
        ({"cap": True, "floor": "p99"}, "p99", None),
        ({"cap": True, "only_below": "low"}, "number of axis units", None),
        ({"cap": True, "layers": [3, 9]}, "between 0 and 3", None),
        ({"cap": True, "layers": [1]}, "layers is wrong", "layers"),
        ({"model": CAPPED, "cap": False}, "contradicts", "cap"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(http, wrong, says, param):
    response = http.post(CHAT, json={"model": MODEL_NAME, "messages": HELLO} | wrong)
    assert response.status_code == (404 if param == "model" else 400)
    error = response.json()["error"]
    assert says in error["message"] and error["message"].endswith(".") and "\n" not in error["message"]
    assert error["type"] == "invalid_request_error" and (param is ... or error["param"] == param)


def test_bodies_that_are_no_json_objects_are_refused(http):
    as_json = {"content-type": "application/json"}
    for body, headers in ((b"{", as_json), (b"[]", as_json), (b"{}", {}), (b"[" * 99_999, as_json)):
        response = http.post(CHAT, content=body, headers=headers)
        assert response.status_code == 400 and "error" in response.json()
    assert "application/json" in http.post(CHAT, content=b"{}").json()["error"]["message"]
    assert http.get(CHAT).status_code == 405


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_reply(http, engine, stream):
    engine.ended.clear()
    endless = {"model": MODEL_NAME, "messages": [{"role": "user", "content": "on and on"}], "stream": stream}
    if stream:
        with http.stream("POST", CHAT, json=endless) as response:
            lines = response.iter_lines()
            assert [next(lines).startswith("data: ") for _ in range(3)] == [True, False, True]
    else:
        with pytest.raises(httpx.ReadTimeout):
            http.post(CHAT, json=endless, timeout=0.5)
    assert engine.ended.wait(30)


def test_a_reply_that_fails_is_an_error_of_the_server():
    engine = ScriptedEngine(left_out=(LeftOut(0, "system", True),))
    with hosted(engine, openai=True) as address, httpx.Client(base_url=address) as http:
        assert post(http).json()["left_out"] == [{"message": 0, "whole": True}]
        engine.failing = "uncapped"
        response = post(http)
        assert response.status_code == 500 and response.json()["error"]["message"] == FAULT
        assert answer(http, cap=True)["message"]["content"] == "Hello there!"
        engine.failing, engine.fail_after = "", 1
        assert post(http).json()["error"]["type"] == "server_error"
        lines = [line for line in post(http, stream=True).text.split("\n\n") if line]
        assert "not enough memory" in json.loads(lines[-1].removeprefix("data: "))["error"]["message"]
        engine.refuse = True
        assert post(http, stream=True).status_code == 400


def test_reasoning_comes_apart_from_the_answer():
    engine = ScriptedEngine(thoughts=["Well"])
    with hosted(engine, openai=True) as address, httpx.Client(base_url=address) as http:
        choice = answer(http, thinking=True, stop=["Well", "!"])
        assert choice["message"]["reasoning_content"] == "Well Hm."
        assert choice["message"]["content"] == "Hello there"
        assert choice["projections"]["tokens"][0]["reasoning"] is True
        assert choice["projections"]["mean"]["before"] == -0.5, "of the answer alone"


def test_the_page_s_limits_hold_here_too():
    limits = Limits(per_minute=2, characters=50)
    with hosted(ScriptedEngine(), limits, openai=True) as address, httpx.Client(base_url=address) as http:
        assert post(http, [{"role": "user", "content": "x" * 51}]).status_code == 400
        assert [post(http).status_code for _ in range(3)] == [200, 200, 429]
        refused = post(http, stream=True)
        assert refused.status_code == 429 and 0 < int(refused.headers["retry-after"]) <= 60
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"


def test_with_a_password_the_key_is_the_password_and_guesses_are_limited():
    right, wrong = ({"Authorization": f"Bearer {key}"} for key in (PASSWORD, "something else"))
    hosting = hosted(ScriptedEngine(), password=PASSWORD, openai=True)
    with hosting as address, httpx.Client(base_url=address) as http:
        for headers in ({}, wrong, {"Authorization": f"Basic {PASSWORD}"}):
            for response in (http.get("v1/models", headers=headers), http.post(CHAT, headers=headers)):
                assert response.status_code == 401 and MODEL_NAME not in response.text
                assert response.json()["error"]["code"] == "invalid_api_key"
        assert http.get("v1/models", headers=right).status_code == 200
        body = {"model": MODEL_NAME, "messages": HELLO}
        assert http.post(CHAT, json=body, headers=right).status_code == 200
        guesses = [http.get("v1/models", headers=wrong).status_code for _ in range(MOST_LOGINS)]
        assert guesses == [401] * (MOST_LOGINS - 6) + [429] * 6, "the six before count too"
        assert http.get("v1/models", headers=right).status_code == 429, "or a guess would show"
        login = {"username": "me", "password": PASSWORD}
        assert http.post("login", data=login).status_code == 429, "one count for both"


def test_the_endpoint_is_off_unless_it_is_switched_on():
    with hosted(ScriptedEngine()) as address, httpx.Client(base_url=address) as http:
        assert http.get("v1/models").status_code == post(http).status_code == 404


def test_the_official_client_reads_replies_streams_and_errors(http, engine):
    openai = pytest.importorskip("openai")
    engine.ended.clear()
    with openai.OpenAI(base_url=f"{http.base_url}v1", api_key="none", max_retries=0) as client:
        create = client.chat.completions.create
        reply = create(model=MODEL_NAME, messages=HELLO, extra_body={"cap": True, "floor": "p50"})
        assert reply.choices[0].message.content == "Hello there!"
        assert reply.choices[0].projections["cap"]["floor"] == "p50"
        parts = list(create(model=CAPPED, messages=HELLO, stream=True))
        assert "".join(part.choices[0].delta.content or "" for part in parts) == "Hello there!"
        with pytest.raises(openai.BadRequestError, match="has no field best_of"):
            create(model=MODEL_NAME, messages=HELLO, extra_body={"best_of": 2})
        endless = [{"role": "user", "content": "on and on"}]
        with create(model=MODEL_NAME, messages=endless, stream=True) as stream:
            next(stream)
        assert engine.ended.wait(30)
        time.sleep(0.05)
        assert [one.id for one in client.models.list()] == [MODEL_NAME, CAPPED]
