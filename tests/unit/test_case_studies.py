"""Case studies: scripts and labels, how they are played and scored, their figures, and the texts to read."""

from __future__ import annotations

import json
import random
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from demo.conversation.settings import BRANCHES, CAPPED, UNCAPPED
from demo.engine.protocol import Alternative, Cap, PromptEvent, Token, TokenEvent
from demo.evaluation import case_labels, case_scoring
from demo.evaluation.agreement import agreement
from demo.evaluation.answers import ResultCache
from demo.evaluation.case_scoring import (
    CASE_KINDS,
    GOES_ALONG,
    SUPPORTS,
    CasePrompt,
    case_scorer,
    labelled_entries,
    labelled_prompts,
    load_cases,
    rubric,
    telling_weight,
)
from demo.evaluation.case_studies import SAMPLING, case_figures, case_studies, play_case
from demo.evaluation.case_texts import LARGEST, MIDDLE, SMALLEST, talks_to_read, texts
from demo.evaluation.drift import REREAD
from demo.evaluation.judge import ModelJudge
from demo.evaluation.readme import case_claim
from demo.evaluation.report import report
from demo.evaluation.samples import samples_of_cases
from demo.evaluation.scenarios import SEEDS_APART
from demo.evaluation.scoring import Scorer
from demo.evaluation.study import NO_CAP, WITH_CAP, Size, Study
from demo.models.default import DEFAULT_MODEL
from tests.helpers.scripted import ScriptedEngine


@pytest.fixture(autouse=True)
def _no_reader(monkeypatch):
    """Nothing here reads with a model."""
    monkeypatch.setattr(case_scoring, "Reader", lambda model: None)


CASES = load_cases()
SETS = ("chosen on", "tested on")
CAP = Cap((0,), (0.0,))
ABOUT = {
    "model": "a-model", "cap": "0-0 p25", "probe_layer": 0, "dtype": "float32", "seed": 1, "command": "run",
    "size": {"attempts": 1},
}  # fmt: skip


class PlayedEngine(ScriptedEngine):
    """Keeps the requests of all turns, and reads replies like an engine with one probe layer."""

    axis = SimpleNamespace(probe_layer=1)

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[Any]] = []

    def stream(self, requests, cancel=None):
        self.asked.append(list(requests))
        return super().stream(requests, cancel)


def played(seeds: int, turns: int, draw: random.Random) -> dict[str, Any]:
    """Random scored replies to every case."""

    def reply() -> dict[str, Any]:
        label = draw.choice((0, 1, 2))
        kinds = {kind: label >= least for kind, least in CASE_KINDS.items()}
        standing, score = draw.uniform(-1, 1), label + draw.random()
        text = f"Reply {draw.random()}"
        return {"text": text, "standing": standing, "plain": standing - 1, "score": score, **kinds}

    return {
        case.id: {
            name: [[reply() for _ in range(turns)] for _ in range(seeds)] for name in (NO_CAP, WITH_CAP)
        }
        for case in CASES
    }


def scorer(scores=lambda prompts, replies: [1.0] * len(replies)) -> Scorer[CasePrompt]:
    return Scorer("a score", {GOES_ALONG: 0.5, SUPPORTS: 1.5}, scores, {})


# --- scripts and labels


def test_cases_are_complete_and_their_turns_are_distinct():
    assert [case.id for case in CASES] == ["isolation", "delusion", "romance"]
    assert len({turn for case in CASES for turn in case.turns}) == sum(len(case.turns) for case in CASES)
    for case in CASES:
        assert 6 <= len(case.turns) <= 8
        assert set(case.levels) == {"0", "1", "2"} and set(case.telling) == {"2", "1", "-1"}
        assert all(re.compile(words) for words in case.telling.values())
        assert all(level in rubric() for level in case.levels.values())


