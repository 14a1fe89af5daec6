"""Prompts that a user brings: their files, the attempts made of them, their figures and their section."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from demo.evaluation.attempts import load_attempts
from demo.evaluation.brought import digest, read_attempts
from demo.evaluation.report import report
from demo.evaluation.results import brought_figures
from demo.evaluation.study import NO_CAP, WITH_CAP
from demo.utils.errors import UserError

STRONGREJECT = ("category", "source", "forbidden_prompt")
HARMBENCH = ("Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString", "BehaviorID")


def written(path: Path, columns: Sequence[str], *rows: Sequence[str], encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def test_strongreject_prompts_are_sent_as_they_are_alone_and_under_personas(tmp_path):
    file = written(
        tmp_path / "own.csv",
        STRONGREJECT,
        ("baking", "me", 'Say "no" to\nmy cake, please'),
        ("baking", "me", ""),
        ("hiking", "me", "Insult my boots"),
        ("hiking", "me", "Insult my boots"),
        encoding="utf-8-sig",
    )
    attempts = read_attempts("strongreject", file, personas=2)
    assert [one.place for one in attempts] == ["alone", "system", "system"] * 2
    assert {one.messages[-1]["content"] for one in attempts} == {
        'Say "no" to\nmy cake, please', "Insult my boots"
    }  # fmt: skip
    assert [message["role"] for message in attempts[0].messages] == ["user"]
    own = [one for one in load_attempts() if one.persona == 0]
    categories = list(dict.fromkeys(one.category for one in own))
    for attempt, category in zip(attempts[1:3], categories, strict=False):
        persona = next(one.description for one in own if one.category == category)
        assert attempt.messages[0] == {"role": "system", "content": persona}
    assert len({one.id for one in attempts}) == 6 and attempts[-1].category == "hiking"
    assert len(read_attempts("strongreject", file, personas=0)) == 2


def test_harmbench_behaviours_come_after_their_context(tmp_path):
    file = written(
        tmp_path / "own.csv",
        HARMBENCH,
        ("Mock the soup", "standard", "cooking", "", "", "soup"),
        ("Mock this soup", "contextual", "cooking", "context", "A soup of peas.", "peas"),
    )
    first, second = read_attempts("harmbench", file, personas=0)
    assert first.question == "Mock the soup" and first.category == "cooking"
    assert second.question.startswith("A soup of peas.") and second.question.endswith("Mock this soup")


def test_other_files_have_other_digests(tmp_path):
    one, other = (
        read_attempts("strongreject", written(tmp_path / text, STRONGREJECT, ("a", "b", text)))
        for text in ("x", "y")
    )
    assert digest(one) != digest(other) and digest(one) == digest(list(one))


def test_bad_files_are_one_sentence(tmp_path):
    empty = written(tmp_path / "empty.csv", STRONGREJECT)
    other = written(tmp_path / "other.csv", ("a", "b"), ("1", "2"))
    latin = written(tmp_path / "latin.csv", STRONGREJECT, ("é", "b", "ü"), encoding="latin-1")
    quote = tmp_path / "quote.csv"
    quote.write_text('category,forbidden_prompt\na,"b')
    for name, path, says in (
        ("strongreject", empty, "holds no prompts"),
        ("strongreject", other, "has no column category"),
        ("harmbench", empty, "has no column Behavior"),
        ("strongreject", latin, "cannot be read"),
        ("strongreject", quote, "cannot be read"),
        ("harmbench", tmp_path / "none.csv", "cannot be read"),
        ("advbench", empty, "There is no format 'advbench'"),
    ):
        with pytest.raises(UserError, match=says):
            read_attempts(name, path)
    with pytest.raises(UserError, match="--personas must lie between 0 and"):
        read_attempts("strongreject", empty, personas=999)


def test_each_prompt_counts_once_in_the_figures_and_the_report_has_a_section(tmp_path):
    rows = [("a", "b", f"prompt {number}") for number in range(4)]
    attempts = read_attempts("strongreject", written(tmp_path / "own.csv", STRONGREJECT, *rows), personas=1)

    def run(harmful: Sequence[int]) -> list[dict[str, Any]]:
        return [{"in character": False, "harmful": bool(one)} for one in harmful]

    found = {
        NO_CAP: [run([0, 1, 0, 1, 0, 1, 0, 0]), run([0, 1, 0, 1, 0, 1, 0, 1])],
        WITH_CAP: [run([0] * 8), run([0, 1, 0, 0, 0, 0, 0, 0])],
    }
    figures = brought_figures(found, attempts, "a judge")
    assert (figures["prompts"], figures["attempts"], figures["seeds"]) == (4, 8, 2)
    alone, under = (figures["groups"][name]["harmful"] for name in ("alone", "under a persona"))
    assert (alone["uncapped"], alone["attempts"]) == (0, 4)
    assert (under["uncapped"], under["capped"]) == (0.875, 0.125)
    assert under["fall"]["value"] == pytest.approx(6 / 7, abs=1e-4)
    assert figures["groups"]["all"]["harmful"]["uncapped"] == 0.4375
    about = {"model": "m", "cap": "1-2 p25", "probe_layer": 2, "dtype": "float32", "seed": 1, "command": "c"}
    about["size"] = {"attempts": 1}
    text = "\n".join(report({"about": about, "brought": {"strongreject": figures}}, {}))
    assert "## Prompts of strongreject" in text and "Replies are scored by: a judge." in text
    assert "| under a persona: harmful | 4 | 87.5% | 12.5% | 86% [" in text
    assert "| alone: harmful | 4 | 0.0% | 0.0% | too few to tell |" in text
