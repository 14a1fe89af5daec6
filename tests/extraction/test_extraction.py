"""The extraction pipeline on a tiny random model, against plain means of plain forward passes."""

from __future__ import annotations

import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from demo.axis.axis import FLOOR_NAMES
from demo.axis.card import card
from demo.axis.components import probe_components
from demo.axis.files import load_axis, save_axis
from demo.axis.gates import gate, what_a_reply_tells
from demo.capping import residual_of
from demo.extraction import add_gates as adding
from demo.extraction import late_turns
from demo.extraction import run as extraction
from demo.extraction.__main__ import main
from demo.extraction.add_gates import main as add_gates
from demo.extraction.add_zones import with_zones
from demo.extraction.archetypes import ARCHETYPES
from demo.extraction.axis import choose_cast, default_band, fold_axes
from demo.extraction.controls import controls
from demo.extraction.judge import LikelihoodJudge, NoJudge
from demo.extraction.layer_table import held_out_auc
from demo.extraction.plan import (
    BARE,
    DEFAULT,
    FOLDS,
    NEUTRAL,
    PRESETS,
    Plan,
    Preset,
    make_plan,
    usual_role_prompts,
)
from demo.extraction.report import gates_section
from demo.extraction.rollouts import Reply, RolloutGenerator
from demo.extraction.texts import read_records
from demo.extraction.vectors import ALL, State, Vectors
from demo.extraction.zones import folds_of, most_read
from demo.models.chat_template import render_chat
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from tests.helpers.tiny_models import assert_one_sentence, tiny_llama

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
    late_talks=2,
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


class DividedJudge(LikelihoodJudge):
    """The real judge with a threshold that only some replies of a random model reach."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__(model, threshold=0.0)


@pytest.fixture(scope="module")
def tiny(model: LoadedModel) -> LoadedModel:
    return tiny_llama(model, context=512, seed=1)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan("tiny", TINY)


@pytest.fixture(scope="module", autouse=True)
def plain_axes() -> Iterator[None]:
    """The plain axis is kept. On the noise of a random model, chance would choose the variant."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("demo.extraction.variants.LEAST_GAIN", 2.0)
        yield


