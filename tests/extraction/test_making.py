"""An axis is made while somebody watches: offered, started, stopped, gone on with, and chatted beside."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Thread

import pytest
import torch

from demo.axis.files import load_axis
from demo.axis.store import AXES_VARIABLE, find_home
from demo.extraction import making
from demo.extraction import run as extraction
from demo.extraction.judge import NoJudge
from demo.extraction.late_turns import TURNS
from demo.extraction.making import AxisMaker
from demo.extraction.pace import Pace
from demo.extraction.plan import PRESETS, Preset, make_plan
from demo.extraction.rollouts import Stopped
from demo.extraction.so_far import roles_so_far
from demo.extraction.vectors import HALVES, KEPT, Judged, State, Vectors
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from tests.helpers.tiny_models import tiny_llama
from tests.helpers.waiting import wait_until

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
BATCH = 16
FILES = ("axis.safetensors", "axis.json", "rollouts.jsonl")


class StrictJudge(NoJudge):
    """No reply adheres to its role."""

    threshold = 2.0


@pytest.fixture(scope="module")
def tiny(model: LoadedModel) -> LoadedModel:
    return tiny_llama(model, context=512, seed=1)


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Presets and batches of a size for tests, and a folder of their own."""
    monkeypatch.setenv(AXES_VARIABLE, str(tmp_path / "axes"))
    for preset in making.OFFERED:
        monkeypatch.setitem(PRESETS, preset, TINY)
    monkeypatch.setattr(making, "LikelihoodJudge", lambda model: NoJudge())
    monkeypatch.setattr(making, "settings_for", lambda model, size: extraction.Settings(batch=BATCH, least=1))


@contextmanager
def at_work(maker: AxisMaker) -> Iterator[list[object]]:
    """Run the maker on a thread. Yields a list that gets what it returns or raises."""
    ended: list[object] = []

    def run() -> None:
        try:
            ended.append(maker.run())
        except (Stopped, UserError) as error:
            ended.append(error)

    thread = Thread(target=run)
    thread.start()
    try:
        yield ended
    finally:
        maker.close()
        thread.join(timeout=60)
        assert not thread.is_alive()


def phase(maker: AxisMaker, *names: str) -> None:
    wait_until(lambda: maker.now.phase in names, 60)


def files_of(folder) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


@pytest.fixture
def plain(tiny, tmp_path) -> list[bytes]:
    """The files of an extraction that nobody watches."""
    settings = extraction.Settings(batch=BATCH, least=1)
    extraction.extract(tiny, make_plan("tiny", TINY), settings, NoJudge(), tmp_path / "plain")
    return files_of(tmp_path / "plain")


@pytest.mark.slow
def test_it_is_offered_with_its_time_and_started_on_demand(tiny):
    maker = AxisMaker(tiny)
    with at_work(maker) as ended:
        phase(maker, "ready")
        offers = maker.now.offers
        assert list(offers) == ["quick", "standard"] and offers["quick"].roles == TINY.roles
        assert all(offer.minutes is not None and offer.minutes > 0 for offer in offers.values())
        with pytest.raises(UserError, match="choose quick or standard"):
            maker.start("enormous")
        maker.start("quick")
        phase(maker, "done")
        wait_until(lambda: ended)
    home = find_home(tiny)
    assert home is not None and ended == [home.folder]
    now = maker.now
    assert now.share == 1 and len(now.roles) == TINY.roles and now.replies and now.halves is not None
    gates = load_axis(home.folder).manifest["gates"]
    passed = [gate["passed"] for gate in gates.values() if gate["value"] is not None]
    assert [check.passed for check in now.checks] == passed and len(passed) >= 5


@pytest.mark.slow
def test_chatting_meanwhile_changes_no_byte(tiny, plain):
    maker = AxisMaker(tiny, "quick")
    replies: list[str] = []
    with at_work(maker) as ended:
        while not ended:
            replies.append("".join(maker.answer([{"role": "user", "content": f"Hello {len(replies)}"}])))
    assert replies and any(replies)
    assert files_of(ended[0]) == plain


@pytest.mark.slow
def test_stopped_at_any_moment_it_goes_on_to_the_same_bytes(tiny, plain):
    maker, chance = AxisMaker(tiny), random.Random(3)
    with at_work(maker) as ended:
        for _ in range(6):
            maker.start("quick")
            done, seen = maker.now.share, chance.random() * 0.3
            wait_until(lambda share=done + seen: maker.now.share >= share or maker.now.phase == "done", 60)
            maker.stop()
            phase(maker, "stopped", "done")
        if maker.now.phase == "stopped":
            assert maker.now.offers["quick"].done > 0
            again = AxisMaker(tiny)  # as after a crash: another process finds what is left
            assert again.now.offers["quick"].done == maker.now.offers["quick"].done
            maker.start("quick")
        phase(maker, "done")
        wait_until(lambda: ended)
    assert files_of(ended[0]) == plain


@pytest.mark.slow
def test_what_was_done_before_a_stop_is_shown_again(tiny):
    """Also where all rollouts are there already, so that no batch brings news."""
    maker = AxisMaker(tiny, "quick")
    with at_work(maker):
        wait_until(lambda: maker.now.stage not in ("", "rollouts"), 60)
        maker.stop()
        phase(maker, "stopped")
        maker.start("quick")
        phase(maker, "done")
    assert len(maker.now.roles) == TINY.roles and maker.now.halves is not None and not maker.now.replies


