"""The benchmarks measure what they report, and the documents show what was measured."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from demo.bench import class_load
from demo.bench.class_load import Outcomes as ClassOutcomes
from demo.bench.class_load import on_cores
from demo.bench.class_load import summary as class_summary
from demo.bench.class_report import DOCUMENT as CLASS_DOCUMENT
from demo.bench.class_report import FIGURES as CLASS_FIGURES
from demo.bench.class_report import GPU_STEPS, carried, filled, on_paper
from demo.bench.engine_load import engine_load, library_load, visitor_prompt
from demo.bench.engines import compare
from demo.bench.number_formats import evaluations_of
from demo.bench.other_tools import LLAMA_CPP, SAKLAS
from demo.bench.page_load import Outcomes
from demo.bench.page_load import summary as page_load_summary
from demo.bench.pair import Timings, summary
from demo.bench.report import engines_document, write_speed_report
from demo.engine.protocol import Sampling, Token, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.models.loading import load_model
from demo.page.classroom import routes
from demo.utils.errors import UserError
from tests import trust
from tests.helpers.axes import random_axis


def test_the_speed_document_is_made_from_its_figures(repository: Path, tmp_path):
    figures = json.loads((repository / "docs/speed.json").read_text())
    written = write_speed_report(tmp_path, figures)
    assert {path.name for path in written} == {"speed.json", "speed.md", "speed.svg"}
    for path in written:
        if path.suffix != ".svg":  # an SVG's bytes differ between releases of the library that draws it
            assert path.read_text() == (repository / "docs" / path.name).read_text(), (
                f"{path.name} is out of date: python -m demo.bench --write docs"
            )


@pytest.fixture
def evaluated(repository: Path, tmp_path: Path):
    """Writes the shipped evaluation as if it were of another format or seed."""
    report = json.loads((repository / "axes/smollm2-135m-instruct/evaluation.json").read_text())

    def write(**about: object) -> Path:
        folder = tmp_path / "-".join(map(str, about.values()))
        folder.mkdir()
        (folder / "evaluation.json").write_text(json.dumps(report | {"about": report["about"] | about}))
        return folder

    return write


def test_evaluations_in_two_formats_stand_side_by_side(evaluated, tmp_path: Path):
    found = evaluations_of([evaluated(dtype="bfloat16"), evaluated(dtype="int8")])
    found["int8"]["susceptibility"]["groups"]["all"]["harmful"]["capped"] = 0.0123
    write_speed_report(tmp_path, {"tiny": json_figures() | {"evaluations": found}})
    rows = [line for line in (tmp_path / "speed.md").read_text().splitlines() if "harmful" in line]
    assert len(rows) == 1 and rows[0].count("%") > 4 and "1.2%" in rows[0].split("|")[3]


def test_evaluations_that_differ_in_more_than_the_format_are_not_compared(evaluated):
    with pytest.raises(UserError, match="differ in seed"):
        evaluations_of([evaluated(dtype="bfloat16"), evaluated(dtype="int8", seed=2)])


def test_evaluations_that_cannot_be_laid_side_by_side_are_refused(evaluated):
    whole = evaluated(dtype="bfloat16")
    with pytest.raises(UserError, match="in the same format"):
        evaluations_of([whole, whole])
    part = evaluated(dtype="int8") / "evaluation.json"
    report = json.loads(part.read_text())
    del report["capability"]
    part.write_text(json.dumps(report))
    with pytest.raises(UserError, match="lacks susceptibility or capability"):
        evaluations_of([whole, part.parent])


def test_the_table_of_all_models_is_empty_where_nothing_was_measured(tmp_path: Path):
    both = {"one": json_figures(), "other": json_figures() | {"pair": {"pair_vs_plain": 0.456}}}
    write_speed_report(tmp_path, both)
    row = next(line for line in (tmp_path / "speed.md").read_text().splitlines() if "`pair_vs_plain`" in line)
    assert [cell.strip() for cell in row.split("|")[2:4]] == ["", "0.46"]


def json_figures() -> dict[str, object]:
    """The least that the document needs."""
    about = {"model": "one", "device": "cpu", "dtype": "float32", "forward": "fused", "tokens": 8}
    return {"about": about | {"logit_difference": 0.0}}


def test_the_engines_document_is_made_from_its_figures(repository):
    figures = json.loads((repository / "docs/engines.json").read_text())
    assert (repository / "docs/engines.md").read_text() == engines_document(figures)


def test_the_trust_document_is_made_from_its_figures(repository):
    entries = json.loads((repository / "docs/trust.json").read_text())
    assert (repository / "docs/trust.md").read_text() == trust.document()
    assert {entry["file"] for entry in entries} == set(trust.FILES)
    assert all((repository / file).is_file() for file in trust.FILES)
    assert sum(entry["cases"] for entry in entries if entry["group"] == "hostile input") >= 10_000


def test_ratios_are_ratios_of_medians():
    timings = Timings(
        plain_step=[0.04, 0.05, 0.9],
        single_step=[0.02] * 3,
        pair_step=[0.03, 0.02, 0.025],
        plain_reading_step=[0.03, 0.9, 0.01],
        no_alternatives_step=[0.025, 0.9, 0.01],
        naive_turn={1: [2.0], 8: [9.0]},
        pair_turn={1: [1.0], 8: [1.5]},
        first_token={1: [0.1], 8: [0.2]},
    )
    found = summary(timings, 8)
    assert found["pair_vs_plain"] == pytest.approx(0.5)
    assert found["pair_vs_single"] == pytest.approx(1.25)
    assert found["plain_reading_cost"] == pytest.approx(1.2)
    assert found["alternatives_cost"] == pytest.approx(1.2)
    assert found["turn8_vs_naive"] == pytest.approx(6) and found["ttft8_vs_ttft1"] == pytest.approx(2)
    assert found["plain_step_ms"] == pytest.approx(50)


@pytest.mark.slow
def test_each_pair_of_a_load_test_is_timed_from_its_own_arrival():
    # A model of its own: the library's continuous batching changes it.
    model = load_model(dtype="float32", device="cpu")
    axis = random_axis(len(model.layers), model.hidden_size, 17, (14, 20))
    engine = TransformersEngine(model, axis, fixed_length=True, own_thread=True)
    start = time.perf_counter()
    found = engine_load(engine, 3, Sampling(max_new_tokens=5))
    span = time.perf_counter() - start
    assert 0 < found["first_token_p50_s"] <= found["first_token_p95_s"] < span
    assert 3 * 5 * 2 / span <= found["tokens_per_s"]
    assert engine.prefix_cache.nbytes == 0, "nothing is left in the cache for the next round"
    assert library_load(engine, 1, Sampling(max_new_tokens=4))["tokens_per_s"] > 0
    assert len({visitor_prompt(number)[0]["content"] for number in range(32)}) == 32


@pytest.mark.parametrize("tool", [LLAMA_CPP, SAKLAS])
def test_another_tool_is_measured_or_the_reason_is_given(tool):
    """With programs that end as these do; the last is killed."""
    for script, figures in (
        (
            f"raise ModuleNotFoundError(\"No module named '{tool.module}'\")",
            f"{tool.package} is not installed",
        ),
        ("raise SystemExit(3)", "it ended with status 3"),
        ("import os; os.abort()", "it ended with status -6"),
    ):
        assert replace(tool, script=script).measure("model", "Hello", 4) == {"not measured": figures}
    script = "print('loading'); print('{\"step_ms\": 3.5}')"
    assert replace(tool, script=script).measure("model", "Hello", 4) == {"step_ms": 3.5}


def test_memory_growth_is_relative_to_the_settled_memory():
    memory = [(1, 500.0), (3.2, 1000.0), (3.6, 1010.0), (9, 1040.0), (14, 1020.0)]
    found = page_load_summary(Outcomes(turns=3, first_token=[1.0, 2.0, 3.0], memory=memory), 30, 15)
    assert found["memory settled MiB"] == 1005 and found["memory growth"] == pytest.approx(1040 / 1005 - 1)
    assert found["first token s, median"] == 2.0 and found["errors"] == 0


def test_two_runs_of_the_same_replies_are_compared_token_by_token():
    def event(token: int, before: float, after: float, correction: float, probability: float) -> TokenEvent:
        return TokenEvent(
            "a", token, Token("", before, after, (correction,), False, probability=probability), 1
        )

    one = [event(1, 0.0, 0.5, 0.5, 0.9), event(2, 1.0, 1.0, 0.0, 0.5)]
    other = [event(1, 0.1, 0.5, 0.4, 0.9), event(3, 9.0, 9.0, 0.0, 0.2)]
    figures = compare([(one, other), (one, one)])
    assert figures["replies"] == 2 and figures["replies with the same tokens"] == 1
    assert figures["tokens"] == 4 and figures["tokens at which the cap acted"] == 2
    assert figures["largest difference of a projection before the cap"] == pytest.approx(0.1)
    assert figures["largest difference of a layer's correction"] == pytest.approx(0.1)
    assert figures["largest difference of a token's probability"] == pytest.approx(0.3)


def test_the_figures_of_a_class_leave_out_memory_before_it_has_settled():
    memory = [(0.0, 100.0), (50.0, 300.0), (100.0, 250.0)]
    found = class_summary(
        ClassOutcomes([4.0, 6.0], [1.0, 2.0, 3.0], [5.0], [40], [0.2], 3, ["No."], memory), 30, 120
    )
    assert (found["turns"], found["errors"], found["first token s, median"]) == (3, 1, 2.0)
    assert found["board update s, p95"] is None, "one value has no percentile"
    assert (found["memory settled MiB"], found["memory most after MiB"]) == (300.0, 300.0)
    assert found["memory at the end MiB"] == 250.0


def test_the_document_about_classes_has_the_figures_that_were_measured():
    figures, gpu = (json.loads(path.read_text(encoding="utf-8")) for path in (CLASS_FIGURES, GPU_STEPS))
    document = CLASS_DOCUMENT.read_text(encoding="utf-8")
    assert filled(document, figures, gpu) == document


def test_the_load_test_sends_a_student_s_token_where_the_page_reads_it():
    assert class_load.TOKEN_HEADER == routes.TOKEN_HEADER


def test_students_on_paper_fill_all_places_of_the_batch_on_average():
    steps = {"2": {"graphs, capped": 1.0, "sampling": 1.0}, "40": {"graphs, capped": 20.0, "sampling": 5.0}}
    ((name, pairs, step, rate, students),) = on_paper({"shapes": {"m": {"steps": steps}}}, 15.0, 200)
    assert (name, pairs, step, rate) == ("m", "20", "25.0", "40")
    answered = 200 * 0.025  # seconds of 20 in which a student's reply is being written
    assert int(students) * answered / (15.0 + answered) == pytest.approx(20)


def test_how_many_students_are_carried_is_said_for_each_number_of_cores():
    waits = [(1, 10, 3.0), (1, 20, 4.5), (2, 10, 1.0), (2, 20, 4.0), (None, 5, 9.0)]
    classes = [{"cores": c, "students": s, "first token s, p95": p} for c, s, p in waits]
    assert list(carried(classes, 4.0)) == [
        "- 1 core carries 10 students, and not 20.",
        "- 2 cores carry 20 students or more: 20 were the most that was tried.",
        "- All cores carry fewer than 5 students.",
    ]


def test_a_number_of_cores_that_is_not_there_is_refused_and_the_others_come_back():
    before = os.sched_getaffinity(0)
    with on_cores(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before
    with pytest.raises(UserError, match="cores"), on_cores(len(before) + 1):
        pass
