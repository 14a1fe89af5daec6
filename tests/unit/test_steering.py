"""Steering against plain arithmetic, and a steered sequence beside others in one batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.capping import steer
from demo.engine.protocol import Request, Sampling, Steer, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis
from tests.helpers.tiny_models import tiny_llama

FLOATS = st.floats(-4, 4, allow_nan=False, width=32)
CHAT = ({"role": "user", "content": "One two three"},)
GREEDY = Sampling(temperature=0, max_new_tokens=6, repetition_penalty=1)


@given(st.lists(FLOATS, min_size=12, max_size=12), st.lists(FLOATS, min_size=2, max_size=2), st.booleans())
@settings(max_examples=80, deadline=None)
def test_steering_adds_alpha_times_the_direction_except_at_exempt_positions(values, alphas, masked):
    hidden = torch.tensor(values).reshape(2, 2, 3)
    direction = torch.tensor([0.5, -2.0, 1.5])
    exempt = torch.tensor([[masked, False], [False, masked]])
    steered = steer(hidden, direction, torch.tensor(alphas), exempt)
    for sequence in range(2):
        for token in range(2):
            before = hidden[sequence, token].tolist()
            amount = 0.0 if exempt[sequence, token] else alphas[sequence]
            expected = [h + amount * d for h, d in zip(before, direction.tolist(), strict=True)]
            if amount == 0:
                assert torch.equal(steered[sequence, token], hidden[sequence, token])
            assert steered[sequence, token].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.fixture(scope="module")
def engine(model: LoadedModel) -> TransformersEngine:
    tiny = tiny_llama(model)
    return TransformersEngine(tiny, random_axis(len(tiny.layers), tiny.hidden_size, 2, (1, 2)))


@pytest.mark.parametrize("alpha", [float("nan"), 21.0, -21.0])
def test_a_strength_out_of_range_is_refused(alpha):
    with pytest.raises(UserError, match="between -20 and 20"):
        Steer(1, alpha)


def test_a_layer_that_the_model_lacks_is_refused(engine):
    with pytest.raises(UserError, match="decoder layers 0 to"):
        engine.stream([Request("a", CHAT, GREEDY, steer=Steer(99, 1.0))])


def test_a_steered_sequence_does_not_change_its_neighbour(engine):
    def run(*requests: Request) -> dict[str, list[TokenEvent]]:
        events: dict[str, list[TokenEvent]] = {}
        for event in engine.stream(requests):
            if isinstance(event, TokenEvent):
                events.setdefault(event.branch, []).append(event)
        engine.forget(list(events))
        return events

    plain = run(Request("a", CHAT, GREEDY))["a"]
    both = run(Request("a", CHAT, GREEDY), Request("s", CHAT, GREEDY, steer=Steer(2, 3.0)))
    assert [event.token_id for event in both["a"]] == [event.token_id for event in plain]
    sums = [sum(event.token.before or 0 for event in events) for events in (plain, both["s"])]
    assert sums[1] > sums[0] + 3


def test_steering_at_the_probe_layer_raises_each_projection_by_alpha(engine):
    plain, steered = (
        [token for chunk in engine.read(Request("r", CHAT, steer=steer)) for token in chunk]
        for steer in (None, Steer(2, 3.0))
    )
    assert len(plain) > 2
    for one, other in zip(plain, steered, strict=True):
        assert other.after[2] == pytest.approx(one.after[2] + 3.0, abs=1e-3)
        assert other.after[1] == pytest.approx(one.after[1], abs=1e-5)


def test_a_cache_made_without_steering_is_not_used_with_it(engine):
    list(engine.stream([Request("cached", CHAT, GREEDY)]))
    again = next(iter(engine.stream([Request("cached", CHAT, GREEDY)])))
    steered = next(iter(engine.stream([Request("cached", CHAT, GREEDY, steer=Steer(1, 0.5))])))
    assert again.reused_tokens > 0 and steered.reused_tokens == 0