@pytest.fixture(scope="module")
def whole(tiny: LoadedModel, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The axis folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("axis") / "whole"
    extraction.extract(tiny, plan, SETTINGS, NoJudge(), folder)
    return folder


@pytest.mark.parametrize("preset", ["quick", "standard"])
def test_roles_and_defaults_answer_the_same_questions_equally_often_in_both_halves(preset: str):
    plan = make_plan("SmolLM2", PRESETS[preset])
    asked: dict[tuple[str, bool, int], Counter[int]] = defaultdict(Counter)
    for rollout in plan.rollouts:
        if rollout.split == "extract":
            asked[rollout.split, rollout.is_role, rollout.half][rollout.question] += 1
    questions = set(range(len(plan.questions["extract"])))
    for counts in asked.values():
        assert set(counts) == questions
        assert max(counts.values()) - min(counts.values()) <= max(2, 0.2 * max(counts.values()))
    assert not set(plan.questions["extract"]) & set(plan.questions["held_out"])
    assert "You are SmolLM2." in plan.default_prompts


def test_both_halves_of_a_role_have_the_same_instructions():
    plan = make_plan("SmolLM2", PRESETS["standard"])
    prompts = defaultdict(set)
    for rollout in plan.rollouts:
        if rollout.split == "extract" and rollout.is_role:
            prompts[rollout.group, rollout.half].add(rollout.system)
    assert all(prompts[role, 0] == prompts[role, 1] for role in plan.roles)
    assert len(plan.roles) == 275


def test_a_pretrained_model_is_told_in_the_third_person_who_is_asked():
    size = replace(PRESETS["quick"], roles=12, role_prompts=usual_role_prompts(True))
    plan = make_plan("gemma", size, base=True)
    chat = make_plan("gemma", replace(size, role_prompts="plain"))
    assert set(plan.roles) == {*chat.roles, *ARCHETYPES}
    for rollout in plan.rollouts:
        opening = [message["content"] for message in rollout.messages if message["role"] == "assistant"]
        named = rollout.group.replace("_", " ") if rollout.is_role else "AI assistant"
        assert re.fullmatch(rf"I am an? {named}\. I answer every question as an? {named} would\.", *opening)
        if rollout.is_role:
            start, own = f"an interview with a{'n'[: named[0] in 'aeiou']} {named}. ", rollout.system
            assert start in own and "Stay in character" not in own
        elif rollout.group != BARE:
            assert not rollout.system or rollout.system.startswith("The following is an interview with ")
    assert all(plan.instructions[role][0].endswith(chat.instructions[role][0]) for role in chat.roles)
    assert plan.default_prompts[0] == "" and any("gemma" in prompt for prompt in plan.default_prompts)


def test_stronger_role_prompts_change_the_roles_and_keep_the_rest():
    size = replace(PRESETS["quick"], roles=12)
    plain, strong, example = (
        make_plan("SmolLM2", replace(size, role_prompts=kind)) for kind in ("plain", "strong", "example")
    )
    for before, asked, shown in zip(plain.rollouts, strong.rollouts, example.rollouts, strict=True):
        opening = shown.messages[len(asked.messages) - 1 : -1]
        if before.is_role:
            name = before.group.replace("_", " ")
            assert asked.system.startswith(f"{before.system}\n\n") and f"you are the {name}," in asked.system
            assert [message["role"] for message in opening] == ["user", "assistant"]
            assert f"I am the {name} and nobody else" in opening[1]["content"]
        else:
            assert asked == before
            assert "SmolLM2" in opening[1]["content"], "a chat of the default side has not begun already"
        assert (shown.messages[-1], shown.system) == (asked.messages[-1], asked.system)


def test_runs_with_other_role_prompts_are_never_mixed(tiny: LoadedModel, tmp_path: Path):
    plans = [make_plan("tiny", replace(TINY, role_prompts=kind)) for kind in ("plain", "strong", "example")]
    folders = {extraction.work_folder(tiny, one, SETTINGS, NoJudge(), tmp_path) for one in plans}
    assert len(folders) == 3


def test_held_out_rollouts_come_after_the_axis_they_are_tested_on(plan: Plan):
    splits = [rollout.split for rollout in plan.rollouts]
    assert splits == sorted(splits, key=["extract", "held_out", "control"].index)
    assert {plan.fold(role) for role in plan.roles} == set(range(FOLDS))


def test_means_and_log_probabilities_of_a_rollout_equal_one_full_pass(tiny: LoadedModel, plan: Plan):
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


@pytest.mark.slow
def test_an_interrupted_and_resumed_run_gives_the_same_bytes(tiny, plan, whole, tmp_path):
    generate = RolloutGenerator(tiny).generate
    for batches in (0, 1, 2):
        calls = iter(range(batches))

        def interrupted(*arguments, calls=calls):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return generate(*arguments)

        with pytest.raises(KeyboardInterrupt):
            extraction.extract(tiny, plan, SETTINGS, NoJudge(), tmp_path / "resumed", interrupted)
    extraction.extract(tiny, plan, SETTINGS, NoJudge(), tmp_path / "resumed")
    for name in FILES:
        assert (whole / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes(), name
    assert not (tmp_path / "resumed" / ".unfinished").exists()


def test_vectors_and_floors_equal_plain_arithmetic(tiny, plan, whole, tmp_path):
    """Vectors are means of rollout means, corrected by question; floors are quantiles of the defaults."""
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


def run_all(tiny: LoadedModel, plan: Plan) -> list[Reply]:
    batches = extraction.batches_of(plan.rollouts, SETTINGS.batch)
    generate = RolloutGenerator(tiny).generate
    return [reply for batch in batches for reply in generate(batch, SETTINGS.sampling(plan))]


def test_manifest_and_report_are_complete(whole: Path):
    axis = load_axis(whole)
    assert set(axis.manifest["gates"]) == {
        "split_half",
        "cos_pc1",
        "default_above_roles",
        "role_order",
        "auc",
        "late_turns",
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
        "## Late turns",
        "roles.svg",
    ):
        assert words in report, words
    assert (whole / "layers.svg").read_text().startswith("<?xml")


def test_an_axis_without_the_newer_gates_gets_them(tiny, whole: Path, tmp_path: Path, monkeypatch):
    folder = tmp_path / "axis"
    shutil.copytree(whole, folder)
    manifest = dict(load_axis(folder).manifest)
    newer = ("role_order", "late_turns")
    talks = manifest.pop("late_turns")["talks"]
    manifest["gates"] = {name: gate for name, gate in manifest["gates"].items() if name not in newer}
    save_axis(replace(load_axis(folder), manifest=manifest), folder)
    report = re.sub(r"\| (role_order|late_turns) .*\n", "", (folder / "report.md").read_text())
    report = re.sub(r"## Late turns.*?(?=## )", "", report, flags=re.S)
    (folder / "report.md").write_text(report)
    # In the test the axis has the instructions that the preset for the command would give.
    monkeypatch.setattr(adding, "load_model", lambda spec, **options: tiny)
    for _ in range(2):  # the second time it replaces what it has added
        assert add_gates([str(folder), f"--talks={talks}"]) == 0
        for name in ("axis.safetensors", "report.md"):
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
        assert load_axis(folder).manifest == load_axis(whole).manifest
        assert list(load_axis(folder).manifest["gates"]) == list(load_axis(whole).manifest["gates"])


def test_both_sides_of_a_talk_are_asked_the_same_and_answer_after_their_own_replies(tiny, plan, whole):
    axis, asked = load_axis(whole), []
    generate = RolloutGenerator.generate

    def watched(self, rollouts, sampling):
        replies = generate(self, rollouts, sampling)
        asked.append(replies)
        return replies

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RolloutGenerator, "generate", watched)
        found = late_turns.measure_late_turns(tiny, axis, plan, SETTINGS.sampling(plan))
    assert len(asked) == late_turns.TURNS and len(asked[0]) == 2 * TINY.late_talks
    for turn, replies in enumerate(asked):
        for role, default in zip(replies[::2], replies[1::2], strict=True):
            assert role.rollout.is_role and default.rollout.group == DEFAULT
            assert role.rollout.text == default.rollout.text in plan.questions["held_out"]
            assert role.rollout.sample == default.rollout.sample
        for talk, reply in enumerate(replies):
            earlier = tuple((one[talk].rollout.text, one[talk].text or "...") for one in asked[:turn])
            assert reply.rollout.history == earlier
        # The figures are those of plain means of a plain forward pass.
        means = [plain_mean(tiny, reply, axis.probe_layer) for reply in replies if reply.tokens]
        units = [axis.to_units(float(mean @ axis.unit[axis.probe_layer]), axis.probe_layer) for mean in means]
        sides = [reply.rollout.is_role for reply in replies if reply.tokens]
        for own, side in ((True, found.role), (False, found.default)):
            expected = [value for value, is_role in zip(units, sides, strict=True) if is_role == own]
            assert side[turn] == pytest.approx(expected, abs=1e-3)
    last = [[value for turn in side[5:8] for value in turn] for side in (found.default, found.role)]
    wins = [(a > b) + 0.5 * (a == b) for a in last[0] for b in last[1]]
    measured = late_turns.with_late_turns(axis, found).manifest["gates"]["late_turns"]
    assert measured["value"] == pytest.approx(sum(wins) / len(wins), abs=1e-4)


def plain_mean(tiny: LoadedModel, reply: Reply, layer: int) -> torch.Tensor:
    prompt = render_chat(tiny.tokenizer, reply.rollout.messages).ids
    states = []
    hook = tiny.layers[layer].register_forward_hook(lambda *call: states.append(residual_of(call[2])))
    with torch.no_grad():
        tiny.model(torch.tensor([[*prompt, *reply.tokens]]))
    hook.remove()
    return states[0][0, len(prompt) :].mean(0)


def test_every_held_out_question_comes_up_in_every_turn(whole: Path):
    plan = make_plan("tiny", replace(TINY, late_talks=len(make_plan("tiny", TINY).questions["held_out"])))
    talks = late_turns.scripted(plan, load_axis(whole))
    for turn in range(late_turns.TURNS):
        asked = {late_turns.next_question(talk, plan, turn).text for talk in talks}
        assert asked == set(plan.questions["held_out"])


def test_talks_that_outgrow_the_context_window_have_no_late_turns(model, plan, whole):
    small = tiny_llama(model, context=150, seed=1)
    found = late_turns.measure_late_turns(small, load_axis(whole), plan, SETTINGS.sampling(plan))
    assert 0 < len(found.role) < late_turns.TURNS
    gate = late_turns.with_late_turns(load_axis(whole), found).manifest["gates"]["late_turns"]
    assert gate["value"] is None and not gate["passed"]


def test_components_are_unit_vectors_that_point_toward_the_assistant(whole: Path):
    axis = load_axis(whole)
    assert axis.pca is not None and probe_components(axis) is not None
    assert axis.pca.shape == (3, axis.layers, axis.direction.shape[1])
    norms = axis.pca.norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-4, atol=1e-4)
    assert bool(((axis.pca * axis.direction).sum(-1) >= -1e-5).all())


def test_held_out_projections_are_in_axis_units_of_the_fold_without_the_role(tiny, plan, tmp_path):
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
    assert state.count(NEUTRAL) == state.count(BARE) == len(plan.questions["extract"])


@pytest.mark.slow
def test_the_shift_by_the_templates_own_system_prompt(tiny, plan, whole, tmp_path):
    state = extraction.gather(tiny, plan, SETTINGS, NoJudge(), tmp_path / "work")
    axis, probe = load_axis(whole), load_axis(whole).probe_layer
    replies = [reply for reply in run_all(tiny, plan) if reply.tokens]
    own = [r.mean for r in replies if r.rollout.group == DEFAULT and not r.rollout.system]
    own = own[: len(plan.questions["extract"]) * TINY.default_samples]  # the held-out ones come later
    bare = [r.mean for r in replies if r.rollout.group == BARE]
    moved = (torch.stack(own).mean(0) - torch.stack(bare).mean(0))[probe] @ axis.unit[probe]
    assert axis.manifest["template_shift"] == pytest.approx(float(moved / axis.norm[probe]), abs=1e-3)
    assert axis.manifest["template_system_prompt"].startswith("You are a helpful AI assistant named SmolLM")
    assert "> You are a helpful AI" in (whole / "report.md").read_text()
    silent = replace(axis, manifest=axis.manifest | {"template_system_prompt": ""})
    assert controls(silent, state, plan, Vectors(state, plan)).template_shift is None


