"""What branches keep between turns: their KV caches, under a memory budget."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from torch import Tensor

from demo.engine.protocol import Intervention


@dataclass(slots=True)
class BranchCache:
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


class BranchStore:
    """Branch caches under a memory budget: the least recently used are dropped, and rebuilt when needed.

    Any branch's cache serves any other whose prompt begins alike under the same intervention: the same system prompt or
    the same scripted message is read once. Safe to use from several threads.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._entries: OrderedDict[str, BranchCache] = OrderedDict()
        self._lock = Lock()
        # Asked for with every update of every page, so it is kept and not summed up over all tensors of all branches.
        self.nbytes = 0

    def get(self, branch: str) -> BranchCache | None:
        with self._lock:
            entry = self._entries.get(branch)
            if entry is not None:
                self._entries.move_to_end(branch)
            return entry

    def longest(self, branch: str, ids: Sequence[int], under: Intervention) -> tuple[BranchCache | None, int]:
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

    def put(self, branch: str, entry: BranchCache) -> None:
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
