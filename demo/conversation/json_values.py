"""Values out of JSON that may come from an untrusted source: each has the expected type, or is refused.

The functions raise TypeError or ValueError; `session_file.from_json` turns these into one sentence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def items(data: object) -> Sequence[Any]:
    """A list."""
    if not isinstance(data, list):
        raise TypeError(f"expected a list, found {short(data)}")
    return data


def text(data: object) -> str:
    """Text."""
    if not isinstance(data, str):
        raise TypeError(f"expected text, found {short(data)}")
    return data


def number(data: object) -> float:
    """A finite number."""
    if type(data) is float and -math.inf < data < math.inf:  # most values of a file
        return data
    if isinstance(data, bool) or not isinstance(data, int | float) or not math.isfinite(data):
        raise TypeError(f"expected a number, found {short(data)}")
    return float(data)


def whole(data: object) -> int:
    """A number without its fraction."""
    return int(number(data))


def maybe(data: object) -> float | None:
    """A finite number or null."""
    return None if data is None else number(data)


def short(value: object) -> str:
    """Enough of an untrusted value to identify it."""
    return " ".join(str(value).split())[:60]
