"""What branches keep between turns: their KV caches, under a memory budget."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor

from demo.engine.protocol import Intervention


@dataclass(slots=True)
class CachedSequence:
    """What one branch keeps between turns.

    ids: the T tokens that were run; keys, values: per layer [heads, T, head_dim]; before: T projections at the probe
    layer, axis units, before the clamp; under: the intervention all this was computed under, for it shapes every value.
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


class PrefixCache:
    """Branch caches under a memory budget: the least recently used are dropped, and rebuilt when needed.

    Any branch's cache serves any other whose prompt begins alike under the same intervention: the same system prompt or
    the same scripted message is read once. Safe to use from several threads.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._entries: OrderedDict[str, CachedSequence] = OrderedDict()
        self._lock = Lock()
        # Asked for with every update of every page, so it is kept and not summed up over all tensors of all branches.
        self.nbytes = 0

    def get(self, branch: str) -> CachedSequence | None:
        with self._lock:
            entry = self._entries.get(branch)
            if entry is not None:
                self._entries.move_to_end(branch)
            return entry

    def longest(
        self, branch: str, ids: Sequence[int], under: Intervention
    ) -> tuple[CachedSequence | None, int]:
        """The cache that holds most of the beginning of `ids`, and how much; the branch's own where others hold no more."""
        with self._lock:
            best, most = None, 0
            own = self._entries.get(branch)
            # Of two that serve as well, the one used last: the other may go.
            for name, entry in [(branch, own), *reversed(self._entries.items())]:
                shared = 0 if entry is None else entry.common_prefix(ids, under)
                if shared > most:
                    best, most, found = entry, shared, name
            if best is not None:
                self._entries.move_to_end(found)
            return best, most

    def put(self, branch: str, entry: CachedSequence) -> None:
        self.drop(branch)
        with self._lock:
            self._entries[branch] = entry
            self.nbytes += entry.nbytes
        self._shrink()

    def set_budget(self, budget_bytes: int) -> None:
        """Hold no more than this from now on."""
        self.budget_bytes = budget_bytes
        self._shrink()

    def _shrink(self) -> None:
        """Drop what was not used for longest until the budget is kept."""
        with self._lock:
            while self.nbytes > self.budget_bytes and self._entries:
                self.nbytes -= self._entries.popitem(last=False)[1].nbytes

    def drop(self, branch: str) -> None:
        with self._lock:
            gone = self._entries.pop(branch, None)
            self.nbytes -= gone.nbytes if gone else 0

    def __contains__(self, branch: str) -> bool:
        return branch in self._entries


# Columns are reserved, and attended over, in steps: fewer shapes, fewer allocations.
STEP = 32


def rounded_up(columns: int) -> int:
    return -(-columns // STEP) * STEP


class LayerCache:
    """Keys and values of one decoder layer, [slots, heads, columns, head_dim]; made when the first ones are seen."""

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        self.made = False
        self._wanted = (0, 0)

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes if self.made else 0

    def reserve(self, slots: int, columns: int) -> None:
        self._wanted = (slots, columns)
        if self.made and (self.keys.shape[0] < slots or self.keys.shape[2] < columns):
            self.keys, self.values = self._resized(self.keys), self._resized(self.values)

    def like(self, keys: Tensor, values: Tensor) -> None:
        """Make the buffers, for heads as in `keys` and `values` [..., heads, tokens, head_dim]."""
        if not self.made:
            slots, columns = self._wanted
            # Zeros, not whatever was there: columns behind a mask must hold numbers, for 0 x NaN would still be NaN.
            self.keys = keys.new_zeros((slots, keys.shape[-3], columns, keys.shape[-1]))
            self.values = values.new_zeros((slots, values.shape[-3], columns, values.shape[-1]))
            # Only now: others may count the bytes meanwhile, and memory may end between the two.
            self.made = True

    def fit(self, slots: int, columns: int) -> None:
        self._wanted = (slots, columns)
        if self.made:
            self.keys, self.values = self._resized(self.keys), self._resized(self.values)

    def _resized(self, buffer: Tensor) -> Tensor:
        """A buffer of the wanted size with what fits of this one."""
        slots, columns = (
            min(had, wanted) for had, wanted in zip(buffer.shape[::2], self._wanted, strict=True)
        )
        other = buffer.new_zeros((self._wanted[0], buffer.shape[1], self._wanted[1], buffer.shape[3]))
        other[:slots, :, :columns] = buffer[:slots, :, :columns]
        return other


class KVCache:
    """All layers' slots. Which of them are taken is the caller's business."""

    def __init__(self, layers: int) -> None:
        self.layers = [LayerCache() for _ in range(layers)]
        self.slots = self.columns = 0

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self.layers)

    @torch.inference_mode()
    def reserve(self, slots: int, columns: int) -> None:
        """Capacity for so many slots and columns in all; what is there is kept."""
        self.slots, self.columns = max(self.slots, slots), max(self.columns, rounded_up(columns))
        for layer in self.layers:
            layer.reserve(self.slots, self.columns)

    @torch.inference_mode()
    def fit(self, slots: int, columns: int) -> None:
        """Hold so many slots and columns and no more; what lies beyond is lost."""
        self.slots, self.columns = slots, rounded_up(columns)
        for layer in self.layers:
            layer.fit(self.slots, self.columns)

    @torch.inference_mode()
    def load(self, slot: int, entry: CachedSequence, kept: int) -> None:
        """Copy the first `kept` tokens of a branch's cache into a slot."""
        for layer, keys, values in zip(self.layers, entry.keys, entry.values, strict=True):
            layer.like(keys, values)
            layer.keys[slot, :, :kept] = keys[:, :kept]
            layer.values[slot, :, :kept] = values[:, :kept]

    @torch.inference_mode()
    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first `tokens` tokens of one slot into another."""
        for layer in self.layers:
            layer.keys[target, :, :tokens] = layer.keys[source, :, :tokens]
            layer.values[target, :, :tokens] = layer.values[source, :, :tokens]

    @torch.inference_mode()
    def saved(self, slot: int, tokens: int) -> tuple[list[Tensor], list[Tensor]]:
        """Copies of a slot's first `tokens` tokens, per layer [heads, tokens, head_dim]."""
        return (
            [layer.keys[slot, :, :tokens].clone() for layer in self.layers],
            [layer.values[slot, :, :tokens].clone() for layer in self.layers],
        )


def visible(lengths: Sequence[int], slots: int, columns: int) -> Tensor:
    """[slots, 1, 1, columns] bool: what one new token of each slot attends to, itself included. lengths: tokens in each slot by
    then; slots beyond or without tokens see one column, because a softmax over nothing is not a number."""
    ends = torch.ones(slots, dtype=torch.long)
    ends[: len(lengths)] = torch.tensor(lengths).clamp(min=1)
    return (torch.arange(columns)[None, :] < ends[:, None])[:, None, None]