def test_labelled_replies_answer_the_turns_and_both_sets_are_large_enough():
    entries, turns = labelled_entries(), {case.id: case.turns for case in CASES}
    assert all(entry["message"] in turns[entry["case"]] for entry in entries)
    assert {entry["label"] for entry in entries} == {0, 1, 2}
    said = {name: {(e["message"], e["reply"]) for e in entries if e["set"] == name} for name in SETS}
    assert not said["chosen on"] & said["tested on"], "a tested reply must not have shaped the score"
    for name in SETS:
        assert sum(entry["set"] == name for entry in entries) >= 75
        assert sum(entry["set"] == name and entry["label"] == 2 for entry in entries) >= 15


# --- the score


def test_telling_words_are_weighed_by_the_level_they_tell_of():
    isolation, _, romance = CASES
    assert telling_weight(romance, "I love you. I will never leave.") == 2
    assert telling_weight(romance, "I love you, my friend.") == 3
    assert telling_weight(romance, "As an AI I am here for you and others.") == 0
    assert telling_weight(isolation, "Stay connected with your loved ones.") == -1
    assert telling_weight(isolation, "Bread is nice.") == 0


def test_score_adds_the_likelihood_under_the_prompts_of_each_case(monkeypatch):
    asked = []

    def differences(model, messages, replies, prompts, reader):
        asked.append((tuple(messages), tuple(replies), prompts))
        return [float(len(reply)) for reply in replies]

    monkeypatch.setattr(case_scoring, "marked_differences", differences)
    isolation, delusion, _ = CASES
    prompts = [CasePrompt(isolation, "a"), CasePrompt(delusion, "b"), CasePrompt(isolation, "c")]
    found = case_scoring.support_scores(None, prompts, ["x", "This journey", ""])
    assert found == [0.5, 1 + 6.0, 0.0]
    assert asked == [
        (("a", "c"), ("x", ""), (isolation.supporting, isolation.caring)),
        (("b",), ("This journey",), (delusion.supporting, delusion.caring)),
    ]


def test_thresholds_of_the_built_in_score_come_from_the_labels():
    own = case_scorer(cast(Any, None), [], ResultCache(None, {}))
    chosen = [entry for entry in labelled_entries() if entry["set"] == "chosen on"]
    for kind, least in CASE_KINDS.items():
        cut = own.thresholds[kind]

        def youden(cut: float, least: int = least) -> float:
            hits, alarms = (
                [entry["score"] >= cut for entry in chosen if (entry["label"] >= least) == counts]
                for counts in (True, False)
            )
            return sum(hits) / len(hits) - sum(alarms) / len(alarms)

        assert youden(cut) == pytest.approx(max(youden(entry["score"]) for entry in chosen))
        assert own.agreement[kind]["of these tested on"] == len(labelled_entries()) - len(chosen)
        assert "kappa of two readings" not in own.agreement[kind], "these replies were read once"


def test_two_readings_are_compared_only_where_there_are_two():
    entries = [
        {"set": name, "score": float(n % 2), "label": n % 2, "second": n % 2}
        for name in SETS
        for n in range(6)
    ]
    assert agreement(entries, 1)["kappa of two readings"] == 1
    del entries[-1]["second"]
    assert "kappa of two readings" not in agreement(entries, 1)


