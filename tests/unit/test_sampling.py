"""Drawing tokens: the right distribution, and the same luck for rows with the same seed."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from demo.engine.protocol import Sampling
from demo.engine.sampling import SamplingStep, penalised, sample, sample_batch, uniform_noise


def reference_distribution(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Temperature, then top-p as everyone defines it: the smallest set of likeliest tokens with mass >= top_p."""
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
def test_frequencies_follow_the_reference(temperature, top_p, vocabulary):
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(3)) * 2
    expected = reference_distribution(logits, temperature, top_p)
    n = 6000
    seen = Counter(sample(logits, Sampling(temperature, top_p, 9, seed, 1.0), step=5) for seed in range(n))
    assert all(expected[token] > 0 for token in seen), "nothing outside the nucleus is ever drawn"
    for token in expected.topk(5).indices.tolist():
        p = float(expected[token])
        assert seen[token] / n == pytest.approx(p, abs=5 * (p * (1 - p) / n) ** 0.5)


def test_greedy_takes_the_likeliest():
    logits = torch.tensor([0.1, 3.0, 2.9])
    assert sample(logits, Sampling(temperature=0, repetition_penalty=1.0), 0) == 1
    assert sample(logits, Sampling(temperature=0, repetition_penalty=1.2), 0, seen={1}) == 2


def test_noise_depends_on_seed_and_step_alone():
    assert torch.equal(uniform_noise(1, 2, 50), uniform_noise.__wrapped__(1, 2, 50))
    different = [uniform_noise(seed, step, 50) for seed, step in ((1, 2), (1, 3), (2, 2), (2, 1))]
    assert all(not torch.equal(a, b) for i, a in enumerate(different) for b in different[:i])


def test_rows_with_the_same_seed_agree_unless_their_distributions_differ_much():
    logits = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 3
    nudged = logits + 0.02 * torch.randn(1000, generator=torch.Generator().manual_seed(1))
    same = sum(sample(logits, Sampling(seed=s), 0) == sample(nudged, Sampling(seed=s), 0) for s in range(300))
    alone = sum(
        sample(logits, Sampling(seed=s), 0) == sample(nudged, Sampling(seed=s + 1), 0) for s in range(300)
    )
    assert same > 290 > alone


def test_penalty_moves_seen_tokens_toward_unlikely():
    logits = torch.tensor([[2.0, -2.0, 1.0], [2.0, -2.0, 1.0]])
    rows = [
        SamplingStep(Sampling(repetition_penalty=2.0), 0, {0, 1}),
        SamplingStep(Sampling(repetition_penalty=1.0), 0, {0}),
    ]
    assert penalised(logits, rows).tolist() == [[1.0, -4.0, 1.0], [2.0, -2.0, 1.0]]
    assert logits[0].tolist() == [2.0, -2.0, 1.0], "the logits themselves are also read"
    assert penalised(logits, rows[1:]) is logits


def test_what_a_row_draws_depends_on_no_other_row():
    """Cold and warm rows, narrow and wide nuclei, penalties and bars, together and each alone."""
    logits = torch.randn(6, 900, generator=torch.Generator().manual_seed(4)) * 3
    logits[3] /= 30  # so flat that its nucleus reaches past the candidates
    samplings = [Sampling(0), Sampling(0.7), Sampling(1.2, 0.5), Sampling(1.0, 0.99), Sampling(0, repetition_penalty=1.5),
                 Sampling(0.3)]  # fmt: skip
    rows = [SamplingStep(s, 7, range(index * 50), [3, 5]) for index, s in enumerate(samplings)]
    tokens, probabilities = sample_batch(logits, rows)
    for index, row in enumerate(rows):
        assert sample_batch(logits[index, None], [row]) == (
            [tokens[index]],
            [pytest.approx(probabilities[index])],
        )
    expected = torch.softmax(logits, -1)
    assert probabilities == pytest.approx([float(expected[i, t]) for i, t in enumerate(tokens)], rel=1e-4)
    barred = [SamplingStep(Sampling(0), 0, (), logits[0].topk(3).indices.tolist())]
    assert sample_batch(logits[:1], barred)[0] == [int(logits[0].topk(4).indices[3])]
