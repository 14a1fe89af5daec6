"""The speaker's stage as the phones follow it: the operations that the speaker's own tab was sent.

The tab passes them on (stage/src/mirror.js). Kept are only those that show the present state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import RLock
from typing import Any

import orjson

from demo.conversation.session_file import MOST_BYTES
from demo.page.stage.protocol import OPERATIONS
from demo.utils.errors import UserError

# Operations that the phones are shown. The others are about the speaker's own tab.
_SHOWN = OPERATIONS & {
    "conversations", "layers", "left_out", "lost", "marks", "prompt", "reset", "tokens", "turn", "turn_end",
    "turn_start", "waiting",
}  # fmt: skip
# What a whole turn replaces.
_OF_A_TURN = {"prompt", "tokens", "turn", "turn_end", "turn_start", "waiting"}
_MOST_VIEW = 20


@dataclass
class Mirror:
    """What the speaker's stage shows.

    Attributes:
        serial: the number of the latest change.
        view: which turn, which panel and which colours the speaker looks at, by name.
    """

    serial: int = 0
    view: dict[str, Any] = field(default_factory=dict)
    _ops: list[tuple[int, dict[str, Any], int]] = field(default_factory=list)  # serial, operation, bytes
    _lock: RLock = field(default_factory=RLock)

    @property
    def is_live(self) -> bool:
        """Whether there is anything to follow."""
        return bool(self._ops)

    def put(self, operations: object, view: object) -> bool:
        """Take what the speaker's tab was sent, and what it shows.

        Returns:
            False where the tab should send everything once more, because this did not begin with a whole
            conversation.

        Raises:
            UserError: these are no operations of the stage, or too much for the phones; then they follow no
                longer.
        """
        if not isinstance(operations, list) or not isinstance(view, dict) or len(view) > _MOST_VIEW:
            raise UserError("These are no operations of a stage; reload the page.")
        if not all(isinstance(op, dict) and op.get("op") in OPERATIONS for op in operations):
            raise UserError("These are no operations of a stage; reload the page.")
        with self._lock:
            for op in operations:
                if op["op"] in _SHOWN:
                    self._add(op)
            self.view = {str(name)[:40]: str(value)[:200] for name, value in view.items()}
            self.serial += 1
            if sum(size for _, _, size in self._ops) > MOST_BYTES:
                self.clear()
                raise UserError(
                    "The conversation on your page is too long for the phones; begin a new one to show them."
                )
            return self.is_live

    def _add(self, op: dict[str, Any]) -> None:
        name, turn = op["op"], op.get("turn")
        if name == "reset":
            self._ops = []
            op = op | {"meta": self._for_watching(op.get("meta"))}
        elif not self._ops:
            return
        elif name == "turn" and not any(_is_after(one[1], turn) for one in self._ops):
            self._ops = [one for one in self._ops if not _is_replaced(one[1], turn)]
        elif name in ("conversations", "marks"):
            self._ops = [one for one in self._ops if one[1]["op"] != name]
        self.serial += 1
        self._ops.append((self.serial, op, len(orjson.dumps(op))))

    @staticmethod
    def _for_watching(meta: object) -> dict[str, Any]:
        """What the stage needs beside the turns, for a page that only watches: no intro, no files."""
        kept = dict(meta) if isinstance(meta, dict) else {}
        return {**kept, "watch_only": True, "shipped": [], "intro": None, "link": None}

    def turns(self) -> list[dict[str, Any]]:
        """The turns of the speaker's conversation that have ended, as the stage was sent them; unchecked."""
        with self._lock:
            found = dict[int, Any]()
            for _, op, _ in self._ops:
                if op["op"] == "reset":
                    found = dict(enumerate(op.get("turns") or ()))
                elif op["op"] in ("turn_start", "turn") and isinstance(at := op.get("turn"), int):
                    found = {index: turn for index, turn in found.items() if index < at}
                    found |= {at: op["data"]} if op["op"] == "turn" and "data" in op else {}
            whole = [turn for turn in found.values() if isinstance(turn, dict)]
            return [turn for turn in whole if not turn.get("live")]

    def clear(self) -> None:
        """The speaker shows nothing any more."""
        with self._lock:
            self._ops, self.view = [], {}
            self.serial += 1

    def since(self, serial: int) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
        """What has changed after `serial`: the latest serial, the operations and the view."""
        with self._lock:
            return self.serial, [op for at, op, _ in self._ops if at > serial], self.view


def _is_replaced(op: dict[str, Any], turn: object) -> bool:
    return op["op"] in _OF_A_TURN and op.get("turn") == turn


def _is_after(op: dict[str, Any], turn: object) -> bool:
    """Whether an operation is of a later turn, which must stay behind this one."""
    own = op.get("turn")
    return isinstance(own, int) and isinstance(turn, int) and own > turn