def test_a_judge_rates_by_the_rubric_of_the_case_studies_and_joins_the_score(monkeypatch):
    monkeypatch.setattr(
        case_scoring, "support_scores", lambda model, prompts, texts, reader: [0.0] * len(texts)
    )
    entries = labelled_entries()
    labels = {(entry["message"], entry["reply"]): str(entry["label"]) for entry in entries}
    shown = []

    class KnowingEngine:
        def stream(self, requests, cancel=None):
            for request in requests:
                shown.append(request.messages)
                text = request.messages[-1]["content"]
                message, reply = re.findall(r"\nMessage: (.*)\nReply: (.*)", text, re.DOTALL)[0]
                digit = Alternative(0, labels.get((message, reply), "2"), 0.9)
                yield PromptEvent(request.branch, 10, 0, None)
                token = Token("0", None, None, (), False, alternatives=(digit,))
                yield TokenEvent(request.branch, 0, token, 1, "length")

    judge = ModelJudge(cast(Any, KnowingEngine()), "a-judge", [])
    found = case_scorer(cast(Any, None), [judge], ResultCache(None, {}))
    assert {kind: own["kappa"] for kind, own in found.agreement.items()} == dict.fromkeys(CASE_KINDS, 1.0)
    assert found.name.endswith(" and a-judge")
    examples = [message["content"] for message in shown[0] if message["role"] == "assistant"]
    assert shown[0][0]["content"] == rubric() and sorted(examples) == ["0"] * 3 + ["1"] * 3 + ["2"] * 3
    (score,) = found.scores([CasePrompt(CASES[0], "new")], ["unknown"])
    assert score >= found.thresholds[SUPPORTS]


# --- playing


def test_every_seed_is_played_in_both_branches_of_one_batch_with_its_own_history():
    engine, case = PlayedEngine(), CASES[0]
    found = play_case(cast(Any, engine), CAP, case, case.turns[:3], 2, 7)
    assert len(engine.asked) == 3, "one batch for each turn"
    for turn, batch in enumerate(engine.asked):
        assert [request.sampling.seed for request in batch] == [
            7 + turn, 7 + turn, 7 + SEEDS_APART + turn, 7 + SEEDS_APART + turn
        ]  # fmt: skip
        assert [request.cap for request in batch] == [None, CAP] * 2
        assert all(request.messages[-1]["content"] == case.turns[turn] for request in batch)
        assert all(len(request.messages) == 2 * turn + 1 for request in batch)
        assert batch[0].sampling.max_new_tokens == SAMPLING.max_new_tokens
    for name, acted in ((NO_CAP, 0), (WITH_CAP, 2)):
        assert [len(talk) for talk in found[name]] == [3, 3]
        reply = found[name][1][2]
        assert reply["text"] == "Hello there!" and (reply["tokens"], reply["acted"]) == (3, acted)
    assert found[NO_CAP][0][0]["standing"] == found[NO_CAP][0][0]["plain"] == -0.5
    # Under the cap two of three words are lifted by 0.5; read plainly, the two words are 0 and 1 at layer 1.
    assert found[WITH_CAP][0][0]["standing"] == pytest.approx(-0.5 + 1 / 3, abs=1e-4)
    assert found[WITH_CAP][0][0]["plain"] == pytest.approx(0.5)


def test_a_second_run_takes_everything_from_the_cache_and_scores_fall_to_their_replies(tmp_path):
    def study(engine: PlayedEngine) -> Study:
        cache = ResultCache(tmp_path / "cache.jsonl", {})

        def scores(prompts, replies):
            return [CASES.index(prompt.case) + len(prompt.message) / 1000 for prompt in prompts]

        own = SimpleNamespace(
            engine=engine, cap=CAP, cap_name="0-0 p25", seed=1, size=Size(cases=2, turns=2), cache=cache
        )
        return cast(Study, SimpleNamespace(**vars(own), case_scorer=scorer(scores)))

    first = case_studies(study(PlayedEngine()))
    engine = PlayedEngine()
    assert case_studies(study(engine)) == first and engine.asked == []
    for number, case in enumerate(CASES):
        for talks in first[case.id].values():
            for talk in talks:
                assert [reply["score"] for reply in talk] == [
                    round(number + len(turn) / 1000, 4) for turn in case.turns[:2]
                ]
                assert all(reply[SUPPORTS] == (reply["score"] >= 1.5) for reply in talk)


# --- figures and texts


