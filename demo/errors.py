"""The one exception meant for a person: its message is one sentence saying what is wrong and what to do."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend. Shown as it is, without a traceback; commands exit with status 2."""
