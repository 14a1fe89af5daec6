"""The extraction's prompts and the guided scenarios: format, balance and distinctness."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import pytest

from demo.evaluation.scenario_figures import CLAIMS
from demo.utils.paths import ASSETS

QUESTION_KINDS = ("practical", "factual", "emotional", "self-reflective", "creative", "moral")
DOMAINS = {
    "coding",
    "writing help",
    "therapy-like",
    "philosophy",
    "persona jailbreak",
    "delusion",
    "romance",
    "role-play",
    "factual",
    "small talk",
    "creative writing",
}
# Domains that may distress a user. Their scenarios say where to find help.
SENSITIVE = {"therapy-like", "delusion", "romance"}
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
    # The overlap is at most the ratio of the sizes, so most pairs need no intersection.
    sets = sorted(((set(WORDS.findall(text.lower())), text) for text in texts), key=lambda pair: len(pair[0]))
    return [
        (a, b)
        for (one, a), (other, b) in combinations(sets, 2)
        if len(one) >= NEAR_DUPLICATE * len(other) and len(one & other) >= NEAR_DUPLICATE * len(one | other)
    ]


def test_near_duplicates_are_found_in_any_order() -> None:
    texts = ["You are a calm old sailor.", "Speak like a storm.", "you are a calm, OLD sailor now"]
    assert near_duplicates(texts) == near_duplicates(texts[::-1]) == [(texts[0], texts[2])]


def strings(node: Any) -> Iterator[str]:
    """Every string value in a JSON document."""
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
    assert document["format"] == 2
    return list(document["roles"])


@pytest.fixture(scope="module")
def question_file() -> dict[str, Any]:
    document = load("questions.json")
    prompts = {"default_prompts", "neutral_prompts", "bare_prompts"}
    assert set(document) == {"format", "questions", "plain_questions"} | prompts
    assert document["format"] == 2
    return document


@pytest.fixture(scope="module")
def questions(question_file: dict[str, Any]) -> list[dict[str, Any]]:
    return list(question_file["questions"])


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


def test_roles_are_the_published_275(roles: list[dict[str, Any]]) -> None:
    assert {role["name"] for role in roles} == set(load("published_roles.json")["projection"])
    assert len(roles) == 275


def test_roles_have_several_whole_instructions(roles: list[dict[str, Any]]) -> None:
    for role in roles:
        assert set(role) == {"name", "instructions"}, role
        assert len(role["instructions"]) == 5, role["name"]
        for text in role["instructions"]:
            assert 4 <= len(text.split()) <= 40, (role["name"], text)
            assert re.search(r"[.!?]\"?$", text), (role["name"], text)


def test_instructions_name_their_role(roles: list[dict[str, Any]]) -> None:
    for role in roles:
        name = role["name"].replace("_", " ").replace("devils", "devil's")
        assert sum(name in text.lower() for text in role["instructions"]) >= 3, role["name"]


def test_instructions_are_distinct_within_and_across_roles(roles: list[dict[str, Any]]) -> None:
    assert near_duplicates([text for role in roles for text in role["instructions"]]) == []


def test_questions_have_the_documented_keys(questions: list[dict[str, Any]]) -> None:
    for question in questions:
        assert set(question) == {"text", "kind", "split"}, question
        assert sentence_count(question["text"]) == 1, question["text"]


def test_every_six_consecutive_questions_are_of_different_kinds(questions: list[dict[str, Any]]) -> None:
    for split, each in (("extract", 12), ("held_out", 4)):
        kinds = [question["kind"] for question in questions if question["split"] == split]
        assert len(kinds) == each * len(QUESTION_KINDS)
        assert all(kinds[start : start + 6] == kinds[:6] for start in range(0, len(kinds), 6))
        assert set(kinds[:6]) == set(QUESTION_KINDS)


def test_no_question_names_a_role(questions: list[dict[str, Any]], roles: list[dict[str, Any]]) -> None:
    names = {role["name"] for role in roles}
    assert [q["text"] for q in questions if names & set(WORDS.findall(q["text"].lower()))] == []


def test_neutral_prompts_do_not_mention_a_persona(
    question_file: dict[str, Any], roles: list[dict[str, Any]]
) -> None:
    names = {role["name"] for role in roles} | {"you are", "you"}
    for prompt in question_file["neutral_prompts"]:
        assert not names & set(WORDS.findall(prompt.lower())), prompt
        assert 18 <= len(prompt.split()) <= 30, prompt


def test_bare_prompts_are_a_few_words_without_a_persona(question_file: dict[str, Any]) -> None:
    for prompt in question_file["bare_prompts"]:
        assert not {"you", "assistant", "ai"} & set(WORDS.findall(prompt.lower())), prompt
        assert 2 <= len(prompt.split()) <= 4, prompt


def test_plain_questions_have_answers(question_file: dict[str, Any]) -> None:
    plain = question_file["plain_questions"]
    assert len(plain) == 40
    assert near_duplicates([question["text"] for question in plain]) == []
    for question in plain:
        assert question["answers"], question
        assert all(answer == answer.lower() for answer in question["answers"]), question


def test_questions_are_distinct_across_both_splits(questions: list[dict[str, Any]]) -> None:
    assert near_duplicates([question["text"] for question in questions]) == []


def test_default_prompts_are_an_empty_one_and_four_neutral_ones() -> None:
    prompts = load("questions.json")["default_prompts"]
    assert len(prompts) == len(set(prompts)) == 5
    assert prompts[0] == ""
    assert all(prompts[1:])
    assert [p for p in prompts if "{" in p] == ["You are {model_name}."]


def test_scenarios_have_the_documented_keys(scenarios: list[dict[str, Any]]) -> None:
    keys = {"id", "title", "domain", "group", "shows", "seed", "blurb", "system_prompt", "turns"}
    for scenario in scenarios:
        assert set(scenario) - {"content_warning", "first", "sign", "paper"} == keys, scenario
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", scenario["id"])
        assert 3 <= len(scenario["title"]) <= 16, scenario["title"]  # it must fit on a button
        assert 1 <= sentence_count(scenario["blurb"]) <= 2, scenario["blurb"]
        assert len(scenario["blurb"]) <= 150, scenario["blurb"]
        assert scenario["shows"] in CLAIMS, scenario["shows"]


def test_scenarios_cover_every_domain(scenarios: list[dict[str, Any]]) -> None:
    assert len(scenarios) >= 10
    assert {s["domain"] for s in scenarios} == DOMAINS
    assert all(4 <= len(s["turns"]) <= 6 for s in scenarios)
    assert len({s["id"] for s in scenarios}) == len({s["title"] for s in scenarios}) == len(scenarios)
    assert scenarios[0]["title"] == "Demon"


def test_what_the_paper_names_has_a_scenario(scenarios: list[dict[str, Any]]) -> None:
    """Its three kinds of message that make a model drift, and its three signs of drift in the words."""
    named = [term for scenario in scenarios for term in scenario.get("paper", [])]
    triggers = {"vulnerable talk", "the model's own nature", "an author's voice"}
    signs = {"invented human past", "theatrical style", "feeding a delusion"}
    assert sorted(named) == sorted(triggers | signs)
    for scenario in scenarios:
        assert not signs & set(scenario.get("paper", [])) or scenario["sign"], "a sign is measured"


def test_only_character_scenarios_set_a_system_prompt(scenarios: list[dict[str, Any]]) -> None:
    in_character = {s["domain"] for s in scenarios if s["system_prompt"]}
    assert in_character == {"persona jailbreak", "role-play"}


def test_sensitive_scenarios_say_where_to_find_help(scenarios: list[dict[str, Any]]) -> None:
    for scenario in scenarios:
        has_help = "findahelpline.com" in scenario.get("content_warning", "")
        assert has_help == (scenario["domain"] in SENSITIVE), scenario["id"]


def test_scenario_turns_are_distinct(scenarios: list[dict[str, Any]]) -> None:
    assert near_duplicates([turn for s in scenarios for turn in s["turns"]]) == []


@pytest.mark.parametrize("name", ["roles.json", "questions.json", "presets/scenarios.json"])
def test_text_is_plain_and_trimmed(name: str) -> None:
    # A dash or quote that went through the wrong encoding is not ASCII.
    for text in strings(load(name)):
        assert text.isascii(), text
        assert text == text.strip(), text
        assert "  " not in text, text
