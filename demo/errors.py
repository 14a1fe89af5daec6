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
