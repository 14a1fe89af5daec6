"""KV caches: one batch of rows while a turn decodes, one entry per branch between turns.

While rows decode together they are right-aligned in one buffer: shorter rows are padded on the left and masked. The
buffer has room to spare, so that a decode step writes one column in place instead of copying the whole history, as
transformers' own dynamic cache does at every step and layer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from demo.engine.protocol import Cap

_SPARE_COLUMNS = 256


class RowLayer(CacheLayerMixin):
    """Keys and values of one decoder layer, [B, heads, capacity, head_dim], of which `length` columns are in use.

    Sliding-window models keep their full history too; their attention mask hides what lies outside the window. That
    costs memory, but lets a branch be cut back to any length.
    """

    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states.new_empty((*key_states.shape[:2], 0, key_states.shape[3]))
        self.values = value_states.new_empty((*value_states.shape[:2], 0, value_states.shape[3]))
        self.is_initialized = True

    def reserve(self, columns: int) -> None:
        """Make room for `columns` in all, keeping what is there."""
        if self.keys.shape[2] < columns:
            self.keys = _grown(self.keys, self.length, columns)
            self.values = _grown(self.values, self.length, columns)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        if end > self.keys.shape[2]:
            self.reserve(end + _SPARE_COLUMNS)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1


def _grown(buffer: Tensor, used: int, columns: int) -> Tensor:
    bigger = buffer.new_empty((*buffer.shape[:2], columns, buffer.shape[3]))
    bigger[:, :, :used] = buffer[:, :, :used]
    return bigger


@dataclass(slots=True)
class BranchCache:
    """What one branch keeps between turns.

    ids: the T tokens that were run; keys, values: per layer [1, heads, T, head_dim]; before: T projections at the
    probe layer, axis units, before the clamp; cap: under which cap all this was computed, for it shapes every value.
    """

    ids: list[int]
    keys: list[Tensor]
    values: list[Tensor]
    before: list[float]
    cap: Cap | None

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))

    def common_prefix(self, ids: Sequence[int], cap: Cap | None) -> int:
        """How many leading tokens of `ids` need not be run again."""
        if cap != self.cap:
            return 0
        limit = min(len(ids), len(self.ids))
        return next((index for index in range(limit) if ids[index] != self.ids[index]), limit)


class BranchStore:
    """Branch caches under a memory budget: the least recently used are dropped, and rebuilt when needed."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._entries: OrderedDict[str, BranchCache] = OrderedDict()

    @property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entry in self._entries.values())

    def get(self, branch: str) -> BranchCache | None:
        entry = self._entries.get(branch)
        if entry is not None:
            self._entries.move_to_end(branch)
        return entry

    def put(self, branch: str, entry: BranchCache) -> None:
        self._entries[branch] = entry
        self._entries.move_to_end(branch)
        while self.nbytes > self.budget_bytes and self._entries:
            self._entries.popitem(last=False)

    def drop(self, branch: str) -> None:
        self._entries.pop(branch, None)

    def __contains__(self, branch: str) -> bool:
        return branch in self._entries


class RowCache(Cache):
    """The KV cache of a batch of right-aligned rows."""

    layers: list[RowLayer]  # type: ignore[assignment]

    def __init__(self, n_layers: int) -> None:
        super().__init__(layers=[RowLayer() for _ in range(n_layers)])

    def load(self, rows: Sequence[tuple[BranchCache | None, int]], reserve: int) -> None:
        """Fill an empty batch with the first `kept` columns of each row's cache, right-aligned."""
        width = max(kept for _, kept in rows)
        like = next((entry for entry, kept in rows if entry is not None and kept), None)
        if like is None:
            return
        for index, layer in enumerate(self.layers):
            key, value = like.keys[index], like.values[index]
            layer.lazy_initialization(key.expand(len(rows), -1, -1, -1), value.expand(len(rows), -1, -1, -1))
            layer.reserve(reserve)
            layer.length = width
            for row, (entry, kept) in enumerate(rows):
                # Padding is masked, but must hold numbers: 0 x NaN would still be NaN.
                layer.keys[row, :, : width - kept] = 0
                layer.values[row, :, : width - kept] = 0
                if entry is not None and kept:
                    layer.keys[row, :, width - kept : width] = entry.keys[index][0, :, :kept]
                    layer.values[row, :, width - kept : width] = entry.values[index][0, :, :kept]

    def row(self, row: int, length: int) -> tuple[list[Tensor], list[Tensor]]:
        """Copies of the last `length` columns of one row, per layer: [1, heads, length, head_dim]."""

        def cut(buffer: Tensor, end: int) -> Tensor:
            return buffer[row : row + 1, :, end - length : end].clone()

        return [cut(x.keys, x.length) for x in self.layers], [cut(x.values, x.length) for x in self.layers]

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        for layer in self.layers:
            index = torch.tensor(list(rows), device=layer.keys.device)
            layer.keys = layer.keys[:, :, : layer.length].index_select(0, index)
            layer.values = layer.values[:, :, : layer.length].index_select(0, index)
