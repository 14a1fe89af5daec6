"""The cache of the fused pass: rows of shelves against a dictionary, and a scheduler with little memory."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from torch.nn import functional

from demo.engine.forward.forward_pass import Chunk
from demo.engine.forward.layout import layout_of
from demo.engine.kv_cache import KVCache, open_all
from demo.engine.protocol import PromptEvent, WaitEvent
from demo.engine.shelved_cache import ShelvedCache, shelf_of
from demo.engine.transformers_engine import TransformersEngine
from demo.models.loading import LoadedModel
from tests.engine.test_scheduler import BAND, PROBE, TOPICS, pair, token_ids
from tests.helpers.axes import random_axis

LAYERS, LENGTHS = 2, (5, 60, 64, 65, 200, 1000, 1025, 3000)


@pytest.fixture(scope="module")
def axis(model: LoadedModel):
    return random_axis(len(model.layers), model.hidden_size, PROBE, BAND)


def holds(cache: ShelvedCache, slot: int, tokens: int, mark: float) -> bool:
    """Whether all keys and values of the slot's tokens are what `write` wrote with this mark."""
    shelf, row = cache.at(slot)
    return all(
        bool((layer.keys[row, :, :tokens] == mark).all() and (layer.values[row, :, :tokens] == -mark).all())
        for layer in shelf.layers
    )


@torch.inference_mode()
def write(cache: ShelvedCache, slot: int, tokens: int, mark: float) -> None:
    shelf, row = cache.at(slot)
    like = torch.zeros(1, 1, 2)
    for layer in shelf.layers:
        layer.allocate_like(like, like)
        layer.keys[row, :, :tokens] = mark
        layer.values[row, :, :tokens] = -mark


def test_slots_keep_their_content_whatever_comes_and_goes():
    """Random openings, endings, moves, copies and fits; every open slot holds what was written last."""
    for seed in range(20):
        rng, cache = random.Random(seed), ShelvedCache(LAYERS)
        known: dict[int, tuple[int, float]] = {}  # slot -> tokens, mark
        for step in range(60):
            action = rng.randrange(5)
            if action < 2 or not known:
                slot, tokens = len(known), rng.choice(LENGTHS)
                cache.open(slot, tokens)
                write(cache, slot, tokens, step + 1)
                known[slot] = tokens, step + 1
            elif action == 2:
                slot, last = rng.choice(list(known)), len(known) - 1
                cache.close(slot)
                if slot != last:
                    cache.move(last, slot, known[last][0])
                    known[slot] = known[last]
                del known[last]
            elif action == 3:
                one, other = rng.choice(list(known)), rng.choice(list(known))
                shared = min(known[one][0], known[other][0])
                cache.copy(one, other, shared)
                assert holds(cache, other, shared, known[one][1])
                write(cache, other, *known[other])
            else:
                lengths = [tokens for tokens, _ in known.values()]
                cache.fit(lengths)
                held = sum(columns * shelf.slots for columns, shelf in cache.shelves.items())
                assert held == cache.columns_of(lengths)
            for slot, (tokens, mark) in known.items():
                assert holds(cache, slot, tokens, mark)
            assert len(set(cache.places.values())) == len(known), "two slots share a row"


def test_room_is_what_is_allocated():
    rng = random.Random(3)
    for _ in range(50):
        cache, lengths = ShelvedCache(LAYERS), rng.choices(LENGTHS, k=rng.randrange(1, 9))
        after = cache.columns_after(lengths)
        cache.make_room(lengths)
        for slot, tokens in enumerate(lengths):
            assert tokens <= shelf_of(tokens) < tokens + 256
            cache.open(slot, tokens)
            write(cache, slot, 1, 1.0)
        assert cache.columns_of(lengths) == after == cache.columns_after(lengths)
        assert cache.nbytes == after * LAYERS * 2 * 2 * 4, "keys and values of two float32 numbers each"
        assert Counter(shelf.slots for shelf in cache.shelves.values()) == Counter(
            Counter(map(shelf_of, lengths)).values()
        )
        for slot in range(len(lengths)):
            cache.close(slot)
        cache.fit([])
        assert cache.nbytes == 0 and not cache.shelves


def test_shelves_that_no_chat_needs_any_more_are_dropped():
    """A chat that grows turn by turn does not leave a shelf of each length behind."""
    cache = ShelvedCache(LAYERS)
    for tokens in range(100, 3000, 200):
        cache.make_room([tokens, tokens, 60])
        for slot, own in enumerate((tokens, tokens, 60)):
            cache.open(slot, own)
            write(cache, slot, own, 1.0)
        assert len(cache.shelves) <= 2
        for slot in range(3):
            cache.close(slot)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_masks_that_are_added_give_the_bits_of_truth_values(dtype):
    generator = torch.Generator().manual_seed(1)
    query, keys, values = (
        torch.randn(2, heads, tokens, 16, generator=generator).to(dtype)
        for heads, tokens in ((6, 24), (3, 64), (3, 64))
    )
    cache = ShelvedCache(1)
    open_all(cache, [64, 64])
    chunks = [Chunk(0, 40, list(range(24)), [True] * 24), Chunk(1, 30, [1], [True], prompt=False)]
    layout = layout_of(chunks, cache, dtype)
    truths = torch.arange(64) <= torch.arange(40, 64)[:, None], torch.arange(32) <= 30
    for added, truth in zip((layout.prompts[0].mask, layout.spans[0].mask), truths, strict=True):
        columns = added.shape[-1]
        found, expected = (
            functional.scaled_dot_product_attention(
                query, keys[:, :, :columns], values[:, :, :columns], attn_mask=mask, enable_gqa=True
            )
            for mask in (added, truth.expand(24, -1))
        )
        assert added.dtype == dtype
        assert torch.equal(found, expected)


def test_a_sequence_that_leaves_moves_no_other(monkeypatch):
    cache = ShelvedCache(LAYERS)
    for slot in range(4):
        cache.open(slot, 60)
        write(cache, slot, 60, slot + 1.0)
    monkeypatch.setattr(KVCache, "copy", None)
    where = cache.place(3)
    cache.close(1)
    cache.move(3, 1, 60)
    assert cache.place(1) == where
    cache.open(3, 50)
    assert cache.place(3) == (64, 1), "the free row is used again"


def test_short_chats_run_beside_a_long_one_that_takes_most_of_the_memory(model, axis):
    """Slots as long as the longest would take three times this budget."""
    budget = (2 * shelf_of(700) + 6 * shelf_of(60)) * model.token_bytes
    engine = TransformersEngine(model, axis, kv_budget=budget, keep=False)
    long = engine.stream(pair(axis, "long", "cats", 700 - 60))
    assert isinstance(next(long), PromptEvent)
    short = [engine.stream(pair(axis, name, topic, 6)) for name, topic in zip("abc", TOPICS, strict=False)]
    assert all(isinstance(next(stream), PromptEvent) for stream in short)
    fourth = engine.stream(pair(axis, "d", "d", 6))
    assert isinstance(next(fourth), WaitEvent)
    assert all(token_ids(stream) for stream in short)
    assert token_ids(fourth)
    assert engine.load.kv_bytes <= budget
    long.close()
