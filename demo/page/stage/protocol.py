"""The operations and requests between the server and the stage, and the checks of their names and fields.

Both sides check against the same table, protocol.json, so a name that only one side knows is an error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.utils.errors import UserError

PROTOCOL: dict[str, Any] = json.loads((Path(__file__).parent / "protocol.json").read_text(encoding="utf-8"))
OPERATIONS = frozenset(PROTOCOL["operations"])
REQUESTS = frozenset(PROTOCOL["requests"])

Operation = dict[str, Any]
_KINDS: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "string": (str,),
    "list": (list,),
    "string or null": (str, type(None)),
    "integer or null": (int, type(None)),
    "number or null": (int, float, type(None)),
}


def operation(name: str, /, **fields: Any) -> Operation:
    """An operation for the stage. Raises ValueError for a name that is not in the table."""
    if name not in OPERATIONS:
        raise ValueError(f"the stage knows no operation {name!r}")
    return {"op": name, **fields}


@dataclass(frozen=True, slots=True)
class StageRequest:
    """A request of one of the stage's buttons; its fields have the types that the table states."""

    name: str
    fields: dict[str, Any]

    @classmethod
    def parse(cls, data: object) -> StageRequest:
        """Parse what a browser sent, which may be anything. Raises UserError."""
        name = data.get("do") if isinstance(data, dict) else None
        if not isinstance(data, dict) or not isinstance(name, str) or name not in REQUESTS:
            raise UserError("The page asked for something unknown; reload it.")
        fields = {}
        for field, kind in PROTOCOL["requests"][name]["fields"].items():
            value = data.get(field)
            if not isinstance(value, _KINDS[kind]) or isinstance(value, bool):
                raise UserError(f"The page sent a request that is incomplete ({name}: {field}); reload it.")
            fields[field] = value
        return cls(name, fields)

    def index(self, field: str, count: int) -> int:
        """The field as an index below `count`.

        Raises:
            UserError: there is no such turn or conversation any more.
        """
        value = int(self.fields[field])
        if not 0 <= value < count:
            raise UserError("That turn or conversation is no longer there.")
        return value
