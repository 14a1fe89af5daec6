"""A fixed batch: ragged prompts in one prefill, then one token per row and step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from demo.engine.kv import RowCache
from demo.models.loading import LoadedModel


class RowBatch:
    """B right-aligned rows of a decoder with a KV cache of their own: for rollouts and for reading, which nobody waits beside.

    All rows run the same number of new tokens in every forward pass.
    """

    def __init__(self, model: LoadedModel, rows: int) -> None:
        self.model = model
        self.width = 0
        self.pad = torch.zeros(rows, dtype=torch.long)
        self.cache = RowCache(len(model.layers))

    @property
    def rows(self) -> int:
        return len(self.pad)

    def load(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Bring in the prompts: the tokens to run, [B, n], padded on the left with 0."""
        longest = max(len(prompt) for prompt in prompts)
        self.pad = torch.tensor([longest - len(prompt) for prompt in prompts])
        return torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])

    @torch.inference_mode()
    def forward(self, ids: Tensor) -> Tensor:
        """Run `ids` [B, n] after what is cached; return the last column's logits, [B, V]."""
        end = self.width + ids.shape[1]
        columns = torch.arange(end)
        positions = (columns[None, self.width :] - self.pad[:, None]).clamp(min=0)
        mask = (columns[None, :] >= self.pad[:, None]).long() if bool(self.pad.any()) else None
        device = self.model.device
        output = self.model.model(
            input_ids=ids.to(device),
            attention_mask=None if mask is None else mask.to(device),
            position_ids=positions.to(device),
            **{self.model.cache_argument: self.cache},
            use_cache=True,
            logits_to_keep=1,
        )
        self.width = end
        return output.logits[:, -1]

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, given in ascending order."""
        self.cache.select(rows)
        self.pad = self.pad[list(rows)]
