"""The KV cache: slots for the running sequences.

A running sequence has one slot, and its token i is in column i. Sequences come and go while others decode;
its results do not depend on the others' lengths.
Sliding-window models keep their whole history too, and their attention mask hides what is outside the window.
That costs memory, but a branch can be cut back to any length. Models with other kinds of state use
`forward.own_cache` instead, and `shelved_cache` holds sequences of very different lengths in less memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# Columns are reserved, and attended over, in steps. That means fewer shapes and fewer allocations.
STEP = 32


def rounded_up(columns: int) -> int:
    """The next multiple of STEP."""
    return -(-columns // STEP) * STEP


class SavedState(Protocol):
    """What a cache holds of one sequence, copied out of it. Only the cache that made it can load it."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        ...

    @property
    def can_be_cut(self) -> bool:
        """Whether the first tokens can be used without the others. A recurrent state is all or nothing."""
        ...


class SequenceCache(Protocol):
    """Holds the state of the running sequences, each in a slot.

    Attributes:
        can_be_cut: see `SavedState`.
    """

    can_be_cut: bool

    @property
    def nbytes(self) -> int:
        """Bytes held for the running sequences."""
        ...

    def columns_of(self, lengths: Sequence[int]) -> int:
        """The room, in tokens, that sequences of at most so many tokens each take."""
        ...

    def columns_after(self, lengths: Sequence[int]) -> int:
        """The room that is held after `make_room` for these sequences."""
        ...

    def make_room(self, lengths: Sequence[int]) -> None:
        """Grow at once for sequences of so many tokens each, all open ones included; the content stays."""
        ...

    def open(self, slot: int, tokens: int) -> None:
        """Give a sequence of at most so many tokens this slot."""
        ...

    def close(self, slot: int) -> None:
        """The sequence in this slot has ended."""
        ...

    def move(self, source: int, target: int, tokens: int) -> None:
        """Give the sequence in `source`, which holds so many tokens, the closed slot `target` instead."""
        ...

    def place(self, slot: int) -> tuple[int, int]:
        """Where a slot lies. A pass is fastest with its sequences in this order."""
        ...

    def fit(self, lengths: Sequence[int]) -> None:
        """Give memory back that sequences of so many tokens each, all open ones included, do not need."""
        ...

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        ...

    def load(self, slot: int, state: SavedState, tokens: int) -> None:
        """Copy the first `tokens` tokens of a saved state into a slot."""
        ...

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first `tokens` tokens of one slot into another."""
        ...

    def saved(self, slot: int, tokens: int) -> SavedState:
        """A copy of a slot's first `tokens` tokens."""
        ...


