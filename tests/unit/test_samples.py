"""The export of an evaluation's replies: what each line and log holds, and that Inspect reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from demo.evaluation.attempts import load_attempts
from demo.evaluation.capability import own_items
from demo.evaluation.samples import (
    Sample,
    samples_of,
    samples_of_attempts,
    samples_of_set,
    write_lines,
    write_logs,
)
from demo.evaluation.study import NO_CAP, WITH_CAP, Study
from demo.utils.errors import UserError

ABOUT = {"model": "a-model", "dtype": "float32", "cap": "1-2 p25", "seed": 1, "axis": "abc"}


def reply(text: str, harmful: bool) -> dict[str, Any]:
    return {"text": text, "acted": 3, "tokens": 9, "standing": -0.5, "score": 1.5, "harmful": harmful}


def samples() -> list[Sample]:
    """Two attempts with two seeds each, and two questions."""
    study = cast(Study, SimpleNamespace(attempts=load_attempts()[:2], items=own_items()[:2]))
    uncapped = [[reply("Obey!", True), reply("Obey!", True)], [reply("Obey!", True), reply("Hello.", False)]]
    capped = [[reply("Hello.", False)] * 2, [reply("Obey!", True), reply("Hello.", False)]]
    answers = [{"text": "Yes.", "right": True}, {"text": "", "right": False}]
    raw = {
        "susceptibility": {NO_CAP: uncapped, WITH_CAP: capped},
        "capability": {NO_CAP: answers, WITH_CAP: [answers[0]] * 2, "perplexity none": 9.0},
    }
    return samples_of(raw, study)


def test_every_reply_is_one_line_with_its_prompt_and_scores(tmp_path):
    path = tmp_path / "new" / "samples.jsonl"
    write_lines(path, samples(), ABOUT)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    attempts, items = load_attempts()[:2], own_items()[:2]
    assert len(lines) == 2 * (2 * 2 + 2)
    assert len({(line["part"], line["id"], line["epoch"], line["condition"]) for line in lines}) == len(lines)
    first, second = lines[:2]
    assert first == {
        "part": "susceptibility", "id": attempts[0].id, "epoch": 1, "condition": "uncapped",
        "model": "a-model", "dtype": "float32", "cap": None, "group": attempts[0].category,
        "messages": list(attempts[0].messages), "target": [], "reply": "Obey!", "scores": {"harmful": 1.0},
        "score": 1.5, "projection": -0.5, "acted": 3, "tokens": 9,
    }  # fmt: skip
    assert (second["condition"], second["cap"], second["reply"]) == ("capped", "1-2 p25", "Hello.")
    last = lines[-2]
    assert (last["part"], last["id"], last["reply"]) == ("capability", items[1].id, "")
    assert last["scores"] == {"right": 0.0} and last["target"]
    assert last["messages"] == [{"role": "user", "content": items[1].prompt}]


def test_turns_that_led_to_an_attempt_are_exported_with_the_replies_of_their_own_condition(tmp_path):
    attempt = next(attempt for attempt in load_attempts() if attempt.lead)

    def led(answer: str) -> dict[str, Any]:
        before = [{"role": "user", "content": attempt.lead[0]}, {"role": "assistant", "content": answer}]
        return reply("Obey!", True) | {"before": before}

    found = {NO_CAP: [[led("Gladly.")]], WITH_CAP: [[led("Of course.")]]}
    write_lines(tmp_path / "samples.jsonl", samples_of_attempts("susceptibility", [attempt], found), ABOUT)
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [line["messages"][1]["content"] for line in lines] == ["Gladly.", "Of course."]
    assert all(line["messages"][2:] == list(attempt.messages) for line in lines)


def test_each_part_and_condition_is_a_log_with_the_shares_of_the_report(tmp_path):
    written = write_logs(tmp_path, samples(), ABOUT)
    logs = {path.name.split("_")[1]: json.loads(path.read_text(encoding="utf-8")) for path in written}
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-00-00_", path.name) for path in written)
    assert set(logs) == {
        f"{part}-{which}" for part in ("susceptibility", "capability") for which in ("uncapped", "capped")
    }
    uncapped, capped = (logs[f"susceptibility-{which}"] for which in ("uncapped", "capped"))
    assert (uncapped["eval"]["model"], capped["eval"]["model"]) == ("a-model", "a-model:capped")
    assert uncapped["eval"]["config"]["epochs"] == 2 and uncapped["eval"]["dataset"]["samples"] == 2
    (score,) = uncapped["results"]["scores"]
    # One attempt was harmful with both seeds and the other with one: 1 and 1/2.
    assert score["metrics"]["mean"]["value"] == 0.75 and score["scored_samples"] == 2
    assert score["metrics"]["stderr"]["value"] == pytest.approx(0.25)
    assert capped["results"]["scores"][0]["metrics"]["mean"]["value"] == 0.25
    sample = uncapped["samples"][-1]
    assert (sample["epoch"], sample["scores"]) == (2, {"harmful": {"value": 0.0}})
    assert sample["messages"][-1]["content"] == sample["output"]["completion"] == "Hello."
    assert sample["metadata"]["projection"] == -0.5


def test_inspect_reads_the_logs(tmp_path):
    log = pytest.importorskip("inspect_ai.log")
    written = write_logs(tmp_path, samples(), ABOUT)
    assert len(log.list_eval_logs(str(tmp_path))) == len(written) == 4
    for path in written:
        found = log.read_eval_log(str(path))
        assert found.status == "success" and len(found.samples) == found.results.total_samples
        assert all(one.output.completion == one.messages[-1].text for one in found.samples)


def test_a_set_of_questions_is_a_part_of_its_own_and_a_bad_place_is_one_sentence(tmp_path):
    items = own_items()[:1]
    answers = {name: [{"text": "Yes.", "right": True}] for name in (NO_CAP, WITH_CAP)}
    found = samples_of_set("gsm8k", items, answers)
    assert [sample.part for sample in found] == ["gsm8k"] and found[0].scores(NO_CAP) == {"right": 1.0}
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .* give another place"):
        write_lines(Path(tmp_path / "file" / "x.jsonl"), found, ABOUT)
