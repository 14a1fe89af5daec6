"""Reading JSON files that a person may have touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from demo.utils.errors import UserError


def read_object(path: Path, cure: str) -> dict[str, Any]:
    """The JSON object in `path`. Raises UserError, ending with what to do (`cure`), when there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON ({error}); {cure}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object; {cure}.")
    return content
