"""Matrix products with a few rows on the CPU, which dominate a decode step.

torch's own product of a few rows with a weight matrix [out, in] is slow on many CPUs. There are two
alternatives: the same product written weight-first, and oneDNN's product with the weights in its own
layout, which torch's compiler also uses for frozen weights. At start the fastest for few and for many rows
is measured on the model's own matrices.

A product of few rows takes as long as its weights take to be read from memory. Where the model is rounded to
8 bits, such a product reads them as 8 bits; one of more rows reads the same weights in the model's dtype.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo.models.eight_bit import eight_bit

Product = Callable[[Tensor], Tensor]  # [N, in] -> [N, out]
Maker = Callable[[Tensor, Tensor | None], Product]  # weight [out, in], bias [out]

# oneDNN's layout is a second copy of the weights. A model with more bytes than this does without it.
MOST_BYTES = 4 * 1024**3

# Of a model with more bytes than this, only the copy in oneDNN's layout is kept. The modules of a smaller one
# keep theirs, because reading a matrix back takes longer than it is worth.
KEPT_BYTES = 512 * 1024**2

FEW = range(2, 4)  # weight-first does not help a single row

# With more rows than these, reading the weights is no longer what takes the time, and oneDNN is faster.
EIGHT_BIT_ROWS = range(1, 4)

# torch's 8-bit product reads beyond a matrix whose inputs are no multiple of its vectors, up to 32 numbers.
_EIGHT_BIT_INPUTS = 32

# A separate product for few rows must take at most this share of the time, because a single product for all
# gives a row the same bits alone and in a batch.
_WORTH = 0.8

_TRIALS = 7

# Fewer rows than this are padded: oneDNN takes longer for them, and sums a single row in another order than
# the same row in a batch.
_LEAST_ROWS = 4


def plain(weight: Tensor, bias: Tensor | None) -> Product:
    """torch's own product."""
    return lambda x: functional.linear(x, weight, bias)


def weight_first(weight: Tensor, bias: Tensor | None) -> Product:
    """(W @ x.T).T, copied, because every later operation would be slow on a transposed view."""

    def product(x: Tensor) -> Tensor:
        y = torch.mm(weight, x.t()).t().contiguous()
        return y if bias is None else y + bias

    return product


def laid_out(weight: Tensor, bias: Tensor | None) -> LaidOut:
    """oneDNN's product with its own layout of the weights.

    Raises:
        RuntimeError, AttributeError: this build of torch lacks it.
    """
    return LaidOut(torch.ops.mkldnn._reorder_linear_weight(weight, None), bias)


@dataclass(frozen=True, slots=True)
class LaidOut:
    """A product whose weight is in oneDNN's layout. `packed.to_dense()` reads the same bits back."""

    packed: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        rows, run = x.shape[0], torch.ops.mkldnn._linear_pointwise
        if rows >= _LEAST_ROWS:
            return run(x, self.packed, self.bias, "none", [], "")
        padded = functional.pad(x, (0, 0, 0, _LEAST_ROWS - rows))
        return run(padded, self.packed, self.bias, "none", [], "")[:rows]


@dataclass(frozen=True, slots=True)
class EightBit:
    """A product with weights of 8 bits, see `demo.models.eight_bit`.

    A row's result does not depend on the rows beside it, nor on their number.

    Attributes:
        integers: [out, in] int8.
        scales: [out], in the dtype of the input.
    """

    integers: Tensor
    scales: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        y = torch._weight_int8pack_mm(x, self.integers, self.scales)
        return y if self.bias is None else y + self.bias


@dataclass(frozen=True, slots=True)
class ByRows:
    """One product for some numbers of rows, and another for all others."""

    few: Product
    many: Product
    rows: range

    def __call__(self, x: Tensor) -> Tensor:
        return self.few(x) if x.shape[0] in self.rows else self.many(x)


def laid_out_part(product: Product) -> LaidOut | None:
    """The product, or the part of it, whose weight is in oneDNN's layout; None where there is none."""
    many = product.many if isinstance(product, ByRows) else product
    return many if isinstance(many, LaidOut) else None


class ReadBackLinear(nn.Module):
    """An `nn.Linear` without a weight of its own: each call reads some rows of a `LaidOut` product back.

    It gives the bits of the `nn.Linear` that it replaces, and takes longer. Only what is not served by a
    fused pass calls it.
    """

    def __init__(self, product: LaidOut, rows: slice, bias: Tensor | None) -> None:
        super().__init__()
        self._product, self._rows, self.bias = product, rows, bias

    @property
    def weight(self) -> Tensor:
        """[out, in]."""
        return self._product.packed.to_dense()[self._rows]

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        return functional.linear(x, self.weight, self.bias)


