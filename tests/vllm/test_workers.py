"""What runs inside vLLM's workers, against plain references and without vLLM: the flat batch, the two summands, the check of the cap."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import demo.engine.vllm.worker as worker_module
from demo.capping import clamp
from demo.engine.protocol import Sampling
from demo.engine.vllm.options import VllmOptions, engine_arguments
from demo.engine.vllm.recorder import Recorder, SequencePlan, merged
from demo.engine.vllm.request import decode
from demo.engine.vllm.self_test import run_self_test
from demo.engine.vllm.worker import find_trunk, residual, with_residual
from demo.utils.errors import UserError
from tests.helpers.vllm_like import BAND, HIDDEN, LAYERS, PROBE, FakeCore, Model, Worker, tiny_axis

SPECIAL = (7,)


@pytest.fixture(autouse=True)
def one_stage(monkeypatch):
    monkeypatch.setattr("demo.engine.vllm.worker._make_room_between_stages", lambda runner: None)


def plan(name: str, prompt: int, floors: dict[int, float] | None = None, **more) -> SequencePlan:
    floors = floors or {}
    exempt = bytes(n % 3 == 0 for n in range(prompt))
    return SequencePlan(name, exempt, Sampling(), tuple(floors), tuple(floors.values()), **more)


def explain_failure(worker: Worker) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    records, _ = worker.axis_drain()
    return {(id_, start): decode(columns) for id_, start, columns in records}


def stream_after(model: Model, ids: list[int], layer: int) -> torch.Tensor:
    """The residual stream [N, D] after a decoder layer, with no hook of ours."""
    kept = []
    handle = model.layers[layer].register_forward_hook(lambda m, a, out: kept.append(out[0] + out[1]))
    model(torch.tensor(ids))
    handle.remove()
    return kept[0]


@given(st.integers(1, 5), st.integers(0, 2**16), st.booleans())
@settings(max_examples=60, deadline=None)
def test_replacing_the_stream_replaces_it_and_nothing_else(tokens, seed, pair):
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
        # Untouched tokens keep each summand: the next norm adds them in its own precision.
        assert torch.equal(changed[0][1:], first[1:]) and torch.equal(changed[1][1:], second[1:])
        assert changed[2] == "more"


def test_every_request_gets_its_own_floors_and_numbers():
    """Three requests in one pass, one of them decoding: each is clamped as if alone, and explain_failure what the clamp did."""
    axis = tiny_axis()
    worker, plain = Worker(Model(), axis, SPECIAL), Model()
    high = {layer: float(axis.floors["p75"][layer]) + 5 for layer in range(BAND[0], BAND[1] + 1)}
    rows = [(plan("a", 4), 0, [11, 12, 13, 14]), (plan("b", 5, {2: high[2]}), 0, [21, 22, 23, 24, 25])]
    rows.append((plan("c", 3, {2: high[2], 3: high[3]}), 3, [31]))
    worker.model_runner.run(rows, padding=2)
    seen = explain_failure(worker)
    assert set(seen) == {("a", 0), ("b", 0), ("c", 3)}
    assert set(seen["a", 0]) == {"before"}, "of prompt tokens one number is needed"
    raw = stream_after(plain, [11, 12, 13, 14], PROBE) @ axis.unit[PROBE]
    np.testing.assert_allclose(seen["a", 0]["before"], raw, atol=1e-5)
    hidden = stream_after(plain, [31], 2)
    clamped = clamp(hidden[:, None], axis.unit[2], torch.tensor([high[2]]))
    np.testing.assert_allclose(seen["c", 3]["lift.2"], clamped.lift[:, 0], atol=1e-5)
    np.testing.assert_allclose(seen["c", 3]["after"], [high[3]], rtol=1e-5)
    assert {"place.0", "place.1", "place.2", "lift.3"} <= set(seen["c", 3]) and "lift.4" not in seen["c", 3]


def test_template_tokens_are_exempt_in_prompts_and_replies():
    axis = tiny_axis()
    worker = Worker(Model(), axis, SPECIAL)
    floors = {2: 1e3}
    prompt = plan("a", 3, floors, every_layer=True)
    worker.model_runner.run(
        [(prompt, 0, [1, 2, 3]), (plan("b", 2, floors), 2, [7]), (plan("c", 2, floors), 2, [8])]
    )
    seen = explain_failure(worker)
    assert (seen["a", 0]["lift.2"] > 0).tolist() == [False, True, True]
    assert seen["b", 2]["lift.2"] == [0.0] and seen["c", 2]["lift.2"] > 0


def test_a_request_that_is_run_again_after_it_was_put_off_is_exempt_alike():
    """vLLM may drop a running request's cache and read prompt and reply anew: by position, not by pass."""
    axis = tiny_axis()
    worker, floors = Worker(Model(), axis, SPECIAL), {2: 1e3}
    worker.model_runner.run([(plan("a", 3, floors), 0, [1, 2, 3, 7, 9])])
    assert (explain_failure(worker)["a", 0]["lift.2"] > 0).tolist() == [False, True, True, False, True]


def test_a_floor_out_of_reach_leaves_the_model_bit_for_bit():
    axis, ids = tiny_axis(), [3, 1, 4, 1, 5]
    worker = Worker(Model(), axis)
    out = worker.model_runner.run([(plan("a", 5, {2: -1e30, 3: -1e30}), 0, ids)])
    assert torch.equal(out, Model()(torch.tensor(ids)))


def test_a_request_of_unknown_origin_stops_the_pass():
    worker = Worker(Model(), tiny_axis())
    foreign = SimpleNamespace(id="x", to_args=lambda: None, exempt=b"")
    with pytest.raises(RuntimeError, match="does not say what is to be done"):
        worker.model_runner.run([(foreign, 0, [1, 2])])


