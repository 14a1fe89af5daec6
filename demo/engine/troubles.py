"""What can go wrong while a model runs, in words that say what to do. The conversation is kept whatever it was."""

from __future__ import annotations

from demo.errors import UserError

_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def not_a_number() -> UserError:
    """The model has given numbers that are none."""
    return UserError(
        "The model's numbers have become NaN or infinite, so this reply cannot go on; the conversation is kept: try a weaker steering "
        "or cap, or start the program with --dtype float32."
    )


def told(error: BaseException) -> BaseException:
    """The same error, or a sentence in its place where one can be said."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _MEMORY):
        return UserError(
            "There was not enough memory for this reply; the conversation is kept: ask for fewer seeds or shorter replies, start a new "
            "chat, or start the program with a smaller --pairs or --kv-budget."
        )
    return error
