"""Reads the JSON object of a request, for the pages that are not Gradio's."""

from __future__ import annotations

import json
from typing import Any

from anyio.to_thread import run_sync
from starlette.requests import Request

from demo.utils.errors import UserError

_LONG = 64 * 1024  # bytes, beyond which parsing would hold up other requests


async def json_body(request: Request, most: int) -> dict[str, Any]:
    """The JSON object of a request of at most `most` bytes. Raises UserError for anything else.

    Another site's page cannot send this type of content without asking first, which is never answered.
    """
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise UserError("Send the request as application/json.")
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > most:
            raise UserError(f"A request may have at most {most // 1024} KiB; send less.")
    try:
        found = json.loads(content) if len(content) <= _LONG else await run_sync(json.loads, content)
    except (ValueError, RecursionError) as error:
        raise UserError("The request is no JSON; reload the page.") from error
    if not isinstance(found, dict):
        raise UserError("The request is no JSON object; reload the page.")
    return found