def test_plans_travel_as_plain_values():
    sent = plan("a", 4, {2: -1.5, 3: 2.5}, steer=(3, 0.5), said=(1, 2), barred=(0,), every_layer=True)
    args = json.loads(json.dumps(sent.to_args(), default=lambda raw: list(raw)))
    args["persona_drift"]["exempt"] = bytes(args["persona_drift"]["exempt"])
    assert SequencePlan.from_args(args) == sent
    assert SequencePlan.from_args(None) is SequencePlan.from_args({"other": 1}) is None


def test_ranks_with_a_part_each_are_put_together():
    one = [("a", 0, {"lift.2": b"1111"})]
    other = [["a", 0, {"before": b"2222"}], ["b", 4, {"before": b"3333"}]]
    assert merged([one, other]) == [
        ("a", 0, {"lift.2": b"1111", "before": b"2222"}),
        ("b", 4, {"before": b"3333"}),
    ]


def test_a_model_without_that_many_layers_is_refused():
    with pytest.raises(RuntimeError, match="no list of 7 decoder layers"):
        find_trunk(Model(), LAYERS + 1)


# --- the check before anybody is served


def core(model, *workers: Worker) -> FakeCore:
    facts = SimpleNamespace(tokenizer=model.tokenizer)
    return FakeCore(list(workers) or [Worker(Model(), tiny_axis())], facts, tiny_axis())


def refusal(core: FakeCore) -> str:
    with pytest.raises(UserError) as error:
        asyncio.run(run_self_test(core))
    return str(error.value)


def test_the_check_passes_where_the_cap_acts(model):
    asyncio.run(run_self_test(core(model)))
    asyncio.run(run_self_test(core(model, Worker(Model(), tiny_axis()), Worker(Model(), tiny_axis()))))


def test_hooks_that_are_skipped_are_found(model):
    """As a graph replay skips them."""
    worker = Worker(Model(), tiny_axis())
    worker.model_runner.model.layers[BAND[0]]._forward_hooks.clear()
    assert "are not explain_failure about" in refusal(core(model, worker))


def test_summands_that_mean_something_else_are_found(model):
    """Some layers give the whole stream and a part of it again: adding them doubles it, in almost the same direction."""
    assert "not what the final norm gets" in refusal(
        core(model, Worker(Model(adds_itself=True), tiny_axis()))
    )


def test_a_clamp_that_reaches_nobody_is_found(model, monkeypatch):
    monkeypatch.setattr(worker_module, "with_residual", lambda output, before, after: output)
    assert "does not get the clamped residual stream" in refusal(core(model))


def test_a_cap_that_moves_what_it_should_leave_alone_is_found(model, monkeypatch):
    monkeypatch.setattr(
        worker_module,
        "with_residual",
        lambda output, before, after: with_residual(output, before, after + 1e-3),
    )
    assert "has nothing to do changes the model" in refusal(core(model))


def test_the_band_may_begin_where_a_process_ends(model, monkeypatch):
    """What the next layer is given cannot be seen there, so another layer is looked at."""
    worker = Worker(Model(), tiny_axis())
    noted = Recorder.note

    def note(self, name, layer, hidden):
        if name != f"entry.{BAND[0]}":
            noted(self, name, layer, hidden)

    monkeypatch.setattr(Recorder, "note", note)
    asyncio.run(run_self_test(core(model, worker)))


def test_a_clamp_that_acts_twice_is_found(model):
    worker = Worker(Model(), tiny_axis())
    layer = worker.model_runner.model.layers[BAND[0]]
    layer.register_forward_hook(worker_module._layer_hook(worker.axis_recorder, BAND[0]))
    assert "adds something else" in refusal(core(model, worker))


def test_a_clamp_on_template_tokens_is_found(model, monkeypatch):
    monkeypatch.setattr(Recorder, "_exempt", lambda self, segment: [False] * len(segment.ids))
    assert "acts on template tokens" in refusal(core(model))


def test_processes_that_see_different_streams_are_found(model):
    shard = Model()
    with torch.no_grad():
        shard.layers[1].mlp.weight.mul_(0.5)
    assert "disagree" in refusal(core(model, Worker(Model(), tiny_axis()), Worker(shard, tiny_axis())))


# --- options


def facts(device: str = "cuda") -> SimpleNamespace:
    tokenizer = SimpleNamespace(all_special_ids=[2, 1])
    return SimpleNamespace(
        folder="there",
        dtype=torch.bfloat16,
        context=8192,
        device=device,
        tokenizer=tokenizer,
        token_bytes=1000,
    )


def test_options_reach_vllm():
    chosen = VllmOptions(
        tensor_parallel=4, pipeline_parallel=2, memory_fraction=0.8, context=4096, quantization="fp8", rows=16,
        executor="ray", more={"cpu_offload_gb": 4},
    )  # fmt: skip
    arguments = engine_arguments(facts(), chosen)
    expected = {
        "tensor_parallel_size": 4, "pipeline_parallel_size": 2, "gpu_memory_utilization": 0.8, "max_model_len": 4096,
        "quantization": "fp8", "max_num_seqs": 16, "distributed_executor_backend": "ray", "cpu_offload_gb": 4,
        "dtype": "bfloat16", "enforce_eager": True, "enable_prefix_caching": True,
    }  # fmt: skip
    assert {name: arguments[name] for name in expected} == expected
    assert "kv_cache_memory_bytes" not in arguments
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
def test_options_that_make_no_sense_are_refused(wrong, sentence):
    with pytest.raises(UserError, match=sentence):
        VllmOptions(**wrong)
