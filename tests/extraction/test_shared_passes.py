"""What the extraction computes together equals what it computes one by one."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from demo.engine.forward.fused_cpu import FusedForward
from demo.extraction import reading
from demo.extraction.plan import PRESETS, Plan, make_plan
from demo.extraction.reading import Reader
from demo.extraction.rollouts import Text, read_means, read_texts
from demo.extraction.run import Settings, batches_of, suitable_batch
from demo.extraction.sweep import Sweep, Trial
from demo.models.loading import LoadedModel
from tests.helpers.axes import random_axis
from tests.helpers.tiny_models import tiny_llama

BANDS = [(0, 0), (0, 1), (1, 2)]


@pytest.fixture(scope="module")
def tiny(model: LoadedModel) -> LoadedModel:
    return tiny_llama(model, context=512, seed=1)


@pytest.fixture(scope="module")
def plan() -> Plan:
    preset = replace(PRESETS["quick"], roles=6, questions=4, max_new_tokens=5, sweep_questions=3)
    return make_plan("tiny", preset)


def sweep_of(tiny: LoadedModel, plan: Plan, path: Path, batch: int, cap: dict | None = None) -> Sweep:
    axis = random_axis(len(tiny.layers), tiny.hidden_size, 1, (1, 2))
    for floor, value in (("p05", 0.02), ("p25", 0.2), ("p50", 0.5), ("p75", 4.0)):
        axis.floors[floor] = torch.full((axis.layers,), value)
    axis.manifest["roles"] = [{"name": name, "counts": True} for name in plan.roles]
    axis.manifest["cap"] = cap or axis.manifest["cap"]
    return Sweep(tiny, axis, plan, path, seed=0, batch=batch)


@pytest.mark.parametrize("tokens", [512, 9])
def test_replies_read_together_equal_those_read_by_the_models_own_modules(tiny, monkeypatch, tokens):
    """Shared prompts, equal texts, prompts that begin alike, and a prompt of one token."""
    monkeypatch.setattr(reading, "_TOKENS", tokens)
    monkeypatch.setattr(reading, "_MOST_LOGITS", 3 * len(tiny.tokenizer))
    prompt = list(range(5, 30))
    texts = [
        Text(prompt, [40, 41, 42]),
        Text([7], [50]),
        Text(prompt, [60, 61, 62, 63, 64, 65, 66]),
        Text(prompt[:12], [70, 71]),
        Text(prompt, [40, 41, 42]),
    ]
    reader = Reader(tiny)
    assert isinstance(reader._forward, FusedForward)
    for layer in (1, None):
        for one, other in zip(reader.read(texts, layer), read_texts(tiny, texts, layer), strict=True):
            torch.testing.assert_close(one.log_p, other.log_p, rtol=1e-4, atol=1e-4)
            assert (one.mean is None) == (other.mean is None) == (layer is None)
            if one.mean is not None and other.mean is not None:
                torch.testing.assert_close(one.mean, other.mean, rtol=1e-4, atol=1e-4)
    means = reader.means(texts, (2, 1))
    torch.testing.assert_close(means, read_means(tiny, texts, (2, 1)), rtol=1e-4, atol=1e-4)
    alone = [read.mean for read in read_texts(tiny, texts, 1) if read.mean is not None]
    torch.testing.assert_close(means[:, 1], torch.stack(alone), rtol=1e-4, atol=1e-4)
    for states, read in zip(reader.states(texts, 2), read_texts(tiny, texts, 2), strict=True):
        torch.testing.assert_close(states, read.states, rtol=1e-4, atol=1e-4)
    assert reader.means([], (2, 1)).shape == (0, 2, tiny.hidden_size)


@pytest.mark.parametrize("most", [reading._MOST_KEPT, 0])
def test_prompts_that_come_again_are_run_once_and_change_no_bit(tiny, monkeypatch, most):
    prompts = [list(range(5, 30)), list(range(5, 17)), [7]]
    texts = [Text(prompt, [40 + n, 41, 42]) for n, prompt in enumerate(prompts)]
    reader, other = Reader(tiny, recurring=True), Reader(tiny, recurring=True)
    monkeypatch.setattr(reading, "_MOST_KEPT", most)  # 0: what is kept is dropped before every pass
    other.read(texts[:1])
    first = reader.read(texts)
    for one, usual in zip(first, read_texts(tiny, texts), strict=True):
        torch.testing.assert_close(one.log_p, usual.log_p, rtol=1e-4, atol=1e-4)
    for again in (reader, other):
        ran = _prompt_tokens_run(again, monkeypatch)
        read = again.read(texts)
        assert all(torch.equal(one.log_p, known.log_p) for one, known in zip(read, first, strict=True))
        # Without the last token of each prompt, which belongs to the pass of the reply.
        new = 24 + 11 if not most else 0 if again is reader else 11
        assert sum(ran) == new


def test_prompts_of_a_model_with_a_large_cache_are_not_kept(tiny, monkeypatch):
    assert Reader(tiny, recurring=True)._kept == {}
    monkeypatch.setattr(reading, "_MOST_KEPT", reading._KEPT_TOKENS * tiny.token_bytes - 1)
    assert Reader(tiny, recurring=True)._kept is None


def _prompt_tokens_run(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of prompt tokens of every later pass of this reader that reads prompts alone."""
    forward, found = reader._forward, list[int]()
    assert forward is not None
    run = forward.run

    def counted(chunks, cache):
        found.extend(len(chunk.ids) for chunk in chunks if chunk.recorder is None)
        return run(chunks, cache)

    monkeypatch.setattr(forward, "run", counted)
    return found


