"""Sampling: the right distribution, and the same random numbers for sequences with the same seed."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from demo.engine import sampling
from demo.engine.protocol import Sampling
from demo.engine.sampling import (
    SamplingStep,
    largest,
    likeliest,
    penalised,
    sample,
    sample_batch,
    uniform_noise,
)


def reference_distribution(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Temperature, then top-p: the smallest set of likeliest tokens whose probabilities reach top_p."""
    p = torch.softmax(logits / temperature, -1)
    kept, mass = torch.zeros_like(p), 0.0
    for token in p.argsort(descending=True).tolist():
        if mass >= top_p:
            break
        kept[token], mass = p[token], mass + float(p[token])
    return kept / kept.sum()


@pytest.mark.parametrize(
    ("temperature", "top_p", "vocabulary"), [(1.0, 1.0, 8), (0.7, 0.9, 12), (2.0, 0.5, 700), (1.5, 1.0, 400)]
)
def test_sampled_frequencies_follow_the_reference_distribution(temperature, top_p, vocabulary):
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(3)) * 2
    expected = reference_distribution(logits, temperature, top_p)
    n = 6000
    seen = Counter(sample(logits, Sampling(temperature, top_p, 9, seed, 1.0), step=5) for seed in range(n))
    assert all(expected[token] > 0 for token in seen), "a token outside the nucleus was sampled"
    for token in expected.topk(5).indices.tolist():
        p = float(expected[token])
        assert seen[token] / n == pytest.approx(p, abs=5 * (p * (1 - p) / n) ** 0.5)


def test_greedy_sampling_takes_the_likeliest_token():
    logits = torch.tensor([0.1, 3.0, 2.9])
    assert sample(logits, Sampling(temperature=0, repetition_penalty=1.0), 0) == 1
    assert sample(logits, Sampling(temperature=0, repetition_penalty=1.2), 0, seen={1}) == 2


def test_noise_is_a_function_of_seed_and_step():
    first = uniform_noise(1, 2, 50)
    uniform_noise.cache_clear()
    assert torch.equal(first, uniform_noise(1, 2, 50))
    different = [uniform_noise(seed, step, 50) for seed, step in ((1, 2), (1, 3), (2, 2), (2, 1))]
    assert all(not torch.equal(a, b) for i, a in enumerate(different) for b in different[:i])


def test_sequences_with_the_same_seed_and_similar_distributions_sample_the_same_token():
    logits = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 3
    similar = logits + 0.02 * torch.randn(1000, generator=torch.Generator().manual_seed(1))

    def agreements(shift: int) -> int:
        return sum(
            sample(logits, Sampling(seed=seed), 0) == sample(similar, Sampling(seed=seed + shift), 0)
            for seed in range(300)
        )

    assert agreements(0) > 290 > agreements(1)


def test_repetition_penalty_makes_seen_tokens_less_likely():
    logits = torch.tensor([[2.0, -2.0, 1.0], [2.0, -2.0, 1.0]])
    steps = [
        SamplingStep(Sampling(repetition_penalty=2.0), 0, {0, 1}),
        SamplingStep(Sampling(repetition_penalty=1.0), 0, {0}),
    ]
    assert penalised(logits, steps).tolist() == [[1.0, -4.0, 1.0], [2.0, -2.0, 1.0]]
    assert logits[0].tolist() == [2.0, -2.0, 1.0], "the logits were changed in place"
    assert penalised(logits, steps[1:]) is logits


def test_batching_does_not_change_sampled_tokens():
    """Greedy and sampled, narrow and wide nuclei, penalties and barred tokens, at once and alone."""
    logits = torch.randn(6, 900, generator=torch.Generator().manual_seed(4)) * 3
    logits[3] /= 30  # so flat that its nucleus reaches past the candidates
    samplings = [
        Sampling(0),
        Sampling(0.7),
        Sampling(1.2, 0.5),
        Sampling(1.0, 0.99),
        Sampling(0, repetition_penalty=1.5),
        Sampling(0.3),
    ]
    steps = [SamplingStep(s, 7, range(index * 50), [3, 5]) for index, s in enumerate(samplings)]
    choices = sample_batch(logits, steps)
    for index, step in enumerate(steps):
        (alone,) = sample_batch(logits[index, None], [step])
        assert alone.token == choices[index].token
        assert alone.probability == pytest.approx(choices[index].probability)
    expected = torch.softmax(logits, -1)
    wanted = [float(expected[row, choice.token]) for row, choice in enumerate(choices)]
    assert [choice.probability for choice in choices] == pytest.approx(wanted, rel=1e-4)


def test_the_likeliest_tokens_come_in_order_with_their_probabilities():
    """At temperature 1, whatever the sampling is, and before any token is barred."""
    logits = torch.randn(3, 900, generator=torch.Generator().manual_seed(4)) * 3
    steps = [SamplingStep(Sampling(t), 0, (), [int(logits[n].argmax())]) for n, t in enumerate((0, 0.3, 1.0))]
    for row, choice in enumerate(sample_batch(logits, steps)):
        chances = torch.softmax(logits[row].double(), -1)
        order = sorted(range(900), key=lambda token: -float(chances[token]))[:8]
        assert [token for token, _ in choice.likeliest] == order
        assert [p for _, p in choice.likeliest] == pytest.approx([float(chances[t]) for t in order], rel=1e-4)
        assert likeliest(logits)[row] == choice.likeliest
    assert [len(one) for one in likeliest(logits[:, :3])] == [3] * 3, "a vocabulary of three"


def test_sampling_a_batch_in_parts_changes_no_bit(monkeypatch):
    logits = (torch.randn(7, 900, generator=torch.Generator().manual_seed(4)) * 3).bfloat16()
    steps = [SamplingStep(Sampling(0.7 * (n != 3), seed=n), n, range(n), [3]) for n in range(7)]
    whole = sample_batch(logits, steps)
    for rows in (1, 2, 7):
        monkeypatch.setattr(sampling, "_LOGITS_AT_ONCE", rows * 900)
        assert sample_batch(logits, steps) == whole


def test_barred_tokens_are_never_sampled():
    logits = torch.randn(1, 900, generator=torch.Generator().manual_seed(4))
    barred = [SamplingStep(Sampling(0), 0, (), logits[0].topk(3).indices.tolist())]
    assert sample_batch(logits, barred)[0].token == int(logits[0].topk(4).indices[3])


@pytest.mark.parametrize("columns", [20, 700, 4096, 5003])
@pytest.mark.parametrize("count", [20, 256])
def test_the_largest_values_are_those_of_a_full_sort(columns, count):
    generator = torch.Generator().manual_seed(columns)
    values = torch.randn(7, columns, generator=generator)
    values[0] = values[0].round()  # many ties
    values[1, columns // 2 :] = float("-inf")
    values[2] = torch.linspace(-1, 1, columns)  # the largest lie side by side
    values[3, -3:] = 9.0
    values[4, 11] = float("nan")  # broken logits must be seen
    count = min(count, columns)
    found, ids = largest(values, count)
    expected = values.sort(descending=True).values[:, :count]
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(values.gather(-1, ids), found, rtol=0, atol=0, equal_nan=True)
    assert all(len(set(row.tolist())) == count for row in ids)
