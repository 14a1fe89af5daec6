"""The evaluation's arithmetic, data, cache and documents, without a model."""

from __future__ import annotations

import json
import math
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.axis.files import axis_digest
from demo.conversation.settings import CAPPED
from demo.engine.protocol import Cap, Request, Sampling
from demo.evaluation import NAME, readme
from demo.evaluation import __main__ as command
from demo.evaluation.agreement import KINDS, agreement
from demo.evaluation.answers import Prompt, ResultCache, answer, batches
from demo.evaluation.capability import holds, read_set
from demo.evaluation.comparisons import interleaved, promise
from demo.evaluation.drift import domain_figures, load_domains
from demo.evaluation.readme import WRITE, documents
from demo.evaluation.report import report
from demo.evaluation.results import choose, with_front
from demo.evaluation.scoring import LABELS, stance_thresholds, telling_families
from demo.evaluation.study import SMALL
from demo.evaluation.wording import fall_of, fall_verdict
from demo.models.chat_template import Message
from demo.models.default import DEFAULT_MODEL
from demo.page.evaluation_panel import evaluation_text
from demo.utils.errors import UserError
from demo.utils.markdown import replaced
from demo.utils.paths import AXES
from demo.utils.statistics import cohen_kappa, difference, relative_fall
from tests.helpers.axes import random_axis
from tests.helpers.scripted import ScriptedEngine

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=5, max_size=60)


@given(PAIRS)
@settings(deadline=None)
def test_difference_lies_within_its_interval_and_changes_sign_with_the_order(pairs):
    data = [(float(a), float(b)) for a, b in pairs]
    found = difference(data)
    assert found.value == pytest.approx(np.mean([b - a for a, b in data]))
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    back = difference([(b, a) for a, b in data])
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low), abs=0.05)


def test_relative_fall_of_a_known_table():
    pairs = [(1.0, 0.0)] * 30 + [(1.0, 1.0)] * 10 + [(0.0, 0.0)] * 60
    found = relative_fall(pairs)
    assert found.value == pytest.approx(0.75)
    assert 0.55 < found.low < 0.75 < found.high < 0.9
    assert math.isnan(relative_fall([(0.0, 0.0)] * 5).value), "a rate of 0 cannot fall"


def test_groups_are_resampled_before_the_pairs_within_them():
    groups = ["a"] * 6 + ["b"] * 4 + ["c"] * 3
    first = [1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 0, 1, 1]
    second = [0, 0, 0, 1, 0, 1, 1, 0, 1, 1, 0, 0, 1]
    pairs = [(float(a), float(b)) for a, b in zip(first, second, strict=True)]
    found, draw = relative_fall(pairs, groups), random.Random(1)
    members = [[pair for pair, own in zip(pairs, groups, strict=True) if own == name] for name in "abc"]
    falls = []
    for _ in range(4000):
        drawn = [draw.choice(group) for group in draw.choices(members, k=3) for _ in group]
        falls.append(1 - sum(b for _, b in drawn) / sum(a for a, _ in drawn))
    low, high = np.quantile(falls, [0.025, 0.975])
    assert found.value == pytest.approx(relative_fall(pairs).value)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.04)


def test_groups_of_one_pair_change_nothing_and_groups_of_like_pairs_widen_the_interval():
    pairs = [(1.0, float(number % 4 == 0)) for number in range(40)]
    alone, each = relative_fall(pairs), relative_fall(pairs, [str(number) for number in range(40)])
    assert (each.low, each.high) == pytest.approx((alone.low, alone.high), abs=0.03)
    alike = relative_fall(pairs, [str(number % 4) for number in range(40)])
    assert alike.high - alike.low > 1.5 * (alone.high - alone.low)


def test_kappa_of_known_tables():
    assert cohen_kappa([True, False] * 5, [True, False] * 5) == 1
    assert cohen_kappa([True, True, False, False], [True, False, True, False]) == 0
    first = [True] * 45 + [False] * 55
    second = [True] * 20 + [False] * 25 + [True] * 10 + [False] * 45
    assert cohen_kappa(first, second) == pytest.approx((0.65 - (0.45 * 0.3 + 0.55 * 0.7)) / (1 - 0.52))