MAKERS: dict[str, Maker] = {"plain": plain, "weight-first": weight_first, "laid out": laid_out}


class Products:
    """The products to use on this machine: `few` for 2 or 3 rows, `many` for any other number.

    Attributes:
        keeps_weights: the products go on using the matrices that they are given, and not only copies.
        frees_weights: the model is so large that its modules should not keep matrices of their own.
    """

    def __init__(
        self, samples: Sequence[Tensor], total_bytes: int, reproducible: bool = False, rounded: bool = False
    ) -> None:
        """Choose the fastest products by timing them.

        Args:
            samples: weight matrices to measure on.
            total_bytes: size of all the model's matrices.
            reproducible: choose without timing, so that every process on this machine computes the same bits.
            rounded: the matrices are rounded to 8 bits; few rows are to read them as such.
        """
        self._rounded = rounded and not reproducible  # a row alone would get other bits than among many
        makers = {
            name: make for name, make in MAKERS.items() if name != "laid out" or total_bytes <= MOST_BYTES
        }
        if samples[0].dtype == torch.float32:
            # Many sequences run together where reproducible bits are asked for. For them the prepared layout
            # would save a tenth of the time and take a second copy of the weights.
            self.few, self.many = ("plain", "plain") if reproducible else _fastest(samples, makers)
        else:
            # Below float32 nothing is faster than the prepared layout by more than the noise of a timing,
            # which must not decide which bits a sequence gets.
            self.few = self.many = "laid out" if _works(samples[0], makers.get("laid out")) else "plain"
        only_copies = self.few == self.many == "laid out"
        self.keeps_weights, self.frees_weights = not only_copies, only_copies and total_bytes > KEPT_BYTES

    def __call__(self, weight: Tensor, bias: Tensor | None = None) -> Product:
        """The product with this matrix, [out, in]."""
        if self._rounded and weight.shape[1] % _EIGHT_BIT_INPUTS == 0:
            many = MAKERS[self.many](weight, bias)
            return ByRows(EightBit(*eight_bit(weight), bias), many, EIGHT_BIT_ROWS)
        many = MAKERS[self.many](weight, bias)
        if self.few == self.many:
            return many
        return ByRows(MAKERS[self.few](weight, bias), many, FEW)

    @property
    def name(self) -> str:
        """The choice in words."""
        if self._rounded:
            return f"8-bit for few rows, else {self.many}"
        return self.many if self.few == self.many else f"{self.few} for few rows, else {self.many}"


def _fastest(samples: Sequence[Tensor], makers: dict[str, Maker]) -> tuple[str, str]:
    """The names of the fastest products for few and for many rows."""
    for_many = {name: make for name, make in makers.items() if name != "weight-first"}
    many_seconds = _seconds(samples, 16, for_many)
    many = min(many_seconds, key=lambda name: many_seconds[name])
    few_seconds = _seconds(samples, FEW[0], makers)
    few = min(few_seconds, key=lambda name: few_seconds[name])
    return (few if few_seconds[few] < _WORTH * few_seconds[many] else many), many


@torch.inference_mode()
def _works(weight: Tensor, make: Maker | None) -> bool:
    """Whether this build of torch has the product."""
    if make is None:
        return False
    try:
        make(weight, None)(torch.zeros(2, weight.shape[1], dtype=weight.dtype))
    except (RuntimeError, AttributeError):
        return False
    return True


@torch.inference_mode()
def _seconds(samples: Sequence[Tensor], rows: int, makers: dict[str, Maker]) -> dict[str, float]:
    """The time that each product takes, without those that this build of torch lacks."""
    products: dict[str, list[Product]] = {}
    inputs = [torch.randn(rows, weight.shape[1]).to(weight.dtype) for weight in samples]
    for name, make in makers.items():
        if _works(samples[0], make):
            products[name] = [make(weight, None) for weight in samples]
    seconds = {name: float("inf") for name in products}
    for _ in range(_TRIALS):
        for name, of_samples in products.items():
            start = time.perf_counter()
            for product, x in zip(of_samples, inputs, strict=True):
                product(x)
            # The minimum, because another process can only slow a run down.
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds
