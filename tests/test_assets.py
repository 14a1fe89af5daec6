"""The prompts the axis is extracted with, and the demo's scenarios: shape, balance and distinctness."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

ASSETS = Path(__file__).resolve().parent.parent / "assets"
ROLE_KINDS = ("professional", "everyday", "fantastical", "villainous", "nonhuman")
QUESTION_KINDS = ("practical", "factual", "emotional", "self-reflective", "creative", "moral")
TURNS = {"menacing character": 3, "factual": 3, "therapy": 6, "coding": 6, "philosophy": 6, "role-play": 3}
NEAR_DUPLICATE = 0.6  # Jaccard overlap of word sets from which two prompts count as the same
WORDS = re.compile(r"[a-z0-9']+")


def load(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((ASSETS / name).read_text(encoding="utf-8"))
    return data


def overlap(first: str, second: str) -> float:
    """Jaccard overlap, 0..1, of the two texts' sets of lower-case words."""
    a, b = set(WORDS.findall(first.lower())), set(WORDS.findall(second.lower()))
    return len(a & b) / len(a | b)


def near_duplicates(texts: Sequence[str]) -> list[tuple[str, str]]:
    return [(a, b) for a, b in combinations(texts, 2) if overlap(a, b) >= NEAR_DUPLICATE]


def strings(node: Any) -> Iterator[str]:
    """Every string value anywhere inside a JSON document."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value)


def sentence_count(text: str) -> int:
    return len(re.findall(r"[.!?]+[\"']?(?=\s|$)", text))


@pytest.fixture(scope="module")
def roles() -> list[dict[str, Any]]:
    document = load("roles.json")
    assert set(document) == {"format", "roles"}
    assert document["format"] == 1
    return list(document["roles"])


@pytest.fixture(scope="module")
def questions() -> list[dict[str, Any]]:
    document = load("questions.json")
    assert set(document) == {"format", "questions", "default_prompts"}
    assert document["format"] == 1
    return list(document["questions"])


@pytest.fixture(scope="module")
def scenarios() -> list[dict[str, Any]]:
    document = load("presets/scenarios.json")
    assert set(document) == {"format", "scenarios"}
    assert document["format"] == 1
    return list(document["scenarios"])


def test_overlap_measures_shared_words() -> None:
    assert overlap("A cold, dark house.", "a COLD dark house") == 1.0
    assert overlap("cold house", "warm sea") == 0.0
    assert overlap("one two", "two three") == pytest.approx(1 / 3)


def test_roles_have_the_documented_keys(roles: list[dict[str, Any]]) -> None:
    for role in roles:
        assert set(role) == {"name", "kind", "split", "instructions"}, role
        assert len(role["instructions"]) == 2, role["name"]


def test_role_names_are_unique_snake_case(roles: list[dict[str, Any]]) -> None:
    names = [role["name"] for role in roles]
    assert [n for n in names if not re.fullmatch(r"[a-z]+(_[a-z]+)*", n)] == []
    assert [n for n, count in Counter(names).items() if count > 1] == []
    assert "assistant" not in names


def test_role_kinds_are_equal_fifths_of_each_split(roles: list[dict[str, Any]]) -> None:
    counts = Counter((role["split"], role["kind"]) for role in roles)
    expected = {("extract", kind): 20 for kind in ROLE_KINDS}
    expected |= {("held_out", kind): 4 for kind in ROLE_KINDS}
    assert counts == expected


def test_instructions_are_short_and_whole(roles: list[dict[str, Any]]) -> None:
    for role in roles:
        for text in role["instructions"]:
            assert 8 <= len(text.split()) <= 50, (role["name"], text)
            assert 1 <= sentence_count(text) <= 3, (role["name"], text)
            assert re.search(r"[.!?]\"?$", text), (role["name"], text)


def test_instructions_are_distinct_within_and_across_roles(roles: list[dict[str, Any]]) -> None:
    assert near_duplicates([text for role in roles for text in role["instructions"]]) == []


def test_role_splits_are_disjoint(roles: list[dict[str, Any]]) -> None:
    names = {s: {r["name"] for r in roles if r["split"] == s} for s in ("extract", "held_out")}
    assert len(names["extract"]) == 100
    assert len(names["held_out"]) == 20
    assert names["extract"].isdisjoint(names["held_out"])


def test_questions_have_the_documented_keys(questions: list[dict[str, Any]]) -> None:
    for question in questions:
        assert set(question) == {"text", "kind", "split"}, question
        assert sentence_count(question["text"]) == 1, question["text"]


def test_question_kinds_are_equal_sixths_of_each_split(questions: list[dict[str, Any]]) -> None:
    counts = Counter((question["split"], question["kind"]) for question in questions)
    expected = {("extract", kind): 4 for kind in QUESTION_KINDS}
    expected |= {("held_out", kind): 2 for kind in QUESTION_KINDS}
    assert counts == expected


def test_questions_are_distinct_across_both_splits(questions: list[dict[str, Any]]) -> None:
    assert near_duplicates([question["text"] for question in questions]) == []


def test_default_prompts_are_the_empty_one_and_four_neutral_ones() -> None:
    prompts = load("questions.json")["default_prompts"]
    assert len(prompts) == len(set(prompts)) == 5
    assert prompts[0] == ""
    assert all(prompts[1:])
    assert [p for p in prompts if "{" in p] == ["You are {model_name}."]


def test_scenarios_have_the_documented_keys(scenarios: list[dict[str, Any]]) -> None:
    keys = {"id", "title", "domain", "blurb", "system_prompt", "turns"}
    for scenario in scenarios:
        assert set(scenario) == keys, scenario
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", scenario["id"])
        assert scenario["title"].strip()
        assert sentence_count(scenario["blurb"]) == 1, scenario["blurb"]


def test_scenarios_cover_every_domain(scenarios: list[dict[str, Any]]) -> None:
    assert {s["domain"]: len(s["turns"]) for s in scenarios} == TURNS
    assert len({s["id"] for s in scenarios}) == len({s["title"] for s in scenarios}) == len(scenarios)


def test_only_character_scenarios_set_a_system_prompt(scenarios: list[dict[str, Any]]) -> None:
    in_character = {s["domain"] for s in scenarios if s["system_prompt"]}
    assert in_character == {"menacing character", "role-play"}


def test_scenario_turns_are_distinct(scenarios: list[dict[str, Any]]) -> None:
    assert near_duplicates([turn for s in scenarios for turn in s["turns"]]) == []


@pytest.mark.parametrize("name", ["roles.json", "questions.json", "presets/scenarios.json"])
def test_text_is_plain_and_trimmed(name: str) -> None:
    # ASCII only: a dash or quote that went through the wrong encoding would show up here.
    for text in strings(load(name)):
        assert text.isascii(), text
        assert text == text.strip(), text
        assert "  " not in text, text