@pytest.mark.parametrize(
    ("name", "arguments", "good", "bad"),
    [
        ("change_case:english_lowercase", {}, "all small.", "Not all small."),
        ("change_case:english_capital", {}, "ALL LARGE!", "Not large."),
        ("punctuation:no_comma", {}, "One two.", "One, two."),
        ("startend:quotation", {}, '"Said."', "Said."),
        ("startend:end_checker", {"end_phrase": "That is all."}, "Yes. That is all.", "That is all. Yes."),
        ("length_constraints:number_words", {"relation": "less than", "num_words": 4}, "a b c", "a b c d"),
        ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 2}, "A. B.", "A."),
        ("keywords:existence", {"keywords": ["sea"]}, "The sea.", "The season."),
        ("keywords:forbidden_words", {"forbidden_words": ["sea"]}, "The season.", "The Sea."),
        (
            "keywords:frequency",
            {"relation": "at least", "keyword": "ho", "frequency": 3},
            "Ho ho ho",
            "Ho ho",
        ),
        (
            "keywords:letter_frequency",
            {"letter": "a", "let_relation": "less than", "let_frequency": 2},
            "ab",
            "Aa",
        ),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n* b\n* c"),
        ("detectable_format:title", {}, "<<A title>>\ntext", "A title"),
        ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "a: 1"),
        ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Hi\nP.S. you", "Hi you"),
        ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] and [b]", "[a]"),
        ("combination:two_responses", {}, "one ****** two", "one ****** one"),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    ],
)
def test_instruction_checks_accept_and_reject(name, arguments, good, bad):
    check = {"id": name, **arguments}
    assert holds(good, check) and not holds(bad, check) and not holds("  ", check)


def test_published_sets_are_read_in_their_own_formats(tmp_path):
    ifeval = tmp_path / "ifeval.jsonl"
    records = [
        {
            "key": 1,
            "prompt": "No commas.",
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{"x": None}],
        },
        {
            "key": 2,
            "prompt": "?",
            "instruction_id_list": ["language:response_language"],
            "kwargs": [{"language": "kn"}],
        },
    ]
    ifeval.write_text("\n".join(map(json.dumps, records)))
    (only,) = read_set("ifeval", ifeval)
    assert only.is_right("Fine.") and not only.is_right("Fine, fine.")
    gsm = tmp_path / "gsm8k.jsonl"
    gsm.write_text(json.dumps({"question": "How many?", "answer": "6 * 200 = 1200\n#### 1,200"}))
    (number,) = read_set("gsm8k", gsm)
    assert number.is_right("First 6, then 1,200.") and number.is_right("It is 1200")
    assert not number.is_right("1,201")
    mmlu = tmp_path / "mmlu.json"
    mmlu.write_text(
        json.dumps([{"question_id": 7, "question": "Which?", "options": ["x", "y", "z"], "answer": "C"}])
    )
    (choice,) = read_set("mmlu-pro", mmlu)
    assert "C. z" in choice.prompt
    assert choice.is_right("The answer is (C).") and not choice.is_right("B, not C")
    with pytest.raises(UserError, match="cannot be read as gsm8k"):
        read_set("gsm8k", ifeval)
    with pytest.raises(UserError, match="no set"):
        read_set("other", ifeval)


def test_talks_are_enough():
    domains = load_domains()
    assert len(domains) == 4
    for domain in domains:
        assert len(domain.scripts) >= 20 and all(len(script.turns) >= 8 for script in domain.scripts)


def test_stored_thresholds_follow_from_the_labels():
    replies = json.loads(LABELS.read_text())["replies"]
    assert len(replies) >= 200
    for kind, least in KINDS.items():
        assert agreement(replies, least)["threshold"] == stance_thresholds()[kind]


def test_telling_words_are_counted_by_family():
    assert telling_families("Obey me, or you will be punished.") == 2
    assert telling_families("Bread is nice.") == 0


def test_every_cap_answers_every_prompt_in_one_batch_with_the_same_random_numbers():
    engine = ScriptedEngine()
    prompts = [Prompt((Message(role="user", content=f"{n}"),), Sampling(seed=n)) for n in range(3)]
    caps = {"none": None, "cap": None}
    found = answer(engine, prompts, caps)
    assert len(engine.requests) == 6
    seeds = [request.sampling.seed for request in engine.requests]
    assert seeds == [0, 0, 1, 1, 2, 2]
    assert [one.text for one in found["cap"]] == ["Hello there!"] * 3
    assert found["none"][0].projection == pytest.approx(-0.5)
    assert set(engine.forgotten) == {request.branch for request in engine.requests}
    assert [len(part) for part in batches(prompts * 20, caps.values())] == [24, 24, 12]


@pytest.mark.parametrize(("start", "written"), [(0.5, 2), (0.4, 2), (0.3, 4), (None, 4)])
def test_replies_that_a_conditional_cap_leaves_alone_are_written_once(start, written):
    class Counting(ScriptedEngine):
        def stream(self, requests, cancel=None):
            streamed.extend(requests)
            return super().stream(requests, cancel)

    def said(text):
        return Message(role="user", content=text)

    streamed: list[Request] = []
    prompt = Prompt((said("And then?"),), Sampling(seed=2), ((said("Hello."), Sampling(seed=1)),))
    caps = {"none": None, "cap": Cap((0,), (0.0,), only_below=0.4)}
    found = answer(Counting(start=start), [prompt], caps)
    assert len(streamed) == written, "a message of the lead and the last one, with one reply or two"
    assert found["cap"][0].text == found["none"][0].text == "Hello there!"
    assert found["cap"][0].before == found["none"][0].before and len(found["cap"][0].before) == 2
    assert found["cap"][0] is not found["none"][0]
    assert [len(part) for part in batches([prompt] * 60, caps.values())] == [48, 12]
    assert [len(part) for part in batches([prompt] * 60, [caps["cap"]])] == [48, 12]


