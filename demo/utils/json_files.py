"""Reading JSON files that a user may have edited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from demo.utils.errors import UserError


def read_object(path: Path, advice: str) -> dict[str, Any]:
    """Read the JSON object in `path`.

    Args:
        path: The file to read.
        advice: What the user should do if it cannot be used; the error message ends with it.

    Raises:
        UserError: The file cannot be read, is not JSON, or does not hold an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON ({error}); {advice}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object; {advice}.")
    return content
