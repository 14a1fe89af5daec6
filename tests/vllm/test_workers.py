"""Capping, reading and the self-test inside vLLM's workers, against plain references and without vLLM."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.capping import clamp
from demo.engine.protocol import Sampling
from demo.engine.vllm.options import VllmOptions, engine_arguments
from demo.engine.vllm.recorder import (
    Recorder,
    Segment,
    SequencePlan,
    SpanPlan,
    SpanTracker,
    decode,
    merge_records,
)
from demo.engine.vllm.self_test import run_self_test
from demo.engine.vllm.worker import find_trunk, layer_hook, residual, with_residual
from demo.utils.errors import UserError
from tests.helpers.vllm_like import BAND, HIDDEN, LAYERS, PROBE, FakeClient, Model, Worker, tiny_axis

SPECIAL = (7,)


def plan(name: str, prompt: int, floors: dict[int, float] | None = None, **more) -> SequencePlan:
    """A plan for a prompt of so many tokens, of which every third is a template token."""
    floors = floors or {}
    exempt = bytes(n % 3 == 0 for n in range(prompt))
    return SequencePlan(name, exempt, Sampling(), tuple(floors), tuple(floors.values()), **more)


def recorded(worker: Worker) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """What the worker has recorded, by request and position of the first token."""
    records, _ = worker.axis_drain()
    return {(request, start): decode(columns) for request, start, columns in records}


def stream_after(model: Model, ids: list[int], layer: int) -> torch.Tensor:
    """The residual stream [N, D] after a decoder layer of a model without the worker's hooks."""
    kept = []
    handle = model.layers[layer].register_forward_hook(lambda m, a, out: kept.append(out[0] + out[1]))
    model(torch.tensor(ids))
    handle.remove()
    return kept[0]


@given(st.integers(1, 5), st.integers(0, 2**16), st.booleans())
@settings(max_examples=60, deadline=None)
def test_with_residual_replaces_the_stream_and_nothing_else(tokens, seed, pair):
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, tokens + 2, HIDDEN, generator=generator)
    output = (first, second, "more") if pair else first
    before = residual(output)[:tokens]
    after = before.clone()
    after[0] += 1.5
    changed = with_residual(output, before, after)
    assert torch.equal(residual(changed)[:tokens], after)
    assert torch.equal(residual(changed)[tokens:], residual(output)[tokens:])
    if pair:
        # Unchanged tokens keep each summand, because the next norm adds them in its own precision.
        assert torch.equal(changed[0][1:], first[1:]) and torch.equal(changed[1][1:], second[1:])
        assert changed[2] == "more"


def test_batching_does_not_change_clamps_or_records():
    """Three requests share a forward pass, one of them decoding. Each has its own floors and numbers."""
    axis = tiny_axis()
    worker, plain = Worker(special=SPECIAL), Model()
    high = {layer: float(axis.floors["p75"][layer]) + 5 for layer in range(BAND[0], BAND[1] + 1)}
    batch = [(plan("a", 4), 0, [11, 12, 13, 14]), (plan("b", 5, {2: high[2]}), 0, [21, 22, 23, 24, 25])]
    batch.append((plan("c", 3, {2: high[2], 3: high[3]}), 3, [31]))
    worker.model_runner.run(batch, padding=2)
    records = recorded(worker)
    assert set(records) == {("a", 0), ("b", 0), ("c", 3)}
    assert set(records["a", 0]) == {"before"}, "prompt tokens need only one number"
    raw = stream_after(plain, [11, 12, 13, 14], PROBE) @ axis.unit[PROBE]
    np.testing.assert_allclose(records["a", 0]["before"], raw, atol=1e-5)
    hidden = stream_after(plain, [31], 2)
    clamped = clamp(hidden[:, None], axis.unit[2], torch.tensor([high[2]]))
    np.testing.assert_allclose(records["c", 3]["lift.2"], clamped.lift[:, 0], atol=1e-5)
    np.testing.assert_allclose(records["c", 3]["after"], [high[3]], rtol=1e-5)
    assert {"place.0", "place.1", "place.2", "lift.3"} <= set(records["c", 3])
    assert "lift.4" not in records["c", 3]


