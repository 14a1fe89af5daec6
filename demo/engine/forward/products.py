"""Matrix products with a handful of rows on the CPU, which is what a decode step is made of.

torch's own product of a few rows with a weight matrix [out, in] is far from the fastest one on many CPUs. Two others are known: the
same product written weight-first, and oneDNN's with the weights laid out beforehand as it likes them (the layout that torch's own
compiler gives frozen weights). Which is fastest for few and for many rows is measured once at start, on the model's own matrices.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

Product = Callable[[Tensor], Tensor]  # [N, in] -> [N, out]

# The layout costs a second copy of the weights, which a model of many billions should not pay for.
MOST_BYTES = 4 * 1024**3

FEW = range(2, 4)  # a single row is a product of its own kind, which weight-first does not help

# A way of its own for few rows must be worth it: one way for all gives a row the same bits alone and in company.
_WORTH = 0.8

_TRIALS = 7

# oneDNN takes longer for fewer rows than for these, and sums a single one in another order than the same row in company.
_LEAST_ROWS = 4


def plain(weight: Tensor, bias: Tensor | None) -> Product:
    return lambda x: functional.linear(x, weight, bias)


def weight_first(weight: Tensor, bias: Tensor | None) -> Product:
    """(W @ x.T).T, copied, because everything after it is slow on a transposed view."""

    def product(x: Tensor) -> Tensor:
        y = torch.mm(weight, x.t()).t().contiguous()
        return y if bias is None else y + bias

    return product


def laid_out(weight: Tensor, bias: Tensor | None) -> Product:
    """oneDNN's product with its own layout of the weights. Raises RuntimeError or AttributeError where torch has none."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    run = torch.ops.mkldnn._linear_pointwise

    def product(x: Tensor) -> Tensor:
        rows = x.shape[0]
        if rows >= _LEAST_ROWS:
            return run(x, packed, bias, "none", [], "")
        return run(functional.pad(x, (0, 0, 0, _LEAST_ROWS - rows)), packed, bias, "none", [], "")[:rows]

    return product


MAKERS: dict[str, Callable[[Tensor, Tensor | None], Product]] = {
    "plain": plain,
    "weight-first": weight_first,
    "laid out": laid_out,
}


class Products:
    """The ways to use on this machine: `few` for 2 or 3 rows, `many` for any other number."""

    def __init__(self, samples: Sequence[Tensor], total_bytes: int) -> None:
        """samples: weight matrices to measure on; total_bytes: of all the model's matrices."""
        ways = {
            name: make for name, make in MAKERS.items() if name != "laid out" or total_bytes <= MOST_BYTES
        }
        many = _seconds(samples, 16, {name: make for name, make in ways.items() if name != "weight-first"})
        self.many = min(many, key=lambda name: many[name])
        self.few = self.many
        if samples[0].dtype != torch.float32 and "laid out" in many:
            # Nothing is faster by more than a busy moment's chance, which must not decide what bits a row gets.
            self.few = self.many = "laid out"
        else:
            few = _seconds(samples, FEW[0], ways)
            best = min(few, key=lambda name: few[name])
            if few[best] < _WORTH * few[self.many]:
                self.few = best

    def __call__(self, weight: Tensor, bias: Tensor | None = None) -> Product:
        """The product with this matrix, [out, in]."""
        many = MAKERS[self.many](weight, bias)
        if self.few == self.many:
            return many
        few = MAKERS[self.few](weight, bias)
        return lambda x: few(x) if x.shape[0] in FEW else many(x)

    @property
    def name(self) -> str:
        return self.many if self.few == self.many else f"{self.few} for few rows, else {self.many}"


@torch.inference_mode()
def _seconds(
    samples: Sequence[Tensor], rows: int, ways: dict[str, Callable[[Tensor, Tensor | None], Product]]
) -> dict[str, float]:
    """What each way takes; a way that this build of torch lacks takes no part."""
    products: dict[str, list[Product]] = {}
    inputs = [torch.randn(rows, weight.shape[1]).to(weight.dtype) for weight in samples]
    for name, make in ways.items():
        try:
            made = [make(weight, None) for weight in samples]
            for product, x in zip(made, inputs, strict=True):
                product(x)
            products[name] = made
        except (RuntimeError, AttributeError):
            continue
    seconds = {name: float("inf") for name in products}
    for _ in range(_TRIALS):
        for name, made in products.items():
            start = time.perf_counter()
            for product, x in zip(made, inputs, strict=True):
                product(x)
            # The minimum, for another process can only slow a run down.
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds
