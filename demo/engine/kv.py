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

from demo.engine.protocol import Intervention


class RowLayer(CacheLayerMixin):
    """Keys and values of one decoder layer, [rows, heads, columns, head_dim], of which `rows` x `length` are in use.

    The buffers outlive a turn, because fresh memory costs far more to write than memory that is already there.
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


@dataclass(slots=True)
class BranchCache:
    """What one branch keeps between turns.

    ids: the T tokens that were run; keys, values: per layer [1, heads, T, head_dim]; before: T projections at the
    probe layer, axis units, before the clamp; under: the intervention all this was computed
    under, for it shapes every value.
    """

    ids: list[int]
    keys: list[Tensor]
    values: list[Tensor]
    before: list[float]
    under: Intervention

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))

    def common_prefix(self, ids: Sequence[int], under: Intervention) -> int:
        """How many leading tokens of `ids` need not be run again."""
        if under != self.under:
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

    @torch.inference_mode()
    def load(self, rows: Sequence[tuple[BranchCache | None, int]], reserve: int) -> None:
        """Start a batch with the first `kept` columns of each row's cache, right-aligned; what was there is gone."""
        width = max(kept for _, kept in rows)
        like = next((entry for entry, kept in rows if entry is not None and kept), None)
        for index, layer in enumerate(self.layers):
            layer.rows, layer.length = len(rows), 0
            if like is None:
                continue
            if not layer.is_initialized:
                layer.lazy_initialization(like.keys[index], like.values[index])
            layer.reserve(len(rows), reserve)
            layer.length = width
            for row, (entry, kept) in enumerate(rows):
                # Padding is masked, but must hold numbers: 0 x NaN would still be NaN.
                layer.keys[row, :, : width - kept] = 0
                layer.values[row, :, : width - kept] = 0
                if entry is not None and kept:
                    layer.keys[row, :, width - kept : width] = entry.keys[index][0, :, :kept]
                    layer.values[row, :, width - kept : width] = entry.values[index][0, :, :kept]

    @torch.inference_mode()
    def row(self, row: int, length: int) -> tuple[list[Tensor], list[Tensor]]:
        """Copies of the last `length` columns of one row, per layer: [1, heads, length, head_dim]."""

        def cut(buffer: Tensor, end: int) -> Tensor:
            return buffer[row : row + 1, :, end - length : end].clone()

        return [cut(x.keys, x.length) for x in self.layers], [cut(x.values, x.length) for x in self.layers]

    @torch.inference_mode()
    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, given in ascending order, by moving them to the front."""
        for layer in self.layers:
            for new, old in enumerate(rows):
                if new != old:
                    layer.keys[new, :, : layer.length] = layer.keys[old, :, : layer.length]
                    layer.values[new, :, : layer.length] = layer.values[old, :, : layer.length]
            layer.rows = len(rows)
