"""The KV cache: slots for the running sequences, and the prefix cache, which keeps them between turns.

A running sequence has one slot, and its token i is in column i. Sequences come and go while others decode; a
sequence's columns never move because of that, and its results do not depend on the others' lengths.
Sliding-window models keep their whole history too, and their attention mask hides what is outside the window.
That costs memory, but a branch can be cut back to any length.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor

from demo.engine.protocol import Intervention

# Columns are reserved, and attended over, in steps. That means fewer shapes and fewer allocations.
STEP = 32


def rounded_up(columns: int) -> int:
    """The next multiple of STEP."""
    return -(-columns // STEP) * STEP


@dataclass(slots=True)
class CachedSequence:
    """A sequence as it is kept between turns.

    Attributes:
        ids: the T tokens that were run.
        keys, values: per layer [heads, T, head_dim].
        before: T projections at the probe layer, axis units, before the clamp.
        under: the intervention under which the keys and values were computed, which affects all of them.
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
        return common_prefix(self.ids, ids) if under == self.under else 0


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many leading tokens two texts share."""
    limit = min(len(one), len(other))
    return next((index for index in range(limit) if one[index] != other[index]), limit)


class LayerCache:
    """Keys and values of one decoder layer, [slots, heads, columns, head_dim].

    They are allocated when the first ones arrive, because their heads are not known before.
    """

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        self.allocated = False
        self._size = (0, 0)  # slots, columns

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes if self.allocated else 0

    def reserve(self, slots: int, columns: int) -> None:
        """Grow to so many slots and columns; the content stays."""
        self._size = (slots, columns)
        if self.allocated and (self.keys.shape[0] < slots or self.keys.shape[2] < columns):
            self.keys, self.values = self._resized(self.keys), self._resized(self.values)

    def allocate_like(self, keys: Tensor, values: Tensor) -> None:
        """Allocate the buffers unless they exist, for heads as in `keys` and `values`.

        Args:
            keys, values: [..., heads, tokens, head_dim].
        """
        if not self.allocated:
            slots, columns = self._size
            # Zeros and not uninitialised memory: masked columns must hold numbers, because 0 x NaN is NaN.
            self.keys = keys.new_zeros((slots, keys.shape[-3], columns, keys.shape[-1]))
            self.values = values.new_zeros((slots, values.shape[-3], columns, values.shape[-1]))
            # Set last, because other threads count the bytes meanwhile and the second allocation may fail.
            self.allocated = True

    def fit(self, slots: int, columns: int) -> None:
        """Resize to exactly so many slots and columns; what lies beyond is lost."""
        self._size = (slots, columns)
        if self.allocated:
            self.keys, self.values = self._resized(self.keys), self._resized(self.values)

    def _resized(self, buffer: Tensor) -> Tensor:
        """A buffer of the requested size with the part of this one that fits."""
        slots, columns = (min(had, size) for had, size in zip(buffer.shape[::2], self._size, strict=True))
        other = buffer.new_zeros((self._size[0], buffer.shape[1], self._size[1], buffer.shape[3]))
        other[:slots, :, :columns] = buffer[:slots, :, :columns]
        return other


class KVCache:
    """The slots of all decoder layers. The caller keeps track of which are in use."""

    def __init__(self, layers: int) -> None:
        self.layers = [LayerCache() for _ in range(layers)]
        self.slots = self.columns = 0

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self.layers)

    @torch.inference_mode()
    def reserve(self, slots: int, columns: int) -> None:
        """Grow to so many slots and columns; the content stays."""
        self.slots, self.columns = max(self.slots, slots), max(self.columns, rounded_up(columns))
        for layer in self.layers:
            layer.reserve(self.slots, self.columns)

    @torch.inference_mode()
    def fit(self, slots: int, columns: int) -> None:
        """Resize to exactly so many slots and columns; what lies beyond is lost."""
        self.slots, self.columns = slots, rounded_up(columns)
        for layer in self.layers:
            layer.fit(self.slots, self.columns)

    @torch.inference_mode()
    def load(self, slot: int, cached: CachedSequence, tokens: int) -> None:
        """Copy the first `tokens` tokens of a cached sequence into a slot."""
        for layer, keys, values in zip(self.layers, cached.keys, cached.values, strict=True):
            layer.allocate_like(keys, values)
            layer.keys[slot, :, :tokens] = keys[:, :tokens]
            layer.values[slot, :, :tokens] = values[:, :tokens]

    @torch.inference_mode()
    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first `tokens` tokens of one slot into another."""
        for layer in self.layers:
            layer.keys[target, :, :tokens] = layer.keys[source, :, :tokens]
            layer.values[target, :, :tokens] = layer.values[source, :, :tokens]

    @torch.inference_mode()
    def saved(self, slot: int, tokens: int) -> tuple[list[Tensor], list[Tensor]]:
        """Copies of a slot's first `tokens` tokens: keys and values, per layer [heads, tokens, head_dim]."""
        return (
            [layer.keys[slot, :, :tokens].clone() for layer in self.layers],
            [layer.values[slot, :, :tokens].clone() for layer in self.layers],
        )


