"""The prefix cache: what is kept of sequences between turns, so that equal beginnings are not run again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from demo.engine.kv_cache import SavedState, common_prefix
from demo.engine.protocol import Intervention

# The branch that reads another one's words as the unsteered model.
_PLAIN = "~plain"

# A branch whose state cannot be cut back keeps its state at so many points, two a turn, for undo and edits.
_POINTS = 16


@dataclass(slots=True)
class CachedSequence:
    """A sequence as it is kept between turns.

    Attributes:
        ids: the T tokens that were run.
        state: what the cache held of them.
        before: T projections at the probe layer, axis units, before the clamp.
        under: the intervention under which the state was computed, which affects all of it.
    """

    ids: list[int]
    state: SavedState
    before: list[float]
    under: Intervention

    @property
    def nbytes(self) -> int:
        return self.state.nbytes

    def common_prefix(self, ids: Sequence[int], under: Intervention) -> int:
        """How many leading tokens of `ids` need not be run again.

        At least one is left to run, for its logits.
        """
        if under != self.under:
            return 0
        shared = min(common_prefix(self.ids, ids), len(ids) - 1)
        return shared if self.state.can_be_cut or shared == len(self.ids) else 0


def plain_branch(branch: str) -> str:
    """The name under which the plain reading of a branch is kept."""
    return branch + _PLAIN


class PrefixCache:
    """Cached sequences within a memory budget. The least recently used are dropped, and rebuilt when needed.

    The cached sequence of a branch serves any other branch whose prompt begins alike under the same
    intervention, so a shared system prompt or scripted message is read once. A branch has one entry, or
    several of different lengths where a state cannot be cut back. It may be used from any thread.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._entries: OrderedDict[tuple[str, int], CachedSequence] = OrderedDict()
        self._lock = Lock()
        # A running total, because every update of every page asks for it.
        self.nbytes = 0

    def get(self, branch: str) -> CachedSequence | None:
        """The branch's newest entry."""
        with self._lock:
            key = next((key for key in reversed(self._entries) if key[0] == branch), None)
            if key is None:
                return None
            self._entries.move_to_end(key)
            return self._entries[key]

    def longest(
        self, branch: str, ids: Sequence[int], under: Intervention
    ) -> tuple[CachedSequence | None, int]:
        """The entry with the longest prefix in common with `ids`, and its length.

        The branch's own entry is returned unless another one shares more.
        """
        with self._lock:
            best, most = None, 0
            # Of two that share equally much, the most recently used: the other may be dropped soon.
            newest_first = list(reversed(self._entries.items()))
            newest_first.sort(key=lambda item: item[0][0] != branch)
            for key, entry in newest_first:
                shared = entry.common_prefix(ids, under)
                if shared > most:
                    best, most, found = entry, shared, key
            if best is not None:
                self._entries.move_to_end(found)
            return best, most

    def put(self, branch: str, entry: CachedSequence) -> None:
        """Store the branch's entry in place of its previous one.

        Entries that cannot be cut back stay beside those of other lengths.
        """
        if entry.state.can_be_cut:
            self.drop(branch)
        with self._lock:
            key = branch, 0 if entry.state.can_be_cut else len(entry.ids)
            self._take(key)
            self._entries[key] = entry
            self.nbytes += entry.nbytes
            own = [key for key in self._entries if key[0] == branch]
            for key in own[:-_POINTS]:
                self._take(key)
        self._shrink()

    def set_budget(self, budget_bytes: int) -> None:
        """Change the budget, and drop entries until it is met."""
        self.budget_bytes = budget_bytes
        self._shrink()

    def drop(self, branch: str) -> None:
        """Remove the branch's entries, if there are any; those of its plain reading are apart."""
        with self._lock:
            for key in [key for key in self._entries if key[0] == branch]:
                self._take(key)

    def _take(self, key: tuple[str, int]) -> None:
        gone = self._entries.pop(key, None)
        self.nbytes -= gone.nbytes if gone else 0

    def _shrink(self) -> None:
        """Drop the least recently used entries until the budget is met."""
        with self._lock:
            while self.nbytes > self.budget_bytes and self._entries:
                self._take(next(iter(self._entries)))

    def __contains__(self, branch: str) -> bool:
        return any(key[0] == branch for key in self._entries)
