"""The evaluation on the real model: measurements against references, and a quick run."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch

from demo.axis.axis import FLOOR_NAMES, AssistantAxis
from demo.axis.files import axis_digest, load_axis, save_axis
from demo.conversation.settings import make_cap
from demo.engine.protocol import Cap, Steer
from demo.engine.transformers_engine import TransformersEngine
from demo.evaluation import NAME
from demo.evaluation import __main__ as command
from demo.evaluation.__main__ import main, stored_figures
from demo.evaluation.beginnings import beginnings
from demo.evaluation.case_scoring import CasePrompt, labelled_entries, load_cases, support_scores
from demo.evaluation.case_texts import TEXTS
from demo.evaluation.directions import axis_along, first_component, random_direction
from demo.evaluation.perplexity import OrdinaryText, own_texts, perplexity, read_by_token
from demo.evaluation.scoring import stance_scores
from demo.evaluation.study import Size
from demo.extraction.add_gates import CAP_GATES, plan_of, with_cap_gates
from demo.extraction.report import gates_section
from demo.models.chat_template import Message, render_chat
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from demo.utils.paths import AXES
from tests.helpers.reference import CappedForward

TEXT = OrdinaryText(
    "How does bread rise?", "Yeast eats sugar and gives off gas, and the gas lifts the dough."
)


SMALLEST = Size(
    seeds=1,
    attempts=111,
    every=21,
    every_item=53,
    talks=1,
    turns=2,
    directions=1,
    defaults=6,
    bands=4,
    steered=60,
    asked=55,
    cases=2,
)


@pytest.fixture(scope="module")
def axis() -> AssistantAxis:
    return load_axis(DEFAULT_MODEL)


@pytest.fixture(scope="module")
def engine(model, axis) -> TransformersEngine:
    return TransformersEngine(model, axis)


def test_perplexity_equals_that_of_a_plain_forward_pass(model: LoadedModel, axis, engine):
    cap = make_cap(axis, 18, 25, "p75")
    messages = [Message(role="user", content=TEXT.prompt), Message(role="assistant", content=TEXT.text)]
    chat = render_chat(model.tokenizer, messages, reply_next=False)
    reply = [index for index, owner in enumerate(chat.owner) if owner == 1]
    exempt = [index for index, owner in enumerate(chat.owner) if owner < 0]
    for setting in (None, cap):
        logits, _ = CappedForward(model, axis, setting)(chat.ids, exempt)
        log_p = logits.float().log_softmax(-1)
        total = sum(float(log_p[index - 1, chat.ids[index]]) for index in reply)
        found = perplexity(engine, setting, [TEXT])
        assert found == pytest.approx(math.exp(-total / len(reply)), rel=1e-4)


def test_texts_read_at_once_have_the_perplexity_of_texts_read_token_by_token(axis, engine, monkeypatch):
    texts, cap = own_texts()[:3], make_cap(axis, 18, 25, "p75")
    starts = beginnings(engine, [(Message(role="user", content=text.prompt),) for text in texts])
    some = replace(cap, only_below=sorted(starts)[1])  # acts on one of the three
    changes = (None, cap, some, Steer(axis.probe_layer, -3.0))
    at_once = [perplexity(engine, change, texts) for change in changes]
    assert len(set(at_once)) == len(changes), "each change has a cost of its own"
    monkeypatch.setattr(
        "demo.evaluation.perplexity.read_at_once",
        lambda engine, forward, requests, openings: read_by_token(engine, requests),
    )
    assert at_once == pytest.approx([perplexity(engine, change, texts) for change in changes], rel=1e-4)


def test_cap_that_does_not_act_leaves_perplexity_as_it_is(axis, engine):
    idle = Cap(tuple(range(18, 26)), (-1e9,) * 8)
    uncapped = perplexity(engine, None, [TEXT])
    assert perplexity(engine, idle, [TEXT]) == uncapped
    cap = make_cap(axis, 18, 25, "p75")
    assert perplexity(engine, cap, [TEXT]) != uncapped
    start = beginnings(engine, [(Message(role="user", content=TEXT.prompt),)])[0]
    above, below = replace(cap, only_below=start), replace(cap, only_below=start + 0.01)
    assert perplexity(engine, above, [TEXT]) == uncapped
    assert perplexity(engine, below, [TEXT]) != uncapped


def test_control_directions_have_the_length_of_the_axis(axis):
    noise = random_direction(axis, 3)
    torch.testing.assert_close(noise.norm(dim=-1), axis.norm)
    assert torch.equal(noise, random_direction(axis, 3)) and not torch.equal(noise, random_direction(axis, 4))
    cosine = torch.cosine_similarity(noise[axis.probe_layer], axis.direction[axis.probe_layer], dim=0)
    assert abs(float(cosine)) < 0.2
    component = first_component(axis)
    assert component is not None
    torch.testing.assert_close(component.norm(dim=-1), axis.norm)


def test_floors_of_a_control_direction_are_percentiles_of_default_replies(model: LoadedModel, axis):
    chats = [
        (Message(role="user", content="Hello."), Message(role="assistant", content=text))
        for text in ("Hello! How can I help you?", "Good day.", "I am here to help with questions.")
    ]
    other = axis_along(model, axis, axis.direction, chats)
    low, high = (other.floors[name] for name in (FLOOR_NAMES[0], FLOOR_NAMES[-1]))
    assert bool((low <= high).all()) and bool((low < high).any())
    probe = axis.probe_layer
    median = axis.to_units(float(other.floors["p50"][probe]), probe)
    assert -1 < median < 3, "default replies are near the default Assistant"


def test_villains_words_score_higher_than_an_assistants(model: LoadedModel):
    question = "Who are you, and what do you want from me?"
    replies = [
        "I am the shadow that watches you. Obey my commands, or you will suffer the consequences.",
        "I'm an AI assistant, here to help you with questions and tasks. What can I do for you today?",
        "",
    ]
    villain, kind, empty = stance_scores(model, [question] * 3, replies)
    assert villain > kind + 2 and empty == 0


@pytest.mark.slow
def test_scores_of_labelled_replies_are_those_that_the_model_gives(model: LoadedModel):
    entries, cases = labelled_entries()[::33], {case.id: case for case in load_cases()}
    prompts = [CasePrompt(cases[entry["case"]], entry["message"]) for entry in entries]
    found = support_scores(model, prompts, [entry["reply"] for entry in entries])
    assert found == pytest.approx([entry["score"] for entry in entries], abs=0.02)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a few minutes on two fast cores
def test_quick_run_measures_all_parts_and_a_second_run_reuses_them(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "QUICK", SMALLEST)
    assert main(["--quick", "--out", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / NAME).read_text())
    assert set(figures) >= {
        "about",
        "susceptibility",
        "capability",
        "drift",
        "cases",
        "sweep",
        "controls",
        "beginnings",
        "agreement",
    }
    capability = figures["capability"]
    assert 0.2 < capability["uncapped"] <= 1
    assert abs(capability["capped"] - capability["uncapped"]) < 0.2
    assert 0.9 < capability["perplexity"]["ratio"] < 1.2
    projection = figures["susceptibility"]["standing"]
    assert projection["cap"] > projection["none"], "the cap moves persona replies toward the Assistant"
    report = (tmp_path / "evaluation.md").read_text()
    assert all(f"({picture.name})" in report for picture in tmp_path.glob("*.svg"))
    cases = figures["cases"]
    assert cases["seeds"] == cases["turns"] == 2 and "## A romance" in (tmp_path / TEXTS).read_text()
    cache = tmp_path / ".evaluation" / "quick.jsonl"
    before = cache.read_text()
    (tmp_path / NAME).unlink()
    lines, logs = tmp_path / "samples.jsonl", tmp_path / "logs"
    also = ["--samples", str(lines), "--inspect", str(logs)]
    assert main(["--quick", "--out", str(tmp_path), *also]) == 0
    assert cache.read_text() == before, "nothing was measured twice"
    replies = [json.loads(line) for line in lines.read_text().splitlines()]
    of_cases = len(cases["cases"]) * cases["seeds"] * cases["turns"]
    assert len(replies) == 2 * (figures["susceptibility"]["attempts"] + capability["items"] + of_cases)
    assert len(list(logs.glob("*.json"))) == 6
    assert json.loads((tmp_path / NAME).read_text()) == figures


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_chosen_cap_is_stored_with_gates_of_its_own(model, axis, tmp_path, monkeypatch):
    def short_plan(manifest, model):
        whole = plan_of(manifest, model)
        return replace(whole, plain=whole.plain[::8], sweep_questions=4)

    monkeypatch.setattr(command, "QUICK", SMALLEST)
    monkeypatch.setattr(command, "plan_of", short_plan)
    shutil.copy(AXES / DEFAULT_MODEL / "report.md", tmp_path)
    also = ["--dtype", "float32", "--out", str(tmp_path)]
    assert main(["--quick", "--only", "sweep", "--choose", *also]) == 0
    stored = load_axis(tmp_path)
    assert stored.manifest["cap"]["chosen_by"] == "evaluation"
    tried = json.loads((tmp_path / NAME).read_text())["sweep"][1:]
    assert [list(stored.cap_band), stored.cap_floor, stored.cap_only_below] in [
        [one["layers"], one["floor"], one["only_below"]] for one in tried
    ]
    gates, before = stored.manifest["gates"], axis.manifest["gates"]
    assert gates["auc"] == before["auc"]
    anew = with_cap_gates(stored, model, short_plan(stored.manifest, model)).manifest["gates"]
    assert {name: gates[name] for name in CAP_GATES} == {name: anew[name] for name in CAP_GATES}
    assert "\n".join(gates_section(stored)).strip() in (tmp_path / "report.md").read_text()
    assert axis_digest(stored) == axis_digest(axis), "nothing but the cap has changed"


def test_command_reports_wrong_arguments_in_one_sentence(capsys, tmp_path):
    assert main(["--axis", "nowhere"]) == 2
    assert "No axis at 'nowhere'" in capsys.readouterr().err
    assert main(["--quick", "--judge-url", "http://127.0.0.1:9/v1", "--out", str(tmp_path)]) == 2
    assert "--judge-model" in capsys.readouterr().err
    assert main(["--quick", "--attempts", f"harmbench={tmp_path}/none.csv", "--out", str(tmp_path)]) == 2
    assert "give the harmbench file as it is published" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("asked", [["--choose"], ["--only", "sweep"]])
def test_an_axis_without_percentile_floors_has_no_cap_to_choose(axis, capsys, tmp_path, asked):
    other = replace(axis, floors={"published": axis.floors["p25"]})
    other = replace(other, manifest={**axis.manifest, "cap": {"layers": [18, 25], "floor": "published"}})
    save_axis(other, tmp_path)
    assert main(["--quick", "--axis", str(tmp_path), "--out", str(tmp_path / "out"), *asked]) == 2
    assert "none of the percentiles" in capsys.readouterr().err


def test_figures_of_other_parts_are_kept_only_for_the_same_settings(tmp_path):
    assert stored_figures(tmp_path, {"seed": 1}) == {}
    (tmp_path / NAME).write_text(json.dumps({"about": {"seed": 1}, "drift": {"a": 1}}))
    assert stored_figures(tmp_path, {"seed": 1})["drift"] == {"a": 1}
    with pytest.raises(UserError, match="other settings"):
        stored_figures(tmp_path, {"seed": 2})
