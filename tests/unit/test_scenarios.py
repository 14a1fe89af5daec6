"""Scenario figures against plain arithmetic, and the claims of every shipped scenario."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace

import pytest

from demo.axis.files import load_axis
from demo.conversation.scenarios import (
    GROUPS,
    MEASURED,
    SCENARIOS,
    Scenario,
    Sign,
    load_scenarios,
    with_measured_shares,
)
from demo.conversation.settings import BRANCHES, CAPPED, PAGE_SAMPLING, UNCAPPED
from demo.engine.protocol import Cap, PromptEvent, Token, TokenEvent
from demo.evaluation import scenarios as command
from demo.evaluation.scenario_figures import (
    CLAIMS,
    Figures,
    Measurement,
    figures_of,
    measurement_of,
    script_digest,
)
from demo.evaluation.scenarios import (
    Setup,
    axis_digest,
    chosen,
    document,
    line,
    play,
    stored_entries,
    verdicts,
)
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from tests.helpers.tiny_models import assert_one_sentence

CAP = Cap((3, 4), (0.0, 0.0))
SCRIPT = Scenario(
    "two-lines", "Two lines", "Watch.", "Be a bear.", ("First.", "Second."), seed=1, shows="sinks"
)
# Projections of the content tokens: seed -> turn -> (uncapped, capped). The cap acted on capped
# tokens above 0.5.
TOKENS = {
    1: [([0.8, 0.6], [0.8, 0.6]), ([0.2, 0.0], [0.4, 0.6])],
    2: [([0.5], [0.9]), ([-0.3, 0.1, -0.1], [0.7, 0.3])],
}
LIFTED = 0.5


class TableEngine:
    """Generates the tokens of a table and records the requests.

    Each reply ends with a special token, which no figure may include.
    """

    def __init__(self, table=TOKENS):
        self.table, self.batches, self.forgotten = table, [], []

    def stream(self, requests, cancel=None):
        self.batches.append(list(requests))
        return self._events(self.batches[-1])

    def _events(self, requests):
        for request in requests:
            yield PromptEvent(request.branch, 10, 0, 0.25)
        for request in requests:
            turn = sum(message["role"] == "user" for message in request.messages) - 1
            # The page adds the turn's number to the seed.
            values = self.table[request.sampling.seed - turn][turn][request.cap is not None]
            for value in values:
                lift = 0.3 if request.cap and value > LIFTED else 0.0
                yield TokenEvent(
                    request.branch, 7, Token(f"{value} ", value - lift, value, (lift, 0.0), False), 10
                )
            yield TokenEvent(request.branch, 2, Token("", 9.0, 9.0, (9.0, 9.0), True), 13, "stop")

    def forget(self, branches):
        self.forgotten += branches


def played(table=TOKENS):
    engine = TableEngine(table)
    return engine, play(SCRIPT, Setup(engine, CAP, tuple(seed for seed in table if seed != SCRIPT.seed)))


def test_figures_equal_plain_arithmetic():
    """Projections are averaged over tokens, then over seeds; gaps over turns, then over seeds."""
    _, talks = played()
    figures = figures_of(talks)
    assert figures.uncapped == pytest.approx(((0.7 + 0.5) / 2, (0.1 - 0.1) / 2))
    assert figures.capped == pytest.approx(((0.7 + 0.9) / 2, (0.5 + 0.5) / 2))
    gaps = [((0.7 - 0.7) + (0.5 - 0.1)) / 2, ((0.9 - 0.5) + (0.5 + 0.1)) / 2]
    assert figures.gap == pytest.approx(sum(gaps) / 2)
    assert figures.gap_sd == pytest.approx(abs(gaps[0] - gaps[1]) / 2**0.5)
    assert figures.above == 1.0
    assert figures.fired == pytest.approx(5 / 7)  # 0.8 0.6 | 0.6 | 0.9 | 0.7 of seven capped tokens
    assert figures.same == pytest.approx(1 / 4)
    assert figures.fall == pytest.approx(0.6) and figures.lowest == pytest.approx(0.0)


def test_empty_replies_are_left_out_of_the_figures():
    table = {1: TOKENS[1], 2: [([], [0.9]), TOKENS[2][1]]}
    figures = figures_of(played(table)[1])
    assert figures.uncapped[0] == pytest.approx(0.7)
    assert figures.gap == pytest.approx(statistics.fmean([0.2, 0.6]))
    silent = {seed: [([], [0.9]), turns[1]] for seed, turns in TOKENS.items()}
    with pytest.raises(UserError, match="turn 1") as error:
        figures_of(played(silent)[1])
    assert_one_sentence(error, "uncapped")


def test_the_own_seed_runs_alone_and_each_branch_keeps_its_own_history():
    table = {**TOKENS, 5: TOKENS[2]}
    engine, talks = played(table)
    assert [len(batch) for batch in engine.batches] == [2, 2, 4, 4], "as on the page, and then the others"
    assert {request.sampling.seed for request in engine.batches[0]} == {SCRIPT.seed}
    for request in (*engine.batches[1], *engine.batches[3]):
        branch = CAPPED if request.cap else UNCAPPED
        said = "".join(f"{value} " for value in table[request.sampling.seed - 1][0][branch == CAPPED])
        assert [message["role"] for message in request.messages] == ["system", "user", "assistant", "user"]
        assert request.messages[2]["content"] == said
        assert request.cap in (None, CAP)
        assert replace(request.sampling, seed=0) == PAGE_SAMPLING
    assert len({request.branch for batch in engine.batches for request in batch}) == 6
    assert sorted(engine.forgotten) == sorted(t.branch_id(b) for t in talks for b in BRANCHES)


def test_a_measurement_keeps_the_own_seed_apart_and_survives_a_json_round_trip():
    _, talks = played()
    signed = replace(SCRIPT, sign=Sign("counts", r"0\.9"))
    measured = measurement_of(signed, talks)
    assert measured.own == figures_of(talks[:1]) and measured.seeds == figures_of(talks[1:])
    assert measured.holds == 1.0, "0.5 falls to -0.1, and the capped replies stay at 0.5 or above"
    assert measured.own_sign == (False, False) and measured.sign == {UNCAPPED: 0.0, CAPPED: 1.0}
    again = Measurement.from_json(json.loads(json.dumps(measured.as_json())))
    assert again.as_json() == measured.as_json()
    assert "+0.60" in line("two-lines", measured) and "100%" in line("two-lines", measured)


def test_measuring_some_scenarios_again_keeps_the_others(tmp_path):
    path, conditions = tmp_path / "measured.json", {"format": 2, "seeds": [1, 2]}
    other = replace(SCRIPT, id="other")
    assert stored_entries(path, conditions) == {}
    found = measurement_of(SCRIPT, played()[1])
    fresh = {"float32": {"two-lines": found, "other": found}, "bfloat16": {"other": found}}
    first = document(conditions, fresh, {"float32": {"gone": {}}}, lambda _: [SCRIPT, other])
    assert [list(entries) for entries in first["measured"].values()] == [["two-lines", "other"], ["other"]]
    path.write_text(json.dumps(first))
    kept = stored_entries(path, conditions)
    again = {"float32": {"two-lines": replace(found, holds=0.5)}}
    second = document(conditions, again, kept, lambda _: [SCRIPT, other])
    assert second["measured"]["float32"]["other"] == first["measured"]["float32"]["other"]
    assert second["measured"]["float32"]["two-lines"]["holds"] == 0.5
    assert second["measured"]["bfloat16"] == first["measured"]["bfloat16"]
    with pytest.raises(UserError) as error:
        stored_entries(path, {**conditions, "seeds": [1]})
    assert_one_sentence(error, "another model")
    assert stored_entries(path, {**conditions, "seeds": [1]}, strict=False) == {}


def test_wrong_options_are_reported_before_a_model_is_loaded(capsys, monkeypatch):
    monkeypatch.setattr(command, "load_model", lambda *_, **__: pytest.fail("loaded"))
    for arguments in (["--only", "unknown"], ["--seeds", "1"]):
        assert command.main(arguments) == 2
        assert capsys.readouterr().err.startswith("error: ")
    assert [s.id for s in chosen(load_scenarios(), ["plain-facts"])] == ["plain-facts"]


HELD = Figures((1.2, 0.1), (1.3, 0.8), 0.4, 0.1, 1.0, 0.5, 0.1)
STILL = Figures((1.2, 1.3), (1.2, 1.3), 0.02, 0.01, 0.9, 0.05, 0.95)


@pytest.mark.parametrize(
    ("claim", "figures", "changes"),
    [
        ("sinks", HELD, {"uncapped": (0.5, 0.1)}),
        ("sinks", HELD, {"uncapped": (1.9, 0.6)}),
        ("sinks", HELD, {"capped": (1.3, 0.4)}),
        ("sinks", HELD, {"above": 0.8}),
        ("steady-low", replace(HELD, uncapped=(0.2, 0.4)), {"uncapped": (0.2, 0.6)}),
        ("steady-low", replace(HELD, uncapped=(0.2, 0.4)), {"above": 0.8}),
        ("stays", STILL, {"uncapped": (1.2, 0.4)}),
        ("stays", STILL, {"uncapped": (1.2, 0.6)}),
        ("stays", STILL, {"gap": 0.3}),
        ("untouched", STILL, {"same": 0.8}),
        ("untouched", STILL, {"fired": 0.3}),
        ("untouched", STILL, {"gap": 0.2}),
    ],
)
def test_claim_holds_only_for_figures_that_support_it(claim, figures, changes):
    assert CLAIMS[claim].holds(figures)
    assert not CLAIMS[claim].holds(replace(figures, **changes))


def test_verdicts_name_what_is_said_and_not_shown():
    good = Measurement(HELD, HELD, 1.0, (True, False), {UNCAPPED: 1.0, CAPPED: 0.0})
    signed = replace(SCRIPT, sign=Sign("counts", "0"))
    assert verdicts({SCRIPT.id: good}, [signed]) == ["Every scenario shows what it claims."]
    (sentence,) = verdicts({SCRIPT.id: good}, [replace(signed, shows="stays")])[:1]
    assert sentence.startswith("two-lines does not show 'stays' over seeds")
    (sentence,) = verdicts({SCRIPT.id: replace(good, own=STILL)}, [signed])
    assert "at its own seed" in sentence
    (sentence,) = verdicts({SCRIPT.id: replace(good, own_sign=(False, False))}, [signed])
    assert sentence.endswith("no uncapped reply counts.")


def test_a_blurb_says_how_often_other_seeds_show_the_same(tmp_path):
    path, figures = tmp_path / "measured.json", measurement_of(SCRIPT, played()[1])
    entry = replace(figures, holds=0.5, sign={UNCAPPED: 1.0, CAPPED: 0.5}).as_json()
    content = {"model": "m", "seeds": [1, 2], "measured": {"float32": {"two-lines": entry}}}
    path.write_text(json.dumps(content))
    signed, other = replace(SCRIPT, sign=Sign("counts", "0")), replace(SCRIPT, id="other")
    first, second = with_measured_shares([signed, other], "m", "float32", path)
    assert first.blurb == (
        "Watch. Over 2 other seeds, the uncapped line sinks and the capped one holds in 1 of them, "
        "and the model counts in 2 uncapped and 1 capped chats."
    )
    assert second == other, "nothing is said of what was not measured"
    assert with_measured_shares([signed], "m", "bfloat16", path) == (signed,)
    (elsewhere,) = with_measured_shares([signed], "another", "float32", path)
    assert elsewhere.blurb == "Watch. Written for m; this model may answer otherwise."


@pytest.mark.parametrize(
    "change", [{"group": "Others"}, {"seed": 100}, {"seed": "1"}, {"sign": {"says": "x", "pattern": "("}}]
)
def test_a_malformed_scenario_is_refused_in_one_sentence(tmp_path, change):
    entry = json.loads(json.dumps(read_object(SCENARIOS, "")["scenarios"][0])) | change
    (tmp_path / "s.json").write_text(json.dumps({"scenarios": [entry]}))
    with pytest.raises(UserError) as error:
        load_scenarios(tmp_path / "s.json")
    assert_one_sentence(error, "cannot be read")


def test_three_scenarios_come_first_and_every_group_has_some():
    scenarios = load_scenarios()
    first = [scenario for scenario in scenarios if scenario.first]
    assert [scenario.group for scenario in first] == ["Characters", "Slow drift", "Controls"]
    assert {scenario.group for scenario in scenarios} == set(GROUPS)
    assert {scenario.shows for scenario in scenarios if scenario.group == "Controls"} <= {
        "stays",
        "untouched",
    }


@pytest.fixture(scope="module")
def measured():
    return read_object(MEASURED, command.COMMAND)


@pytest.mark.parametrize("dtype", command.DTYPES)
@pytest.mark.parametrize("name", [scenario.id for scenario in load_scenarios()])
def test_every_scenario_shows_what_it_claims(measured, name, dtype):
    (scenario,) = chosen(load_scenarios(dtype=dtype), [name])
    entry = measured["measured"][dtype][scenario.id]
    assert entry["script"] == script_digest(scenario), "the script has changed since it was measured"
    found = {scenario.id: Measurement.from_json(entry)}
    assert verdicts(found, [scenario]) == ["Every scenario shows what it claims."]


def test_stored_figures_belong_to_the_shipped_axis_the_page_and_ten_seeds_or_more(measured):
    axis = load_axis("smollm2-135m-instruct")
    assert measured["axis"]["digest"] == axis_digest(axis)
    assert measured["axis"]["cap_layers"] == list(axis.cap_band)
    assert measured["axis"]["floor"] == axis.cap_floor
    assert measured["axis"]["probe_layer"] == axis.probe_layer
    assert all(getattr(PAGE_SAMPLING, name) == value for name, value in measured["sampling"].items())
    assert len(set(measured["seeds"])) >= 10
    for entries in measured["measured"].values():
        assert list(entries) == [scenario.id for scenario in load_scenarios()]
