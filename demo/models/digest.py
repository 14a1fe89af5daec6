"""A digest of a model's weights, by which an axis is found again whatever the model is called."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_SAMPLED = 256  # numbers of each parameter that enter the digest


def weights_digest(model: nn.Module) -> str:
    """16 hexadecimal digits that depend on the names, shapes and values of all parameters.

    Of each parameter only numbers at even distances are read, so this takes a moment for a model of any size.
    They are rounded to bfloat16, so that the same weights have the same digest in float32 and in bfloat16,
    though not always in float16. Another quantisation, or training, changes some of them.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)}\n".encode())
        for part in _sample(parameter.detach()):
            digest.update(part.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _sample(values: Tensor) -> Iterator[Tensor]:
    """Numbers at even distances; none where the weights are not in memory."""
    if values.is_meta or not values.numel():
        return
    flat = values.reshape(-1)
    chosen = flat[:: math.ceil(flat.numel() / _SAMPLED)]
    yield chosen.to(torch.bfloat16) if chosen.is_floating_point() else chosen
