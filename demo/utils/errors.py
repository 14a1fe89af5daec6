"""Errors whose message is shown to the user: one sentence that says what is wrong and what to do."""

from __future__ import annotations

import re

MOST_CHARACTERS = 700

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


class UserError(Exception):
    """A problem that the user can solve. Its message is shown without a traceback; commands exit with 2.

    The message may quote an untrusted file, so it becomes one line of about 700 characters at most. Of a
    longer message the beginning is kept, which says what is wrong, and the end, which says what to do.
    """

    def __init__(self, message: str) -> None:
        line = " ".join("".join(c if c.isprintable() else " " for c in message).split())
        if len(line) > MOST_CHARACTERS:
            half = MOST_CHARACTERS // 2
            line = f"{line[:half]} … {line[-half:]}"
        super().__init__(line)


def nan_error() -> UserError:
    """The error for a forward pass whose numbers are not finite."""
    return UserError(
        "The model's numbers have become NaN or infinite, so this reply cannot go on; the conversation is "
        "kept: try a weaker steering or cap, or start the program with --dtype float32."
    )


def explain_failure(error: BaseException) -> BaseException:
    """Return a `UserError` instead of `error` if it is a lack of memory, else `error` itself."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _OUT_OF_MEMORY):
        return UserError(
            "There was not enough memory for this reply; the conversation is kept: ask for fewer seeds or "
            "shorter replies, start a new chat, or start the program with a smaller --pairs or --kv-budget."
        )
    return error


def first_sentence(error: BaseException) -> str:
    """The type and first sentence of another library's error, short enough to quote in a `UserError`."""
    lines = str(error).strip().splitlines()
    opening = re.split(r"(?<=\w)[.!?](?:\s|$)", lines[0])[0].rstrip(":;,. ")[:160] if lines else ""
    return f"{type(error).__name__}: {opening}" if opening else type(error).__name__
