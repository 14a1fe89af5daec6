"""The clamp against a plain reference, its properties, and the hooks that apply it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from demo.capping import AxisHooks, clamp, residual_of
from tests.helpers.reference import clamp_one

NO_CAP = float("-inf")


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states [B, T, D], a unit direction [D] and floors [B], some of which are no cap."""
    batch, tokens, hidden = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(2, 24))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([1e-2, 1.0, 30.0, 1e3]))
    h = torch.randn(batch, tokens, hidden, generator=generator) * scale
    unit = nn.functional.normalize(torch.randn(hidden, generator=generator), dim=0)
    floors = draw(st.lists(st.floats(-3, 3), min_size=batch, max_size=batch))
    capped = draw(st.lists(st.booleans(), min_size=batch, max_size=batch))
    floor = torch.tensor([value * scale if on else NO_CAP for value, on in zip(floors, capped, strict=True)])
    return h, unit, floor


@settings(max_examples=200, deadline=None)
@given(cases())
def test_clamp_equals_the_paper_equation(case):
    h, unit, floor = case
    result = clamp(h, unit, floor)
    tolerance = 1e-5 * float(h.abs().max())
    for sequence in range(h.shape[0]):
        for token in range(h.shape[1]):
            expected = clamp_one(h[sequence, token].tolist(), unit.tolist(), float(floor[sequence]))
            actual = result.hidden[sequence, token]
            torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-5, atol=tolerance)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_clamp_lifts_to_the_floor_and_changes_nothing_else(case):
    h, unit, floor = case
    result = clamp(h, unit, floor)
    tolerance = 1e-5 * float(h.abs().max()) * h.shape[-1] ** 0.5
    after = result.hidden @ unit
    assert bool((after >= floor[:, None] - tolerance).all()), "every projection is at or above its floor"
    across = lambda x: x - (x @ unit)[..., None] * unit  # noqa: E731
    torch.testing.assert_close(across(result.hidden), across(h), rtol=0, atol=tolerance)
    untouched = result.lift == 0
    assert torch.equal(result.hidden[untouched], h[untouched]), "states that need no lift keep their bits"
    assert bool(untouched[floor == NO_CAP].all())
    again = clamp(result.hidden, unit, floor)
    torch.testing.assert_close(again.hidden, result.hidden, rtol=0, atol=tolerance)
    torch.testing.assert_close(result.projection + result.lift, after, rtol=0, atol=tolerance)


@given(cases())
@settings(max_examples=50, deadline=None)
def test_exempt_positions_are_bit_identical(case):
    h, unit, floor = case
    exempt = torch.zeros(h.shape[:2], dtype=torch.bool)
    exempt[:, ::2] = True
    result = clamp(h, unit, floor, exempt)
    assert torch.equal(result.hidden[:, ::2], h[:, ::2])
    assert torch.equal(result.hidden[:, 1::2], clamp(h, unit, floor).hidden[:, 1::2])


def test_bfloat16_is_computed_in_float32_and_uncapped_sequences_keep_their_bits():
    h = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    unit = nn.functional.normalize(torch.randn(64, generator=torch.Generator().manual_seed(2)), dim=0)
    result = clamp(h, unit, torch.tensor([NO_CAP, 5.0]))
    assert result.hidden.dtype == torch.bfloat16 and result.projection.dtype == torch.float32
    assert torch.equal(result.hidden[0], h[0])
    torch.testing.assert_close(result.hidden[1].float() @ unit, torch.full((3,), 5.0), rtol=0.02, atol=0)


class TupleLayer(nn.Module):
    def forward(self, x):
        return x * 2, "kept"


class TensorLayer(nn.Module):
    def forward(self, x):
        return x * 2


@pytest.mark.parametrize("layer", [TupleLayer(), TensorLayer()])
def test_hooks_cap_tuple_and_tensor_outputs_and_are_removed_afterwards(layer):
    unit = nn.functional.normalize(torch.ones(1, 8), dim=-1)
    hooks = AxisHooks([layer], unit, 0, {0: torch.tensor([NO_CAP, 1.0])})
    x = -torch.ones(2, 3, 8)
    plain = residual_of(layer(x)).clone()
    with hooks.installed():
        output = layer(x)
        reading = hooks.reading()
    capped = residual_of(output)
    assert isinstance(output, tuple) == isinstance(layer, TupleLayer)
    assert torch.equal(capped[0], plain[0])
    torch.testing.assert_close(capped[1] @ unit[0], torch.ones(3))
    torch.testing.assert_close(reading.before[1], torch.full((3,), -2 * 8**0.5))
    torch.testing.assert_close(reading.after[1], torch.ones(3))
    assert reading.lifts.shape == (2, 3, 1) and float(reading.lifts[0].abs().sum()) == 0
    assert torch.equal(residual_of(layer(x)), plain), "outside the block the model is unchanged"


def test_hooks_are_removed_when_an_error_ends_the_block():
    layer = TensorLayer()
    hooks = AxisHooks([layer], torch.ones(1, 8), 0, {})
    with pytest.raises(ValueError, match="forward failed"), hooks.installed():
        raise ValueError("forward failed")
    assert not layer._forward_hooks


def test_an_unknown_layer_output_is_refused():
    with pytest.raises(TypeError, match="decoder layer"):
        residual_of({"hidden": torch.zeros(1, 1, 1)})