def test_an_axis_that_fails_the_order_of_roles_is_not_reported_as_the_assistants(whole):
    axis = load_axis(whole)
    for passed, title in (
        (False, "# Axis from role-played to own replies of "),
        (True, "# Assistant Axis of "),
    ):
        gates = axis.manifest["gates"] | {"role_order": gate("role_order", 1.0 if passed else 0.0)}
        named = replace(axis, manifest=axis.manifest | {"gates": gates})
        text = "\n".join([*card(named)])
        assert f"\n{title}" in text
        assert ("default Assistant" in text) == passed and ("own replies" in text) != passed
        section = "\n".join(gates_section(named))
        assert ("its ends are own replies and role-played replies" in section) != passed


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
                values = [
                    value[plan.fold(role)] for question, value in above if question == asked or not same
                ]
                pairs.append(torch.stack([(value > below).float() for value in values]).mean(0))
        auc = held_out_auc(state, plan, ("kept",), choosing=False, same_question=same)
        torch.testing.assert_close(auc, torch.stack(pairs).mean(0))


def test_only_rollouts_that_adopt_their_role_count_unless_all_are_kept(tiny, plan, tmp_path):
    settings = replace(SETTINGS, keep_all=True)
    state = extraction.gather(tiny, plan, settings, DividedJudge(tiny), tmp_path)
    scored = [record for record in state.texts if "uptake" in record]
    assert len(scored) == sum(rollout.is_role for rollout in plan.rollouts)
    assert all(record["kept"] == (record["uptake"] >= 0) for record in scored)
    kept, unfiltered = Vectors(state, plan), Vectors(state, plan, ALL)
    for role in plan.roles:
        assert unfiltered.kept(role) == TINY.role_rollouts
        own = [r for r in scored if r["group"] == role and r["split"] == "extract"]
        assert kept.kept(role) == sum(record["kept"] for record in own)


