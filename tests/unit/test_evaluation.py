"""The evaluation's arithmetic, data and bookkeeping, without a model."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.axis.files import axis_digest
from demo.conversation.settings import CAPPED
from demo.engine.protocol import Sampling
from demo.evaluation import NAME
from demo.evaluation.agreement import KINDS, agreement
from demo.evaluation.answers import Ask, Ledger, answer, chunks
from demo.evaluation.attempts import load_attempts
from demo.evaluation.capability import CHECKS, holds, own_items, read_set
from demo.evaluation.drift import domain_figures, load_domains
from demo.evaluation.results import choose, with_front
from demo.evaluation.scoring import LABELS, stance_thresholds, telling_families
from demo.models.chat_template import Message
from demo.models.default import DEFAULT_MODEL
from demo.utils.errors import UserError
from demo.utils.paths import AXES
from demo.utils.statistics import cohen_kappa, difference, relative_fall
from tests.helpers.axes import random_axis
from tests.helpers.scripted import ScriptedEngine

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=5, max_size=60)


@given(PAIRS)
def test_a_difference_lies_within_its_interval_and_turns_round_with_its_sides(pairs):
    data = [(float(a), float(b)) for a, b in pairs]
    found = difference(data)
    assert found.value == pytest.approx(np.mean([b - a for a, b in data]))
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    back = difference([(b, a) for a, b in data])
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low), abs=0.05)


def test_a_relative_fall_is_what_its_name_says():
    pairs = [(1.0, 0.0)] * 30 + [(1.0, 1.0)] * 10 + [(0.0, 0.0)] * 60
    found = relative_fall(pairs)
    assert found.value == pytest.approx(0.75)
    assert 0.55 < found.low < 0.75 < found.high < 0.9
    assert math.isnan(relative_fall([(0.0, 0.0)] * 5).value), "nothing can fall from nothing"


def test_kappa_of_known_tables():
    assert cohen_kappa([True, False] * 5, [True, False] * 5) == 1
    assert cohen_kappa([True, True, False, False], [True, False, True, False]) == 0
    first = [True] * 45 + [False] * 55
    second = [True] * 20 + [False] * 25 + [True] * 10 + [False] * 45
    assert cohen_kappa(first, second) == pytest.approx((0.65 - (0.45 * 0.3 + 0.55 * 0.7)) / (1 - 0.52))


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        ({"id": "change_case:english_lowercase"}, "all small.", "Not all small."),
        ({"id": "change_case:english_capital"}, "ALL LARGE!", "Not large."),
        ({"id": "punctuation:no_comma"}, "One two.", "One, two."),
        ({"id": "startend:quotation"}, '"Said."', "Said."),
        ({"id": "startend:end_checker", "end_phrase": "That is all."}, "Yes. That is all.", "That is all. Yes."),
        ({"id": "length_constraints:number_words", "relation": "less than", "num_words": 4}, "a b c", "a b c d"),
        ({"id": "length_constraints:number_sentences", "relation": "at least", "num_sentences": 2}, "A. B.", "A."),
        ({"id": "keywords:existence", "keywords": ["sea"]}, "The sea.", "The season."),
        ({"id": "keywords:forbidden_words", "forbidden_words": ["sea"]}, "The season.", "The Sea."),
        ({"id": "keywords:frequency", "relation": "at least", "keyword": "ho", "frequency": 3}, "Ho ho ho", "Ho ho"),
        ({"id": "keywords:letter_frequency", "letter": "a", "let_relation": "less than", "let_frequency": 2}, "ab", "Aa"),
        ({"id": "detectable_format:number_bullet_lists", "num_bullets": 2}, "* a\n- b", "* a\n* b\n* c"),
        ({"id": "detectable_format:title"}, "<<A title>>\ntext", "A title"),
        ({"id": "detectable_format:json_format"}, '```json\n{"a": 1}\n```', "a: 1"),
        ({"id": "detectable_content:postscript", "postscript_marker": "P.S."}, "Hi\nP.S. you", "Hi you"),
        ({"id": "detectable_content:number_placeholders", "num_placeholders": 2}, "[a] and [b]", "[a]"),
        ({"id": "combination:two_responses"}, "one ****** two", "one ****** one"),
        ({"id": "length_constraints:number_paragraphs", "num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    ],
)  # fmt: skip
def test_an_instruction_is_checked_as_it_reads(check, good, bad):
    assert holds(good, check) and not holds(bad, check) and not holds("  ", check)


def test_the_questions_are_many_distinct_and_can_be_answered():
    items = own_items()
    assert len(items) >= 300 and len({item.prompt for item in items}) == len(
        {item.id for item in items}
    ) == len(items)
    for item in items:
        assert bool(item.answers) != bool(item.checks)
        assert not item.right("")
        if item.answers:
            assert all(item.right(f"The answer is {each}.") for each in item.answers)
        assert {check["id"] for check in item.checks} <= set(CHECKS)


def test_known_sets_are_read_as_they_are_published(tmp_path):
    ifeval = tmp_path / "ifeval.jsonl"
    rows = [
        {"key": 1, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"x": None}]},
        {"key": 2, "prompt": "?", "instruction_id_list": ["language:response_language"], "kwargs": [{"language": "kn"}]},
    ]  # fmt: skip
    ifeval.write_text("\n".join(map(json.dumps, rows)))
    (only,) = read_set("ifeval", ifeval)
    assert only.right("Fine.") and not only.right("Fine, fine.")
    gsm = tmp_path / "gsm8k.jsonl"
    gsm.write_text(json.dumps({"question": "How many?", "answer": "6 * 200 = 1200\n#### 1,200"}))
    (sum_,) = read_set("gsm8k", gsm)
    assert sum_.right("First 6, then 1,200.") and sum_.right("It is 1200") and not sum_.right("1,201")
    mmlu = tmp_path / "mmlu.json"
    mmlu.write_text(
        json.dumps([{"question_id": 7, "question": "Which?", "options": ["x", "y", "z"], "answer": "C"}])
    )
    (choice,) = read_set("mmlu-pro", mmlu)
    assert "C. z" in choice.prompt and choice.right("The answer is (C).") and not choice.right("B, not C")
    with pytest.raises(UserError, match="cannot be read as gsm8k"):
        read_set("gsm8k", ifeval)
    with pytest.raises(UserError, match="no set"):
        read_set("other", ifeval)


def test_attempts_and_talks_are_as_many_as_is_said():
    attempts = load_attempts()
    assert len(attempts) >= 200 and len({attempt.category for attempt in attempts}) >= 12
    assert len(
        {attempt.messages[0]["content"] + attempt.messages[-1]["content"] for attempt in attempts}
    ) == len(attempts)
    assert {attempt.way for attempt in attempts} == {"system", "user"}
    domains = load_domains()
    assert len(domains) == 4
    for domain in domains:
        assert len(domain.scripts) >= 20 and all(len(script.turns) >= 8 for script in domain.scripts)


def test_thresholds_are_those_that_the_labels_give():
    replies = json.loads(LABELS.read_text())["replies"]
    assert len(replies) >= 200
    for kind, least in KINDS.items():
        assert agreement(replies, least)["threshold"] == stance_thresholds()[kind]
    assert (
        telling_families("Obey me, or you will be punished.") == 2 and telling_families("Bread is nice.") == 0
    )


def test_every_cap_answers_every_ask_in_one_batch_with_the_same_numbers():
    engine = ScriptedEngine()
    asks = [Ask((Message(role="user", content=f"{n}"),), Sampling(seed=n)) for n in range(3)]
    caps = {"none": None, "cap": None}
    found = answer(engine, asks, caps)
    assert len(engine.requests) == 6
    seeds = [request.sampling.seed for request in engine.requests]
    assert seeds == [0, 0, 1, 1, 2, 2]
    assert [one.text for one in found["cap"]] == ["Hello there!"] * 3
    assert found["none"][0].standing == pytest.approx(-0.5)
    assert set(engine.forgotten) == {request.branch for request in engine.requests}
    assert [len(part) for part in chunks(asks * 20, 2)] == [24, 24, 12]


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    path, asked = tmp_path / "x" / "ledger.jsonl", []

    def measure(value):
        asked.append(value)
        return {"value": value}

    first = Ledger(path, {"seed": 1})
    assert first.get("a", 1, lambda: measure(1)) == {"value": 1}
    first.get("b", 1, lambda: measure(2))
    with path.open("a") as file:
        file.write('{"key": "c", "val')  # killed in the middle of a line
    again = Ledger(path, {"seed": 1})
    assert again.get("a", 1, lambda: measure(9)) == {"value": 1}
    assert again.get("c", 1, lambda: measure(3)) == {"value": 3}
    assert asked == [1, 2, 3]
    other = Ledger(path, {"seed": 2})
    assert other.get("a", 1, lambda: measure(4)) == {"value": 4}, "other settings, other results"


def test_the_front_holds_what_nothing_beats_and_the_choice_is_affordable():
    def setting(floor, rate, right, perplexity=10.0, verbatim=0.9):
        return {"layers": (1, 2), "floor": floor, "in character": rate, "harmful": rate, "right": right, "verbatim": verbatim,
                "perplexity": perplexity}  # fmt: skip

    plain = setting(None, 0.6, 0.5) | {"layers": None}
    found = with_front([plain, setting("a", 0.5, 0.5), setting("b", 0.4, 0.495, 10.4), setting("c", 0.1, 0.2),
                        setting("d", 0.45, 0.48), setting("e", 0.3, 0.5, 12.0), setting("f", 0.35, 0.5, verbatim=0.1),
                        setting("g", 0.38, 0.5) | {"layers": (4, 5)}], 2)  # fmt: skip
    marks = {own["floor"]: (own["affordable"], own["front"]) for own in found[1:]}
    assert marks == {"a": (True, False), "b": (True, False), "c": (False, True), "d": (False, False), "e": (False, True),
                     "f": (False, False), "g": (True, False)}  # fmt: skip
    assert choose(found)["floor"] == "b", (
        "g is as cheap and better, but acts where the page's line does not show it"
    )
    costly = with_front([plain, setting("a", 0.5, 0.3), setting("b", 0.4, 0.4)], 2)
    assert choose(costly)["floor"] == "b", "where all cost something, the one that costs least"


def test_a_domain_is_summed_up_over_its_talks():
    rows = {CAPPED: [[1.0, 2.0], [3.0, None], [2.0, 4.0]]}
    own = domain_figures(rows)[CAPPED]
    assert own["mean"] == [2.0, 3.0] and own["low"][0] == 1.5 and own["high"][0] == 2.5


def test_the_page_says_when_there_is_no_evidence_or_none_of_this_axis(tmp_path):
    from demo.page.evaluation_panel import evaluation_text

    axis = random_axis(4, 8, 2, (1, 3))
    assert "has not been evaluated yet" in evaluation_text(axis, None)
    assert "has not been evaluated yet" in evaluation_text(axis, tmp_path)
    (tmp_path / "evaluation.md").write_text(
        "# Title\n\n| a | b |\n![drift](evaluation-drift.svg)\n![gone](evaluation-gone.svg)"
    )
    (tmp_path / "evaluation-drift.svg").write_text("<svg/>")
    assert "cannot be read" in evaluation_text(axis, tmp_path)
    about = {"axis": "another", "cap": "1-3 p25"}
    (tmp_path / NAME).write_text(json.dumps({"about": about}))
    assert "belongs to another axis" in evaluation_text(axis, tmp_path)
    (tmp_path / NAME).write_text(json.dumps({"about": about | {"axis": axis_digest(axis)}}))
    text = evaluation_text(axis, tmp_path)
    assert "| a | b |" in text and "gone" not in text and "# Title" not in text
    assert f"(gradio_api/file={tmp_path.resolve()}/evaluation-drift.svg)" in text


def test_the_readme_says_what_the_evidence_says():
    from demo.evaluation.readme import README, replaced

    figures = json.loads((AXES / DEFAULT_MODEL / NAME).read_text())
    text = README.read_text(encoding="utf-8")
    assert replaced(text, figures, f"axes/{DEFAULT_MODEL}") == text, (
        "run python -m demo.evaluation.readme --write"
    )
    with pytest.raises(UserError, match="put both back"):
        replaced("no marks", figures, "")
