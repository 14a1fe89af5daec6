"""Control directions: caps along random directions and along the roles' first principal component.

They show whether an effect is due to the axis, or whether a cap along any direction has it. A
control direction has the axis's length at every layer. Its floors are computed as the axis's are:
percentiles of the projections of default reply means (arXiv 2601.10387, section 5), here over one
set of replies for all directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from demo.axis.axis import FLOOR_NAMES, AssistantAxis
from demo.engine.protocol import Request
from demo.engine.transformers_engine import TransformersEngine
from demo.models.chat_template import Message
from demo.models.loading import LoadedModel

Chat = tuple[Message, ...]


def random_direction(axis: AssistantAxis, seed: int) -> Tensor:
    """A Gaussian direction of the axis's length at every layer, [L, D]."""
    noise = torch.randn(axis.direction.shape, generator=torch.Generator().manual_seed(seed))
    return noise / noise.norm(dim=-1, keepdim=True) * axis.norm[:, None]


def first_component(axis: AssistantAxis) -> Tensor | None:
    """The role vectors' first principal component, toward the Assistant, of the axis's length.

    Returns:
        Shape [L, D]; None for an axis without components.
    """
    return None if axis.pca is None else axis.pca[0] * axis.norm[:, None]


def axis_along(
    model: LoadedModel, axis: AssistantAxis, direction: Tensor, replies: Sequence[Chat]
) -> AssistantAxis:
    """The axis with another direction [L, D] and with the floors that `replies` give along it.

    Args:
        replies: Finished chats with the default Assistant.
    """
    other = replace(axis, direction=direction, default_mean=axis.role_mean + direction)
    engine = TransformersEngine(model, other, kv_budget=None, keep=False)
    means = torch.stack([_reply_mean(engine, other, chat) for chat in replies])
    floors = {name: torch.quantile(means, int(name[1:]) / 100, dim=0) for name in FLOOR_NAMES}
    return replace(other, floors=floors)


def _reply_mean(engine: TransformersEngine, axis: AssistantAxis, chat: Chat) -> Tensor:
    """Mean raw projection of the chat's last message at every layer without a cap, [L]."""
    last = len(chat) - 1
    tokens = [token for part in engine.read(Request("", chat)) for token in part if token.message == last]
    units = torch.tensor([token.after for token in tokens]).mean(0)
    return units * axis.norm + axis.origin
