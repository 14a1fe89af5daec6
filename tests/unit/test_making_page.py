"""The server of the page while an axis is made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from demo.page.hosting import Limits
from demo.page.making_page import MakingPage
from tests.helpers.making import CHECKS, REPLIES, ROLES, ScriptedMaker


@pytest.fixture
def maker() -> ScriptedMaker:
    return ScriptedMaker()


@pytest.fixture
def client(maker: ScriptedMaker) -> Iterator[TestClient]:
    with TestClient(MakingPage(maker, Limits(per_minute=5)).app) as client:  # type: ignore[arg-type]
        yield client


def chat(client: TestClient, *texts: str):
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    return client.post("/chat", json={"messages": messages})


def test_any_address_shows_the_page_and_it_is_not_kept(client):
    for path in ("/", "/anything"):
        answer = client.get(path)
        assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
        assert "{" + "root}" not in answer.text and "making.css}" not in answer.text
        assert "default-src 'none'" in answer.text
        assert answer.headers["content-security-policy"] == "frame-ancestors 'self'"


def test_a_page_that_waits_for_the_model_learns_that_there_is_no_axis(client):
    assert client.get("/config").status_code == 409


def test_the_state_is_told_whole(client, maker):
    maker.set(phase="done", roles=ROLES, replies=REPLIES, checks=CHECKS, halves=0.9)
    found = client.get("/state").json()
    assert found["phase"] == "done" and found["halves"] == 0.9
    assert found["roles"][0] == {"name": "role_0", "projection": -1.0, "rollouts": 2}
    assert found["replies"][2]["kept"] is False and found["checks"][1]["passed"] is False


def test_it_is_started_stopped_and_an_unknown_preset_refused(client, maker):
    assert client.post("/start", json={"preset": "quick"}).json()["phase"] == "running"
    assert client.post("/stop", json={}).json()["phase"] == "stopped"
    refused = client.post("/start", json={"preset": "enormous"})
    assert refused.status_code == 400 and "no such" in refused.json()["detail"]
    assert maker.started == ["quick"]


@pytest.mark.parametrize("path", ["/start", "/stop", "/chat"])
@pytest.mark.parametrize(
    "request_of",
    [
        {"content": '{"preset": "quick"}', "headers": {"content-type": "text/plain"}},
        {"content": "{", "headers": {"content-type": "application/json"}},
        {"content": "[" * 200_000, "headers": {"content-type": "application/json"}},
        {"content": "[]", "headers": {"content-type": "application/json"}},
        {"content": " " * 300_000, "headers": {"content-type": "application/json"}},
    ],
)
def test_what_is_no_request_of_the_page_changes_nothing(client, maker, path, request_of):
    answer = client.post(path, **request_of)
    assert answer.status_code == 400 and answer.json()["detail"].count(". ") == 0
    assert maker.started == [] and maker.now.phase == "measuring" and maker.chats == []


def test_a_chat_is_answered_with_its_history(client, maker):
    assert chat(client, "Hi").text == "Hello from the model."
    assert chat(client, "Hi", "Hello", "And now?").text == "Hello from the model."
    assert [message["role"] for message in maker.chats[1]] == ["user", "assistant", "user"]


def test_half_a_character_does_not_reach_the_tokenizer(client, maker):
    body = '{"messages": [{"role": "user", "content": "a\\ud800b"}]}'
    answer = client.post("/chat", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200 and maker.chats[0][0]["content"].encode()


@pytest.mark.parametrize("texts", [(), ("Hi", "Hello"), ("",), ("x",) * 41, ("too long",), ("break",)])
def test_a_chat_that_cannot_be_answered_is_refused_in_one_sentence(client, texts):
    answer = chat(client, *texts)
    assert answer.status_code == 400 and answer.json()["detail"]


def test_the_rate_limit_holds(client):
    answers = [chat(client, "Hi").status_code for _ in range(6)]
    assert answers == [200] * 5 + [400]


def test_the_page_is_open_while_it_asks(maker):
    page = MakingPage(maker)  # type: ignore[arg-type]
    with TestClient(page.app) as client:
        assert not page.is_open and not page.seen_done
        client.get("/state")
        assert page.is_open and not page.seen_done
        maker.set(phase="done")
        client.get("/state")
        assert page.seen_done