def test_an_extraction_measures_its_zones(tiny, plan, whole):
    axis = load_axis(whole)
    figures, records = axis.manifest["zones"], read_records(whole, split=None)
    assert folds_of(records) == {role: plan.fold(role) for role in plan.roles}
    held_out = [record for record in records if record["split"] == "held_out"]
    assert axis.zones is not None and axis.zones.role.replies == len(plan.roles)
    assert axis.zones.default.replies == sum(record["group"] == DEFAULT for record in held_out)
    assert figures["auc_by_tokens"][-1][1] == figures["auc"] and 0 <= figures["ceiling"] <= 1
    assert most_read(plan) >= len(held_out)
    assert what_a_reply_tells(axis.manifest) in (whole / "report.md").read_text()


def test_zones_are_added_only_to_the_axis_that_the_replies_give(tiny, whole, monkeypatch):
    """A random model's text is not encoded as the tokens that it wrote, so the axes differ a little."""
    axis, records = load_axis(whole), read_records(whole, split=None)
    bare = replace(axis, manifest={k: v for k, v in axis.manifest.items() if k != "zones"})
    with pytest.raises(UserError, match="do not give the axis") as error:
        with_zones(tiny, bare, records)
    assert_one_sentence(error, "cosine")
    monkeypatch.setattr("demo.extraction.texts.SAME_AXIS", 0.9)
    again = with_zones(tiny, bare, records)
    assert again.zones is not None and axis.zones is not None
    assert again.zones.default.replies == axis.zones.default.replies
    assert abs(again.manifest["zones"]["auc"] - axis.manifest["zones"]["auc"]) < 0.2


@pytest.mark.slow
def test_a_model_that_ignores_its_roles_is_refused_and_the_rollouts_are_kept(tiny, plan, tmp_path):
    strict = LikelihoodJudge(tiny, threshold=1e9)
    with pytest.raises(UserError, match="--keep-all"):
        extraction.extract(tiny, plan, SETTINGS, strict, tmp_path)
    work = next((tmp_path / ".unfinished").iterdir())
    assert State.load(work, work.name).batches > 0
    settings = replace(SETTINGS, keep_all=True, band=(1, 2))
    extraction.extract(tiny, plan, settings, strict, tmp_path)
    assert load_axis(tmp_path).cap_band == (1, 2)


def test_runs_with_other_settings_do_not_share_unfinished_work(tmp_path):
    work = tmp_path / "work"
    State(batches=3).save(work, "one")
    assert State.load(work, "one").batches == 3
    assert State.load(work, "other").batches == 0


def test_gates_compare_with_their_thresholds():
    assert gate("fluency", 1.05)["passed"] and not gate("fluency", 1.2)["passed"]
    assert gate("auc", 0.96)["passed"] and not gate("auc", 0.94)["passed"]
    assert gate("auc", float("nan")) == {"value": None, "threshold": 0.95, "passed": False}


def test_the_default_band_lies_within_the_model():
    assert default_band(30) == (18, 25)
    first, last = default_band(3)
    assert 0 <= first <= last < 3


def test_wrong_options_are_reported_in_one_sentence(capsys):
    for arguments, words in (
        (["--cap-layers", "abc"], "--cap-layers takes FIRST-LAST"),
        (["--cap-layers", "5-3"], "--cap-layers runs from a lower"),
        (["--cap-layers", "18-99"], "--cap-layers names layer 99"),
        (["--judge-url", "http://localhost:1"], "--judge-url needs --judge-model"),
    ):
        assert main(arguments) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith(f"error: {words}"), message


def test_the_shipped_axis_passes_every_gate_but_two_and_its_report_says_so(repository: Path):
    axis = load_axis("smollm2-135m-instruct")
    gates = axis.manifest["gates"]
    assert {name for name, one in gates.items() if not one["passed"]} == {"auc", "late_turns"}
    assert gates["auc"]["value"] > 0.8
    assert len(axis.manifest["roles"]) == 275 and axis.default_range is not None
    report = (repository / "axes/smollm2-135m-instruct/report.md").read_text()
    for name, one in gates.items():
        line = f"| {one['value']:.3f} | {one['threshold']:.2f} | {'yes' if one['passed'] else 'NO'} |"
        assert line in report, name