def test_figures_are_shares_of_replies_and_conversations():
    raw = played(6, 4, random.Random(3))
    found = case_figures(raw, scorer(), 1)
    assert (found["seeds"], found["turns"]) == (6, 4)
    for case in CASES:
        for kind in CASE_KINDS:
            own = found["cases"][case.id][kind]
            for name, branch in ((NO_CAP, UNCAPPED), (WITH_CAP, CAPPED)):
                counts = [sum(reply[kind] for reply in talk) for talk in raw[case.id][name]]
                assert own["replies"][branch] == pytest.approx(sum(counts) / 24, abs=1e-4)
                own_share = sum(count >= 2 for count in counts) / 6
                assert own["conversations"][branch] == pytest.approx(own_share, abs=1e-4)
            change = own["replies"]["difference"]
            wanted = own["replies"][CAPPED] - own["replies"][UNCAPPED]
            assert change["value"] == pytest.approx(wanted, abs=2e-4)
            assert change["low"] <= change["value"] <= change["high"]
        ends = found["cases"][case.id]["projections"]
        last = [talk[-1]["plain"] for talk in raw[case.id][WITH_CAP]]
        assert ends[REREAD][1] == pytest.approx(sum(last) / 6, abs=1e-4)
    every = [reply[SUPPORTS] for case in raw.values() for talk in case[WITH_CAP] for reply in talk]
    assert found["all"][SUPPORTS]["replies"][CAPPED] == pytest.approx(sum(every) / len(every), abs=1e-4)


def test_talks_to_read_are_the_middle_one_and_the_two_ends():
    def talk(*supporting: int) -> list[dict[str, Any]]:
        return [{"text": f"{n}", "standing": None, "score": 0.0, SUPPORTS: bool(n)} for n in supporting]

    # The share of supporting replies falls by 1, 0, -1, 1/2 and 0; the scores of the equal ones differ.
    uncapped = [talk(1, 1), talk(0, 1), talk(0, 0), talk(1, 1), talk(1, 0)]
    capped = [talk(0, 0), talk(1, 0), talk(1, 1), talk(0, 1), talk(1, 0)]
    uncapped[1][0]["score"] = 0.5
    found = talks_to_read({NO_CAP: uncapped, WITH_CAP: capped}, ("a", "b", "c"), 1, 100, SUPPORTS)
    assert [(one["place"], one["seed"]) for one in found] == [(MIDDLE, 101), (LARGEST, 1), (SMALLEST, 201)]
    assert [turn["user"] for turn in found[1]["turns"]] == ["a", "b"]
    assert found[1]["turns"][0][UNCAPPED]["kinds"] == [SUPPORTS]


def test_report_and_texts_say_what_the_figures_say():
    raw = played(3, 2, random.Random(1))
    raw["romance"][NO_CAP][0][0]["text"] = "a | b\n<b>*c*</b>"
    own = case_scorer(cast(Any, None), [], ResultCache(None, {}))
    figures = {"about": ABOUT, "cases": json.loads(json.dumps(case_figures(raw, own, 1)))}
    lines = list(report(figures, {}))
    text = "\n".join(lines)
    share = figures["cases"]["cases"]["romance"][SUPPORTS]["replies"][UNCAPPED]
    assert f"| A romance: supports the harm | replies | {100 * share:.1f}% |" in text
    assert f"A romance: {100 * share:.1f}% uncapped" in case_claim(figures["cases"])
    assert "(evaluation-cases.md)" in text and "| kappa |" in text and "two readings" not in text
    read = list(texts(figures))
    assert sum(line.startswith("### ") for line in read) == 3 * len(CASES)
    rows = [line for line in read if line.startswith("| ") and "without" not in line]
    assert len(rows) == 3 * len(CASES) * 2
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)
    assert any("a \\| b &lt;b&gt;\\*c\\*&lt;/b&gt;" in row for row in rows)
    shown = figures["cases"]["cases"]["romance"]["talks"][0]["turns"][1]
    assert all(shown[branch]["text"] in "\n".join(read) for branch in BRANCHES)


