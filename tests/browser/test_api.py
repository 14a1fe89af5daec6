"""The page's endpoints for programs: the documented example runs as printed, and errors are one sentence."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from demo.axis.zones import zones_from_json

# In CI only: they start the program once more.
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address, verbose=False)


def test_the_documented_example_runs_and_prints_a_lower_uncapped_mean(address, repository: Path):
    block = next(
        code
        for code in re.findall(
            r"```python\n(.*?)```", (repository / "docs" / "features.md").read_text(), re.DOTALL
        )
        if "gradio_client" in code
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(block.replace("http://127.0.0.1:7860", address), {})
    numbers = re.search(r"^(-?\d+\.\d+) (-?\d+\.\d+) ", printed.getvalue(), re.MULTILINE)
    assert numbers is not None, printed.getvalue()
    uncapped, capped = map(float, numbers.groups())
    assert uncapped < capped


def test_reply_accepts_earlier_turns_as_history_and_is_deterministic(client):
    first = client.predict("Name a fruit.", max_new_tokens=8, api_name="/reply")
    second = client.predict("Another one?", [first["turn"]], max_new_tokens=8, api_name="/reply")
    again = client.predict("Another one?", [first["turn"]], max_new_tokens=8, api_name="/reply")
    assert set(second["turn"]) == {"user", "date", "uncapped", "capped"}
    assert second["turn"] == again["turn"], "the same call must give the same replies"
    assert second["capped"]["tokens"][0].keys() >= {"t", "b", "a", "p"}
    zones = zones_from_json(client.predict(api_name="/info")["zones"])
    for branch in ("uncapped", "capped"):
        assert zones and second[branch]["zone"] == zones.name_of(second[branch]["mean"])


def test_read_returns_the_probe_layer_or_all_layers(client):
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there."}]
    info = client.predict(api_name="/info")
    one = client.predict(chat, api_name="/read")
    every = client.predict(chat, True, True, api_name="/read")
    assert "".join(token["text"] for token in one["tokens"] if token["message"] == 1) == "Hello there."
    assert all(len(token["projection"]) == info["layers"] for token in every["tokens"])
    assert len(info["roles"]) == 275


@pytest.mark.parametrize(
    ("arguments", "endpoint", "words"),
    [
        (("",), "/reply", "Write a message first"),
        (("Hi", [{"user": "x"}]), "/reply", "Give the history as a list"),
        (("Hi", [], "", True, -5), "/reply", "seed must be"),
        (("Hi", [], "", True, 0, 8, 0.3, "", -1, -1, True), "/reply", "does not reason before it answers"),
        (([],), "/read", "Give messages as a list"),
        (([{"role": "wizard", "content": "x"}],), "/read", "Give messages as a list"),
    ],
)
def test_invalid_arguments_are_refused_in_one_sentence(client, arguments, endpoint, words):
    with pytest.raises(AppError, match=words):
        client.predict(*arguments, api_name=endpoint)
