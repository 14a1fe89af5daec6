"""A KV cache in which long sequences do not make the slots of short ones as long as theirs.

Sequences of about the same length lie in the rows of one `KVCache`, a shelf. A slot is the name of such a
row. A sequence that comes or goes moves no other one.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

import torch

from demo.engine.kv_cache import KVCache, SavedKeysAndValues, SavedState

# Up to so many columns, those of shelves are multiples of so many. Few shelves mean few calls of attention,
# and many mean little unused memory.
_STEPS = ((256, 64), (1024, 128), (sys.maxsize, 256))


def shelf_of(tokens: int) -> int:
    """The columns of the shelf for a sequence of at most so many tokens."""
    step = next(step for most, step in _STEPS if tokens <= most)
    return max(-(-tokens // step), 1) * step


class ShelvedCache:
    """See `SequenceCache`.

    Attributes:
        shelves: columns -> the cache whose rows have so many.
        places: slot -> its shelf's columns and its row there.
    """

    can_be_cut = True

    def __init__(self, layers: int) -> None:
        self.shelves: dict[int, KVCache] = {}
        self.places: dict[int, tuple[int, int]] = {}
        self._layers = layers

    @property
    def nbytes(self) -> int:
        return sum(shelf.nbytes for shelf in list(self.shelves.values()))

    def at(self, slot: int) -> tuple[KVCache, int]:
        """The shelf of an open slot, and its row there."""
        columns, row = self.places[slot]
        return self.shelves[columns], row

    def place(self, slot: int) -> tuple[int, int]:
        """See `SequenceCache`."""
        return self.places[slot]

    def columns_of(self, lengths: Sequence[int]) -> int:
        """See `SequenceCache`."""
        return sum(map(shelf_of, lengths))

    def columns_after(self, lengths: Sequence[int]) -> int:
        """See `SequenceCache`."""
        rows = Counter(map(shelf_of, lengths))
        return sum(columns * max(count, self._rows(columns)) for columns, count in rows.items())

    def make_room(self, lengths: Sequence[int]) -> None:
        """See `SequenceCache`. Shelves that none of these sequences needs are dropped."""
        wanted = Counter(map(shelf_of, lengths))
        self.shelves = {columns: shelf for columns, shelf in self.shelves.items() if columns in wanted}
        for columns, rows in wanted.items():
            self._shelf(columns).reserve(rows, columns)

    def open(self, slot: int, tokens: int) -> None:
        """See `SequenceCache`."""
        columns = shelf_of(tokens)
        taken = {row for other, row in self.places.values() if other == columns}
        row = next(row for row in range(len(taken) + 1) if row not in taken)
        self._shelf(columns).reserve(row + 1, columns)
        self.places[slot] = columns, row

    def close(self, slot: int) -> None:
        """See `SequenceCache`."""
        self.places.pop(slot, None)

    def move(self, source: int, target: int, tokens: int) -> None:
        """See `SequenceCache`. Only the name changes."""
        self.places[target] = self.places.pop(source)

    def fit(self, lengths: Sequence[int]) -> None:
        """See `SequenceCache`. Rows move into free ones before them."""
        wanted = Counter(map(shelf_of, lengths))
        self.shelves = {columns: shelf for columns, shelf in self.shelves.items() if columns in wanted}
        for columns, shelf in self.shelves.items():
            own = sorted((row, slot) for slot, (other, row) in self.places.items() if other == columns)
            for free, (row, slot) in enumerate(own):
                if free < row:
                    shelf.copy(row, free, columns)
                    self.places[slot] = columns, free
            if wanted[columns] < shelf.slots:
                shelf.resize(wanted[columns], columns)

    def clear(self, slot: int) -> None:
        """See `SequenceCache`."""
        shelf, row = self.at(slot)
        shelf.clear(row)

    def load(self, slot: int, state: SavedState, tokens: int) -> None:
        """See `SequenceCache`."""
        shelf, row = self.at(slot)
        shelf.load(row, state, tokens)

    @torch.inference_mode()
    def copy(self, source: int, target: int, tokens: int) -> None:
        """See `SequenceCache`."""
        shelf, row = self.at(source)
        other, other_row = self.at(target)
        for layer, other_layer in zip(shelf.layers, other.layers, strict=True):
            layer.copy(row, other_layer, other_row, tokens)

    def saved(self, slot: int, tokens: int) -> SavedKeysAndValues:
        """See `SequenceCache`."""
        shelf, row = self.at(slot)
        return shelf.saved(row, tokens)

    def _shelf(self, columns: int) -> KVCache:
        if columns not in self.shelves:
            self.shelves[columns] = KVCache(self._layers)
        return self.shelves[columns]

    def _rows(self, columns: int) -> int:
        return self.shelves[columns].slots if columns in self.shelves else 0