def test_template_tokens_are_exempt_in_prompts_and_replies():
    worker, floors = Worker(special=SPECIAL), {2: 1e3}
    prompt = plan("a", 3, floors, every_layer=True)
    worker.model_runner.run(
        [(prompt, 0, [1, 2, 3]), (plan("b", 2, floors), 2, [7]), (plan("c", 2, floors), 2, [8])]
    )
    records = recorded(worker)
    assert (records["a", 0]["lift.2"] > 0).tolist() == [False, True, True]
    assert records["b", 2]["lift.2"] == [0.0] and records["c", 2]["lift.2"] > 0


def test_a_preempted_request_has_the_same_exempt_tokens():
    """vLLM may drop a running request's cache and run its prompt and reply again, as one segment."""
    worker = Worker(special=SPECIAL)
    worker.model_runner.run([(plan("a", 3, {2: 1e3}), 0, [1, 2, 3, 7, 9])])
    assert (recorded(worker)["a", 0]["lift.2"] > 0).tolist() == [False, True, True, False, True]


def test_a_floor_below_all_projections_changes_no_bit():
    ids = [3, 1, 4, 1, 5]
    out = Worker().model_runner.run([(plan("a", 5, {2: -1e30, 3: -1e30}), 0, ids)])
    assert torch.equal(out, Model()(torch.tensor(ids)))


def test_a_request_without_a_plan_stops_the_forward_pass():
    foreign = SimpleNamespace(id="x", to_args=lambda: None, exempt=b"")
    with pytest.raises(RuntimeError, match="request x has no plan"):
        Worker().model_runner.run([(foreign, 0, [1, 2])])


def test_plans_travel_as_plain_values():
    sent = plan("a", 4, {2: -1.5, 3: 2.5}, steer=(3, 0.5), said=(1, 2), barred=(0,), every_layer=True)
    args = json.loads(json.dumps(sent.to_args(), default=lambda raw: list(raw)))
    args["persona_drift"]["exempt"] = bytes(args["persona_drift"]["exempt"])
    assert SequencePlan.from_args(args) == sent
    assert SequencePlan.from_args(None) is SequencePlan.from_args({"other": 1}) is None


def test_records_of_all_workers_are_merged():
    one = [("a", 0, {"lift.2": b"1111"})]
    other = [["a", 0, {"before": b"2222"}], ["b", 4, {"before": b"3333"}]]
    assert merge_records([one, other]) == [
        ("a", 0, {"lift.2": b"1111", "before": b"2222"}),
        ("b", 4, {"before": b"3333"}),
    ]


def test_a_model_with_another_number_of_layers_is_refused():
    with pytest.raises(RuntimeError, match="no list of 7 decoder layers"):
        find_trunk(Model(), LAYERS + 1)


# --- the self-test before any client is served


@pytest.fixture
def self_test(model):
    """Runs the self-test on some workers, by default on a correct one."""

    def run(*workers: Worker) -> None:
        facts = SimpleNamespace(tokenizer=model.tokenizer)
        asyncio.run(run_self_test(FakeClient(list(workers) or [Worker()], facts, tiny_axis())))

    return run


def test_self_test_passes_where_the_cap_acts(self_test):
    self_test()
    self_test(Worker(), Worker())


def test_self_test_detects_hooks_that_do_not_run(self_test):
    """A CUDA graph replay skips them."""
    with pytest.raises(UserError, match="are not recorded"):
        self_test(Worker(Model(unhooked=BAND[0])))


def test_self_test_detects_summands_with_another_meaning(self_test):
    """The sum of the two would be twice the stream, which points in almost the same direction."""
    with pytest.raises(UserError, match="not what the final norm gets"):
        self_test(Worker(Model(adds_itself=True)))


def test_self_test_detects_a_clamp_without_effect(self_test):
    class Ineffective(Recorder):
        def apply(self, layer, hidden):
            super().apply(layer, hidden)
            return hidden

    with pytest.raises(UserError, match="does not get the clamped residual stream"):
        self_test(Worker(recorder=Ineffective))


def test_self_test_detects_an_idle_cap_that_changes_the_stream(self_test):
    class Overeager(Recorder):
        def apply(self, layer, hidden):
            applied = super().apply(layer, hidden)
            return hidden if applied is hidden else applied + 1e-3

    with pytest.raises(UserError, match="has nothing to do changes the model"):
        self_test(Worker(recorder=Overeager))


def test_self_test_passes_when_the_band_begins_where_a_process_ends(self_test):
    """The next layer's input cannot be read there, so another layer is tested."""

    class BlindToTheBand(Recorder):
        def note(self, name, layer, hidden):
            if name != f"entry.{BAND[0]}":
                super().note(name, layer, hidden)

    self_test(Worker(recorder=BlindToTheBand))


