"""Session files, transcripts and exports.

Saved content loads unchanged, and malformed content is refused in one sentence.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.conversation.conversation import Conversation
from demo.conversation.exports import COLUMNS, tokens_csv
from demo.conversation.session_file import Recording, dumps, loads, to_json
from demo.conversation.settings import CAPPED, UNCAPPED
from demo.conversation.transcripts import parse_transcript
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError
from tests.helpers.scripted import FAULT, SETTINGS, ScriptedEngine

MARKS = PlotMarks(17, 0.5, "p25", True, (14, 20), (-0.2, 1.6))
MAP = {"roles": [["bard", [1.0, 2.0, 3.0], -0.5]], "default": [1.0, 0.0, 0.0], "variance": [], "notes": ["n"]}


@pytest.fixture
def recording() -> Recording:
    conversation = Conversation()
    list(conversation.send(ScriptedEngine(), "Hi <b>", replace(SETTINGS, seeds=2)))
    list(conversation.send(ScriptedEngine(words=("=1+1", "…海")), "Two", replace(SETTINGS, only=CAPPED)))
    return Recording("tiny", conversation.turns, MARKS, "Title", "Watch", "Be kind.", MAP, "2024-02-29")


@pytest.fixture
def reasoned() -> Recording:
    """One turn: the uncapped branch reasons and answers, the capped one fails while it reasons."""
    engine = ScriptedEngine(thoughts=("Let", " me", " see."), failing=CAPPED)
    conversation = Conversation()
    list(conversation.send(engine, "Hi", replace(SETTINGS, thinking=True)))
    return Recording("tiny", conversation.turns, MARKS, date=conversation.date)


def test_a_saved_session_loads_unchanged(recording):
    again = loads(dumps(recording))
    assert to_json(again) == to_json(recording)
    assert again.marks == MARKS and again.map == MAP and again.system_prompt == "Be kind."
    first = again.turns[0].replies[CAPPED]
    assert first.fired == 2 and first.samples[0].text == "Hello there!"
    assert first.tokens[0].probability == 0.75
    assert first.place == recording.turns[0].replies[CAPPED].place is not None
    assert set(again.turns[1].replies) == {CAPPED}
    assert again.date == "2024-02-29"


def test_reasoning_and_a_fault_are_saved(reasoned):
    again = loads(dumps(reasoned))
    assert to_json(again) == to_json(reasoned)
    uncapped, capped = again.turns[0].replies[UNCAPPED], again.turns[0].replies[CAPPED]
    assert (uncapped.reasoning, uncapped.text) == ("Let me see. Hm.", "Hello there!")
    assert (uncapped.mean, uncapped.reasoning_mean) == (-0.5, -1.0)
    assert (capped.finish, capped.fault, capped.reasoning, capped.mean) == ("failed", FAULT, "Let", None)
    saved = to_json(reasoned)["turns"][0]["branches"]
    assert saved[UNCAPPED]["reasoning_mean"] == -1.0 and saved[UNCAPPED]["count"] == 3
    assert "fault" not in saved[UNCAPPED] and saved[CAPPED]["fault"] == FAULT


def test_a_file_of_an_earlier_version_has_no_date(recording):
    data = to_json(recording)
    del data["date"]
    assert loads(json.dumps(data)).date == ""


def test_the_csv_tells_reasoning_from_the_answer(reasoned):
    rows = list(csv.DictReader(io.StringIO(tokens_csv(reasoned))))
    spans = [row["span"] for row in rows if row["branch"] == UNCAPPED and row["special"] == "0"]
    assert spans == ["reasoning"] * 4 + ["answer"] * 3


def test_a_reply_of_a_transcript_keeps_its_reasoning():
    user = {"role": "user", "content": "a"}
    reply = {"role": "assistant", "content": "b"}
    for key in ("reasoning", "reasoning_content"):
        chat = [user, reply | {key: "why"}, user, reply | {key: None}]
        first, second = (turn.replies[CAPPED] for turn in parse_transcript(json.dumps(chat)).unread_turns())
        assert (first.text, first.reasoning) == ("b", "why") and (second.text, second.reasoning) == ("b", "")


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("turns"),
        lambda d: d["turns"][0].pop("user"),
        lambda d: d["turns"][0]["branches"].clear(),
        lambda d: d["turns"][0]["branches"][UNCAPPED]["tokens"][0].update(b="1"),
        lambda d: d["turns"][0]["branches"][UNCAPPED].update(finish="<script>"),
        lambda d: d["turns"].append(7),
        lambda d: d["marks"].update(floor=[1]),
        lambda d: d["marks"].update(default_range=[1]),
        lambda d: d["map"]["roles"].append(["x", [1, 2], 0]),
        lambda d: d.update(title=3),
        lambda d: d.update(date="tomorrow"),
        lambda d: d.update(date=20240229),
        lambda d: d["turns"][0]["branches"][UNCAPPED].update(fault=1),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(recording, damage):
    data = json.loads(json.dumps(to_json(recording)))
    damage(data)
    with pytest.raises(UserError) as error:
        loads(json.dumps(data))
    assert str(error.value).startswith("This session file is damaged") and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": "x"}', "[" * 100_000])
def test_other_content_is_refused(text):
    with pytest.raises(UserError):
        loads(text)


def test_the_error_for_another_version_names_it(recording):
    with pytest.raises(UserError, match="version 99"):
        loads(json.dumps(to_json(recording) | {"version": 99}))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9),
    lambda values: st.lists(values) | st.dictionaries(st.text(max_size=9), values),
    max_leaves=12,
)


@given(JSON_VALUES)
def test_any_turns_load_or_are_refused_in_one_sentence(value):
    """Anything but a UserError fails the test."""
    session = {
        "format": "persona-drift-session",
        "version": 1,
        "model": "m",
        "marks": {"probe_layer": 1},
        "turns": value,
    }
    for load, content in (
        (loads, session),
        (parse_transcript, value),
        (parse_transcript, {"messages": value}),
    ):
        message = ""
        try:
            load(json.dumps(content))
        except UserError as error:
            message = str(error)
        assert "\n" not in message


def test_the_csv_has_a_row_per_token_and_no_formulas(recording):
    rows = list(csv.DictReader(io.StringIO(tokens_csv(recording))))
    assert tuple(rows[0]) == COLUMNS
    expected = sum(
        len(one.tokens) for turn in recording.turns for r in turn.replies.values() for one in (r, *r.samples)
    )
    assert len(rows) == expected
    assert [row["text"] for row in rows if row["turn"] == "2"][:2] == ["'=1+1", "…海"]
    capped = [row for row in rows if (row["turn"], row["branch"], row["sample"]) == ("1", CAPPED, "0")]
    assert [float(row["correction"]) for row in capped[:3]] == [0.5, 0.0, 0.5]
    assert [row["projection_after"] for row in capped[:2]] == ["0.0", "-0.5"]


def test_messages_in_every_accepted_form():
    plain = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    ]
    for text in (
        json.dumps(plain),
        json.dumps({"messages": plain}),
        json.dumps({"conversation": plain, "turns": 99}),
    ):
        found = parse_transcript(text)
        assert found.system_prompt == "S" and found.turns == [("a\n\nb", "c")]
        assert found.user_messages == ("a\n\nb", "d")
    replies = found.unread_turns()[0].replies
    assert replies[UNCAPPED].text == replies[CAPPED].text == "c" and replies[UNCAPPED].mean is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "not JSON"),
        ("{}", "No messages"),
        ("[]", "No messages"),
        ('[{"role": "assistant", "content": "x"}]', "does not begin with a user"),
        ('[{"role": "tool", "content": "x"}]', "Message 1 has no role"),
        ('[{"role": "user", "content": 3}]', "Message 1 holds no text"),
        ('[{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]', "in the middle"),
        ('[{"role": "user", "content": [{"type": "image_url"}]}]', "holds no text"),
    ],
)
def test_other_content_than_a_chat_is_refused(text, words):
    with pytest.raises(UserError, match=words):
        parse_transcript(text)


def test_the_published_transcripts_are_read(repository: Path):
    folder = repository.parent / "shared" / "published-transcripts" / "case_studies"
    files = sorted(folder.glob("*/*.json"))
    if not files:
        pytest.skip("the published transcripts are not available")
    for file in files:
        messages = json.loads(file.read_text())["conversation"]
        found = parse_transcript(file.read_text())
        assert 2 * len(found.turns) == len(messages) and found.model
        replies = [message["content"] for message in messages if message["role"] == "assistant"]
        assert [reply for _, reply in found.turns] == replies
