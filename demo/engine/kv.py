"""The KV cache of a fixed batch: rows are right-aligned in one buffer, shorter ones padded on the left and masked.

The buffer has room to spare, so that a decode step writes one column in place instead of copying the whole history, as
transformers' own dynamic cache does at every step and layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class RowLayer(CacheLayerMixin):
    """Keys and values of one decoder layer, [rows, heads, columns, head_dim], of which `rows` x `length` are in use.

    Sliding-window models keep their full history too; their attention mask hides what lies outside the window. That
    costs memory, but lets a branch be cut back to any length.
    """

    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states.new_empty((0, key_states.shape[1], 0, key_states.shape[3]))
        self.values = value_states.new_empty((0, value_states.shape[1], 0, value_states.shape[3]))
        self.is_initialized = True

    def reserve(self, rows: int, columns: int) -> None:
        """Make room for so many rows and columns in all, and half as many columns again, keeping what is in use.

        Growing by a share makes a growing conversation pay for fresh memory only now and then, not at every turn.
        """
        if self.keys.shape[0] < rows or self.keys.shape[2] < columns:
            columns += columns // 2
            self.keys = self._grown(self.keys, rows, columns)
            self.values = self._grown(self.values, rows, columns)

    def _grown(self, buffer: Tensor, rows: int, columns: int) -> Tensor:
        shape = (max(rows, buffer.shape[0]), buffer.shape[1], max(columns, buffer.shape[2]), buffer.shape[3])
        bigger = buffer.new_empty(shape)
        used = min(self.rows, buffer.shape[0])
        bigger[:used, :, : self.length] = buffer[:used, :, : self.length]
        return bigger

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, end = key_states.shape[0], self.length + key_states.shape[2]
        self.reserve(rows, end)
        self.rows = rows
        self.keys[:rows, :, self.length : end] = key_states
        self.values[:rows, :, self.length : end] = value_states
        self.length = end
        return self.keys[:rows, :, :end], self.values[:rows, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1


class RowCache(Cache):
    """The KV cache of a batch of right-aligned rows."""

    layers: list[RowLayer]  # type: ignore[assignment]

    def __init__(self, n_layers: int) -> None:
        super().__init__(layers=[RowLayer() for _ in range(n_layers)])

    @torch.inference_mode()
    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, given in ascending order, by moving them to the front."""
        for layer in self.layers:
            for new, old in enumerate(rows):
                if new != old:
                    layer.keys[new, :, : layer.length] = layer.keys[old, :, : layer.length]
                    layer.values[new, :, : layer.length] = layer.values[old, :, : layer.length]
            layer.rows = len(rows)
