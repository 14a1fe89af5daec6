"""Session files, transcripts and exports.

Saved content loads unchanged, and malformed content is refused in one sentence.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.axis.zones import Told, Zones
from demo.conversation.conversation import Conversation
from demo.conversation.exports import COLUMNS, tokens_csv
from demo.conversation.layers import Layers
from demo.conversation.session_file import Recording, dumps, from_json, loads, to_json
from demo.conversation.settings import CAPPED, UNCAPPED, TurnSettings
from demo.conversation.transcripts import parse_transcript
from demo.conversation.turns import Reply, Turn
from demo.engine.protocol import Alternative, Cap, Sampling, Shift, Steer, Token
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError
from tests.helpers.scripted import FAULT, SETTINGS, ScriptedEngine

ZONES = Zones(-0.9, 0.4, Told(120, 0.1, 0.55), Told(152, 0.45, 0.1))
MARKS = PlotMarks(17, 0.5, "p25", True, (14, 20), ZONES, assistant=False)
MAP = {"roles": [["bard", [1.0, 2.0, 3.0], -0.5]], "default": [1.0, 0.0, 0.0], "variance": [], "notes": ["n"]}


@pytest.fixture
def recording() -> Recording:
    conversation = Conversation()
    list(conversation.send(ScriptedEngine(), "Hi <b>", replace(SETTINGS, seeds=2)))
    list(conversation.send(ScriptedEngine(words=("=1+1", "…海")), "Two", replace(SETTINGS, only=CAPPED)))
    assert conversation.turns[0].settings
    conversation.turns[0].settings = replace(
        conversation.turns[0].settings,
        cap=Cap((14, 15, 17), (1.5, -2.25, 0.1)),
        steer=Steer(3, -1.5),
        marks=replace(MARKS, floor_name="=p75", floor=0.1 + 0.2, cap_layers=(14, 17)),
        dtype="float32",
        attempt=2,
    )
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
    assert again.turns[0].settings == recording.turns[0].settings
    # The second turn was made without reference lines; it gets those of the file, less its cap.
    off = replace(MARKS, floor=None, floor_name=None, cap_layers=None)
    assert again.turns[1].settings == replace(recording.turns[1].settings, marks=off)


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


def test_a_file_of_an_earlier_version_has_no_zones_but_a_range_of_default_replies(recording):
    data = to_json(recording)
    data["marks"] = {key: value for key, value in data["marks"].items() if key != "zones"}
    again = loads(json.dumps(data | {"marks": data["marks"] | {"default_range": [-0.2, 1.6]}}))
    assert again.marks == replace(MARKS, zones=None)
    assert {row["zone"] for row in rows_of(again)} == {""}


def test_a_file_of_an_earlier_version_has_no_settings(recording):
    data = to_json(recording)
    for turn in data["turns"]:
        del turn["settings"]
    again = loads(json.dumps(data))
    assert [turn.settings for turn in again.turns] == [None, None]
    assert to_json(again) == data
    assert all(row["seed"] == row["cap"] == "" for row in rows_of(again))


def rows_of(recording: Recording) -> list[dict[str, str]]:
    """The rows of the CSV as a spreadsheet reads them."""
    saved = tokens_csv(recording).encode()
    assert saved.startswith(codecs.BOM_UTF8)
    return list(csv.DictReader(io.StringIO(saved.decode("utf-8-sig"), newline="")))


def test_the_csv_tells_reasoning_from_the_answer(reasoned):
    rows = rows_of(reasoned)
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
        lambda d: d["marks"].update(zones=[1]),
        lambda d: d["marks"].update(zones={"low": 1.0, "high": 0.0}),
        lambda d: d["marks"]["zones"].update(low=9),
        lambda d: d["marks"]["zones"].update(high="1"),
        lambda d: d["marks"]["zones"]["role"].update(assistant=2),
        lambda d: d["marks"]["zones"].pop("default"),
        lambda d: d["map"]["roles"].append(["x", [1, 2], 0]),
        lambda d: d.update(title=3),
        lambda d: d.update(date="tomorrow"),
        lambda d: d.update(date=20240229),
        lambda d: d["turns"][0]["branches"][UNCAPPED].update(fault=1),
        lambda d: d["turns"][0].update(settings=[]),
        lambda d: d["turns"][0]["settings"].pop("cap"),
        lambda d: d["turns"][0]["settings"].update(seed="1"),
        lambda d: d["turns"][0]["settings"].update(temperature=-1),
        lambda d: d["turns"][0]["settings"].update(seeds=99),
        lambda d: d["turns"][0]["settings"].update(span="<b>"),
        lambda d: d["turns"][0]["settings"].update(only="nobody"),
        lambda d: d["turns"][0]["settings"].update(only=[]),
        lambda d: d["turns"][0]["settings"].update(steer={"layer": 1}),
        lambda d: d["turns"][0]["settings"].update(steer={"layer": 1, "alpha": 99}),
        lambda d: d["turns"][0]["settings"]["cap"].update(floors=[1]),
        lambda d: d["turns"][0]["settings"]["cap"].update(layers=[]),
        lambda d: d["turns"][0]["settings"]["cap"].update(layers=[3, 2, 1]),
        lambda d: d["turns"][0]["settings"]["cap"].update(floor="0.5"),
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


def test_the_csv_has_a_row_per_message_and_token_and_no_formulas(recording):
    rows = rows_of(recording)
    assert tuple(rows[0]) == COLUMNS
    expected = sum(
        len(one.tokens) for turn in recording.turns for r in turn.replies.values() for one in (r, *r.samples)
    )
    assert len([row for row in rows if row["branch"] in (UNCAPPED, CAPPED)]) == expected
    said = [(row["turn"], row["branch"], row["text"]) for row in rows if row["branch"] in ("system", "user")]
    prompts = [(number, "system", "Be kind.") for number in "12"]
    assert sorted(said) == sorted([*prompts, ("1", "user", "Hi <b>"), ("2", "user", "Two")])
    assert [row["text"] for row in rows if (row["turn"], row["branch"]) == ("2", CAPPED)][:2] == [
        "'=1+1",
        "…海",
    ]
    capped = [row for row in rows if (row["turn"], row["branch"], row["sample"]) == ("1", CAPPED, "0")]
    assert [float(row["correction"]) for row in capped[:3]] == [0.5, 0.0, 0.5]
    assert [row["projection_after"] for row in capped[:2]] == ["0.0", "-0.5"], "numbers stay numbers"
    assert {row["floor_name"] for row in capped} == {"'=p75"}, "no other text is a formula either"


def test_the_csv_has_the_settings_of_each_reply(recording):
    rows = rows_of(recording)

    def cells(turn: str, branch: str, sample: str, *names: str) -> list[str]:
        found = [row for row in rows if (row["turn"], row["branch"], row["sample"]) == (turn, branch, sample)]
        assert len({tuple(row[name] for name in names) for row in found}) == 1
        return [found[0][name] for name in names]

    band = ("cap", "first_capped_layer", "last_capped_layer", "floor", "acts_on")
    assert cells("1", CAPPED, "0", *band) == ["on", "14", "17", str(0.1 + 0.2), "answer and reasoning"]
    assert cells("1", UNCAPPED, "0", *band) == ["off", "", "", "", ""]
    assert cells("2", CAPPED, "0", *band) == ["off", "", "", "", ""], "the cap was off in this turn"
    sampling = ("seed", "attempt", "temperature", "top_p", "max_new_tokens", "soft_limit", "dtype")
    assert cells("1", UNCAPPED, "0", *sampling) == ["0", "2", "0.3", "0.9", "9", "5", "float32"]
    assert cells("1", UNCAPPED, "1", "seed") == ["1000"]


def test_the_csv_has_the_zone_of_each_reply(recording):
    rows = rows_of(recording)
    for number, turn in enumerate(recording.turns, 1):
        for branch, reply in turn.replies.items():
            for sample, one in enumerate([reply, *reply.samples]):
                found = {
                    row["zone"]
                    for row in rows
                    if (row["turn"], row["branch"], row["sample"]) == (str(number), branch, str(sample))
                }
                assert found == {ZONES.name_of(one.mean)}
    assert {row["zone"] for row in rows if row["branch"] in ("system", "user")} == {""}


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t", "\r", "\n=", "＝"])
def test_a_text_that_a_spreadsheet_would_take_for_a_formula_is_marked_as_text(recording, begins):
    text = f"{begins}HYPERLINK(1)"
    recording.turns[0].user = text
    recording.turns[0].settings = replace(
        recording.turns[0].settings, system_prompt=text, dtype=text, marks=replace(MARKS, floor_name=text)
    )
    cells = [cell for row in rows_of(recording) for cell in row.values() if "HYPERLINK" in cell]
    assert len(cells) > 4 and set(cells) == {f"'{text}"}


@given(st.text(max_size=20))
def test_any_text_keeps_its_rows_and_umlauts_in_the_csv(text):
    turn = Turn(text, {UNCAPPED: Reply.of_text("ä")})
    rows = rows_of(Recording("tiny", [turn], MARKS))
    assert [row["text"].removeprefix("'") for row in rows] == [text.removeprefix("'"), "ä"]


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
        ('[{"role": "narrator", "content": "x"}]', "Message 1 has no role"),
        ('[{"role": "user", "content": 3}]', "Message 1 holds no text"),
        ('[{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]', "in the middle"),
        ('[{"role": "user", "content": [{"type": "image_url"}]}]', "Message 1 holds an image"),
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


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda reply: reply.update(state="AAAA" * 100_000), "too many numbers"),
        (lambda reply: reply.update(state="////fw=="), "NaN"),
        (lambda reply: reply.update(state="AAAAA"), "not whole numbers"),
        (
            lambda reply: reply.update(shift={"length": 1, "along": 1e200}),
            "longer along the axis than at all",
        ),
        (lambda reply: reply.update(shift={"length": -1, "along": 0}), "a negative length"),
        (lambda reply: reply.update(step={"length": 1, "along": 2}), "longer along the axis than at all"),
        (lambda reply: reply.update(step=[1, 2]), "no step"),
        (
            lambda reply: reply["tokens"].append({"t": "x", "a": 1, "b": 1, "g": [1, 2, 3]}),
            "other directions",
        ),
        (lambda reply: reply["tokens"][0].update(l=[[1, "a", 1.5]]), "more than certain"),
        (lambda reply: reply["tokens"][0].update(o=[[-1, "a", 0.5]]), "no token"),
        (lambda reply: reply["tokens"][0].update(l=[[1, 2, 0.5]]), "no text"),
        (lambda reply: reply["tokens"][0].update(l=[[1, "a", 0.1]] * 9), "too many"),
    ],
)
def test_what_was_read_beside_is_checked_field_by_field(change, why):
    found = Alternative(3, " I", 0.5), Alternative(4, "\n", 0.25)
    token = Token("Hi", 1.0, 1.0, (), False, None, 0.5, None, False, 0.5, (0.1, 0.2), 0.0, found, found[1:])
    shift, step = Shift(2.0, -1.0), Shift(0.5, 0.25)
    reply = Reply(8, [token], "stop", state=(1.0, 2.0), shift=shift, step=step)
    recording = Recording("model", [Turn("Hello", {"capped": reply})], PlotMarks(3))
    data = to_json(recording)
    assert dumps(from_json(json.loads(json.dumps(data)))) == dumps(recording)
    change(data["turns"][0]["branches"]["capped"])
    with pytest.raises(UserError, match="damaged"):
        from_json(json.loads(json.dumps(data)))


READ = Layers(
    1, (1, 2), (0.5, None), (" a", "…"), 1, ((0.0, 0.5, -1.25),) * 2, ((0.0, 0.25, -1.5),) * 2, (1, 2)
)


@pytest.mark.parametrize("layers", [READ, replace(READ, plain=READ.own), replace(READ, cap=None, floors=())])
def test_layers_that_were_read_are_kept(layers):
    reply = Reply(8, [Token("Hi", 1.0, 1.0, (), False)], "stop", layers=layers)
    recording = Recording("m", [Turn("Hello", {"capped": reply})], PlotMarks(3))
    assert loads(dumps(recording)).turns[0].replies["capped"].layers == layers
    written = to_json(recording)["turns"][0]["branches"]["capped"]["layers"]
    assert ("plain" in written) == (layers.plain != layers.own), "nothing is written twice"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda layers: layers.pop("own"), "no values"),
        (lambda layers: layers.update(own=[], plain=[], tokens=[]), "no tokens"),
        (lambda layers: layers.update(own=[[], []], plain=[[], []]), "no layers"),
        (lambda layers: layers["own"].pop(), "fewer rows than tokens"),
        (lambda layers: layers["plain"][1].pop(), "a row that is too short"),
        (lambda layers: layers["plain"][1].__setitem__(0, "x"), "no number"),
        (lambda layers: layers["tokens"].__setitem__(0, 3), "no text"),
        (lambda layers: layers.update(probe=3), "a layer that is not there"),
        (lambda layers: layers.update(cap=[2, 1], floors=[]), "a band that ends before it begins"),
        (lambda layers: layers.update(cap=[1, 3], floors=[0, 0, 0]), "a band beyond the last layer"),
        (lambda layers: layers.update(cap=[]), "half a band"),
        (lambda layers: layers.update(floors=[0.5]), "a floor is missing"),
        (lambda layers: layers.update(reasoning=3), "more reasoning than tokens"),
        (lambda layers: layers.update(below=[0]), "a token that is not there"),
    ],
)
def test_damaged_layers_are_refused_in_one_sentence(change, why):
    reply = Reply(8, [Token("Hi", 1.0, 1.0, (), False)], "stop", layers=READ)
    data = json.loads(dumps(Recording("m", [Turn("Hello", {"capped": reply})], PlotMarks(3))))
    change(data["turns"][0]["branches"]["capped"]["layers"])
    with pytest.raises(UserError, match=r"^This session file is damaged .*; save the session again\.$"):
        from_json(data)


def test_alternatives_are_kept():
    """They come back as they were, and stand in the CSV with the name of their column."""
    kept = (Alternative(7, "=1", 0.5), Alternative(8, "é\n", 0.0012))
    token = Token("=1", 1.0, 1.0, (), False, alternatives=kept, plain_alternatives=kept[:1])
    recording = Recording(
        "m", [Turn("Hello", {"capped": Reply(8, [token, Token("a", 1, 1, (), False)], "stop")})], PlotMarks(3)
    )
    first, second = loads(dumps(recording)).turns[0].replies["capped"].tokens
    assert first.alternatives == kept and first.plain_alternatives == kept[:1]
    assert second.alternatives == second.plain_alternatives == ()
    row = next(row for row in rows_of(recording) if row["token"] == "1")
    assert json.loads(row["alternatives"]) == [["=1", 0.5], ["é\n", 0.0012]]
    assert json.loads(row["alternatives_without_cap"]) == [["=1", 0.5]]


def test_a_second_cap_without_a_direction_is_refused():
    settings = TurnSettings(
        Sampling(), None, also=Cap((1,), (0.5,), "warm", True), along=("warm",), second="warm"
    )
    reply = Reply(8, [Token("Hi", 1.0, 1.0, (), False)], "stop")
    data = to_json(Recording("model", [Turn("Hello", {"capped": reply}, settings)], PlotMarks(3)))
    assert from_json(json.loads(json.dumps(data))).turns[0].settings.also == settings.also
    del data["turns"][0]["settings"]["also"]["direction"]
    with pytest.raises(UserError, match="damaged"):
        from_json(json.loads(json.dumps(data)))
