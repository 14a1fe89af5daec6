"""The extraction pipeline on a tiny random model: the same bytes after a kill, and sums that equal plain means."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch

from demo.axis.axis import FLOOR_NAMES
from demo.axis.components import probe_components
from demo.axis.files import load_axis
from demo.axis.gates import gate
from demo.extraction import run as extraction
from demo.extraction.__main__ import main
from demo.extraction.axis import choose_cast, default_band, fold_axes
from demo.extraction.judge import LikelihoodJudge, NoJudge
from demo.extraction.layer_table import held_out_auc
from demo.extraction.plan import DEFAULT, FOLDS, NEUTRAL, PRESETS, Plan, Preset, make_plan
from demo.extraction.rollouts import RolloutGenerator
from demo.extraction.vectors import ALL, State, Vectors
from demo.models.chat_template import render_chat
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from tests.helpers.tiny_models import tiny_llama

SETTINGS = extraction.Settings(batch=40, least=1)
TINY = Preset(
    roles=6,
    instructions=2,
    questions=4,
    role_rollouts=2,
    default_samples=2,
    held_out=1,
    max_new_tokens=4,
    sweep_questions=2,
)
FILES = (
    "axis.safetensors",
    "axis.json",
    "report.md",
    "rollouts.jsonl",
    "roles.svg",
    "layers.svg",
    "sweep.svg",
)


class Everything(LikelihoodJudge):
    """The real judge at a threshold that a random model's replies fall on both sides of."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__(model, threshold=0.0)


@pytest.fixture(scope="module")
def tiny(model: LoadedModel) -> LoadedModel:
    return tiny_llama(model, context=512, seed=1)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan("tiny", TINY)