def test_killed_run_resumes_from_the_cache(tmp_path):
    path, measured = tmp_path / "x" / "cache.jsonl", []

    def measure(value):
        measured.append(value)
        return {"value": value}

    first = ResultCache(path, {"seed": 1})
    assert first.get("a", 1, lambda: measure(1)) == {"value": 1}
    first.get("b", 1, lambda: measure(2))
    with path.open("a") as file:
        file.write('{"key": "c", "val')  # killed in the middle of a line
    again = ResultCache(path, {"seed": 1})
    assert again.get("a", 1, lambda: measure(9)) == {"value": 1}
    assert again.get("c", 1, lambda: measure(3)) == {"value": 3}
    assert measured == [1, 2, 3]
    other = ResultCache(path, {"seed": 2})
    assert other.get("a", 1, lambda: measure(4)) == {"value": 4}, "results of other settings are not reused"


def test_front_is_not_dominated_and_the_choice_is_affordable_and_visible():
    def setting(floor, rate, right, perplexity=10.0, verbatim=0.9, layers=(1, 2), finalist=True):
        return {
            "layers": layers,
            "floor": floor,
            "in character": rate,
            "harmful": rate,
            "score": rate,
            "finalist": finalist,
            "right": right,
            "right uncapped": 0.5,
            "verbatim": verbatim,
            "perplexity": perplexity,
        }

    plain = setting(None, 0.6, 0.5, layers=None)
    capped = [
        setting("a", 0.5, 0.5),
        setting("b", 0.4, 0.495, perplexity=10.2),
        setting("c", 0.1, 0.2),
        setting("d", 0.45, 0.48),
        setting("e", 0.3, 0.5, perplexity=12.0),
        setting("f", 0.35, 0.5, verbatim=0.1),
        setting("g", 0.38, 0.5, layers=(4, 5)),
        setting("h", 0.2, 0.5, finalist=False),
    ]
    found = with_front([plain, *capped], 2)
    assert {own["floor"] for own in found[1:] if own["affordable"]} == {"a", "b", "g", "h"}
    assert {own["floor"] for own in found[1:] if own["front"]} == {"c", "e"}
    assert choose(found)["floor"] == "b", "g does not cover the probe layer, and h was tried on a part only"
    costly = with_front([plain, setting("a", 0.5, 0.3), setting("b", 0.4, 0.4)], 2)
    assert choose(costly)["floor"] == "b", "if none is affordable, the one that costs least"


def test_domain_figures_summarise_its_talks():
    projections = {CAPPED: [[1.0, 2.0], [3.0, None], [2.0, 4.0]]}
    own = domain_figures(projections)[CAPPED]
    assert own["mean"] == [2.0, 3.0] and own["low"][0] == 1.5 and own["high"][0] == 2.5


def test_page_says_when_the_axis_has_no_evaluation_of_its_own(tmp_path):
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


def test_shipped_report_is_what_the_code_writes():
    figures = json.loads((AXES / DEFAULT_MODEL / NAME).read_text())
    text = (AXES / DEFAULT_MODEL / "evaluation.md").read_text(encoding="utf-8")
    pictures = {name: words for words, name in re.findall(r"!\[([^\]]*)\]\(([\w-]+\.svg)\)", text)}
    assert "\n".join(report(figures, pictures)) + "\n" == text
    assert all((AXES / DEFAULT_MODEL / name).is_file() for name in pictures)


def test_the_documents_say_what_the_evaluation_says():
    figures = json.loads((AXES / DEFAULT_MODEL / NAME).read_text())
    for path, (name, statements) in documents(figures).items():
        text = path.read_text(encoding="utf-8")
        assert replaced(text, name, WRITE, statements) == text, f"run {WRITE}"
    with pytest.raises(UserError, match="put both back"):
        replaced("no markers", "evaluation", WRITE, "")


def test_the_command_for_the_documents_writes_them(monkeypatch, tmp_path, capsys):
    old = "<!-- evaluation{}: python -m demo.evaluation.readme --write -->\n<!-- end of evaluation{} -->\n"
    readme_file, page = tmp_path / "README.md", tmp_path / "evaluation.md"
    readme_file.write_text(old.format(" summary", " summary"))
    page.write_text(old.format("", ""))
    monkeypatch.setattr(readme, "README", readme_file)
    monkeypatch.setattr(readme, "PAGE", page)
    assert readme.main([]) == 0 and "Persona jailbreaks" in capsys.readouterr().out
    assert readme.main(["--write"]) == 0
    assert "Persona jailbreaks" in page.read_text() and "the cap changes" in readme_file.read_text()


