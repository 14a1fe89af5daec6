"""The fused forward pass against transformers' own modules, on the real model."""

from __future__ import annotations

import pytest
import torch

from demo.conversation.settings import make_cap
from demo.engine.forward import selection
from demo.engine.forward.forward_pass import Chunk, Probe
from demo.engine.forward.fused_cpu import FusedForward, fits
from demo.engine.forward.modules import ModuleForward
from demo.engine.kv_cache import KVCache
from demo.engine.protocol import Cap
from demo.models.loading import LoadedModel, load_model
from tests.helpers.axes import random_axis, with_components
from tests.helpers.tiny_models import BUILD, as_loaded

PROBE, BAND = 17, (14, 20)


@pytest.fixture(scope="module")
def axis(model: LoadedModel):
    return with_components(random_axis(len(model.layers), model.hidden_size, PROBE, BAND))


def probe_of(model: LoadedModel, axis) -> Probe:
    from demo.axis.components import probe_components

    components = probe_components(axis)
    assert components is not None
    return Probe(model, axis, components.place)


def skip_without_bfloat16() -> None:
    """What was seen to give the same bits are AVX-512's bfloat16 products; others round as they like."""
    capabilities = torch.cpu.get_capabilities()
    if not capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
        pytest.skip("this CPU has other bfloat16 products, or none")


def ids_of(count: int, seed: int = 0) -> list[int]:
    return torch.randint(1000, 40000, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def play(forward, model: LoadedModel, caps: list[Cap | None]):
    """Three sequences of different lengths: prompts in two chunks together, then three steps, of which one skips one."""
    cache = KVCache(len(model.layers))
    cache.reserve(3, 64)
    prompts = [ids_of(9, 1), ids_of(17, 2), ids_of(12, 3)]
    seen, logits = [], []

    def run(chunks):
        found, readings = forward.run(chunks, cache)
        logits.append(found.float())
        seen.extend(readings)

    run([Chunk(s, 0, p[:6], [n < 2 for n in range(6)], caps[s], last=False) for s, p in enumerate(prompts)])
    run([Chunk(s, 6, p[6:], [False] * (len(p) - 6), caps[s]) for s, p in enumerate(prompts)])
    for step in range(3):
        rows = [s for s in range(3) if not (step == 1 and s == 1)]
        ran = {0: step, 1: step - (step == 2), 2: step}
        run(
            [
                Chunk(s, len(prompts[s]) + ran[s], ids_of(1, 10 * step + s), [False], caps[s], prompt=False)
                for s in rows
            ]
        )
    return logits, seen


@pytest.mark.parametrize(
    ("dtype", "logit_error", "unit_error"), [("float32", 1e-4, 1e-4), ("bfloat16", 0.05, 0.05)]
)
def test_both_forward_passes_agree(axis, dtype, logit_error, unit_error):
    """Errors: of logits in shares of the largest, of projections in axis units."""
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
    assert acted > 0, "the cap never acted, so this shows nothing of it"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_inactive_cap_leaves_logits_bit_identical(axis, dtype):
    model = load_model(dtype=dtype, device="cpu")
    fused = FusedForward(model, probe_of(model, axis))
    idle = Cap(tuple(range(12, 21)), (-1e9,) * 9)
    plain, capped = (play(fused, model, [cap] * 3)[0] for cap in (None, idle))
    assert all(torch.equal(one, other) for one, other in zip(plain, capped, strict=True))


def test_in_bfloat16_batching_does_not_change_a_bit(axis):
    """float32 products of few and of many rows round differently; those of bfloat16 on this kind of CPU do not."""
    skip_without_bfloat16()
    model = load_model(dtype="bfloat16", device="cpu")
    fused = FusedForward(model, probe_of(model, axis))
    found = []
    for company in (0, 1, 7, 20):
        cache = KVCache(len(model.layers))
        cache.reserve(company + 1, 64)
        for slot in range(company + 1):
            fused.run([Chunk(slot, 0, ids_of(10 + slot, slot), [False] * (10 + slot))], cache)
        step = [Chunk(n, 10 + n, ids_of(1, 99 + n), [False], prompt=False) for n in range(company + 1)]
        found.append(fused.run(step, cache)[0][0])
    if not torch.cpu.get_capabilities().get("avx512_bf16") and not torch.cpu.get_capabilities().get(
        "amx_bf16"
    ):
        pytest.skip("this CPU has no bfloat16 products of its own")
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_in_bfloat16_chunk_boundaries_do_not_change_a_bit(axis):
    skip_without_bfloat16()
    model = load_model(dtype="bfloat16", device="cpu")
    fused, ids = FusedForward(model, probe_of(model, axis)), ids_of(45)
    cap, found = make_cap(axis, *BAND, "p50"), []
    for cut in (45, 1, 2, 7, 13, 33, 44):
        cache = KVCache(len(model.layers))
        cache.reserve(1, 64)
        for start in range(0, 45, cut):
            part = ids[start : start + cut]
            logits = fused.run([Chunk(0, start, part, [False] * len(part), cap)], cache)[0]
        found.append(logits)
    cache = KVCache(len(model.layers))
    cache.reserve(1, 64)
    fused.run([Chunk(0, 0, ids[:20], [False] * 20, cap)], cache)
    for place in range(20, 45):  # drawn one by one: a cache that was dropped and is rebuilt changes nothing
        logits = fused.run([Chunk(0, place, ids[place : place + 1], [False], cap, prompt=False)], cache)[0]
    found.append(logits)
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("name", sorted(BUILD))
def test_only_known_blocks_are_fused_and_they_agree(name, model):
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
    fused, modules = FusedForward(tiny, probe), ModuleForward(tiny, probe)
    assert selection.checked(fused, modules, tiny) is fused

    class Wrong(FusedForward):
        def run(self, chunks, cache):
            logits, readings = super().run(chunks, cache)
            return 1.5 * logits, readings

    assert selection.checked(Wrong(tiny, probe), modules, tiny) is None
    assert "not used" in caplog.text
    other = as_loaded(BUILD["llama"](), model.tokenizer, 64)
    probe = Probe(other, probe.axis, None)
    assert isinstance(selection.choose_forward(other, probe), FusedForward)
    assert isinstance(selection.choose_forward(other, probe, fused=False), ModuleForward)