def test_self_test_detects_a_clamp_that_acts_twice(self_test):
    worker = Worker()
    layer = worker.model_runner.model.layers[BAND[0]]
    layer.register_forward_hook(layer_hook(worker.axis_recorder, BAND[0]))
    with pytest.raises(UserError, match="adds something else"):
        self_test(worker)


def test_self_test_detects_a_clamp_on_template_tokens(self_test):
    class WithoutExemptions(Recorder):
        def exempt(self, segment):
            return [False] * len(segment.ids)

    with pytest.raises(UserError, match="acts on template tokens"):
        self_test(Worker(recorder=WithoutExemptions))


def test_self_test_detects_workers_with_different_streams(self_test):
    shard = Model()
    with torch.no_grad():
        shard.layers[1].mlp.weight.mul_(0.5)
    with pytest.raises(UserError, match="disagree"):
        self_test(Worker(), Worker(shard))


# --- options


def facts(device: str = "cuda") -> SimpleNamespace:
    return SimpleNamespace(
        folder="there",
        dtype_name="bfloat16",
        context=8192,
        device=device,
        tokenizer=SimpleNamespace(all_special_ids=[2, 1], added_tokens_decoder={}),
        stops=frozenset({2}),
        token_bytes=1000,
    )


def test_options_reach_vllm():
    chosen = VllmOptions(
        tensor_parallel=4,
        pipeline_parallel=2,
        memory_fraction=0.8,
        context=4096,
        quantization="fp8",
        rows=16,
        executor="ray",
        more={"cpu_offload_gb": 4},
    )
    arguments = engine_arguments(facts(), chosen)
    expected = {
        "tensor_parallel_size": 4,
        "pipeline_parallel_size": 2,
        "gpu_memory_utilization": 0.8,
        "max_model_len": 4096,
        "quantization": "fp8",
        "max_num_seqs": 16,
        "distributed_executor_backend": "ray",
        "cpu_offload_gb": 4,
        "dtype": "bfloat16",
        "enforce_eager": True,
        "enable_prefix_caching": True,
    }
    assert {name: arguments[name] for name in expected} == expected
    assert "kv_cache_memory_bytes" not in arguments


def test_kv_budget_bounds_the_context_window_on_a_cpu():
    assert engine_arguments(facts("cpu"), VllmOptions(kv_bytes=10**7))["kv_cache_memory_bytes"] == 10**7
    with pytest.raises(UserError, match="--max-model-len to at most 1000"):
        engine_arguments(facts("cpu"), VllmOptions(kv_bytes=10**6))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"tensor_parallel": 0}, "at least 1"),
        ({"memory_fraction": 1.5}, "between 0 and 1"),
        ({"context": 3}, "at least 16"),
        ({"more": {"enforce_eager": False}}, "cannot set enforce_eager"),
    ],
)
def test_invalid_options_are_refused(wrong, sentence):
    with pytest.raises(UserError, match=sentence):
        VllmOptions(**wrong)


# --- the part of a reply on which the cap acts


@pytest.mark.parametrize("on_reasoning", [True, False])
def test_the_cap_leaves_the_other_part_of_a_reply_alone(on_reasoning):
    opening, closing, word = 101, 102, 7
    tracker = SpanTracker(SpanPlan([opening], [closing], False, on_reasoning))
    ids = [opening, word, word, closing, word]
    flags = [tracker.flag(number, token) for number, token in enumerate(ids)]
    assert flags == [True, not on_reasoning, not on_reasoning, True, on_reasoning]
    # A request that was interrupted runs its tokens again.
    assert [tracker.flag(number, token) for number, token in enumerate(ids)] == flags


def test_a_plan_with_spans_survives_the_way_to_the_workers():
    plan = SequencePlan("x", b"\x01\x00", Sampling(), spans=SpanPlan([1, 2], [3], True, False))
    assert SequencePlan.from_args(plan.to_args()) == plan


def test_a_recorder_exempts_the_reasoning():
    recorder = Recorder(tiny_axis(), frozenset({101, 102}), torch.device("cpu"))
    plan = SequencePlan("x", b"\x01\x00", Sampling(), spans=SpanPlan([101], [102], True, False))
    assert recorder.exempt(Segment(plan, 0, [5, 6, 7])) == [True, False, True]
    assert recorder.exempt(Segment(plan, 3, [102])) == [True]
    assert recorder.exempt(Segment(plan, 4, [8])) == [False]
