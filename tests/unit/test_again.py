"""The command that makes a turn's replies again, on an engine whose replies are known."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

import demo
from demo.conversation import again
from demo.conversation.forks import Fork, ForkPoint
from demo.conversation.session_file import dumps
from demo.conversation.settings import own_cap
from demo.models.default import DEFAULT_MODEL
from demo.page.made_with import MadeWith, made_meta, made_with
from demo.page.recordings import open_shipped
from tests.helpers.scripted import ScriptedEngine

NAME = "menacing-demon"


@pytest.fixture
def engine(monkeypatch):
    """The engine that the command loads; its requests are those of the last turn."""
    found = ScriptedEngine()
    model = SimpleNamespace(slug=DEFAULT_MODEL, dtype_name="float32", template="0123456789ab")
    found.model, found.axis = model, demo.load_axis(DEFAULT_MODEL)  # type: ignore[attr-defined]
    monkeypatch.setattr(again, "load_engine", lambda *_: (found, []))
    return found


def test_messages_are_answered_in_order_and_both_replies_are_printed_with_their_means(engine, capsys):
    flags = ["--seed", "4", "--date", "2026-01-31", "--system=-be kind", "--layers", "18-20", "--tokens", "7"]
    assert again.main([*flags, "--only-below=off", "--", "Hi", "-and\n'now'?"]) == 0
    printed = capsys.readouterr().out
    assert "turn 2, uncapped, mean " in printed and "turn 2, capped, mean " in printed
    assert printed.count("Hello there!") == 2
    uncapped, capped = engine.requests
    assert [message["content"] for message in uncapped.messages] == [
        "-be kind",
        "Hi",
        "Hello there!",
        "-and\n'now'?",
    ]
    assert (uncapped.cap, capped.cap.layers, capped.date) == (None, (18, 19, 20), "2026-01-31")
    assert (capped.sampling.seed, capped.sampling.max_new_tokens) == (5, 7)
    assert capped.cap.only_below is None
    assert again.main(["--", "a"]) == 0
    assert engine.requests[1].cap == own_cap(demo.load_axis(DEFAULT_MODEL))
    assert again.main(["--only-below=-0.06", "--", "a"]) == 0
    assert engine.requests[1].cap.only_below == -0.06
    assert again.main(["--no-cap", "--seed", "4,105", "--", "a", "b"]) == 0
    assert [(one.cap, one.sampling.seed) for one in engine.requests] == [(None, 105)] * 2


def test_a_turn_of_a_file_has_its_own_settings_and_the_recorded_history(engine, tmp_path, capsys):
    recording, path = open_shipped(NAME), tmp_path / "s.session.json"
    path.write_text(dumps(recording), encoding="utf-8")
    assert again.main(["--session", str(path), "--turn", "2"]) == 0
    capped, settings = engine.requests[1], recording.turns[1].settings
    assert settings is not None
    assert (capped.cap, capped.sampling, capped.date) == (settings.cap, settings.sampling, recording.date)
    assert capped.messages[2]["content"] == recording.turns[0].replies["capped"].text
    assert capped.messages[-1]["content"] == recording.turns[1].user
    assert "number format is float32 here and was bfloat16" in capsys.readouterr().err


def test_a_turn_that_was_not_made_by_this_model_is_refused(engine):
    recording = open_shipped(NAME)
    turn = recording.turns[0]
    assert turn.settings is not None
    read = replace(turn, settings=replace(turn.settings, read=True))
    for wrong, sentence in (
        (replace(recording, model="other"), "made with other, not smollm2"),
        (replace(recording, turns=[read]), "read from elsewhere and not made"),
        (replace(recording, turns=[replace(turn, settings=None)]), "does not say how turn 1 was made"),
    ):
        with pytest.raises(demo.UserError, match=sentence):
            again.again(engine, wrong, 0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Give the messages"),
        (["--session", "x", "Hi"], "not both"),
        (["--session", "missing.json"], "cannot be read"),
        (["--seed", "x", "Hi"], "--seed takes"),
        (["--seed", "1,2", "Hi"], "2 seeds for 1 messages"),
        (["--date", "tomorrow", "Hi"], "--date takes"),
        (["--layers", "3", "Hi"], "--layers takes"),
        (["--layers", "9-3", "Hi"], "lower to a higher"),
        (["--floor", "p99", "Hi"], "p99"),
        (["--only-below", "low", "Hi"], "number of axis units"),
        (["--temperature", "-1", "Hi"], "Temperature must"),
    ],
)
def test_a_wrong_argument_is_answered_in_one_sentence(engine, capsys, arguments, sentence):
    assert again.main(arguments) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.startswith("error: ") and told.count("\n") == 1


def test_a_visitor_learns_no_path_of_the_machine(tmp_path):
    folder = tmp_path / "my model"
    folder.mkdir()
    known = made_with(str(folder), "auto", "0123456789ab")
    assert known == MadeWith("my model", "", "0123456789ab", ("--model",))
    assert str(tmp_path) not in str(made_meta(known, "2026-01-31"))
    assert made_with("org/Model", "/srv/axes/mine", "").axis == "mine"
    assert made_with("org/Model", "hub", "").local == ()
    assert made_meta(made_with("org/Base", "auto", "", True), "")["made_with"]["base"] is True
    assert "base" not in made_meta(made_with("org/Model", "auto", ""), "")["made_with"]
    assert made_meta(None, "2026-01-31") == {"date": "2026-01-31"}


def test_a_fork_of_a_file_is_made_again_with_what_it_was_made_to_begin_with(engine, tmp_path, capsys):
    recording = open_shipped(NAME)
    first = recording.turns[0]
    reply = first.replies["capped"]
    given = [replace(token, given=n == 2, token_id=n) for n, token in enumerate(reply.tokens)]
    turn = replace(first, replies=first.replies | {"capped": replace(reply, tokens=given)})
    fork = Fork(0, ForkPoint(0, "capped", 3), [turn])
    path = tmp_path / "s.session.json"
    path.write_text(dumps(replace(recording, forks=(fork,))), encoding="utf-8")
    assert again.main(["--session", str(path), "--fork", "1", "--turn", "1"]) == 0
    assert [request.opening for request in engine.requests] == [(), (0, 1, 2)]
    assert again.main(["--session", str(path), "--fork", "2"]) == 2
    assert "has 1 forks, not a fork 2" in capsys.readouterr().err
