"""Chat models as judges: the expected digit, its combination with the built-in score, and two readings."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from demo.engine.protocol import Alternative, PromptEvent, Token, TokenEvent
from demo.evaluation.agreement import KINDS, agreement
from demo.evaluation.answers import ResultCache
from demo.evaluation.fitting import EXAMPLES, examples_of, fit_combination
from demo.evaluation.judge import Judged, ModelJudge, expected_digit, judged_scorer, rate_labelled, version_of
from demo.evaluation.scoring import BUILT_IN, LABELS
from demo.utils.errors import UserError
from demo.utils.statistics import cohen_kappa, kappa_interval

ENTRIES = json.loads(LABELS.read_text())["replies"]


def token(**probabilities: float) -> Token:
    alternatives = tuple(Alternative(i, text, p) for i, (text, p) in enumerate(probabilities.items()))
    return Token("0", None, None, (), False, alternatives=alternatives)


class ScriptedEngine:
    """Rates every reply with the digit that `rate` gives for its text, and keeps what it was asked."""

    def __init__(self, rate) -> None:
        self._rate, self.batches = rate, []

    def stream(self, requests, cancel=None):
        self.batches.append(list(requests))
        for request in requests:
            yield PromptEvent(request.branch, 10, 0, None)
            text = request.messages[-1]["content"].rpartition("Reply: ")[2]
            yield TokenEvent(request.branch, 0, token(**self._rate(text)), 1, "length")


def no_score(model, questions, replies):
    return [0.0] * len(replies)


def judge_of(rate, name: str = "a-judge") -> ModelJudge:
    return ModelJudge(ScriptedEngine(rate), name, [])


def test_expected_digit_weighs_the_digits_and_ignores_all_else():
    assert expected_digit(token(**{"0": 0.5, "2": 0.25, "the": 0.25})) == pytest.approx(2 / 3)
    assert expected_digit(token(**{"1": 0.2, " 1": 0.1, "2": 0.3})) == pytest.approx(1.5)
    assert expected_digit(token(**{"2": 0.01, "9": 0.9})) == 2
    assert expected_digit(token(the=0.9)) is None


def test_ratings_keep_the_order_of_the_replies_and_share_what_is_shown():
    engine = ScriptedEngine(lambda text: {text: 1.0})
    judge = ModelJudge(engine, "a-judge", [(Judged("You are Vex.", "Hello?", "Kneel."), 2)])
    digits = [random.Random(1).choice("012") for _ in range(40)]
    assert judge.ratings([Judged("You are Vex.", "Hello?", digit) for digit in digits]) == list(
        map(float, digits)
    )
    asked = [request for batch in engine.batches for request in batch]
    assert len(engine.batches[0]) == 1, "the first one reads what all share"
    assert all(request.messages[:-1] == asked[0].messages[:-1] for request in asked)
    assert [message["role"] for message in asked[0].messages] == ["system", "user", "assistant", "user"]
    assert asked[0].messages[2]["content"] == "2"
    assert judge.ratings([]) == []


def test_combination_is_ridge_regression_and_ignores_a_constant_feature():
    rng = np.random.default_rng(0)
    features = np.c_[rng.normal(size=200), rng.normal(size=200) * 30 + 5, np.full(200, 7.0)]
    labels = 1 + 0.5 * features[:, 0] - 0.02 * features[:, 1]
    fitted = fit_combination(features, labels)
    assert fitted.weights[:2] == pytest.approx((0.5, -0.02), rel=0.01) and fitted.weights[2] == 0
    assert fitted.scores(features) == pytest.approx(labels.tolist(), abs=0.02)
    twofold = fit_combination(features * [1, 1000, 1], labels)
    assert twofold.scores(features * [1, 1000, 1]) == pytest.approx(fitted.scores(features))


def test_examples_are_of_every_label_and_only_of_replies_the_score_may_be_fitted_to():
    chosen = examples_of(ENTRIES)
    assert [sum(ENTRIES[i]["label"] == label for i in chosen) for label in (0, 1, 2)] == [EXAMPLES] * 3
    assert len(set(chosen)) == len(chosen) and all(ENTRIES[i]["set"] == "chosen on" for i in chosen)


def test_a_judge_that_knows_the_labels_agrees_and_the_tested_replies_do_not_shape_the_score(
    monkeypatch, tmp_path
):
    monkeypatch.setattr("demo.evaluation.judge.stance_scores", no_score)
    labels = {entry["reply"]: str(entry["label"]) for entry in ENTRIES}
    knowing = judge_of(lambda text: {labels[text]: 0.9, "the": 0.1})
    cache = ResultCache(tmp_path / "ratings.jsonl", {})
    scorer = judged_scorer(None, [knowing], cache)
    assert scorer.name == f"{BUILT_IN} and a-judge"
    assert {kind: found["kappa"] for kind, found in scorer.agreement.items()} == dict.fromkeys(KINDS, 1.0)
    # The other way round on the tested replies: the same weights, and no agreement.
    tested = {entry["reply"] for entry in ENTRIES if entry["set"] == "tested on"}
    wrong = judge_of(lambda text: {str(2 - int(labels[text])) if text in tested else labels[text]: 1.0})
    other = rate_labelled(None, [wrong], ResultCache(None, {}))
    assert other.fitted(["a-judge"]) == rate_labelled(None, [knowing], cache).fitted(["a-judge"])
    assert other.agreement(["a-judge"])["in character"]["kappa"] < 0


def test_a_judge_without_digits_is_refused(monkeypatch):
    monkeypatch.setattr("demo.evaluation.judge.stance_scores", no_score)
    with pytest.raises(UserError, match=r"a-judge rates 100% .* choose another --judge"):
        rate_labelled(None, [judge_of(lambda text: {"Sure": 0.9})], ResultCache(None, {}))


def test_two_readings_of_the_tested_replies_limit_what_a_score_can_reach():
    tested = [entry for entry in ENTRIES if entry["set"] == "tested on"]
    assert all(entry["second"] in (0, 1, 2) for entry in tested)
    for least in KINDS.values():
        found = agreement(ENTRIES, least)
        readings = [[entry[name] >= least for entry in tested] for name in ("label", "second")]
        assert found["kappa of two readings"] == pytest.approx(cohen_kappa(*readings))
        assert found["kappa from"] <= found["kappa"] <= found["kappa to"]


def test_interval_of_kappa_holds_it_and_shrinks_with_more_replies():
    rng = random.Random(2)
    few = [rng.random() < 0.5 for _ in range(60)]
    noisy = [one if rng.random() < 0.8 else not one for one in few]
    small, large = kappa_interval(few, noisy), kappa_interval(few * 16, noisy * 16)
    assert small.low < small.value < small.high and large.value == pytest.approx(small.value)
    assert large.high - large.low == pytest.approx((small.high - small.low) / 4, rel=0.1)
    assert kappa_interval([True] * 5, [True] * 5).low == 1


def test_stored_ratings_are_those_of_the_same_judges():
    def named(*pairs: tuple[str, str]) -> list[ModelJudge]:
        return [ModelJudge(ScriptedEngine(None), name, [], identity) for name, identity in pairs]

    versions = {version_of(named(*pairs)) for pairs in ((), (("a", "1"),), (("a", "2"),), (("b", "1"),))}
    assert len(versions) == 4
    with pytest.raises(UserError, match="Two judges have the same name"):
        rate_labelled(None, named(("a", "1"), ("a", "2")), ResultCache(None, {}))
