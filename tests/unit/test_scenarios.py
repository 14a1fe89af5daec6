"""Scenario figures against plain arithmetic, and the claims of every shipped scenario."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace

import pytest

from demo.axis.files import load_axis
from demo.conversation.scenarios import Scenario, load_scenarios
from demo.conversation.settings import BRANCHES, CAPPED, UNCAPPED
from demo.engine.protocol import Cap, PromptEvent, Token, TokenEvent
from demo.evaluation import scenarios as command
from demo.evaluation.scenario_figures import CLAIMS, Figures, claims_made, figures_of, script_digest
from demo.evaluation.scenarios import (
    MEASURED,
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
SCRIPT = Scenario("two-lines", "Two lines", "Watch.", "Be a bear.", ("First.", "Second."))
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
            values = self.table[request.sampling.seed][turn][request.cap is not None]
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
    return engine, play(SCRIPT, Setup(engine, CAP, tuple(table), 64))


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


def test_each_turn_is_one_batch_and_each_branch_keeps_its_own_history():
    engine, talks = played()
    assert [len(batch) for batch in engine.batches] == [4, 4]
    for request in engine.batches[1]:
        branch = CAPPED if request.cap else UNCAPPED
        said = "".join(f"{value} " for value in TOKENS[request.sampling.seed][0][branch == CAPPED])
        assert [message["role"] for message in request.messages] == ["system", "user", "assistant", "user"]
        assert request.messages[2]["content"] == said
        assert request.cap in (None, CAP) and request.sampling.max_new_tokens == 64
    assert len({request.branch for batch in engine.batches for request in batch}) == 4
    assert sorted(engine.forgotten) == sorted(t.branch_id(b) for t in talks for b in BRANCHES)


def test_figures_survive_a_json_round_trip():
    figures = figures_of(played()[1])
    again = Figures.from_json(json.loads(json.dumps(figures.as_json())))
    assert again.as_json() == figures.as_json()
    assert "+0.60" in line("two-lines", figures) and "71%" in line("two-lines", figures)


def test_measuring_some_scenarios_again_keeps_the_others(tmp_path):
    path, conditions = tmp_path / "measured.json", {"format": 1, "seeds": [1, 2]}
    other = replace(SCRIPT, id="other")
    assert stored_entries(path, conditions) == {}
    figures = figures_of(played()[1])
    first = document(conditions, [SCRIPT, other], {"two-lines": figures, "other": figures}, {"gone": {}})
    assert list(first["scenarios"]) == ["two-lines", "other"]
    path.write_text(json.dumps(first))
    kept = stored_entries(path, conditions)
    second = document(conditions, [SCRIPT, other], {"two-lines": replace(figures, above=0.5)}, kept)
    assert second["scenarios"]["other"] == first["scenarios"]["other"]
    assert second["scenarios"]["two-lines"]["above"] == 0.5
    with pytest.raises(UserError) as error:
        stored_entries(path, {**conditions, "seeds": [1]})
    assert_one_sentence(error, "another model")


def test_wrong_options_are_reported_before_a_model_is_loaded(capsys, monkeypatch):
    monkeypatch.setattr(command, "load_model", lambda *_, **__: pytest.fail("loaded"))
    for arguments in (["--only", "unknown"], ["--seeds", "1"], ["--tokens", "0"]):
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


def test_verdicts_name_the_claims_that_do_not_hold():
    assert verdicts({"a": HELD}, {"a": "sinks"}) == ["Every scenario shows what it claims."]
    (sentence,) = verdicts({"a": HELD, "b": HELD}, {"a": "sinks", "b": "stays"})
    assert sentence.startswith("b does not show 'stays'")


def test_unknown_and_missing_claims_are_rejected(tmp_path):
    for entry in ({"id": "a", "shows": "wonders"}, {"id": "a"}):
        (tmp_path / "s.json").write_text(json.dumps({"scenarios": [entry]}))
        with pytest.raises(UserError) as error:
            claims_made(tmp_path / "s.json")
        assert_one_sentence(error, "untouched")


@pytest.fixture(scope="module")
def measured():
    return read_object(MEASURED, command.COMMAND)


@pytest.mark.parametrize("scenario", load_scenarios(), ids=lambda s: s.id)
def test_every_scenario_shows_what_it_claims(measured, scenario):
    entry = measured["scenarios"][scenario.id]
    assert entry["script"] == script_digest(scenario), "the script has changed since it was measured"
    claim = claims_made()[scenario.id]
    assert CLAIMS[claim].holds(Figures.from_json(entry)), (claim, entry)


def test_stored_figures_belong_to_the_shipped_axis_and_ten_seeds_or_more(measured):
    axis = load_axis("smollm2-135m-instruct")
    assert measured["axis"]["digest"] == axis_digest(axis)
    assert measured["axis"]["cap_layers"] == list(axis.cap_band)
    assert measured["axis"]["floor"] == axis.cap_floor
    assert measured["axis"]["probe_layer"] == axis.probe_layer
    assert len(set(measured["seeds"])) >= 10
    assert set(measured["scenarios"]) == {scenario.id for scenario in load_scenarios()}