def test_the_choice_has_another_cap_for_engines_that_cannot_wait():
    def setting(floor, score, only_below=None):
        return {
            "layers": [2, 3],
            "floor": floor,
            "only_below": only_below,
            "finalist": True,
            "affordable": True,
            "visible": True,
            "score": score,
            "in character": score,
            "harmful": score,
            "perplexity": 10.0,
        }

    axis = random_axis(6, 16, 3, (3, 4))
    tried = [setting(None, 1.0), setting("p75", 0.2, 0.4), setting("p05", 0.5), setting("p25", 0.4)]
    chosen = command.with_choice(axis, tried)
    assert chosen.manifest["cap"] == {
        "layers": [2, 3],
        "floor": "p75",
        "only_below": 0.4,
        "otherwise": {"layers": [2, 3], "floor": "p25"},
        "chosen_by": "evaluation",
    }
    assert chosen.unconditional().cap_floor == "p25"
    without = command.with_choice(axis, [tried[0], *tried[2:]])
    assert without.manifest["cap"] == {"layers": [2, 3], "floor": "p25", "chosen_by": "evaluation"}


@given(st.lists(st.integers(), max_size=30), st.integers(1, 4))
def test_parts_of_a_subset_make_the_whole_again(whole, parts):
    assert interleaved([whole[first::parts] for first in range(parts)]) == whole


def test_settings_that_cannot_be_chosen_are_not_tried_to_the_end():
    def trial(name, score, layers=(2, 4), perplexity=10.0, texts=("a", "b", "c")):
        return {
            "name": name,
            "layers": layers,
            "every": 2,
            "attempts": [{"score": score}],
            "items": [{"text": text} for text in texts],
            "perplexity": perplexity,
        }

    uncapped = trial("none", 1.0, None, texts=("a", "x", "b", "x", "c")) | {"every": 1}
    tried = [
        trial("unseen", 0.1, layers=(4, 5)),
        trial("costly", 0.2, perplexity=10.5),
        trial("changing", 0.3, texts=("a", "y", "z")),
        trial("mild", 0.9),
        trial("best", 0.5),
    ]
    tried.sort(key=lambda one: promise(one, uncapped, 3))
    assert [one["name"] for one in tried] == ["best", "mild", "costly", "changing", "unseen"]


def group(attempts, uncapped, capped, value, low, high):
    return {
        "attempts": attempts,
        "uncapped": uncapped,
        "capped": capped,
        "fall": {"value": value, "low": low, "high": high},
    }


@pytest.mark.parametrize(
    ("found", "text", "verdict"),
    [
        (group(100, 0.2, 0.1, 0.5, 0.3, 0.7), "50% [30%, 70%]", "reached by the estimate"),
        (group(100, 0.2, 0.05, 0.75, 0.6, 0.9), "75% [60%, 90%]", "reached"),
        (group(100, 0.2, 0.22, -0.1, -0.4, 0.2), "−10% [−40%, 20%]", "missed"),
        (group(63, 0.0952, 0.0, 1.0, 1.0, 1.0), "100%, all 6", "reached"),
        (group(220, 0.0136, 0.0273, -1.0, -8.0, 0.75), "too few to tell", "not tested"),
        (group(32, 0.0, 0.0, None, None, None), "too few to tell", "not tested"),
    ],
)
def test_a_fall_is_given_only_as_far_as_the_replies_tell_of_it(found, text, verdict):
    assert fall_of(found, 1) == text
    assert fall_verdict(found, 1).partition(",")[0] == verdict


def test_a_fall_counts_the_replies_of_all_seeds():
    found = group(4, 0.875, 0.0, 1.0, 1.0, 1.0)
    assert fall_of(found, 1) == "too few to tell" and fall_of(found, 2) == "100%, all 7"


def test_a_report_names_the_parts_that_were_not_measured_and_its_size(tmp_path):
    figures = json.loads((AXES / DEFAULT_MODEL / NAME).read_text(encoding="utf-8"))
    text = "\n".join(report(figures, {}))
    assert "Not measured" not in text and "`python -m demo.evaluation`;" in text
    assert "The sweep chooses the cap on personas 0, 1" in text
    for part in ("sweep", "cases"):
        del figures[part]
    figures["about"]["size"]["attempts"] = SMALL.attempts
    text = "\n".join(report(figures, {}))
    assert "Not measured: cases, sweep." in text and "`python -m demo.evaluation --small`;" in text
    assert "The sweep chooses" not in text and "None of them was used to choose the cap" in text
