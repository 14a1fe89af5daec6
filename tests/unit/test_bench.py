"""The benches measure what they say, and the document says what they measured."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from demo.bench import pair as yardstick
from demo.bench.engine_load import crowd, library, prompt
from demo.bench.page_load import Seen
from demo.bench.page_load import summary as room_summary
from demo.bench.pair import Timings, summary
from demo.bench.report import write_report
from demo.engine.protocol import Sampling
from demo.engine.transformers_engine import TransformersEngine
from demo.models.loading import load_model
from tests.helpers.axes import random_axis


def test_the_document_is_made_from_the_figures(repository: Path, tmp_path):
    figures = json.loads((repository / "docs/speed.json").read_text())
    written = write_report(tmp_path, figures)
    assert {path.name for path in written} == {"speed.json", "speed.md", "speed.svg"}
    for path in written:
        if path.suffix != ".svg":  # a picture's bytes differ between releases of the library that draws it
            assert path.read_text() == (repository / "docs" / path.name).read_text(), (
                f"python -m demo.bench --write docs: {path.name}"
            )


def test_ratios_are_of_medians():
    timings = Timings([0.04, 0.05, 0.9], [0.02] * 3, [0.03, 0.02, 0.025], {1: [2.0], 8: [9.0]}, {1: [1.0], 8: [1.5]}, {1: [0.1], 8: [0.2]})  # fmt: skip
    found = summary(timings, 8)
    assert found["pair_vs_plain"] == pytest.approx(0.5)
    assert found["pair_vs_single"] == pytest.approx(1.25)
    assert found["turn8_vs_naive"] == pytest.approx(6) and found["ttft8_vs_ttft1"] == pytest.approx(2)
    assert found["plain_step_ms"] == pytest.approx(50)


@pytest.mark.slow
def test_a_crowd_is_timed_from_each_ones_arrival():
    model = load_model(
        dtype="float32", device="cpu"
    )  # one of its own: the library's batching leaves things behind
    axis = random_axis(len(model.layers), model.hidden_size, 17, (14, 20))
    engine = TransformersEngine(model, axis, fixed_length=True, own_thread=True)
    start = time.perf_counter()
    found = crowd(engine, 3, Sampling(max_new_tokens=5))
    span = time.perf_counter() - start
    assert 0 < found["first_token_p50_s"] <= found["first_token_p95_s"] < span
    assert 3 * 5 * 2 / span <= found["tokens_per_s"]
    assert engine.store.nbytes == 0, "nothing of it is left for the next round to find"
    assert library(engine, 1, Sampling(max_new_tokens=4))["tokens_per_s"] > 0
    assert len({prompt(number)[0]["content"] for number in range(32)}) == 32


def test_a_yardstick_that_is_not_there_is_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        yardstick, "_SCRIPT", "import sys; raise ModuleNotFoundError(\"No module named 'llama_cpp'\")"
    )
    assert yardstick.llama_cpp(tmp_path / "x.gguf", 4) == {
        "not measured": "llama-cpp-python is not installed"
    }
    monkeypatch.setattr(yardstick, "_SCRIPT", "import os; os.abort()")
    assert "ended with status" in str(yardstick.llama_cpp(tmp_path / "x.gguf", 4)["not measured"])
    monkeypatch.setattr(yardstick, "_SCRIPT", "print('{\"step_ms\": 3.5}')")
    assert yardstick.llama_cpp(tmp_path / "x.gguf", 4) == {"step_ms": 3.5}


def test_a_rooms_memory_is_compared_with_what_it_settled_at():
    seen = Seen(turns=3, first_token=[1.0, 2.0, 3.0], memory=[(1, 500.0), (3.2, 1000.0), (3.6, 1010.0), (9, 1040.0), (14, 1020.0)])  # fmt: skip
    found = room_summary(seen, 30, 15)
    assert found["memory settled MiB"] == 1005 and found["memory growth"] == pytest.approx(1040 / 1005 - 1)
    assert found["first token s, median"] == 2.0 and found["errors"] == 0


def test_two_runs_of_the_same_replies_are_compared_token_by_token():
    from demo.bench.engines import compared
    from demo.engine.protocol import TokenEvent

    def event(token: int, before: float, after: float, lift: float, chance: float) -> TokenEvent:
        return TokenEvent("a", token, "", before, after, (lift,), 1, False, probability=chance)

    one = [event(1, 0.0, 0.5, 0.5, 0.9), event(2, 1.0, 1.0, 0.0, 0.5)]
    other = [event(1, 0.1, 0.5, 0.4, 0.9), event(3, 9.0, 9.0, 0.0, 0.2)]
    figures = compared([(one, other), (one, one)])
    assert figures["replies"] == 2 and figures["replies with the same tokens"] == 1
    assert figures["tokens"] == 4 and figures["tokens at which the cap acted"] == 2
    assert figures["largest difference of a projection before the cap"] == pytest.approx(0.1)
    assert figures["largest difference of a layer's correction"] == pytest.approx(0.1)
    assert figures["largest difference of a token's probability"] == pytest.approx(0.3)


def test_the_engines_document_is_made_of_its_figures(repository):
    from demo.bench.engines import lines

    figures = json.loads((repository / "docs/engines.json").read_text())
    assert (repository / "docs/engines.md").read_text() == "\n".join(lines(figures)) + "\n"


def test_what_is_said_about_trust_is_made_of_what_was_tried(repository):
    from tests.trust import document

    entries = json.loads((repository / "docs/trust.json").read_text())
    assert (repository / "docs/trust.md").read_text() == document()
    assert sum(entry["cases"] for entry in entries if entry["group"] == "hostile input") >= 10_000
