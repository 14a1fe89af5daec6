"""The fused forward pass against transformers' own modules, on the real model."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from demo.axis.components import probe_components
from demo.conversation.settings import make_cap
from demo.engine.forward import layout, selection
from demo.engine.forward.forward_pass import Beside, Chunk, ForwardPass, Probe
from demo.engine.forward.fused_cpu import FusedForward, fits
from demo.engine.forward.modules import ModuleForward
from demo.engine.forward.products import Products
from demo.engine.kv_cache import SequenceCache, open_all, rounded_up
from demo.engine.protocol import Cap
from demo.models.loading import LoadedModel, load_model
from tests.helpers.axes import random_axis, with_components
from tests.helpers.tiny_models import BUILD, as_loaded

PROBE, BAND = 17, (14, 20)


@pytest.fixture(scope="module")
def axis(model: LoadedModel):
    return with_components(random_axis(len(model.layers), model.hidden_size, PROBE, BAND))


def probe_of(model: LoadedModel, axis) -> Probe:
    components = probe_components(axis)
    assert components is not None
    return Probe(model, axis, Beside(axis.probe_layer, components))


def skip_without_bfloat16() -> None:
    """Skip unless the CPU has AVX-512's bfloat16 products, the only ones known to give the same bits."""
    capabilities = torch.cpu.get_capabilities()
    if not capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
        pytest.skip("this CPU has other bfloat16 products, or none")


def cache_of(forward: ForwardPass, slots: int) -> SequenceCache:
    cache = forward.new_cache()
    open_all(cache, [64] * slots)
    return cache


