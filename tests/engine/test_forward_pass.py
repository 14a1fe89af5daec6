"""The lean forward pass against transformers' own modules, on the real model."""

from __future__ import annotations

import pytest
import torch

from demo.conversation.settings import make_cap
from demo.engine.forward import selection as forwards
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


def watch_of(model: LoadedModel, axis) -> Probe:
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


def play(way, model: LoadedModel, caps: list[Cap | None]):
    """Three rows of different lengths: prompts in two chunks together, then three steps, one row skipping one."""
    slots = KVCache(len(model.layers))
    slots.reserve(3, 64)
    prompts = [ids_of(9, 1), ids_of(17, 2), ids_of(12, 3)]
    seen, logits = [], []

    def go(parts):
        found, readings = way.run(parts, slots)
        logits.append(found.float())
        seen.extend(readings)

    go([Chunk(s, 0, p[:6], [n < 2 for n in range(6)], caps[s], last=False) for s, p in enumerate(prompts)])
    go([Chunk(s, 6, p[6:], [False] * (len(p) - 6), caps[s]) for s, p in enumerate(prompts)])
    for step in range(3):
        rows = [s for s in range(3) if not (step == 1 and s == 1)]
        ran = {0: step, 1: step - (step == 2), 2: step}
        go(
            [
                Chunk(s, len(prompts[s]) + ran[s], ids_of(1, 10 * step + s), [False], caps[s], prompt=False)
                for s in rows
            ]
        )
    return logits, seen


@pytest.mark.parametrize(
    ("dtype", "logit_error", "unit_error"), [("float32", 1e-4, 1e-4), ("bfloat16", 0.05, 0.05)]
)
def test_lean_and_plain_see_and_say_the_same(axis, dtype, logit_error, unit_error):
    """Errors: of logits in shares of the largest, of projections in axis units."""
    model = load_model(dtype=dtype, device="cpu")
    watch = watch_of(model, axis)
    caps = [None, make_cap(axis, *BAND, "p50"), make_cap(axis, 12, 18, "p75")]
    lean, plain = (
        play(way, model, caps) for way in (FusedForward(model, watch), ModuleForward(model, watch))
    )
    for one, other in zip(lean[0], plain[0], strict=True):
        assert one.shape == other.shape
        if len(other):
            assert float((one - other).abs().max() / other.abs().max()) < logit_error
    acted = 0.0
    for one, other in zip(lean[1], plain[1], strict=True):
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
    lean = FusedForward(model, watch_of(model, axis))
    idle = Cap(tuple(range(12, 21)), (-1e9,) * 9)
    plain, capped = (play(lean, model, [cap] * 3)[0] for cap in (None, idle))
    assert all(torch.equal(one, other) for one, other in zip(plain, capped, strict=True))


def test_in_bfloat16_a_row_gets_the_same_bits_alone_and_in_company(axis):
    """float32 products of few and of many rows round differently; those of bfloat16 on this kind of CPU do not."""
    skip_without_bfloat16()
    model = load_model(dtype="bfloat16", device="cpu")
    lean = FusedForward(model, watch_of(model, axis))
    found = []
    for company in (0, 1, 7, 20):
        slots = KVCache(len(model.layers))
        slots.reserve(company + 1, 64)
        for slot in range(company + 1):
            lean.run([Chunk(slot, 0, ids_of(10 + slot, slot), [False] * (10 + slot))], slots)
        step = [Chunk(n, 10 + n, ids_of(1, 99 + n), [False], prompt=False) for n in range(company + 1)]
        found.append(lean.run(step, slots)[0][0])
    if not torch.cpu.get_capabilities().get("avx512_bf16") and not torch.cpu.get_capabilities().get(
        "amx_bf16"
    ):
        pytest.skip("this CPU has no bfloat16 products of its own")
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_in_bfloat16_it_does_not_matter_how_a_prompt_is_cut(axis):
    skip_without_bfloat16()
    model = load_model(dtype="bfloat16", device="cpu")
    lean, ids = FusedForward(model, watch_of(model, axis)), ids_of(45)
    cap, found = make_cap(axis, *BAND, "p50"), []
    for cut in (45, 1, 2, 7, 13, 33, 44):
        slots = KVCache(len(model.layers))
        slots.reserve(1, 64)
        for start in range(0, 45, cut):
            part = ids[start : start + cut]
            logits = lean.run([Chunk(0, start, part, [False] * len(part), cap)], slots)[0]
        found.append(logits)
    slots = KVCache(len(model.layers))
    slots.reserve(1, 64)
    lean.run([Chunk(0, 0, ids[:20], [False] * 20, cap)], slots)
    for place in range(20, 45):  # drawn one by one: a cache that was dropped and is rebuilt changes nothing
        logits = lean.run([Chunk(0, place, ids[place : place + 1], [False], cap, prompt=False)], slots)[0]
    found.append(logits)
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("name", sorted(BUILD))
def test_only_known_blocks_are_run_lean_and_they_agree(name, model):
    torch.manual_seed(3)
    tiny = as_loaded(BUILD[name](), model.tokenizer, 64)
    known = name in ("llama", "qwen2", "qwen3")
    assert fits(tiny) == (known or (name == "mistral" and tiny.model.config.sliding_window is None))
    if known:
        axis = random_axis(len(tiny.layers), tiny.hidden_size, 1, (1, 2))
        watch = Probe(tiny, axis, None)
        assert forwards.difference(tiny, FusedForward(tiny, watch), ModuleForward(tiny, watch)) < 1e-5


def test_a_lean_pass_that_differs_is_not_used(model, monkeypatch, caplog):
    torch.manual_seed(3)
    tiny = as_loaded(BUILD["llama"](), model.tokenizer, 64)
    watch = Probe(tiny, random_axis(len(tiny.layers), tiny.hidden_size, 1, (1, 2)), None)
    monkeypatch.setattr(forwards, "difference", lambda *ways: 0.5)
    assert isinstance(forwards.choose_forward(tiny, watch), ModuleForward)
    assert "not used" in caplog.text
    monkeypatch.undo()
    other = as_loaded(BUILD["llama"](), model.tokenizer, 64)
    watch = Probe(other, watch.axis, None)
    assert isinstance(forwards.choose_forward(other, watch), FusedForward)
    assert isinstance(forwards.choose_forward(other, watch, lean=False), ModuleForward)
