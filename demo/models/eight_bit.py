"""Weights of 8 bits: a symmetric integer for each weight, and a scale for each output of a matrix.

A CPU that answers one or two conversations waits for the memory that the weights are read from, and reads
half as much this way. The model's own modules get the rounded weights, too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from demo.utils.errors import UserError

_LARGEST = 127


def eight_bit(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix [out, in]: the largest weight of each output becomes 127 or -127.

    Matrices that `widened` has made are given back as they were rounded, so nothing is rounded twice.

    Returns:
        Integers [out, in] int8, and scales [out] in the matrix's dtype.
    """
    weight32 = weight.detach().float()
    least = torch.finfo(weight.dtype).tiny  # an output whose weights are all 0
    scales = (weight32.abs().amax(1) / _LARGEST).clamp(min=least).to(weight.dtype)
    integers = (weight32 / scales.float()[:, None]).round().clamp(-_LARGEST, _LARGEST)
    return integers.to(torch.int8), scales


def widened(integers: Tensor, scales: Tensor) -> Tensor:
    """The matrix [out, in] that integers [out, in] and scales [out] stand for, in the dtype of the scales."""
    return (integers.float() * scales.float()[:, None]).to(scales.dtype)


@torch.no_grad()
def round_weights(model: nn.Module) -> None:
    """Round the matrices of all linear layers, and so the embedding where it shares one.

    Raises:
        UserError: The model is quantised already.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not all(module.weight.dtype in (torch.float32, torch.bfloat16) for module in linear):
        raise UserError("This model is quantised already: leave out --dtype.")
    for module in linear:
        # Not written into: the weights may be mapped from a file that cannot be written to.
        module.weight.data = widened(*eight_bit(module.weight))