def open_all(cache: SequenceCache, lengths: Sequence[int]) -> None:
    """Open the first slots for sequences of so many tokens each."""
    cache.make_room(lengths)
    for slot, tokens in enumerate(lengths):
        cache.open(slot, tokens)


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many leading tokens two texts share."""
    limit = min(len(one), len(other))
    return next((index for index in range(limit) if one[index] != other[index]), limit)


@dataclass(frozen=True, slots=True)
class SavedKeysAndValues:
    """Keys and values of T tokens, per layer [heads, T, head_dim]; None at a layer without any of its own."""

    keys: list[Tensor | None]
    values: list[Tensor | None]
    can_be_cut: bool = True

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values) if tensor is not None)


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

    def resize(self, slots: int, columns: int) -> None:
        """Resize to exactly so many slots and columns; what lies beyond is lost."""
        self._size = (slots, columns)
        if self.allocated:
            self.keys, self.values = self._resized(self.keys), self._resized(self.values)

    def copy(self, source: int, other: LayerCache, target: int, tokens: int) -> None:
        """Copy the first `tokens` tokens of a slot into one of another or of the same cache."""
        if self.allocated:
            other.allocate_like(self.keys, self.values)
            other.keys[target, :, :tokens] = self.keys[source, :, :tokens]
            other.values[target, :, :tokens] = self.values[source, :, :tokens]

    def _resized(self, buffer: Tensor) -> Tensor:
        """A buffer of the requested size with the part of this one that fits."""
        slots, columns = (min(had, size) for had, size in zip(buffer.shape[::2], self._size, strict=True))
        other = buffer.new_zeros((self._size[0], buffer.shape[1], self._size[1], buffer.shape[3]))
        other[:slots, :, :columns] = buffer[:slots, :, :columns]
        return other


class KVCache:
    """The slots of all decoder layers, each as long as the longest. See `SequenceCache`.

    A layer that uses another layer's keys and values has none here.
    """

    can_be_cut = True

    def __init__(self, layers: int) -> None:
        self.layers = [LayerCache() for _ in range(layers)]
        self.slots = self.columns = 0

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self.layers)

    def columns_of(self, lengths: Sequence[int]) -> int:
        """See `SequenceCache`."""
        return len(lengths) * rounded_up(max(lengths, default=0))

    def columns_after(self, lengths: Sequence[int]) -> int:
        """See `SequenceCache`."""
        return max(self.slots, len(lengths)) * max(self.columns, rounded_up(max(lengths, default=0)))

    def make_room(self, lengths: Sequence[int]) -> None:
        """See `SequenceCache`."""
        self.reserve(len(lengths), max(lengths, default=0))

    def open(self, slot: int, tokens: int) -> None:
        """See `SequenceCache`."""
        self.reserve(slot + 1, tokens)

    def close(self, slot: int) -> None:
        """See `SequenceCache`. The caller keeps track of which slots are open."""

    def move(self, source: int, target: int, tokens: int) -> None:
        """See `SequenceCache`."""
        self.copy(source, target, tokens)

    def place(self, slot: int) -> tuple[int, int]:
        """See `SequenceCache`."""
        return 0, slot

    def fit(self, lengths: Sequence[int]) -> None:
        """See `SequenceCache`. The open slots must be the first ones."""
        self.resize(len(lengths), max(lengths, default=0))

    @torch.inference_mode()
    def reserve(self, slots: int, columns: int) -> None:
        """Grow to so many slots and columns; the content stays."""
        self.slots, self.columns = max(self.slots, slots), max(self.columns, rounded_up(columns))
        for layer in self.layers:
            layer.reserve(self.slots, self.columns)

    @torch.inference_mode()
    def resize(self, slots: int, columns: int) -> None:
        """Resize to exactly so many slots and columns; what lies beyond is lost."""
        self.slots, self.columns = slots, rounded_up(columns)
        for layer in self.layers:
            layer.resize(self.slots, self.columns)

    @torch.inference_mode()
    def clear(self, slot: int) -> None:
        """See `SequenceCache`. Masks hide old keys and values, but not those that are NaN."""
        for layer in self.layers:
            if layer.allocated:
                layer.keys[slot].zero_()
                layer.values[slot].zero_()

    @torch.inference_mode()
    def load(self, slot: int, state: SavedState, tokens: int) -> None:
        """See `SequenceCache`."""
        assert isinstance(state, SavedKeysAndValues)
        for layer, keys, values in zip(self.layers, state.keys, state.values, strict=True):
            if keys is not None and values is not None:
                layer.allocate_like(keys, values)
                layer.keys[slot, :, :tokens] = keys[:, :tokens]
                layer.values[slot, :, :tokens] = values[:, :tokens]

    @torch.inference_mode()
    def copy(self, source: int, target: int, tokens: int) -> None:
        """See `SequenceCache`."""
        for layer in self.layers:
            layer.copy(source, layer, target, tokens)

    @torch.inference_mode()
    def saved(self, slot: int, tokens: int) -> SavedKeysAndValues:
        """See `SequenceCache`."""
        return SavedKeysAndValues(
            [layer.keys[slot, :, :tokens].clone() if layer.allocated else None for layer in self.layers],
            [layer.values[slot, :, :tokens].clone() if layer.allocated else None for layer in self.layers],
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
