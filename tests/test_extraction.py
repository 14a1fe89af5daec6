"""The extraction pipeline on a tiny random model: the same bytes after a kill, and sums that equal plain means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from demo.axis import FLOOR_NAMES, load_axis
from demo.extraction import run as extraction
from demo.extraction.__main__ import main
from demo.extraction.build import auc, default_band
from demo.extraction.plan import DEFAULT, make_plan
from demo.extraction.rollouts import run_batch
from demo.extraction.state import State
from demo.models import LoadedModel
from demo.spans import render_chat
from tests.tiny_models import SMALL, as_loaded

SETTINGS = extraction.Settings(max_new_tokens=6, batch=7)


@pytest.fixture(scope="module")
def tiny(model: LoadedModel) -> LoadedModel:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        **{**SMALL, "vocab_size": len(model.tokenizer), "max_position_embeddings": 512}
    )
    return as_loaded(transformers.LlamaForCausalLM(config), model.tokenizer, 512)


@pytest.fixture(scope="module")
def plan():
    return make_plan("tiny", roles=3, questions=2)


def test_both_sides_answer_the_same_questions_and_splits_share_nothing():
    plan = make_plan("SmolLM2")
    asked = {}
    for rollout in plan.rollouts:
        asked.setdefault((rollout.split, rollout.group), set()).add(rollout.text)
    for split, roles in (("extract", plan.extract_roles), ("held_out", plan.held_out_roles)):
        assert all(asked[split, role] == asked[split, DEFAULT] for role in roles)
    assert not asked["extract", DEFAULT] & asked["held_out", DEFAULT]
    assert not set(plan.extract_roles) & set(plan.held_out_roles)
    assert (
        len(plan.extract_roles) >= 60 and plan.questions["extract"] >= 20 and len(plan.default_prompts) == 5
    )
    assert "You are SmolLM2." in plan.default_prompts


def test_a_rollouts_mean_is_the_mean_over_its_reply_tokens(tiny, plan):
    """Against one full forward pass per rollout, layer by layer."""
    replies = run_batch(tiny, plan.rollouts[:5], SETTINGS.sampling)
    for reply in replies:
        prompt = render_chat(tiny.tokenizer, reply.rollout.messages).ids
        ids = prompt + tiny.tokenizer(reply.text, add_special_tokens=False).input_ids
        if len(ids) != len(prompt) + reply.tokens:
            continue  # the text does not tokenise back to what was drawn, so there is nothing to compare with
        with torch.no_grad():
            states = tiny.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        # The last entry of hidden_states has the final norm applied, so the last layer is left out.
        for layer in range(len(tiny.layers) - 1):
            expected = states[layer + 1][0, len(prompt) :].mean(0)
            torch.testing.assert_close(reply.mean[layer], expected, rtol=1e-4, atol=1e-5)


def test_killed_and_resumed_gives_the_same_axis_bytes(tiny, plan, tmp_path, monkeypatch):
    extraction.extract(tiny, plan, SETTINGS, tmp_path / "whole")
    real = extraction.run_batch
    for batches in (0, 1, 2):
        calls = iter(range(batches))

        def killed(*arguments, calls=calls):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return real(*arguments)

        monkeypatch.setattr(extraction, "run_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            extraction.extract(tiny, plan, SETTINGS, tmp_path / "resumed")
    monkeypatch.setattr(extraction, "run_batch", real)
    extraction.extract(tiny, plan, SETTINGS, tmp_path / "resumed")
    for name in ("axis.safetensors", "axis.json", "report.md", "rollouts.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes(), name
    assert not (tmp_path / "resumed" / ".unfinished").exists()


def test_what_is_written_is_what_was_gathered(tiny, plan, tmp_path):
    state = extraction.gather(tiny, plan, SETTINGS, tmp_path / "work")
    built = extraction.extract(tiny, plan, SETTINGS, tmp_path / "axis")
    axis = load_axis(tmp_path / "axis")
    roles = torch.stack([state.vector(role) for role in plan.extract_roles])
    torch.testing.assert_close(axis.direction, state.vector(DEFAULT) - roles.mean(0))
    defaults = (torch.stack(state.kept[f"extract/{DEFAULT}"]) * axis.unit).sum(-1)
    for name in FLOOR_NAMES:
        torch.testing.assert_close(axis.floors[name], torch.quantile(defaults, int(name[1:]) / 100, dim=0))
    assert set(axis.manifest["gates"]) == {"split_half", "cos_pc1", "default_above_roles", "auc"}
    assert [role["projection"] for role in axis.manifest["roles"]] == sorted(
        r["projection"] for r in axis.manifest["roles"]
    )
    assert "| auc |" in (tmp_path / "axis" / "report.md").read_text()
    assert built.axis.check_model(tiny) == []


def test_unlike_settings_never_share_unfinished_work(tiny, plan, tmp_path):
    work = tmp_path / "work"
    State(batches=3).save(work, "one")
    assert State.load(work, "one").batches == 3
    assert State.load(work, "other").batches == 0


def test_auc_and_band_by_hand():
    assert auc(torch.tensor([[2.0], [3.0]]), torch.tensor([[1.0], [2.0]])).item() == pytest.approx(3.5 / 4)
    assert default_band(30) == (18, 25)
    first, last = default_band(3)
    assert 0 <= first <= last < 3


def test_the_command_reports_mistakes_in_one_sentence(capsys):
    assert main(["--cap-layers", "abc"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: --cap-layers takes FIRST-LAST") and message.count("\n") == 1


def test_the_shipped_axis_meets_what_the_readme_says(repository: Path):
    """The gates that must hold for the shipped axis; the report names the ones it misses."""
    axis = load_axis("smollm2-135m-instruct")
    gates = axis.manifest["gates"]
    assert gates["default_above_roles"]["value"] >= 0.9
    assert gates["auc"]["value"] >= 0.9
    report = (repository / "axes/smollm2-135m-instruct/report.md").read_text()
    for name, gate in gates.items():
        assert (
            f"| {gate['value']:.3f} | {gate['threshold']:.2f} | {'yes' if gate['passed'] else 'NO'} |"
            in report
        ), name
    assert json.dumps(axis.manifest)