def test_a_model_that_plays_no_role_is_said_to_and_can_be_tried_again(tiny, monkeypatch):
    monkeypatch.setattr(making, "LikelihoodJudge", lambda model: StrictJudge())
    maker = AxisMaker(tiny, "quick")
    with at_work(maker) as ended:
        phase(maker, "failed")
        assert "played only 0 of 6 roles" in maker.now.message and not ended
        before = maker.now
        maker.start("quick")
        # All rollouts are there by now, so it may fail again at once.
        wait_until(lambda: maker.now is not before and maker.now.phase == "failed", 60)
    assert isinstance(ended[0], Stopped)
    with pytest.raises(UserError, match="played only 0"):
        AxisMaker(tiny, "quick", watched=False).run()


@pytest.mark.parametrize("when", ["at once", "ready", "running", "stopped"])
def test_closing_ends_it_in_every_phase(tiny, when):
    maker = AxisMaker(tiny, "quick" if when in ("running", "stopped") else None)
    with at_work(maker) as ended:
        if when != "at once":
            phase(maker, "ready" if when == "ready" else "running")
        if when == "stopped":
            maker.stop()
            phase(maker, "stopped")
    assert isinstance(ended[0], Stopped)


def test_a_measurement_that_fails_leaves_the_time_unknown(tiny, monkeypatch):
    def fail(*_: object) -> None:
        raise UserError("There was not enough memory.")

    monkeypatch.setattr(making, "measure_pace", fail)
    maker = AxisMaker(tiny)
    with at_work(maker):
        phase(maker, "ready")
        assert maker.now.offers["quick"].minutes is None


def test_a_full_disk_is_said_on_the_page(tiny, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(making, "extract", fail)
    maker = AxisMaker(tiny, "quick")
    with at_work(maker):
        phase(maker, "failed")
        assert "No space left" in maker.now.message


@pytest.mark.slow
def test_an_axis_of_a_smaller_preset_is_recognised(tiny, monkeypatch):
    folder = AxisMaker(tiny, "quick").run()
    assert not making.is_lesser(folder, tiny, "quick")
    assert making.is_lesser(folder, tiny, "quick", "strong"), "asked for in another way"
    monkeypatch.setitem(PRESETS, "standard", replace(TINY, held_out=2))
    assert making.is_lesser(folder, tiny, "standard")
    assert not making.is_lesser(folder.parent, tiny, "standard"), "an axis from elsewhere is left alone"
    monkeypatch.setitem(PRESETS, "quick", replace(TINY, role_rollouts=1))
    assert not making.is_lesser(folder, tiny, "quick", "strong"), "an axis from more replies is kept"


def test_roles_so_far_lie_on_the_axis_that_they_give():
    plan, state, made = make_plan("tiny", TINY), State(), random.Random(5)
    generator = torch.Generator().manual_seed(1)
    assert roles_so_far(state, plan, KEPT, 1) == ((), None)
    for rollout in plan.rollouts:
        if rollout.split == "extract":
            mean = torch.randn(3, 8, generator=generator) + (0.0 if rollout.is_role else 2.0)
            tokens = tuple(range(1 + made.randrange(3)))
            reply = extraction.Reply(rollout, "", tokens, mean, ())
            state.add(Judged(reply, 1.0 if rollout.is_role else None, True), plan.max_new_tokens)
    roles, halves = roles_so_far(state, plan, KEPT, 1)
    vectors = Vectors(state, plan)
    means = {role: vectors.vector(role)[1] for role in plan.roles}
    default = state.mean(*(f"default/{half}" for half in HALVES))[1]
    centre = torch.stack(list(means.values())).mean(0)
    direction = default - centre
    for role in roles:
        expected = float((means[role.name] - centre) @ direction / (direction @ direction))
        assert role.projection == pytest.approx(expected, abs=1e-5)
        assert role.rollouts == TINY.role_rollouts
    assert [role.projection for role in roles] == sorted(role.projection for role in roles)
    first, second = (
        state.mean(f"default/{half}")[1]
        - torch.stack([vectors.vector(role, (half,))[1] for role in plan.roles]).mean(0)
        for half in HALVES
    )
    assert halves == pytest.approx(float(first @ second / first.norm() / second.norm()), abs=1e-5)


def test_the_time_of_an_extraction_is_the_sum_of_its_parts():
    plan, settings = make_plan("tiny", TINY), extraction.Settings(batch=BATCH)
    rollouts = len(plan.rollouts)
    batches = len(extraction.batches_of(plan.rollouts, BATCH))
    layers = 10
    settings_tried = len(making.candidate_bands(layers)) + 4
    replies = 2 * TINY.sweep_questions * settings_tried
    talks = 2 * TINY.late_talks * TURNS
    prompts = Pace(1.0, 0.0, 0.0, 0.0).seconds(plan, settings, layers)
    # Each held-out reply, and here each reply that the axis is made from, is read again for the zones.
    again = sum(rollout.split != "control" for rollout in plan.rollouts)
    assert prompts == pytest.approx(rollouts + talks + replies + again)
    steps = Pace(0.0, 1.0, 0.0, 0.0).seconds(plan, settings, layers)
    assert steps == pytest.approx(TINY.max_new_tokens * (batches + TURNS + replies / BATCH))
    rows = Pace(0.0, 0.0, 1.0, 0.0).seconds(plan, settings, layers)
    assert rows == pytest.approx(TINY.max_new_tokens * (rollouts + talks + replies))