def close(one: Trial, other: Trial) -> bool:
    """Whether two trials have the same results, apart from rounding."""
    names = [name for name in Trial.__dataclass_fields__ if name not in ("layers", "floor")]
    same = (one.layers, one.floor) == (other.layers, other.floor)
    return same and all(
        getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-3, abs=1e-4) for name in names
    )


def test_settings_tried_together_have_the_results_of_settings_tried_alone(tiny, plan, tmp_path):
    alone = sweep_of(tiny, plan, tmp_path / "alone.json", 1).run(BANDS)
    together = sweep_of(tiny, plan, tmp_path / "together.json", 18).run(BANDS)
    assert len(alone) == 1 + len(BANDS) + 3
    assert all(close(one, other) for one, other in zip(alone, together, strict=True))
    assert len({(t.standing, t.acted_role) for t in alone}) >= 4, "the settings do not differ"


def test_the_axis_own_cap_is_tried_with_its_condition(tiny, plan, tmp_path):
    for below, acts in ((-1e6, False), (1e6, True)):
        cap = {"layers": [1, 2], "floor": "p75", "only_below": below}
        none, own = sweep_of(tiny, plan, tmp_path / f"{acts}.json", 12, cap).try_own()
        assert none.layers is None and own.layers == (1, 2)
        assert (own.acted_plain > 0) == (own.acted_role > 0) == acts
        if not acts:
            assert own.verbatim == own.fluency(none) == 1


def test_an_interrupted_sweep_resumes_with_the_same_bytes(tiny, plan, tmp_path, monkeypatch):
    sweep_of(tiny, plan, tmp_path / "whole.json", 18).run(BANDS)
    resumed = sweep_of(tiny, plan, tmp_path / "resumed.json", 18)
    measure, calls = resumed._measure_all, iter(range(1))

    def interrupted(settings):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return measure(settings)

    monkeypatch.setattr(resumed, "_measure_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        resumed.run(BANDS)
    assert (tmp_path / "resumed.json").stat().st_size > 0
    sweep_of(tiny, plan, tmp_path / "resumed.json", 18).run(BANDS)
    assert (tmp_path / "whole.json").read_bytes() == (tmp_path / "resumed.json").read_bytes()


def test_a_roles_rollouts_run_together_so_that_its_prompt_is_read_once():
    plan = make_plan("tiny", PRESETS["quick"])
    groups = [rollout.group for rollout in plan.rollouts if rollout.split == "extract" and rollout.is_role]
    changes = sum(one != other for one, other in itertools.pairwise(groups))
    assert changes == len(plan.roles) - 1


def test_batches_hold_every_rollout_once_and_do_not_mix_extraction_with_the_rest(plan):
    batches = batches_of(plan.rollouts, 40)
    assert [rollout for batch in batches for rollout in batch] == list(plan.rollouts)
    assert all(len(batch) <= 40 for batch in batches)
    assert all(len({rollout.split == "extract" for rollout in batch}) == 1 for batch in batches)


def test_fewer_rollouts_run_together_where_their_kv_cache_would_be_large(tiny):
    assert suitable_batch(tiny, 32) == 128 > suitable_batch(tiny, 10**6) == Settings.batch