def test_every_turn_is_a_sample_with_the_replies_before_it():
    raw = played(2, 3, random.Random(2))
    found = samples_of_cases(CASES, raw)
    assert len(found) == len(CASES) * 2 * 3
    last = found[-1]
    assert (last.id, last.epoch, last.group) == ("romance-3", 2, "A romance")
    assert [message["content"] for message in last.asked(WITH_CAP)] == [
        CASES[2].turns[0], raw["romance"][WITH_CAP][1][0]["text"],
        CASES[2].turns[1], raw["romance"][WITH_CAP][1][1]["text"], CASES[2].turns[2],
    ]  # fmt: skip
    assert set(last.scores(NO_CAP)) == set(CASE_KINDS)


def test_prompts_of_labelled_replies_name_their_case():
    entries = labelled_entries()
    prompts = labelled_prompts(entries)
    assert [prompt.case.id for prompt in prompts] == [entry["case"] for entry in entries]


# --- the command


def test_the_command_compares_the_score_with_the_labels_and_scores_anew(monkeypatch, tmp_path, capsys):
    path = tmp_path / "labels.json"
    path.write_text(case_scoring.CASE_LABELS.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(case_scoring, "CASE_LABELS", path)
    monkeypatch.setattr(case_labels, "CASE_LABELS", path)
    monkeypatch.setattr(case_labels, "load_model", lambda *names, **options: None)
    monkeypatch.setattr(
        case_labels, "support_scores", lambda model, prompts, texts: [float(len(text)) for text in texts]
    )
    assert case_labels.main([]) == 0
    printed = capsys.readouterr().out
    assert all(kind in printed for kind in CASE_KINDS) and printed.count("AUC") == 2
    before = labelled_entries()
    capped = [entry["label"] for entry in before if entry["branch"] in (CAPPED, "both")]
    assert f"{sum(label == 2 for label in capped) / len(capped):g} of {len(capped)}" in printed
    assert case_labels.main(["--write"]) == 0 and capsys.readouterr().out != printed
    assert labelled_entries() == [{**entry, "score": float(len(entry["reply"]))} for entry in before]


def test_drawn_replies_show_neither_branch_nor_score_and_belong_to_one_set(monkeypatch, tmp_path):
    draw = random.Random(1)

    def play(engine, cap, case, turns, seeds, first):
        """Every reply of the first turn is the same without and with the cap."""
        found = {
            name: [[{"text": f"{name} {draw.random()}"} for _ in turns] for _ in range(seeds)]
            for name in (NO_CAP, WITH_CAP)
        }
        for one, other in zip(found[NO_CAP], found[WITH_CAP], strict=True):
            other[0] = one[0]
        return found

    monkeypatch.setattr(case_labels, "play_case", play)
    monkeypatch.setattr(case_labels, "TransformersEngine", lambda model, axis: None)
    monkeypatch.setattr(
        case_labels, "load_model", lambda *names, **options: SimpleNamespace(slug=DEFAULT_MODEL)
    )
    path = tmp_path / "drawn.json"
    assert case_labels.main(["--sample", str(path)]) == 0
    found = json.loads(path.read_text())["replies"]
    assert all(set(entry) == {"case", "message", "reply", "set"} for entry in found)
    assert len({entry["reply"] for entry in found}) == len(found)
    for case in CASES:
        for name, number in case_labels.DRAWN.items():
            assert sum(e["case"] == case.id and e["set"] == name for e in found) == number
    assert [entry["case"] for entry in found] != sorted(entry["case"] for entry in found), "in random order"
    first_turns = {case.turns[0] for case in CASES}
    branches = json.loads((tmp_path / "drawn.branches.json").read_text())
    for entry, branch in zip(found, branches, strict=True):
        came_in = UNCAPPED if entry["reply"].startswith(NO_CAP) else CAPPED
        assert branch == (case_labels.BOTH if entry["message"] in first_turns else came_in)
