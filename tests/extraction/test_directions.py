"""Roles and components as directions: made by an extraction, and made anew from its rollouts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from demo.axis.axis import AssistantAxis
from demo.axis.directions import (
    FILE,
    PERCENTILES,
    Direction,
    components,
    kept_layers,
    load_directions,
    save_directions,
)
from demo.axis.files import load_axis, save_axis
from demo.bench.templates import DEFAULT_KIND, Case, make_tokenizer, read_cases
from demo.engine.protocol import Sampling
from demo.extraction import axis as building
from demo.extraction import directions as command
from demo.extraction import run as extraction
from demo.extraction.add_zones import with_zones
from demo.extraction.directions import between, default_means, floors_along, remade
from demo.extraction.plan import DEFAULT, PRESETS, Plan, RolePrompts, Rollout, make_plan
from demo.extraction.reading import Reader
from demo.extraction.rollouts import Reply, Text
from demo.extraction.texts import ROLLOUTS, read_records, rollouts_of, text_of
from demo.extraction.vectors import Judged, State
from demo.models.chat_template import Message, render_chat
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis
from tests.helpers.tiny_models import assert_one_sentence, tiny_llama

TINY = replace(
    PRESETS["quick"], roles=5, instructions=2, questions=4, role_rollouts=4, held_out=1, max_new_tokens=4
)
SAID = "the sea is calm tonight and ships come home with gold for kings who sleep under old trees"


@pytest.fixture(scope="module")
def tiny(model: LoadedModel) -> LoadedModel:
    return tiny_llama(model, context=512, seed=1)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan("tiny", TINY)


class TwoOfThree:
    """A judge that keeps two of three replies."""

    name, threshold = "two of three", 0.5

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        return [float(reply.rollout.index % 3 > 0) for reply in replies]


@pytest.fixture(scope="module", params=["plain", "standardised"])
def folder(
    request: pytest.FixtureRequest, tiny: LoadedModel, plan: Plan, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An axis of either variant from plain words, which are the same tokens again when they are read."""
    reader = Reader(tiny)

    def generate(rollouts: Sequence[Rollout], sampling: Sampling) -> list[Reply]:
        replies = []
        for rollout in rollouts:
            start = rollout.index * 5 % len(SAID.split())
            said = " ".join((SAID.split() * 2)[start : start + 6]) + f" {rollout.group}".replace("_", " ")
            asked = {"system": rollout.system, "question": rollout.text, "history": rollout.history}
            text = text_of(tiny, asked | {"reply": said})
            mean = reader.means([text], range(tiny.layer_count))[0]
            replies.append(Reply(rollout, said, tuple(text.reply), mean, ()))
        return replies

    out = tmp_path_factory.mktemp("axis")
    settings = extraction.Settings(batch=32, least=1, band=(1, 2))
    with pytest.MonkeyPatch.context() as patch:
        wanted = request.param == "standardised"
        patch.setattr(building, "choose_variant", lambda plain, standardised: (plain, standardised)[wanted])
        extraction.extract(tiny, plan, settings, TwoOfThree(), out, generate)
    assert load_axis(out).manifest["variant"] == request.param
    return out


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """The axis folder, for a test that changes it."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_roles_lead_from_the_default_assistant_to_the_role(folder: Path, plan: Plan):
    axis = load_axis(folder)
    found = load_directions(folder, axis)
    roles, layers = found.of("role"), list(kept_layers(axis))
    assert [one.name for one in roles] == sorted(role.replace("_", " ") for role in plan.roles)
    # The plain axis is the default mean minus the mean role vector.
    mean = torch.stack([one.vector for one in roles]).mean(0)
    torch.testing.assert_close(mean, (axis.role_mean - axis.default_mean)[layers], rtol=1e-3, atol=1e-4)
    assert torch.allclose(mean, -axis.direction[layers], atol=1e-4) == (axis.manifest["variant"] == "plain")
    for one in roles:
        for place, layer in enumerate(one.layers):
            raw = float(axis.default_mean[layer] @ one.unit[place])
            assert one.to_units(raw, layer) == pytest.approx(0, abs=1e-4)
        assert one.agreement is not None and -1 <= one.agreement <= 1
        assert one.poles == ("the default Assistant", one.name)


def test_components_get_floors_from_the_default_replies(folder: Path):
    axis = load_axis(folder)
    found = load_directions(folder, axis).of("component")
    assert [one.name for one in found] == [one.name for one in components(axis)] == ["PC1", "PC2", "PC3"]
    for one in found:
        assert one.layers == kept_layers(axis)
        below, above = (one.floors[name] for name in ("p25", "p75"))
        middle = (axis.default_mean[list(one.layers)] * one.unit).sum(-1)
        assert bool(((below < middle) & (middle < above)).all())


def test_floors_are_percentiles_of_each_layer():
    replies = torch.randn(101, 2, 6, generator=torch.Generator().manual_seed(1))
    unit = torch.nn.functional.normalize(torch.ones(2, 6), dim=-1)
    floors = floors_along(unit, replies)
    for name in PERCENTILES:
        place = int(name[1:])  # of 101 ordered values, the p-th percentile is the p-th
        for layer in range(2):
            ordered = sorted(float(reply[layer].sum() / 6**0.5) for reply in replies)
            assert float(floors[name][layer]) == pytest.approx(ordered[place], abs=1e-5)
    assert floors_along(unit, replies[:0]) == {}


def same(one: Direction, other: Direction) -> bool:
    close = [
        torch.allclose(first, second, rtol=1e-3, atol=2e-3)
        for first, second in (
            (one.vector, other.vector),
            (one.origin, other.origin),
            *((one.floors[name], other.floors[name]) for name in PERCENTILES),
        )
    ]
    named = [(d.name, d.kind, d.layers, d.poles) for d in (one, other)]
    return all(close) and named[0] == named[1]


def test_the_command_makes_the_same_directions_from_the_rollouts(
    tiny: LoadedModel, copy: Path, monkeypatch: pytest.MonkeyPatch
):
    axis = load_axis(copy)
    before = load_directions(copy, axis)
    (copy / FILE).unlink()
    read: list[Text] = []
    means = Reader.means

    def noted(reader: Reader, texts: Sequence[Text], layers: Sequence[int]) -> torch.Tensor:
        read.extend(texts)
        return means(reader, texts, layers)

    monkeypatch.setattr(Reader, "means", noted)
    after = remade(tiny, axis, copy)
    records = read_records(copy)
    assert len(read) == sum(record.get("kept", True) for record in records) < len(records)
    assert list(before) == list(after) and len(after) == 8
    assert all(same(before[name], after[name]) for name in before)
    for name in before:
        assert after[name].agreement == pytest.approx(before[name].agreement, abs=1e-3)


def test_other_kinds_stay_and_get_the_floors_they_lack(tiny: LoadedModel, copy: Path):
    axis = load_axis(copy)
    mine = replace(components(axis)[0], name="mine", kind="imported", layers=(0, 2))
    mine = replace(mine, vector=mine.vector[[0, 2]], origin=mine.origin[[0, 2]])
    trait = replace(load_directions(copy, axis)["PC2"], name="calm", kind="trait")
    before = load_directions(copy, axis).added(mine).added(trait)
    save_directions(before, copy)
    after = remade(tiny, axis, copy)
    assert same(after["calm"], trait)
    replies = [r["reply"] for r in read_records(copy) if r["group"] == DEFAULT]
    assert len(replies) > 10 and not before["mine"].floors
    known = before["PC1"]  # the same direction, at its own layers
    for name in PERCENTILES:
        assert after["mine"].floor(name, 2) == pytest.approx(known.floor(name, 2), abs=2e-3)


def test_rollouts_of_another_axis_are_refused(tiny: LoadedModel, copy: Path):
    axis = load_axis(copy)
    other = replace(axis, direction=axis.direction.flip(1))
    (copy / FILE).unlink()
    with pytest.raises(UserError, match="do not give the axis beside them"):
        remade(tiny, other, copy)


def test_without_rollouts_the_default_replies_are_generated(
    tiny: LoadedModel, plan: Plan, copy: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(command, "make_plan", lambda *arguments: plan)
    axis = load_axis(copy)
    for name in (FILE, ROLLOUTS):
        (copy / name).unlink()
    found = remade(tiny, axis, copy)
    assert {one.kind for one in found.values()} == {"component"}
    assert all(one.floors.keys() == set(PERCENTILES) for one in found.values())


def test_zones_measured_from_the_rollouts_are_those_of_the_extraction(tiny: LoadedModel, copy: Path):
    axis = load_axis(copy)
    bare = replace(axis, manifest={key: value for key, value in axis.manifest.items() if key != "zones"})
    again = with_zones(tiny, bare, read_records(copy, split=None))
    assert again.manifest["zones"] == axis.manifest["zones"]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "3",
        '{"split": "extract"}',
        '{"split": "extract", "group": 1}',
        '{"split": "extract", "group": "", "system": "", "question": "", "reply": "", "tokens": ""}',
        '{"split": "extract", "group": "", "system": "", "question": "", "reply": "", "tokens": 1, '
        '"history": [["", 1]]}',
    ],
)
def test_malformed_rollouts_are_refused(tmp_path: Path, line: str):
    (tmp_path / ROLLOUTS).write_text(line + "\n")
    with pytest.raises(UserError, match="holds no rollouts"):
        read_records(tmp_path)


def test_two_equal_sides_are_no_direction():
    axis: AssistantAxis = random_axis(3, 4, 1, (1, 2))
    with pytest.raises(UserError, match="the same to the model"):
        between("calm", "trait", axis, (1,), (torch.ones(1, 4),) * 2, torch.ones(0, 1, 4), (), ("a", "b"))


@pytest.mark.parametrize("role_prompts", ["plain", "example"])
def test_rollouts_read_from_a_file_are_those_of_the_plan(role_prompts: RolePrompts):
    plan = make_plan("tiny", replace(PRESETS["standard"], role_prompts=role_prompts))
    asked = [rollout for rollout in plan.rollouts if rollout.split == "extract"]
    state = State()
    for rollout in asked:
        state.add(Judged(Reply(rollout, "", (), torch.zeros(1, 1), ()), None, True), limit=0)
    records = json.loads(json.dumps(state.texts))
    assert rollouts_of(records) == asked
    assert ("history" in records[0]) == (role_prompts == "example")


def test_a_reply_after_a_first_exchange_is_read_after_it(
    tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = make_plan("tiny", replace(TINY, role_prompts="example"))
    asked = [rollout for rollout in plan.rollouts if rollout.split == "extract"][::7]
    state, axis = State(), random_axis(tiny.layer_count, tiny.hidden_size, 1, (1, 2))
    for rollout in asked:
        reply = Reply(rollout, SAID, (1,), torch.zeros(1, 1), ())
        state.add(Judged(reply, None, True), limit=0)
        prompt = render_chat(tiny.tokenizer, rollout.messages).ids
        assert text_of(tiny, state.texts[-1]).prompt == prompt
    axis.manifest["role_prompts"] = "example"
    save_axis(axis, tmp_path)
    lines = [json.dumps(record) + "\n" for record in state.texts]
    (tmp_path / ROLLOUTS).write_text("".join(lines))
    read: list[Text] = []
    monkeypatch.setattr(Reader, "means", lambda reader, texts, layers: read.extend(texts) or torch.zeros(0))
    default_means(tiny, axis, tmp_path, (1,))
    default = [rollout for rollout in asked if rollout.group == DEFAULT]
    assert [one.prompt for one in read] == [render_chat(tiny.tokenizer, r.messages).ids for r in default]


@pytest.mark.parametrize("case", read_cases(), ids=lambda case: case.name)
def test_a_generated_reply_is_read_whole_whatever_the_template_makes_of_it(case: Case, tiny: LoadedModel):
    tokenizer = make_tokenizer(case, DEFAULT_KIND, tiny.tokenizer)
    question: Message = {"role": "user", "content": "Who are you?"}
    for reply in ("I am a pirate.", "I think so.</think>", "</think>", "  Two  words \n\n"):
        record = {"system": "", "question": question["content"], "reply": reply}
        text = text_of(SimpleNamespace(tokenizer=tokenizer), record)
        assert text.prompt == render_chat(tokenizer, [question]).ids
        assert tokenizer.decode(text.reply) == reply


def test_replies_whose_first_exchange_was_not_kept_are_refused(tiny: LoadedModel, copy: Path):
    axis = load_axis(copy)
    axis.manifest.update(role_prompts="example", variant="plain")
    save_axis(axis, copy)
    words = "followed a first exchange that is not in the file"
    for again in (
        partial(remade, tiny, axis, copy),
        partial(default_means, tiny, axis, copy, (1,)),
        partial(with_zones, tiny, axis, read_records(copy, split=None)),
    ):
        with pytest.raises(UserError, match=words) as error:
            again()
        assert_one_sentence(error)
