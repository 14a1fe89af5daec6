"""What people take away for a spreadsheet: every token as a row."""

from __future__ import annotations

import csv
import io

from demo.conversation.session_file import Recording
from demo.conversation.settings import ALL_BRANCHES

COLUMNS = ("turn", "branch", "sample", "token", "text", "special", "projection_before", "projection_after", "correction",
           "probability", "milliseconds")  # fmt: skip


def tokens_csv(recording: Recording) -> str:
    """One row a token, numbers from 1; projections in axis units at the probe layer, correction summed over the capped
    layers, sample 0 for the reply that is part of the history."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, turn in enumerate(recording.turns, 1):
        for branch in ALL_BRANCHES:
            reply = turn.replies.get(branch)
            for sample, one in enumerate([reply, *reply.samples] if reply else []):
                for place, token in enumerate(one.tokens, 1):
                    writer.writerow(
                        (number, branch, sample, place, _harmless(token.text), int(token.special), token.before, token.after,
                         token.correction, token.probability, token.at)
                    )  # fmt: skip
    return file.getvalue()


def _harmless(text: str) -> str:
    """A spreadsheet takes a cell that begins so for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
