"""The project's own questions: how they are scored, that they are sound, and what their number can tell."""

from __future__ import annotations

import json
import math
import re
from collections import Counter

import numpy as np
import pytest

from demo.evaluation.capability import CHECKS, Item, own_items
from demo.evaluation.report import report
from demo.evaluation.results import set_figures
from demo.evaluation.study import NO_CAP, QUICK, SMALL, SUBSET, WITH_CAP
from demo.utils.paths import EVALUATION_ASSETS
from demo.utils.statistics import smallest_difference

ITEMS = own_items()

# Two prompts are near-duplicates if they share at least this share of their words. Questions of one
# pattern stay below it: "What is the capital of Peru?" and "What is the capital of Cuba?" share .71.
NEAR = 0.85

# The oldest questions were made from patterns whose members lie nearer to each other. They are kept,
# so that reports remain comparable by kind; no later question may be near one of them.
OLDEST = ("facts", "arithmetic", "reading", "reasoning", "instructions")

# Replies that follow an instruction plainly, by check.
PLAIN = {
    "change_case:english_lowercase": "a plain reply",
    "change_case:english_capital": "A PLAIN REPLY",
    "punctuation:no_comma": "a plain reply",
    "startend:quotation": '"a plain reply with the moon"',
    "detectable_format:title": "<<A title>>",
    "detectable_format:json_format": '{"name": "Anna"}',
    "detectable_format:constrained_response": "My answer is yes.",
    "detectable_content:postscript": "Thank you.\nP.S. Come soon.",
    "length_constraints:number_paragraphs": "one\n***\ntwo",
    "detectable_format:number_highlighted_sections": "**one** and **two**",
    "detectable_content:number_placeholders": "Dear [name], come to [place].",
    "length_constraints:number_words": "one two three",
    "length_constraints:number_sentences": "One.",
    "keywords:forbidden_words": "Nothing.",
    "keywords:letter_frequency": "Here we see the bee.",
}


def plain_reply(item: Item) -> str:
    """What a plain right reply to the item looks like."""
    if item.answers:
        return f"{item.answers[0]}."
    if item.letter:
        return f"{item.letter}."
    parts = []
    for check in item.checks:
        name = check["id"]
        if name == "keywords:existence":
            parts.append(" ".join(check["keywords"]))
        elif name == "keywords:frequency":
            parts.append(". ".join([check["keyword"]] * check["frequency"]))
        elif name == "startend:end_checker":
            parts.append(check["end_phrase"])
        elif name == "combination:repeat_prompt":
            parts.append(check["prompt_to_repeat"])
        elif name == "detectable_format:number_bullet_lists":
            parts.append("\n".join(["* a word"] * check["num_bullets"]))
        elif check.get("relation") == "at least":
            parts.append("Here is a word. " * check.get("num_words", check.get("num_sentences")))
        elif check.get("letter") == "a":
            parts.append("fish")
        else:
            parts.append(PLAIN[name])
    good = [part for part in parts if item.is_right(part)]
    return good[0] if good else " ".join(parts)


def words(prompt: str) -> set[str]:
    return set(re.findall(r"\w+", prompt.lower()))


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("An elephant.", True),
        ("The Elephant is heavier than a cat.", True),
        ("A cat or an elephant, who knows?", False),
        ("Cats are pets. An elephant is heavier.", True),
        ("It is the elephants' keeper.", False),
        ("Category: elephant", True),
        ("Neither.", False),
        ("", False),
    ],
)
def test_the_first_named_option_counts(reply, right):
    item = Item("x", "x", "Which is heavier?", answers=("elephant",), options=("cat", "elephant"))
    assert item.is_right(reply) is right


def test_of_two_options_at_one_place_the_longer_one_counts():
    item = Item("x", "x", "?", answers=("twenty four",), options=("twenty", "twenty four"))
    assert item.is_right("Twenty four of them.") and not item.is_right("Twenty of them.")
    both = Item("x", "x", "?", answers=("10", "ten"), options=("40", "forty", "10", "ten"))
    assert both.is_right("Ten of the forty.") and not both.is_right("40, not 10.")


