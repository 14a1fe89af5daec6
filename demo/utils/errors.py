"""The one exception meant for a person: its message is one sentence saying what is wrong and what to do."""

from __future__ import annotations

MOST_CHARACTERS = 700


class UserError(Exception):
    """Something the user can mend. Shown as it is, without a traceback; commands exit with status 2.

    Whatever it quotes of a stranger's file, it stays one line of bounded length: the beginning, which says what is wrong, and the
    end, which says what to do.
    """

    def __init__(self, message: str) -> None:
        line = " ".join("".join(c if c.isprintable() else " " for c in message).split())
        if len(line) > MOST_CHARACTERS:
            half = MOST_CHARACTERS // 2
            line = f"{line[:half]} … {line[-half:]}"
        super().__init__(line)


_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def nan_error() -> UserError:
    """The model has given numbers that are none."""
    return UserError(
        "The model's numbers have become NaN or infinite, so this reply cannot go on; the conversation is kept: try a weaker steering "
        "or cap, or start the program with --dtype float32."
    )


def explain_failure(error: BaseException) -> BaseException:
    """The same error, or a sentence in its place where one can be said."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _MEMORY):
        return UserError(
            "There was not enough memory for this reply; the conversation is kept: ask for fewer seeds or shorter replies, start a new "
            "chat, or start the program with a smaller --pairs or --kv-budget."
        )
    return error