def ids_of(count: int, seed: int = 0) -> list[int]:
    return torch.randint(1000, 40000, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def play(forward: ForwardPass, model: LoadedModel, caps: list[Cap | None]):
    """Run three sequences of different lengths.

    Their prompts run together in two chunks each. Three decode steps follow, the second without sequence 1.

    Returns:
        The logits of each pass, and the readings of all chunks.
    """
    cache = cache_of(forward, 3)
    prompts = [ids_of(9, 1), ids_of(17, 2), ids_of(12, 3)]
    readings, logits = [], []

    def run(chunks):
        of_pass, of_chunks = forward.run(chunks, cache)
        logits.append(of_pass.float())
        readings.extend(of_chunks)

    run([Chunk(s, 0, p[:6], [n < 2 for n in range(6)], caps[s], last=False) for s, p in enumerate(prompts)])
    run([Chunk(s, 6, p[6:], [False] * (len(p) - 6), caps[s]) for s, p in enumerate(prompts)])
    lengths = [len(prompt) for prompt in prompts]
    for step, decoding in enumerate(((0, 1, 2), (0, 2), (0, 1, 2))):
        ids = {s: ids_of(1, 10 * step + s) for s in decoding}
        run([Chunk(s, lengths[s], ids[s], [False], caps[s], prompt=False) for s in decoding])
        for s in decoding:
            lengths[s] += 1
    return logits, readings


@pytest.mark.parametrize(
    ("dtype", "logit_error", "unit_error"),
    [("float32", 1e-4, 1e-4), ("bfloat16", 0.05, 0.05), ("int8", 0.05, 0.05)],
)
def test_both_forward_passes_agree(axis, dtype, logit_error, unit_error):
    """Logits differ by a share of the largest, projections by axis units."""
    model = load_model(dtype=dtype, device="cpu")
    probe = probe_of(model, axis)
    caps = [None, make_cap(axis, *BAND, "p50"), make_cap(axis, 12, 18, "p75")]
    fused, plain = (
        play(forward, model, caps) for forward in (FusedForward(model, probe), ModuleForward(model, probe))
    )
    for one, other in zip(fused[0], plain[0], strict=True):
        assert one.shape == other.shape
        if len(other):
            assert float((one - other).abs().max() / other.abs().max()) < logit_error
    acted = 0.0
    for one, other in zip(fused[1], plain[1], strict=True):
        torch.testing.assert_close(
            torch.tensor(one.before), torch.tensor(other.before), rtol=0, atol=unit_error
        )
        assert one.after == pytest.approx(other.after, abs=unit_error)
        assert one.corrections == pytest.approx(other.corrections, abs=unit_error)
        assert one.coordinates == pytest.approx(other.coordinates, abs=unit_error)
        acted += sum(one.corrections.values())
    assert acted > 0, "the cap never acted, so this test proves nothing"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_an_inactive_cap_leaves_logits_bit_identical(axis, dtype):
    model = load_model(dtype=dtype, device="cpu")
    fused = FusedForward(model, probe_of(model, axis))
    inactive = Cap(tuple(range(12, 21)), (-1e9,) * 9)
    plain, capped = (play(fused, model, [cap] * 3)[0] for cap in (None, inactive))
    assert all(torch.equal(one, other) for one, other in zip(plain, capped, strict=True))


def test_batching_changes_no_bit_in_bfloat16(axis):
    """float32 products of few and of many rows round differently; bfloat16 products of these CPUs do not."""
    skip_without_bfloat16()
    model = load_model(dtype="bfloat16", device="cpu")
    fused = FusedForward(model, probe_of(model, axis))
    logits = []
    for count in (1, 2, 8, 21):
        cache = cache_of(fused, count)
        for slot in range(count):
            fused.run([Chunk(slot, 0, ids_of(10 + slot, slot), [False] * (10 + slot))], cache)
        step = [Chunk(n, 10 + n, ids_of(1, 99 + n), [False], prompt=False) for n in range(count)]
        logits.append(fused.run(step, cache)[0][0])
    assert all(torch.equal(logits[0], other) for other in logits[1:])


def test_the_prepared_layout_leaves_the_models_own_weights_alone(model):
    """The joined matrices would be a second copy of weights that are mapped from a file."""
    torch.manual_seed(3)
    tiny = as_loaded(BUILD["llama"]().bfloat16(), model.tokenizer, 64)
    tiny = replace(tiny, dtype=torch.bfloat16)
    addresses = [parameter.data_ptr() for parameter in tiny.model.parameters()]
    fused = FusedForward(tiny, Probe(tiny, random_axis(len(tiny.layers), tiny.hidden_size, 1, (1, 2)), None))
    moved = addresses != [parameter.data_ptr() for parameter in tiny.model.parameters()]
    assert moved == (fused.name != "fused, products laid out")


@pytest.mark.parametrize("tied", [True, False])
def test_a_large_model_keeps_one_copy_of_its_weights_and_its_modules_keep_their_bits(
    model, tied, monkeypatch
):
    monkeypatch.setattr("demo.engine.forward.products.KEPT_BYTES", 0)
    torch.manual_seed(3)
    tiny = as_loaded(BUILD["llama"]().bfloat16(), model.tokenizer, 64)
    tiny = replace(tiny, dtype=torch.bfloat16)
    head = tiny.model.get_output_embeddings()
    head.weight = tiny.model.get_input_embeddings().weight if tied else nn.Parameter(head.weight.clone())
    ids = torch.arange(9)[None]
    before = tiny.model(input_ids=ids).logits
    probe = Probe(tiny, random_axis(len(tiny.layers), tiny.hidden_size, 1, (1, 2)), None)
    fused = selection.choose_forward(tiny, probe)
    if fused.name != "fused, products laid out":
        pytest.skip("this build of torch has no prepared layout")
    assert not any("proj" in name for name, _ in tiny.model.named_parameters())
    assert isinstance(tiny.model.get_output_embeddings(), nn.Linear) == tied
    assert torch.equal(tiny.model(input_ids=ids).logits, before)


def test_reproducible_float32_products_take_no_second_copy_of_the_weights():
    products = Products([torch.randn(64, 64)], 2**14, reproducible=True)
    assert products.name == "plain" and products.keeps_weights


def test_chunk_boundaries_change_no_bit_in_bfloat16(axis):
    """The chunks have any size, or the last tokens are decoded one by one."""
    skip_without_bfloat16()
    model = load_model(dtype="bfloat16", device="cpu")
    fused, ids = FusedForward(model, probe_of(model, axis)), ids_of(45)
    cap, results = make_cap(axis, *BAND, "p50"), []
    for size in (45, 1, 2, 7, 13, 33, 44):
        cache = cache_of(fused, 1)
        for start in range(0, 45, size):
            chunk = ids[start : start + size]
            logits = fused.run([Chunk(0, start, chunk, [False] * len(chunk), cap)], cache)[0]
        results.append(logits)
    cache = cache_of(fused, 1)
    fused.run([Chunk(0, 0, ids[:20], [False] * 20, cap)], cache)
    for n in range(20, 45):
        logits = fused.run([Chunk(0, n, ids[n : n + 1], [False], cap, prompt=False)], cache)[0]
    results.append(logits)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_in_spans_changes_no_bit(axis, dtype, monkeypatch):
    """Short sequences beside long ones get the logits that they get when all are padded to the longest."""
    model = load_model(dtype=dtype, device="cpu")
    fused, results = FusedForward(model, probe_of(model, axis)), []
    lengths = (9, 700, 12, 17)
    for call in (layout._CALL_COLUMNS, 10**9):
        monkeypatch.setattr(layout, "_CALL_COLUMNS", call)
        cache = fused.new_cache()
        open_all(cache, [max(lengths) + 1] * len(lengths))
        for slot, length in enumerate(lengths):
            fused.run([Chunk(slot, 0, ids_of(length, slot), [False] * length, last=False)], cache)
        step = [
            Chunk(slot, length, ids_of(1, 99 + slot), [False], prompt=False)
            for slot, length in enumerate(lengths)
        ]
        results.append(fused.run(step, cache)[0])
        results.append(fused.run(step[1:3], cache)[0])
    assert torch.equal(results[0], results[2]) and torch.equal(results[1], results[3])


def test_rows_are_divided_without_gaps_and_pad_no_more_than_one_span_would():
    rng, call = random.Random(5), layout._CALL_COLUMNS
    for _ in range(200):
        lengths = [rng.choice((0, 1, 30, 33, 500, 4000, 8175)) for _ in range(rng.randrange(1, 20))]
        parts = layout.divided(lengths)
        assert [row for first, end, _ in parts for row in range(first, end)] == list(range(len(lengths)))
        for first, end, columns in parts:
            assert columns == rounded_up(max(*lengths[first:end], 1))
        cost = sum((end - first) * columns + call for first, end, columns in parts)
        assert cost <= rounded_up(max(*lengths, 1)) * len(lengths) + call
    assert len(layout.divided([60] * 16 + [8175, 8175] + [60] * 4)) == 3


@pytest.mark.parametrize("name", sorted(BUILD))
def test_only_known_architectures_are_fused_and_they_agree(name, model):
    torch.manual_seed(3)
    tiny = as_loaded(BUILD[name](), model.tokenizer, 64)
    known = name in ("llama", "qwen2", "qwen3")
    assert fits(tiny) == (known or (name == "mistral" and tiny.model.config.sliding_window is None))
    if known:
        axis = random_axis(len(tiny.layers), tiny.hidden_size, 1, (1, 2))
        probe = Probe(tiny, axis, None)
        assert selection.difference(tiny, FusedForward(tiny, probe), ModuleForward(tiny, probe)) < 1e-5


def test_a_fused_pass_that_differs_is_not_used(model, caplog):
    torch.manual_seed(3)
    tiny = as_loaded(BUILD["llama"](), model.tokenizer, 64)
    probe = Probe(tiny, random_axis(len(tiny.layers), tiny.hidden_size, 1, (1, 2)), None)

    class Wrong(FusedForward):
        def run(self, chunks, cache):
            logits, readings = super().run(chunks, cache)
            return 1.5 * logits, readings

    make = selection.first_right(tiny, probe, iter([Wrong, ModuleForward]))
    assert isinstance(make(tiny, probe), ModuleForward)
    assert "not used" in caplog.text
    make = selection.first_right(tiny, probe, iter([FusedForward, ModuleForward]))
    assert isinstance(make(tiny, probe), FusedForward)


def test_the_fused_pass_is_chosen_unless_it_is_switched_off(model):
    tiny = as_loaded(BUILD["llama"](), model.tokenizer, 64)
    probe = Probe(tiny, random_axis(len(tiny.layers), tiny.hidden_size, 1, (1, 2)), None)
    assert isinstance(selection.choose_forward(tiny, probe), FusedForward)
    assert isinstance(selection.choose_forward(tiny, probe, fused=False), ModuleForward)
