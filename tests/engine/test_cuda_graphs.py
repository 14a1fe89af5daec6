"""The decode step that is captured as a CUDA graph.

Without a GPU the same step runs operation by operation, with kernels written in torch, and is compared with
transformers' modules. With a GPU the graphs and the Triton kernels are tried too. The models are small and
random.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.axis.components import probe_components
from demo.bench import cuda_graphs as bench
from demo.bench.architectures import as_loaded, axis_of, plain_reply
from demo.bench.tiny_configs import tiny_model
from demo.capping import clamp, steer
from demo.conversation.conversation import Conversation
from demo.conversation.settings import BRANCHES, CAPPED, TurnSettings
from demo.engine.forward import cuda_graphs, selection
from demo.engine.forward.cuda_graphs import BUCKETS, GraphForward, bucket_of, can_be_captured
from demo.engine.forward.forward_pass import Beside, Chunk, ForwardPass, Probe
from demo.engine.forward.modules import ModuleForward
from demo.engine.forward.self_test import fault_of, reference_of
from demo.engine.kv_cache import KVCache
from demo.engine.protocol import Cap, Sampling, Steer, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.models.chat_template import Message, render_chat
from demo.models.loading import LoadedModel
from demo.utils.paths import ROOT
from tests.helpers.axes import with_components

FAMILY = ("llama", "qwen2", "qwen3")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
on_each = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=gpu)])


class TorchKernels:
    """`decode_step.Kernels` in torch, with the functions of `demo.capping`."""

    cache: KVCache

    def residual(self, x, delta, norm, out, tap):
        x = x if delta is None else x + delta
        if tap is not None:
            clamped = clamp(steer(x[:, None], tap.unit, tap.pushes), tap.unit, tap.floors)
            tap.projections.copy_(clamped.projection[:, 0])
            tap.lifts.copy_(clamped.lift[:, 0])
            x = clamped.hidden[:, 0]
        x = x if out is None else out.copy_(x)
        return x, norm(x)

    def attend(self, decoder, block, layer, states, cos, sin, at):
        cache, size, rows = self.cache.layers[layer], decoder.head_size, len(states)
        assert at.table[layer] == cache.keys.data_ptr()
        assert tuple(at.table[-2:].tolist()) == cache.values.stride()[:2]
        heads = [decoder.heads, decoder.kv_heads, decoder.kv_heads]
        query, key, value = states.view(rows, -1, size).split(heads, dim=1)
        if block.query_norm is not None:
            query, key = block.query_norm(query), block.key_norm(key)
        query, key = (x * cos[:, None] + half_turned(x) * sin[:, None] for x in (query, key))
        out = torch.zeros_like(query)
        for row, (slot, position) in enumerate(zip(at.slots.tolist(), at.positions.tolist(), strict=True)):
            if slot < 0:
                continue
            cache.keys[slot, :, position], cache.values[slot, :, position] = key[row], value[row]
            seen = (buffer[slot, None, :, : position + 1] for buffer in (cache.keys, cache.values))
            out[row] = torch.nn.functional.scaled_dot_product_attention(
                query[row, None, :, None], *seen, enable_gqa=True
            )[0, :, 0]
        return out.flatten(1)


def half_turned(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


def small(name: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> LoadedModel:
    model = as_loaded(tiny_model(name), name)
    model.model.to(device=device, dtype=dtype)
    return replace(model, device=torch.device(device), dtype=dtype)


def axis_for(model: LoadedModel) -> AssistantAxis:
    return with_components(axis_of(small(model.spec)))


def passes(model: LoadedModel, axis: AssistantAxis, **options: Any) -> tuple[ModuleForward, GraphForward]:
    """transformers' modules and the step: graphs on a GPU, torch's operations elsewhere."""
    components = probe_components(axis, model.device)
    assert components is not None
    probe = Probe(model, axis, Beside(axis.probe_layer, components))
    if model.device.type == "cpu":
        options = {"kernels": TorchKernels(), "capture": False}
    return ModuleForward(model, probe), GraphForward(model, probe, **options)


def new_cache(forward: ForwardPass, slots: int, columns: int) -> KVCache:
    cache = forward.new_cache()
    assert isinstance(cache, KVCache)
    cache.reserve(slots, columns)
    if isinstance(forward, GraphForward) and isinstance(forward._kernels, TorchKernels):
        forward._kernels.cache = cache
    return cache


def ids_of(count: int, seed: int) -> list[int]:
    return torch.randint(4, 250, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def floor_of(axis: AssistantAxis, layers: tuple[int, ...], name: str = "p50") -> Cap:
    return Cap(layers, tuple(float(axis.floor(name)[layer]) for layer in layers))


def play(forward: ForwardPass, caps: list[Cap | None], steers: list[Steer | None]):
    """Two turns of five sequences of different lengths, one of which joins late and one of which leaves.

    Between the turns the cache grows, so that it lies elsewhere.

    Returns:
        The logits of each pass, and the readings of all chunks.
    """
    cache = new_cache(forward, 5, 96)
    lengths, logits, readings = [0] * 5, [], []

    def run(tokens: dict[int, list[int]], prompt: bool, exempt: int = -1) -> None:
        chunks = [
            Chunk(s, lengths[s], ids, [s == exempt] * len(ids), caps[s], steers[s], prompt=prompt)
            for s, ids in tokens.items()
        ]
        of_pass, of_chunks = forward.run(chunks, cache)
        logits.append(of_pass.float().cpu())
        readings.extend(of_chunks)
        for s, ids in tokens.items():
            lengths[s] += len(ids)

    for turn in range(2):
        cache.reserve(5, 96 + 64 * turn)
        run({s: ids_of(3 + 17 * s, 10 * turn + s) for s in range(5)}, prompt=True)
        for step, decoding in enumerate(((0, 1, 2, 3), (4, 2, 0), (2,), (0, 1, 2, 3, 4))):
            run({s: ids_of(1, 100 * turn + 10 * step + s) for s in decoding}, False, exempt=3 - step)
    return logits, readings


def interventions(axis: AssistantAxis) -> tuple[list[Cap | None], list[Steer | None]]:
    caps = [None, floor_of(axis, (0, 1, 2)), floor_of(axis, (1,)), None, floor_of(axis, (2,))]
    return caps, [None, None, None, Steer(1, 2.0), Steer(0, -1.5)]


@on_each
@pytest.mark.parametrize("name", FAMILY)
def test_the_step_computes_what_the_modules_compute(name, device):
    model = small(name, device)
    axis = axis_for(model)
    plain, step = (play(forward, *interventions(axis)) for forward in passes(model, axis))
    for one, other in zip(step[0], plain[0], strict=True):
        assert float((one - other).abs().max() / other.abs().max()) < 1e-5
    acted = 0.0
    for got, wanted in zip(step[1], plain[1], strict=True):
        assert got.before == pytest.approx(wanted.before, abs=1e-4)
        assert got.after == pytest.approx(wanted.after, abs=1e-4)
        assert got.coordinates == pytest.approx(wanted.coordinates, abs=1e-4)
        assert got.corrections == pytest.approx(wanted.corrections, abs=1e-4)
        acted += sum(got.corrections.values())
    assert acted > 0, "the cap never acted, so this proves nothing"


@on_each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_inactive_cap_leaves_logits_bit_identical(dtype, device):
    model = small("llama", device, dtype)
    axis = axis_for(model)
    never = Cap((0, 1, 2), (-1e9,) * 3)
    _, forward = passes(model, axis)
    plain, capped = (play(forward, [cap] * 5, [None] * 5)[0] for cap in (None, never))
    assert all(torch.equal(one, other) for one, other in zip(plain, capped, strict=True))


@on_each
def test_another_sequences_cap_leaves_logits_bit_identical(device):
    model = small("llama", device)
    axis = axis_for(model)
    _, forward = passes(model, axis)
    without = play(forward, [None] * 5, [None] * 5)[0]
    beside = play(forward, [None, *[floor_of(axis, (0, 1, 2))] * 4], [None] * 5)[0]
    both = zip(without, beside, (0, 0, 2, None, 0) * 2, strict=True)
    assert all(torch.equal(one[row], other[row]) for one, other, row in both if row is not None)


@on_each
def test_a_recorder_receives_the_residual_stream_of_every_layer(device):
    class Recorder:
        def __init__(self) -> None:
            self.seen: dict[int, tuple[list[int], Tensor, Tensor | None]] = {}

        def record(self, layer, hidden, lift, rows):
            self.seen[layer] = rows.tolist(), hidden.cpu(), None if lift is None else lift.cpu()

    model = small("llama", device)
    axis = axis_for(model)
    found = []
    for forward in passes(model, axis):
        cache, recorder, cap = new_cache(forward, 3, 64), Recorder(), floor_of(axis, (1,), "p50")
        for slot in range(3):
            forward.run([Chunk(slot, 0, ids_of(9, slot), [False] * 9, cap)], cache)
        chunks = [
            Chunk(s, 9, ids_of(1, 9 + s), [False], cap, prompt=False, recorder=recorder, rows=[row])
            for s, row in enumerate((7, -1, 4))
        ]
        forward.run(chunks, cache)
        found.append(recorder.seen)
    assert sorted(found[1]) == list(range(len(model.layers)))
    for layer, (rows, hidden, lift) in found[0].items():
        other_rows, other_hidden, other_lift = found[1][layer]
        assert rows == other_rows == [7, 4]
        torch.testing.assert_close(other_hidden, hidden, rtol=0, atol=1e-4)
        assert (lift is None) == (other_lift is None) == (layer != 1)
        if lift is not None:
            torch.testing.assert_close(other_lift, lift, rtol=0, atol=1e-4)


@on_each
def test_more_sequences_than_the_largest_size_run_in_parts(device, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "BUCKETS", (1, 2, 4))
    model = small("llama", device)
    axis = axis_for(model)
    results = []
    for forward in passes(model, axis):
        cache = new_cache(forward, 11, 64)
        for slot in range(11):
            forward.run([Chunk(slot, 0, ids_of(5 + slot, slot), [False] * (5 + slot))], cache)
        step = [Chunk(s, 5 + s, ids_of(1, 50 + s), [False], prompt=False) for s in reversed(range(11))]
        results.append(forward.run(step, cache)[0].cpu())
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-4)


@on_each
def test_long_and_short_texts_are_attended_to_side_by_side(device):
    """Several programs of the attention share a long text."""
    model = small("llama", device)
    results, lengths = [], (1500, 1, 64, 65, 700)
    for forward in passes(model, axis_for(model)):
        cache = new_cache(forward, len(lengths), 1600)
        for slot, length in enumerate(lengths):
            forward.run([Chunk(slot, 0, ids_of(length, slot), [False] * length)], cache)
        found = [
            forward.run(
                [
                    Chunk(s, n + step, ids_of(1, 9 * step + s), [False], prompt=False)
                    for s, n in enumerate(lengths)
                ],
                cache,
            )[0]
            for step in range(3)
        ]
        results.append(torch.stack(found).cpu())
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-4)


@on_each
def test_a_cap_that_changes_between_two_tokens_takes_effect_at_once(device):
    model = small("llama", device)
    axis = axis_for(model)
    read = []
    for forward in passes(model, axis):
        cache = new_cache(forward, 1, 64)
        forward.run([Chunk(0, 0, ids_of(9, 0), [False] * 9)], cache)
        caps = (None, floor_of(axis, (0,)), floor_of(axis, (2,)), Cap((2,), (1e3,)), None)
        read.append(
            [
                forward.run([Chunk(0, 9 + n, ids_of(1, n), [False], cap, prompt=False)], cache)[1][
                    0
                ].corrections
                for n, cap in enumerate(caps)
            ]
        )
    for plain, step in zip(*read, strict=True):
        assert step == pytest.approx(plain, abs=1e-4)
    assert read[0][3][2] > 1, "the cap never acted, so this proves nothing"


@on_each
def test_logits_that_are_not_wanted_are_left_out(device):
    model = small("llama", device)
    forward = passes(model, axis_for(model))[1]
    cache = new_cache(forward, 3, 64)
    for slot in range(3):
        forward.run([Chunk(slot, 0, ids_of(9, slot), [False] * 9)], cache)
    step = [Chunk(s, 9, ids_of(1, 20 + s), [False], prompt=False) for s in range(3)]
    every = forward.run(step, cache)[0]
    step[1].last = False
    assert torch.equal(forward.run(step, cache)[0], every[[0, 2]])


@on_each
def test_prompts_and_sampled_tokens_share_a_pass(device):
    model = small("llama", device)
    results = []
    for forward in passes(model, axis_for(model)):
        cache = new_cache(forward, 3, 64)
        forward.run([Chunk(1, 0, ids_of(9, 1), [False] * 9)], cache)
        chunks = [
            Chunk(0, 0, ids_of(4, 2), [False] * 4, last=False),
            Chunk(1, 9, ids_of(1, 3), [False], prompt=False),
            Chunk(2, 0, ids_of(6, 4), [False] * 6),
        ]
        results.append((forward.run(chunks, cache)[0].cpu(), forward.run(chunks, cache)[1]))
    (plain, wanted), (step, got) = results
    torch.testing.assert_close(step, plain, rtol=0, atol=1e-4)
    assert [len(one.before) for one in got] == [len(one.before) for one in wanted] == [4, 1, 6]


def test_a_batch_is_filled_up_to_the_next_size():
    assert [bucket_of(count) for count in (1, 2, 3, 5, 64, 65, 128)] == [1, 2, 4, 8, 64, 128, 128]
    assert list(BUCKETS) == sorted(BUCKETS)


def test_only_models_that_do_the_same_at_every_step_are_captured():
    llama = small("llama")
    assert can_be_captured(llama)
    assert not can_be_captured(small("gemma2"))
    llama.model.model.rotary_emb.rope_type = "dynamic"
    assert not can_be_captured(llama)


def test_a_matrix_that_is_not_plain_is_not_captured():
    class Quantised(torch.nn.Linear):
        pass

    model = small("llama")
    attention = model.layers[1].self_attn
    attention.o_proj = Quantised(attention.o_proj.in_features, attention.o_proj.out_features, bias=False)
    assert not can_be_captured(model)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_measurement_says_in_one_sentence_that_it_needs_a_gpu(capsys):
    assert bench.main([]) == 2
    assert capsys.readouterr().err.count(".") == 1


def test_the_document_is_made_from_its_figures(tmp_path):
    bench.write_report(tmp_path, json.loads((ROOT / "docs" / "cuda-graphs.json").read_text(encoding="utf-8")))
    for name in ("cuda-graphs.md", "cuda-graphs.json"):
        assert (tmp_path / name).read_text(encoding="utf-8") == (ROOT / "docs" / name).read_text(
            encoding="utf-8"
        )


@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FAMILY)
def test_graphs_are_chosen_on_a_gpu_and_pass_the_self_test(name, dtype):
    model = small(name, "cuda", dtype)
    axis = axis_for(model)
    probe = Probe(model, axis, None)
    reference = reference_of(model, axis)
    forward = selection.choose_forward(model, probe)
    assert isinstance(forward, GraphForward)
    assert fault_of(reference, forward) is None
    again = selection.choose_forward(model, probe)
    assert isinstance(again, GraphForward) and again is not forward and again.decoder is forward.decoder
    assert isinstance(selection.choose_forward(model, probe, fused=False), ModuleForward)


@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_graph_gives_the_bits_of_its_operations_one_by_one(dtype):
    model = small("qwen3", "cuda", dtype)
    axis = axis_for(model)
    logits = [
        play(passes(model, axis, capture=capture)[1], *interventions(axis))[0] for capture in (True, False)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*logits, strict=True))


@gpu
def test_replies_on_a_gpu_equal_plain_generate_over_two_turns_and_after_an_undo():
    reference, model = small("llama"), small("llama", "cuda")
    axis = axis_for(model)
    engine = TransformersEngine(model, axis)
    assert isinstance(engine.forward, GraphForward)
    cap = floor_of(axis, (1, 2))
    settings = TurnSettings(Sampling(temperature=0, max_new_tokens=9, repetition_penalty=1), cap)
    conversation, acted = Conversation(), 0
    for text in ("One, two, three?", "Four and five, please.", None):
        if text is None:
            conversation.undo()
        text = text or "Four and five, please."
        histories = {branch: conversation.messages(branch) for branch in BRANCHES}
        events = [e for e in conversation.send(engine, text, settings) if isinstance(e, TokenEvent)]
        acted += sum(event.token.correction > 0 for event in events)
        for branch in BRANCHES:
            got = [event.token_id for event in events if event.branch == branch]
            chat = render_chat(model.tokenizer, [*histories[branch], Message(role="user", content=text)])
            wanted = plain_reply(reference, axis, cap if branch == CAPPED else None, chat, 9)
            assert got and got == wanted[: len(got)]
    assert acted > 0, "the cap never acted, so this proves nothing"


@gpu
def test_many_conversations_on_a_gpu_get_the_replies_that_they_get_alone():
    model = small("llama", "cuda")
    axis = axis_for(model)
    settings = TurnSettings(Sampling(max_new_tokens=24, temperature=1.0), floor_of(axis, (1,)))

    def replies(engine: TransformersEngine, number: int) -> list[Any]:
        conversation, found = Conversation(), []
        for text in (f"Number {number}" + ", and so on" * number, "And then?"):
            events = conversation.send(engine, text, settings)
            found += [(e.branch, e.token_id) for e in events if isinstance(e, TokenEvent)]
        return found

    alone = [replies(TransformersEngine(model, axis), number) for number in range(12)]
    engine = TransformersEngine(model, axis, own_thread=True)
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda number: replies(engine, number), range(12)))
    assert together == alone
