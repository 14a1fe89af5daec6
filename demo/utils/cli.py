"""What every command of this program does alike."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from demo.utils.errors import UserError


class Main(Protocol):
    """A command: takes the arguments, `sys.argv` for None, and returns the exit status."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int: ...


def command(body: Callable[[Sequence[str] | None], int | None]) -> Main:
    """Turn a command's body into its `main`, which returns the exit status.

    A `UserError` is printed as one line and gives status 2, and so does an `OSError`, such as a full disk.
    A body that returns None has succeeded.
    """

    @functools.wraps(body)
    def main(arguments: Sequence[str] | None = None) -> int:
        try:
            return body(arguments) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
        except OSError as error:
            print(f"error: {UserError(str(error))}", file=sys.stderr)
        return 2

    return main
