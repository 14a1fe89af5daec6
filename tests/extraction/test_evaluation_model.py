"""The evaluation on the real model: what its measurements must be equal to, and the whole of it once, in small."""

from __future__ import annotations

import json
import math

import pytest
import torch

from demo.axis.axis import FLOOR_NAMES, AssistantAxis
from demo.axis.files import load_axis
from demo.conversation.settings import make_cap
from demo.engine.protocol import Cap
from demo.evaluation import NAME
from demo.evaluation.capability import perplexity
from demo.evaluation.directions import along, first_component, random_direction
from demo.evaluation.scoring import stance_scores
from demo.models.chat_template import Message
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel
from tests.helpers.reference import CappedForward

SHORT = {
    "texts": [
        {
            "prompt": "How does bread rise?",
            "text": "Yeast eats sugar and gives off gas, and the gas lifts the dough.",
        }
    ]
}


@pytest.fixture(scope="module")
def axis() -> AssistantAxis:
    return load_axis(DEFAULT_MODEL)


@pytest.fixture
def short_text(tmp_path, monkeypatch):
    (tmp_path / "texts.json").write_text(json.dumps(SHORT))
    monkeypatch.setattr("demo.evaluation.capability.ASSETS", tmp_path)


def test_perplexity_is_that_of_a_plain_capped_pass(model: LoadedModel, axis, short_text):
    from demo.models.chat_template import render_chat

    cap = make_cap(axis, 18, 25, "p75")
    messages = [
        Message(role="user", content=SHORT["texts"][0]["prompt"]),
        Message(role="assistant", content=SHORT["texts"][0]["text"]),
    ]
    chat = render_chat(model.tokenizer, messages, reply_next=False)
    reply = [index for index, owner in enumerate(chat.owner) if owner == 1]
    exempt = [index for index, owner in enumerate(chat.owner) if owner < 0]
    for setting in (None, cap):
        logits, _ = CappedForward(model, axis, setting)(chat.ids, exempt)
        log_p = logits.float().log_softmax(-1)
        total = sum(float(log_p[index - 1, chat.ids[index]]) for index in reply)
        assert perplexity(model, axis, setting) == pytest.approx(math.exp(-total / len(reply)), rel=1e-4)


def test_a_cap_that_cannot_act_changes_no_perplexity(model: LoadedModel, axis, short_text):
    idle = Cap(tuple(range(18, 26)), (-1e9,) * 8)
    assert perplexity(model, axis, idle) == perplexity(model, axis, None)
    assert perplexity(model, axis, make_cap(axis, 18, 25, "p75")) != perplexity(model, axis, None)


def test_a_control_direction_has_the_axiss_length_and_floors_made_as_its_own(model: LoadedModel, axis):
    noise = random_direction(axis, 3)
    torch.testing.assert_close(noise.norm(dim=-1), axis.norm)
    assert torch.equal(noise, random_direction(axis, 3)) and not torch.equal(noise, random_direction(axis, 4))
    cosine = torch.cosine_similarity(noise[axis.probe_layer], axis.direction[axis.probe_layer], dim=0)
    assert abs(float(cosine)) < 0.2
    component = first_component(axis)
    assert component is not None
    torch.testing.assert_close(component.norm(dim=-1), axis.norm)
    chats = [
        (Message(role="user", content="Hello."), Message(role="assistant", content=text))
        for text in ("Hello! How can I help you?", "Good day.", "I am here to help with questions.")
    ]
    other = along(model, axis, axis.direction, chats)
    low, high = (other.floors[name] for name in (FLOOR_NAMES[0], FLOOR_NAMES[-1]))
    assert bool((low <= high).all()) and bool((low < high).any())
    probe = axis.probe_layer
    near = -1 < axis.to_units(float(other.floors["p50"][probe]), probe) < 3
    assert near, "default replies stand near the default Assistant"


def test_a_villains_words_score_above_an_assistants(model: LoadedModel):
    question = "Who are you, and what do you want from me?"
    replies = [
        "I am the shadow that watches you. Obey my commands, or you will suffer the consequences.",
        "I'm an AI assistant, here to help you with questions and tasks. What can I do for you today?",
        "",
    ]
    villain, kind, empty = stance_scores(model, [question] * 3, replies)
    assert villain > kind + 2 and empty == 0


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a few minutes on two fast cores
def test_the_whole_of_it_in_small_and_again_from_what_was_kept(tmp_path, capsys):
    from demo.evaluation.__main__ import main

    assert main(["--quick", "--out", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / NAME).read_text())
    assert set(figures) >= {
        "about",
        "susceptibility",
        "capability",
        "drift",
        "sweep",
        "controls",
        "agreement",
    }
    kept = figures["capability"]
    assert 0.2 < kept["uncapped"] <= 1 and abs(kept["capped"] - kept["uncapped"]) < 0.2
    assert 0.9 < kept["perplexity"]["ratio"] < 1.2
    standing = figures["susceptibility"]["standing"]
    assert standing["cap"] > standing["none"], "the cap lifts persona replies toward the Assistant"
    report = (tmp_path / "evaluation.md").read_text()
    assert all(f"({picture.name})" in report for picture in tmp_path.glob("*.svg"))
    ledger = tmp_path / ".evaluation" / "quick.jsonl"
    before = ledger.read_text()
    (tmp_path / NAME).unlink()
    assert main(["--quick", "--out", str(tmp_path)]) == 0
    assert ledger.read_text() == before, "nothing was measured twice"
    assert json.loads((tmp_path / NAME).read_text()) == figures


def test_mistakes_are_named_in_one_sentence(capsys, tmp_path):
    from demo.evaluation.__main__ import main

    assert main(["--axis", "nowhere"]) == 2
    assert "No axis at 'nowhere'" in capsys.readouterr().err
    assert main(["--quick", "--judge-url", "http://127.0.0.1:9/v1", "--out", str(tmp_path)]) == 2
    assert "--judge-model" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_one_part_anew_keeps_the_others_and_mixes_nothing(tmp_path):
    from demo.evaluation.__main__ import _reported
    from demo.utils.errors import UserError

    assert _reported(tmp_path, {"seed": 1}) == {}
    (tmp_path / NAME).write_text(json.dumps({"about": {"seed": 1}, "drift": {"a": 1}}))
    assert _reported(tmp_path, {"seed": 1})["drift"] == {"a": 1}
    with pytest.raises(UserError, match="other settings"):
        _reported(tmp_path, {"seed": 2})