def visible_columns(lengths: Sequence[int], slots: int, columns: int) -> Tensor:
    """[slots, 1, 1, columns] bool: the columns that one new token of each slot attends to, its own included.

    Args:
        lengths: tokens in each slot, the new one included. Slots beyond these, or without tokens, see one
            column, because a softmax over nothing is not a number.
    """
    ends = torch.ones(slots, dtype=torch.long)
    ends[: len(lengths)] = torch.tensor(lengths).clamp(min=1)
    return (torch.arange(columns)[None, :] < ends[:, None])[:, None, None]


class PrefixCache:
    """Cached sequences within a memory budget. The least recently used are dropped, and rebuilt when needed.

    The cached sequence of a branch serves any other branch whose prompt begins alike under the same
    intervention, so a shared system prompt or scripted message is read once. It may be used from any thread.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._entries: OrderedDict[str, CachedSequence] = OrderedDict()
        self._lock = Lock()
        # A running total, because every update of every page asks for it.
        self.nbytes = 0

    def get(self, branch: str) -> CachedSequence | None:
        """The branch's own entry."""
        with self._lock:
            entry = self._entries.get(branch)
            if entry is not None:
                self._entries.move_to_end(branch)
            return entry

    def longest(
        self, branch: str, ids: Sequence[int], under: Intervention
    ) -> tuple[CachedSequence | None, int]:
        """The entry with the longest prefix in common with `ids`, and its length.

        The branch's own entry is returned unless another one shares more.
        """
        with self._lock:
            best, most = None, 0
            own = self._entries.get(branch)
            # Of two that share equally much, the most recently used: the other may be dropped soon.
            for name, entry in [(branch, own), *reversed(self._entries.items())]:
                shared = 0 if entry is None else entry.common_prefix(ids, under)
                if shared > most:
                    best, most, found = entry, shared, name
            if best is not None:
                self._entries.move_to_end(found)
            return best, most

    def put(self, branch: str, entry: CachedSequence) -> None:
        """Store the branch's entry in place of its previous one."""
        self.drop(branch)
        with self._lock:
            self._entries[branch] = entry
            self.nbytes += entry.nbytes
        self._shrink()

    def set_budget(self, budget_bytes: int) -> None:
        """Change the budget, and drop entries until it is met."""
        self.budget_bytes = budget_bytes
        self._shrink()

    def drop(self, branch: str) -> None:
        """Remove the branch's entry, if there is one."""
        with self._lock:
            gone = self._entries.pop(branch, None)
            self.nbytes -= gone.nbytes if gone else 0

    def _shrink(self) -> None:
        """Drop the least recently used entries until the budget is met."""
        with self._lock:
            while self.nbytes > self.budget_bytes and self._entries:
                self.nbytes -= self._entries.popitem(last=False)[1].nbytes

    def __contains__(self, branch: str) -> bool:
        return branch in self._entries
