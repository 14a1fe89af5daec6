"""Weights of 8 bits: the rounding against a plain reference, the product, and the model that is loaded so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from demo.engine.forward.forward_pass import Probe
from demo.engine.forward.fused_cpu import FusedForward
from demo.engine.forward.products import EIGHT_BIT_ROWS, ByRows, EightBit, Products
from demo.engine.forward.selection import choose_forward
from demo.models.devices import pick_dtype
from demo.models.eight_bit import eight_bit, round_weights, widened
from demo.models.loading import load_model, read_facts
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis
from tests.helpers.tiny_models import BUILD, as_loaded

DTYPES = [torch.float32, torch.bfloat16]


def matrix(seed: int, dtype: torch.dtype) -> torch.Tensor:
    """A matrix whose outputs differ in size by many orders of magnitude, and of which one is 0."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.logspace(-6, 3, 40)[:, None]
    found = torch.randn(40, 64, generator=generator) * sizes
    found[seed % 40] = 0
    return found.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(20))
def test_each_weight_moves_by_at_most_half_a_step(dtype, seed):
    weight = matrix(seed, dtype)
    integers, scales = eight_bit(weight)
    assert integers.dtype == torch.int8 and scales.dtype == dtype
    exact = integers.double() * scales.double()[:, None]
    # The scale itself is rounded, which moves the largest weights by up to half a unit of its last place.
    slack = 127 * torch.finfo(dtype).eps / 2 * scales.double()
    off = (exact - weight.double()).abs().amax(1)
    assert bool((off <= scales.double() * 0.5 * (1 + 1e-6) + slack).all())
    wide = widened(integers, scales).double()
    assert bool(((wide - exact).abs() <= exact.abs() * torch.finfo(dtype).eps).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(20))
def test_rounding_twice_changes_nothing(dtype, seed):
    once = widened(*eight_bit(matrix(seed, dtype)))
    assert torch.equal(widened(*eight_bit(once)), once)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_is_that_of_the_rounded_matrix_and_a_row_does_not_depend_on_the_others(dtype):
    torch.manual_seed(1)
    weight, bias, x = torch.randn(48, 96).to(dtype), torch.randn(48).to(dtype), torch.randn(5, 96).to(dtype)
    integers, scales = eight_bit(weight)
    product = EightBit(integers, scales, bias)
    expected = x.double() @ (integers.double() * scales.double()[:, None]).T + bias.double()
    error = float((product(x).double() - expected).abs().max() / expected.abs().max())
    assert error < (1e-5 if dtype == torch.float32 else 2**-6)
    for rows in (1, 2, 3):
        assert torch.equal(product(x[:rows]), product(x)[:rows])


def test_few_rows_read_8_bits_and_more_rows_the_same_weights():
    torch.manual_seed(1)
    weight = widened(*eight_bit(torch.randn(48, 96)))
    products = Products([weight], weight.nbytes, rounded=True)
    product = products(weight)
    assert isinstance(product, ByRows) and isinstance(product.few, EightBit)
    for rows in (1, EIGHT_BIT_ROWS[-1], EIGHT_BIT_ROWS[-1] + 1, 20):
        x = torch.randn(rows, 96)
        torch.testing.assert_close(product(x), x @ weight.T, rtol=1e-4, atol=1e-4)
    assert "8-bit" in products.name


@pytest.mark.parametrize("inputs", [8, 33, 40, 72])
def test_matrices_that_do_not_fit_torchs_product_are_read_in_the_models_format(inputs):
    """torch would read beyond them, and end the process."""
    torch.manual_seed(1)
    weight = widened(*eight_bit(torch.randn(48, inputs, dtype=torch.bfloat16)))
    product, x = Products([weight], weight.nbytes, rounded=True)(weight), torch.randn(2, inputs).bfloat16()
    torch.testing.assert_close(product(x).float(), x.float() @ weight.float().T, rtol=0.02, atol=0.1)


def test_where_a_row_must_not_depend_on_the_others_8_bits_are_not_read():
    weight = widened(*eight_bit(torch.randn(64, 64)))
    products = Products([weight], weight.nbytes, reproducible=True, rounded=True)
    assert not isinstance(products(weight), ByRows) and "8-bit" not in products.name


def test_models_that_are_quantised_or_built_otherwise_are_refused(model):
    packed = nn.ModuleDict({"layer": nn.Linear(8, 8)})
    packed["layer"].weight = nn.Parameter(torch.zeros(8, 8, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(UserError, match="quantised already: leave out --dtype"):
        round_weights(packed)
    tiny = replace(as_loaded(BUILD["gpt2"](), model.tokenizer, 64), eight_bit=True)
    axis = random_axis(len(tiny.layers), tiny.hidden_size, 1, (1, 2))
    with pytest.raises(UserError, match="int8 is for models that are built like Llama"):
        choose_forward(tiny, Probe(tiny, axis))


def test_shared_matrices_stay_shared():
    model = nn.ModuleDict({"embed": nn.Embedding(30, 16), "head": nn.Linear(16, 30, bias=False)})
    model["head"].weight = model["embed"].weight
    before = model["embed"].weight.detach().clone()
    round_weights(model)
    assert model["head"].weight is model["embed"].weight
    assert not torch.equal(model["embed"].weight, before)


def test_the_default_model_is_found_by_its_own_weights_and_named_by_its_format():
    plain, rounded = load_model(), load_model(dtype="int8")
    assert rounded.dtype_name == "int8" and rounded.dtype == plain.dtype
    assert rounded.dtype_reason.startswith("int8: ")
    fused = FusedForward(rounded, Probe(rounded, random_axis(30, rounded.hidden_size, 15, (14, 16))))
    assert "8-bit" in fused.name
    assert rounded.digest == plain.digest, "its axis is that of the weights it was rounded from"
    for one, other in zip(plain.model.modules(), rounded.model.modules(), strict=True):
        if isinstance(one, nn.Linear):
            assert torch.equal(widened(*eight_bit(one.weight)), other.weight)


def test_it_is_refused_where_it_has_no_meaning():
    with pytest.raises(UserError, match="int8 is for CPUs: leave out --dtype"):
        pick_dtype("int8", torch.device("cuda", 0))
    with pytest.raises(UserError, match="leave out --dtype, or --engine vllm"):
        read_facts("anything", dtype="int8")
