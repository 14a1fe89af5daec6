"""Matrix products for a handful of rows on the CPU.

A decode step multiplies every weight matrix [out, in] with a few rows only. torch hands `x @ W.T` with 2 to 8 rows to
a kernel that, on some CPUs, is two to four times slower than the same product written `(W @ x.T).T`. Which of the two
is faster is measured once at start, so that a second row costs next to nothing wherever it can.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

_ROWS = range(2, 9)


def skinny_linear(module: nn.Linear, x: Tensor) -> Tensor:
    """nn.Linear's product, written weight-first when x [..., in] holds 2 to 8 rows."""
    rows = x.numel() // x.shape[-1]
    if rows not in _ROWS:
        return functional.linear(x, module.weight, module.bias)
    # The copy matters: everything after this is slow on a transposed view.
    y = torch.mm(module.weight, x.reshape(rows, -1).t()).t().contiguous()
    if module.bias is not None:
        y += module.bias
    return y.view(*x.shape[:-1], -1)


# Two engines on one model must compute the same bits, so the choice is made once a model.
_CHOSEN: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def skinny_is_faster(model: nn.Module) -> bool:
    """Measure both ways on this model's own matrices with two rows, once. Always False off the CPU."""
    if model not in _CHOSEN:
        _CHOSEN[model] = _measured_faster(model)
    return _CHOSEN[model]


def _measured_faster(model: nn.Module, repeats: int = 7) -> bool:
    linears = [module for module in model.modules() if type(module) is nn.Linear]
    if not linears or linears[0].weight.device.type != "cpu":
        return False
    sample = linears[:14] + linears[-1:]
    inputs = [torch.randn(2, 1, m.in_features, dtype=m.weight.dtype) for m in sample]
    seconds: dict[str, list[float]] = {"plain": [], "skinny": []}
    ways: dict[str, Callable[[nn.Linear, Tensor], Tensor]] = {
        "plain": lambda m, x: functional.linear(x, m.weight, m.bias),
        "skinny": skinny_linear,
    }
    with torch.inference_mode():
        for _ in range(repeats):
            for name, way in ways.items():
                start = time.perf_counter()
                for module, x in zip(sample, inputs, strict=True):
                    way(module, x)
                seconds[name].append(time.perf_counter() - start)
    # The minimum, for another process can only slow a run down.
    return min(seconds["skinny"]) < min(seconds["plain"])


@contextmanager
def skinny_products(model: nn.Module, active: bool) -> Iterator[None]:
    """Within the block every nn.Linear of the model uses `skinny_linear`; afterwards the model is as it was."""
    patched = [
        module
        for module in model.modules()
        if active and type(module) is nn.Linear and "forward" not in vars(module)
    ]
    for module in patched:
        module.forward = MethodType(skinny_linear, module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in patched:
            del module.forward