def test_answers_letters_and_last_numbers_count():
    assert Item("x", "x", "?", answers=("new delhi",)).is_right("It's New-Delhi!")
    assert not Item("x", "x", "?", answers=("o",)).is_right("Oxygen")
    assert Item("x", "x", "?", letter="B").is_right("B. horse")
    assert not Item("x", "x", "?", letter="B").is_right("A. trout\nB. horse")
    assert Item("x", "x", "?", number="7").is_right("3 + 4 = 7") and not Item(
        "x", "x", "?", number="7"
    ).is_right("7 of 9")


def test_questions_are_enough_and_distinct():
    assert len(ITEMS) >= 1500
    assert len({item.id for item in ITEMS}) == len({item.prompt for item in ITEMS}) == len(ITEMS)
    kinds = Counter(item.kind for item in ITEMS)
    assert len(kinds) >= 10 and min(kinds.values()) >= 40, kinds
    assert max(kinds.values()) <= len(ITEMS) / 10, "no kind outweighs the others"
    assert sum(len(item.prompt) for item in ITEMS) / len(ITEMS) < 120
    assert all(item.id.startswith(item.kind.replace(" ", "-")) for item in ITEMS)


def shared_words() -> np.ndarray:
    """For each pair of items: shared words as a share of the words of either, [items, items]."""
    own = [words(item.prompt) for item in ITEMS]
    place = {word: number for number, word in enumerate(sorted(set().union(*own)))}
    holds = np.zeros((len(own), len(place)), dtype=np.float32)
    for row, found in zip(holds, own, strict=True):
        row[[place[word] for word in found]] = 1
    both, lengths = holds @ holds.T, holds.sum(axis=1)
    return both / (lengths[:, None] + lengths[None, :] - both)


def test_no_later_question_is_a_near_duplicate():
    first, second = np.nonzero(np.triu(shared_words() >= NEAR, k=1))
    near = [(ITEMS[a], ITEMS[b]) for a, b in zip(first, second, strict=True)]
    assert near, "the measure finds those among the oldest questions"
    later = [pair for pair in near if not all(item.kind in OLDEST for item in pair)]
    assert not later, [[item.prompt for item in pair] for pair in later]


def test_every_question_can_be_answered_and_only_by_its_answer():
    for item in ITEMS:
        assert sum(map(bool, (item.answers, item.checks, item.number, item.letter))) == 1, item.id
        assert {check["id"] for check in item.checks} <= set(CHECKS)
        assert item.is_right(plain_reply(item)), (item.prompt, plain_reply(item))
        assert all(item.is_right(f"Answer: {each}.") for each in item.answers), item.id
        assert not item.is_right("") and not item.is_right(" \n")
        if not item.checks:
            assert not item.is_right("Sorry, this gives me a headache."), item.id
        assert 1 <= item.tokens <= 48


def test_echoing_a_question_does_not_answer_it():
    """Texts to read, and the oldest questions, hold their answers; among options chance decides."""
    free = [item for item in ITEMS if item.answers and not item.options]
    for item in free:
        if item.kind not in (*OLDEST, "passages"):
            assert not item.is_right(item.prompt), item.prompt
    for count in (2,):
        chosen = [
            item
            for item in ITEMS
            if len(item.options) == count and item.kind not in (*OLDEST, "passages", "yes or no")
        ]
        echoed = sum(item.is_right(item.prompt) for item in chosen)
        assert abs(echoed - len(chosen) / count) <= 0.1 * len(chosen), (count, echoed, len(chosen))


def test_options_stand_in_their_question_and_lead_to_the_answer():
    for item in ITEMS:
        assert set(item.answers) <= set(item.options) or not item.options, item.id
        if item.options and item.kind not in ("passages", "yes or no"):
            named = [option for option in item.options if re.search(rf"(?i)\b{option}\b", item.prompt)]
            assert len(named) >= 2 and any(option in item.answers for option in named), item.id


def test_yes_and_no_and_the_letters_are_balanced():
    answers = Counter(item.answers for item in ITEMS if item.kind == "yes or no")
    assert answers[("yes",)] == answers[("no",)] >= 50
    letters = Counter(item.letter for item in ITEMS if item.letter)
    assert len(letters) == 4 and max(letters.values()) - min(letters.values()) <= 1


@pytest.mark.parametrize("step", [SUBSET, QUICK.every_item, SMALL.every_item])
def test_samples_hold_most_kinds_and_are_balanced(step):
    sample = ITEMS[::step]
    assert {item.kind for item in sample} >= {item.kind for item in ITEMS if item.kind not in OLDEST}
    answers = Counter(item.answers for item in sample if item.kind == "yes or no")
    assert 0.25 <= answers[("yes",)] / answers.total() <= 0.75


OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "x": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}


def test_sums_are_right():
    found = [
        (match, item)
        for item in ITEMS
        if item.kind == "sums"
        and (match := re.search(r"^[A-Za-z ]+(\d+) ([-+x/]) (\d+)(?! \+)", item.prompt))
    ]
    assert len(found) >= 45
    for match, item in found:
        assert float(item.answers[0]) == OPERATIONS[match[2]](int(match[1]), int(match[3])), item.prompt


def test_the_file_has_one_question_a_line():
    lines = (EVALUATION_ASSETS / "capability.json").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line.strip().rstrip(",")) for line in lines if line.startswith('  {"id"')]
    assert [item["id"] for item in items] == [item.id for item in ITEMS]


@pytest.mark.parametrize(("changed", "pairs"), [(0.03, 1500), (0.08, 900)])
def test_the_smallest_difference_is_found_four_times_in_five(changed, pairs):
    """By simulation: the McNemar test rejects at 5% in 80% of the samples."""
    size = smallest_difference(changed, pairs)
    gains = (changed + size) / 2
    drawn = np.random.default_rng(1).multinomial(pairs, [gains, changed - gains, 1 - changed], size=20_000)
    gained, lost = drawn[:, 0], drawn[:, 1]
    rejected = np.abs(gained - lost) > 1.96 * np.sqrt(np.maximum(gained + lost, 1))
    assert rejected.mean() == pytest.approx(0.8, abs=0.02)


def test_more_questions_tell_smaller_differences():
    assert smallest_difference(0.03, 1500) < 0.6 * smallest_difference(0.03, 400)
    assert smallest_difference(0.02, 1500) < smallest_difference(0.04, 1500)
    assert smallest_difference(0.0, 100) == 0 and math.isfinite(smallest_difference(0.5, 1))


def test_figures_count_the_answers_that_changed_by_kind():
    def reply(right: bool) -> dict[str, object]:
        return {"right": right, "text": str(right), "acted": not right}

    first = [True] * 4 + [False] * 4 + [True, False]
    second = [True] * 3 + [False] + [True] * 2 + [False] * 2 + [True, False]
    kinds = ["a"] * 8 + ["b"] * 2
    found = {NO_CAP: list(map(reply, first)), WITH_CAP: list(map(reply, second))}
    own = set_figures(found, kinds)
    assert (own["items"], own["lost"], own["gained"], own["touched"]) == (10, 1, 2, 0.4)
    assert own["difference"]["value"] == pytest.approx(0.1)
    assert own["difference"]["low"] <= 0.1 <= own["difference"]["high"]
    assert own["detectable"] == pytest.approx(smallest_difference(0.3, 10), abs=1e-5)
    assert (own["kinds"]["a"]["lost"], own["kinds"]["a"]["gained"]) == (1, 2)
    assert own["kinds"]["b"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    own["perplexity"] = {"uncapped": 20.0, "capped": 20.2, "ratio": 1.01}
    about = {"model": "m", "cap": "1-2 p25", "probe_layer": 2, "dtype": "float32", "seed": 1, "command": "c"}
    about["size"] = {"attempts": 1}
    text = "\n".join(report({"about": about, "capability": own}, {}))
    assert "| b | 2 | 50.0% | 50.0% | +0.0 | 0 | 0 |" in text
    assert "made wrong: 1; that it made right: 2." in text
    assert f"{100 * own['detectable']:.1f} points would be told from 0" in text
