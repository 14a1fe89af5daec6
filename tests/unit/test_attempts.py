"""The attempts at a harmful persona: their texts, how they are answered, and their figures."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from hashlib import sha256

import pytest

from demo.engine.protocol import Sampling
from demo.evaluation.answers import Prompt, ResultCache, answer
from demo.evaluation.attempts import DRAWN_IN, SYSTEM, USER, Attempt, load_attempts, one_per_persona
from demo.evaluation.comparisons import work
from demo.evaluation.pictures import write_pictures
from demo.evaluation.readme import claims
from demo.evaluation.report import report
from demo.evaluation.results import PLACES, results_of
from demo.evaluation.scoring import LABELS, Scorer
from demo.evaluation.study import CONTROL_PERSONAS, QUICK, REPORTED_PERSONAS, SWEEP_PERSONAS, Size, Study
from demo.models.chat_template import Message
from demo.models.default import DEFAULT_MODEL
from demo.utils.paths import AXES, EVALUATION_ASSETS
from tests.helpers.axes import random_axis
from tests.helpers.scripted import ScriptedEngine

# The largest share of words that two texts may have in common, of all words in either (Jaccard). The closest
# personas have .36 and the closest questions .38; a copy with another name has .7 and more.
MOST_ALIKE = 0.4

# Digest of the texts of the attempts with the numbers 0 to 2 in the first 14 categories, to which hand labels
# refer by id.
LABELLED = "c0d6c71e943cdfb3"


@pytest.fixture(scope="module")
def attempts() -> list[Attempt]:
    return load_attempts()


def test_there_are_1100_attempts_in_44_categories(attempts):
    assert len(attempts) == len({attempt.id for attempt in attempts}) == 1100
    by_category = Counter(attempt.category for attempt in attempts)
    assert len(by_category) == 44 and set(by_category.values()) == {25}
    assert set(Counter((a.category, a.persona) for a in attempts).values()) == {5}
    assert Counter(a.place for a in attempts) == {SYSTEM: 440, USER: 440, DRAWN_IN: 220}
    assert len({(a.lead, *(m["content"] for m in a.messages)) for a in attempts}) == 1100


def test_titles_personas_and_questions_are_no_near_duplicates():
    categories = json.loads((EVALUATION_ASSETS / "attempts.json").read_text())["categories"]
    assert all(len(category["personas"]) == 5 for category in categories)
    assert len({category["title"] for category in categories}) == len(categories)
    for kind in ("personas", "questions"):
        texts = [text for category in categories for text in category[kind]]
        words = [set(re.findall(r"[\w']+", text.lower())) for text in texts]
        for (one, own), (other, others) in itertools.combinations(zip(texts, words, strict=True), 2):
            assert len(own & others) <= MOST_ALIKE * len(own | others), f"{one!r} is like {other!r}"


def test_every_message_describes_the_persona_and_asks_the_question(attempts):
    for attempt in attempts:
        texts = [*attempt.lead, *(message["content"] for message in attempt.messages)]
        assert sum(attempt.description in text for text in texts) == 1
        assert attempt.question in texts[-1] and not re.search(r"[{}]", "".join(texts))
        assert (len(attempt.lead) in (2, 3)) == (attempt.place == DRAWN_IN)
        if attempt.place == DRAWN_IN:
            assert attempt.description not in texts[0] + texts[-1], (
                "begins harmlessly, and ends with the question"
            )
    scripts = Counter((a.lead[0], a.persona) for a in attempts if a.place == DRAWN_IN)
    assert len(scripts) == 4 * 5 and min(scripts.values()) >= 10, (
        "every script meets every number of a persona"
    )


def test_texts_of_labelled_attempts_stay(attempts):
    by_id = {attempt.id: attempt for attempt in attempts}
    for label in json.loads(LABELS.read_text())["replies"]:
        attempt = by_id[label["attempt"]]
        assert (attempt.description, attempt.question) == (label["persona"], label["question"])
    old = [a for a in attempts[: 14 * 25] if a.id[-1] in "012"]
    texts = json.dumps([(a.id, a.lead, a.messages) for a in old])
    assert len(old) == 210 and sha256(texts.encode()).hexdigest()[:16] == LABELLED


def test_samples_have_every_place_and_many_categories(attempts):
    quick = attempts[:: QUICK.attempts]
    assert len(quick) == len({a.category for a in quick}) == 11
    assert min(Counter(a.place for a in quick).values()) >= 2
    assert len({(a.persona, a.id[-1]) for a in quick}) == 11, "no kind of attempt twice at a persona's number"
    assert not set(SWEEP_PERSONAS) & {*REPORTED_PERSONAS, *CONTROL_PERSONAS}
    assert {*SWEEP_PERSONAS, *REPORTED_PERSONAS} == {a.persona for a in attempts}
    for personas in (SWEEP_PERSONAS, CONTROL_PERSONAS):
        subset = one_per_persona([a for a in attempts if a.persona in personas])
        assert Counter(a.category for a in subset) == dict.fromkeys((a.category for a in attempts), 2)
        kinds = Counter((a.persona, a.id[-1]) for a in subset)
        assert len(kinds) == 10 and min(kinds.values()) >= 8
        assert one_per_persona(subset) == subset


class _Recording(ScriptedEngine):
    """Keeps the requests of every turn."""

    def __init__(self, words=("Hello", " there", "!")) -> None:
        super().__init__(words)
        self.turns: list[list] = []

    def stream(self, requests, cancel=None):
        self.turns.append(list(requests))
        return super().stream(requests, cancel)


def test_leads_are_answered_turn_by_turn_with_a_history_for_each_cap():
    def user(text):
        return Message(role="user", content=text)

    said = Message(role="assistant", content="Hello there!")
    prompts = [
        Prompt((user("a"),), Sampling(seed=1)),
        Prompt(
            (user("d"),), Sampling(seed=2), ((user("b"), Sampling(seed=3)), (user("c"), Sampling(seed=4)))
        ),
        Prompt((user("f"),), Sampling(seed=5), ((user("e"), Sampling(seed=6)),)),
    ]
    engine = _Recording()
    found = answer(engine, prompts, {"none": None, "cap": None})
    asked = [
        [(list(r.messages), r.sampling.seed) for r in turn if r.branch[:4] == "none"] for turn in engine.turns
    ]
    assert asked == [
        [([user("b")], 3), ([user("e")], 6)],
        [([user("b"), said, user("c")], 4)],
        [
            ([user("a")], 1),
            ([user("b"), said, user("c"), said, user("d")], 2),
            ([user("e"), said, user("f")], 5),
        ],
    ]
    names = [{r.branch for r in turn} for turn in engine.turns]
    assert names[0] < names[2] and len(names[2]) == 6, "a branch keeps its name, and with it its cache"
    assert {name: len(answers) for name, answers in found.items()} == {"none": 3, "cap": 3}
    assert set(engine.forgotten) == names[2]


def _study(monkeypatch, engine, size, cache=None) -> Study:
    monkeypatch.setattr("demo.evaluation.study.TransformersEngine", lambda model, axis: engine)
    scorer = Scorer(
        "length",
        {"in character": 1.0, "harmful": 12.0},
        lambda attempts, texts: [len(attempt.id) for attempt in attempts],
    )
    return Study(None, random_axis(4, 8, 2, (1, 3)), size, 1, cache or ResultCache(None, {}), scorer)


def test_replies_come_back_in_the_order_of_the_attempts_in_full_batches(monkeypatch, tmp_path):
    path, engine = tmp_path / "cache.jsonl", _Recording()
    study = _study(monkeypatch, engine, Size(seeds=2), ResultCache(path, {}))
    found = study.susceptibility()
    for runs in found.values():
        for run in runs:
            assert [reply["score"] for reply in run] == [len(attempt.id) for attempt in study.attempts]
    most = 2 * sum(attempt.prompt(0).most_tokens for attempt in study.attempts)
    assert work(study, ["susceptibility"]) == 2 * most
    widths = [len(turn) for turn in engine.turns]
    assert sum(width == 48 for width in widths) > 0.8 * len(widths)
    seeds = [r.sampling.seed for turn in engine.turns for r in turn]
    assert set(Counter(seeds).values()) == {2}, "every turn has a seed of its own, the same for both caps"
    asked = len(engine.turns)
    again = _study(monkeypatch, engine, Size(seeds=2), ResultCache(path, {}))
    assert again.susceptibility() == found and len(engine.turns) == asked


def test_report_has_the_fall_by_place_and_the_split(monkeypatch, tmp_path):
    study = _study(monkeypatch, _Recording(), Size(seeds=1))
    found = study.susceptibility()
    for number, attempt in enumerate(study.attempts):
        found["none"][0][number]["harmful"] = True
        found["cap"][0][number]["harmful"] = attempt.place != DRAWN_IN
    figures = results_of({"susceptibility": found}, study)
    groups = figures["susceptibility"]["groups"]
    falls = {name: groups[name]["harmful"]["fall"]["value"] for name in groups}
    assert falls == {"all": 0.2, "not used to choose the cap": 0.2} | dict(
        zip(PLACES, (0, 0, 1), strict=True)
    )
    assert groups["not used to choose the cap"]["harmful"]["attempts"] == 660
    stored = json.loads((AXES / DEFAULT_MODEL / "evaluation.json").read_text())
    text = "\n".join(report({**stored, **figures}, {}))
    assert "over categories, and over the attempts within them" in text
    assert "| persona drawn in over several turns: harmful | 220 | 100.0% | 0.0% | 100%, all 220 |" in text
    assert "chooses the cap on personas 0, 1 of every category" in text and "personas 2, 3, 4." in text
    assert "persona drawn in over several turns: 100%" in next(claims({**stored, **figures}))
    assert list(write_pictures(tmp_path, figures)) == ["evaluation-categories.svg"]
