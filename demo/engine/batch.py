"""Rows of one batch: ragged prompts in one prefill, then one token per row and step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from demo.engine.kv import BranchCache, RowCache
from demo.models import LoadedModel


class RowBatch:
    """B right-aligned rows of a decoder with a shared KV cache.

    All rows run the same number of new tokens in every forward pass. Where rows have a different number of uncached
    prompt tokens, the rows with fewer run some cached ones again: a few repeated tokens cost less than a second pass.
    """

    def __init__(self, model: LoadedModel, rows: int, buffers: RowCache | None = None) -> None:
        """buffers: a cache of an earlier batch whose memory is to be used again; `load` empties it."""
        self.model = model
        self.width = 0
        self.pad = torch.zeros(rows, dtype=torch.long)
        self.cache = buffers or RowCache(len(model.layers))

    @property
    def rows(self) -> int:
        return len(self.pad)

    def load(
        self, prompts: Sequence[Sequence[int]], cached: Sequence[tuple[BranchCache | None, int]], spare: int
    ) -> Tensor:
        """Bring in each row's cached prefix and return the tokens left to run, [B, n], padded on the left with 0.

        cached: per row its branch's cache and how many leading prompt tokens of it are valid. spare: columns to
        reserve for the tokens to come.
        """
        lengths = [len(prompt) for prompt in prompts]
        longest = max(lengths)
        # At least one token must run, for its logits.
        new = max(1, *(length - kept for length, (_, kept) in zip(lengths, cached, strict=True)))
        usable = [(entry, max(length - new, 0)) for length, (entry, _) in zip(lengths, cached, strict=True)]
        self.cache.load(usable, longest + spare)
        self.width = longest - new
        self.pad = torch.tensor([longest - length for length in lengths])
        tail = [[0] * max(new - len(prompt), 0) + list(prompt[-new:]) for prompt in prompts]
        return torch.tensor(tail)

    def is_padding(self, columns: int) -> Tensor:
        """[B, columns] bool: which of the next `columns` columns hold no token of their row."""
        return torch.arange(self.width, self.width + columns)[None, :] < self.pad[:, None]

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
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.width = end
        return output.logits[:, -1]

    def row_cache(self, row: int) -> tuple[list[Tensor], list[Tensor]]:
        """Copies of one row's keys and values, per layer [1, heads, T, head_dim], padding left out."""
        return self.cache.row(row, self.width - int(self.pad[row]))

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, given in ascending order."""
        self.cache.select(rows)
        self.pad = self.pad[list(rows)]