@pytest.fixture(scope="module")
def whole(tiny: LoadedModel, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An axis folder from a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("axis") / "whole"
    extraction.extract(tiny, plan, SETTINGS, NoJudge(), folder)
    return folder


@pytest.mark.parametrize("preset", ["quick", "standard"])
def test_both_sides_and_both_halves_answer_the_same_questions_equally_often(preset: str):
    plan = make_plan("SmolLM2", PRESETS[preset])
    asked: dict[tuple[str, bool, int], Counter[int]] = defaultdict(Counter)
    for rollout in plan.rollouts:
        if rollout.split == "extract":
            asked[rollout.split, rollout.is_role, rollout.half][rollout.question] += 1
    questions = set(range(len(plan.questions["extract"])))
    for counts in asked.values():
        assert set(counts) == questions
        assert max(counts.values()) - min(counts.values()) <= max(2, 0.2 * max(counts.values()))
    assert len({tuple(sorted(counts)) for counts in asked.values()}) == 1
    assert not set(plan.questions["extract"]) & set(plan.questions["held_out"])
    assert "You are SmolLM2." in plan.default_prompts


def test_halves_of_a_role_hold_the_same_instructions():
    plan = make_plan("SmolLM2", PRESETS["standard"])
    prompts = defaultdict(set)
    for rollout in plan.rollouts:
        if rollout.split == "extract" and rollout.is_role:
            prompts[rollout.group, rollout.half].add(rollout.system)
    assert all(prompts[role, 0] == prompts[role, 1] for role in plan.roles)
    assert len(plan.roles) == 275


def test_held_out_rollouts_come_after_the_axis_they_are_tested_on(plan: Plan):
    splits = [rollout.split for rollout in plan.rollouts]
    assert splits == sorted(splits, key=["extract", "held_out", "control"].index)
    assert {plan.fold(role) for role in plan.roles} == set(range(FOLDS))


def test_a_rollouts_mean_and_log_probabilities_are_those_of_one_full_pass(tiny: LoadedModel, plan: Plan):
    for reply in RolloutGenerator(tiny).generate(plan.rollouts[:5], SETTINGS.sampling(plan)):
        prompt = render_chat(tiny.tokenizer, reply.rollout.messages).ids
        with torch.no_grad():
            output = tiny.model(torch.tensor([[*prompt, *reply.tokens]]), output_hidden_states=True)
        # The last entry of hidden_states has the final norm applied, so the last layer is left out.
        for layer in range(len(tiny.layers) - 1):
            expected = output.hidden_states[layer + 1][0, len(prompt) :].mean(0)
            torch.testing.assert_close(reply.mean[layer], expected, rtol=1e-4, atol=1e-5)
        log_p = output.logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        chosen = log_p[range(len(reply.tokens)), list(reply.tokens)]
        torch.testing.assert_close(torch.tensor(reply.log_p), chosen, rtol=1e-4, atol=1e-4)


def test_killed_and_resumed_gives_the_same_bytes(tiny, plan, whole, tmp_path):
    real = RolloutGenerator(tiny).generate
    for batches in (0, 1, 2):
        calls = iter(range(batches))

        def killed(*arguments, calls=calls):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return real(*arguments)

        with pytest.raises(KeyboardInterrupt):
            extraction.extract(tiny, plan, SETTINGS, NoJudge(), tmp_path / "resumed", killed)
    extraction.extract(tiny, plan, SETTINGS, NoJudge(), tmp_path / "resumed")
    for name in FILES:
        assert (whole / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes(), name
    assert not (tmp_path / "resumed" / ".unfinished").exists()


def test_what_is_written_is_what_was_gathered(tiny, plan, whole, tmp_path):
    """The vectors against plain means of rollout means, two-way corrected by hand; the floors against the defaults."""
    state = extraction.gather(tiny, plan, SETTINGS, NoJudge(), tmp_path / "work")
    axis = load_axis(whole)
    replies = run_all(tiny, plan)
    by_role, by_question = defaultdict(list), defaultdict(list)
    for reply in replies:
        if reply.rollout.split == "extract" and reply.rollout.is_role and reply.tokens:
            by_role[reply.rollout.group].append(reply)
            by_question[reply.rollout.question].append(reply.mean)
    means = {question: torch.stack(values).mean(0) for question, values in by_question.items()}
    overall = torch.stack(list(means.values())).mean(0)
    vectors = [
        torch.stack([r.mean - means[r.rollout.question] + overall for r in by_role[role]]).mean(0)
        for role in plan.roles
    ]
    defaults = torch.stack(
        [r.mean for r in replies if r.rollout.group == DEFAULT and r.rollout.split == "extract" and r.tokens]
    )
    torch.testing.assert_close(axis.role_mean, torch.stack(vectors).mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(axis.default_mean, defaults.mean(0), rtol=1e-4, atol=1e-5)
    projections = (torch.stack(state.defaults) * axis.unit).sum(-1)
    for name in FLOOR_NAMES:
        torch.testing.assert_close(axis.floors[name], torch.quantile(projections, int(name[1:]) / 100, dim=0))
    assert axis.check_model(tiny) == []


def run_all(tiny: LoadedModel, plan: Plan):
    batches = extraction.batches_of(plan.rollouts, SETTINGS.batch)
    generate = RolloutGenerator(tiny).generate
    return [reply for batch in batches for reply in generate(batch, SETTINGS.sampling(plan))]


def test_manifest_and_report_hold_what_they_promise(whole: Path):
    axis = load_axis(whole)
    assert set(axis.manifest["gates"]) == {
        "split_half",
        "cos_pc1",
        "default_above_roles",
        "auc",
        "fluency",
        "sameness",
    }
    projections = [role["projection"] for role in axis.manifest["roles"]]
    assert projections == sorted(projections)
    assert {"name", "n", "kept", "counts", "projection", "played", "pc"} == set(axis.manifest["roles"][0])
    report = (whole / "report.md").read_text()
    for words in (
        "| auc |",
        "## Controls",
        "## Sweep of the cap",
        "Spearman",
        "published p0.25",
        "roles.svg",
    ):
        assert words in report, words
    assert (whole / "layers.svg").read_text().startswith("<?xml")


def test_components_are_unit_and_turned_toward_the_assistant(whole: Path):
    axis = load_axis(whole)
    assert axis.pca is not None and probe_components(axis) is not None
    assert axis.pca.shape == (3, axis.layers, axis.direction.shape[1])
    norms = axis.pca.norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-4, atol=1e-4)
    assert bool(((axis.pca * axis.direction).sum(-1) >= -1e-5).all())


def test_held_out_projections_are_axis_units_of_the_fold_without_the_role(tiny, plan, tmp_path):
    state = extraction.gather(tiny, plan, SETTINGS, NoJudge(), tmp_path / "work")
    cast = choose_cast(Vectors(state, plan), plan, 1)
    axes = fold_axes(cast, plan)
    for fold in range(FOLDS):
        others = [index for index, role in enumerate(cast.roles) if plan.fold(role) != fold]
        role_mean = cast.vectors[others].mean(0)
        for mean, units in ((role_mean, 0.0), (cast.default_mean, 1.0)):
            placed = (torch.cat([mean, mean.new_ones(len(mean), 1)], dim=-1) * axes[fold]).sum(-1)
            torch.testing.assert_close(placed, torch.full_like(placed, units), rtol=1e-3, atol=1e-3)
    assert {len(values) for values in state.held_out.values()} == {1, len(plan.default_prompts) * 24}
    assert state.count(NEUTRAL) == len(plan.questions["extract"])


def test_held_out_auc_is_the_share_of_pairs_in_the_right_order(tiny, plan, tmp_path):
    state = extraction.gather(tiny, plan, SETTINGS, NoJudge(), tmp_path / "work")
    records = [record for record in state.texts if record["split"] == "held_out" and record["tokens"]]
    defaults = [record["question"] for record in records if record["group"] == DEFAULT]
    above = list(zip(defaults, state.held_out[DEFAULT], strict=True))[1::2]
    for same in (False, True):
        pairs = []
        for role in plan.roles[1::2]:
            for below in state.held_out[f"{role}/kept"]:
                asked = next(record["question"] for record in records if record["group"] == role)
                rows = [value[plan.fold(role)] for question, value in above if question == asked or not same]
                pairs.append(torch.stack([(row > below).float() for row in rows]).mean(0))
        found = held_out_auc(state, plan, ("kept",), choosing=False, same_question=same)
        torch.testing.assert_close(found, torch.stack(pairs).mean(0))


def test_roles_that_were_not_taken_up_leave_the_axis_but_not_the_list(tiny, plan, tmp_path):
    judge = Everything(tiny)
    state = extraction.gather(
        tiny, plan, extraction.Settings(batch=40, least=1, keep_all=True), judge, tmp_path
    )
    scored = [record for record in state.texts if "uptake" in record]
    assert len(scored) == sum(rollout.is_role for rollout in plan.rollouts)
    assert all(record["kept"] == (record["uptake"] >= 0) for record in scored)
    kept, everyone = Vectors(state, plan), Vectors(state, plan, ALL)
    for role in plan.roles:
        assert everyone.kept(role) == TINY.role_rollouts
        own = [r for r in scored if r["group"] == role and r["split"] == "extract"]
        assert kept.kept(role) == sum(record["kept"] for record in own)


def test_a_model_that_ignores_its_roles_is_told_so_and_loses_nothing(tiny, plan, tmp_path):
    strict = LikelihoodJudge(tiny, threshold=1e9)
    with pytest.raises(UserError, match="--keep-all"):
        extraction.extract(tiny, plan, SETTINGS, strict, tmp_path)
    done = next((tmp_path / ".unfinished").iterdir())
    before = State.load(done, done.name).batches
    assert before > 0
    settings = extraction.Settings(batch=40, least=1, keep_all=True, band=(1, 2))
    extraction.extract(tiny, plan, settings, strict, tmp_path)
    assert load_axis(tmp_path).cap_band == (1, 2)


def test_unlike_settings_never_share_unfinished_work(tmp_path):
    work = tmp_path / "work"
    State(batches=3).save(work, "one")
    assert State.load(work, "one").batches == 3
    assert State.load(work, "other").batches == 0


def test_gates_and_band_by_hand():
    assert gate("fluency", 1.05)["passed"] and not gate("fluency", 1.2)["passed"]
    assert gate("auc", 0.96)["passed"] and not gate("auc", 0.94)["passed"]
    assert gate("auc", float("nan")) == {"value": None, "threshold": 0.95, "passed": False}
    assert default_band(30) == (18, 25)
    first, last = default_band(3)
    assert 0 <= first <= last < 3


def test_the_command_reports_mistakes_in_one_sentence(capsys):
    for arguments, words in (
        (["--cap-layers", "abc"], "--cap-layers takes FIRST-LAST"),
        (["--cap-layers", "5-3"], "--cap-layers runs from a lower"),
        (["--cap-layers", "18-99"], "--cap-layers names layer 99"),
        (["--judge-url", "http://localhost:1"], "--judge-url needs --judge-model"),
    ):
        assert main(arguments) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith(f"error: {words}"), message


def test_the_shipped_axis_meets_what_the_readme_says(repository: Path):
    """Every gate passes but one, and the report says so."""
    axis = load_axis("smollm2-135m-instruct")
    gates = axis.manifest["gates"]
    assert {name for name, one in gates.items() if not one["passed"]} == {"auc"}
    assert gates["auc"]["value"] > 0.8
    assert len(axis.manifest["roles"]) == 275 and axis.default_range is not None
    report = (repository / "axes/smollm2-135m-instruct/report.md").read_text()
    for name, one in gates.items():
        line = f"| {one['value']:.3f} | {one['threshold']:.2f} | {'yes' if one['passed'] else 'NO'} |"
        assert line in report, name
    assert json.dumps(axis.manifest)
