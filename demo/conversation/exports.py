"""Export of a session for spreadsheets: one row per token."""

from __future__ import annotations

import csv
import io

from demo.conversation.session_file import Recording
from demo.conversation.settings import ALL_BRANCHES
from demo.engine.protocol import Token

COLUMNS = (
    "turn",
    "branch",
    "sample",
    "token",
    "text",
    "special",
    "projection_before",
    "projection_after",
    "correction",
    "probability",
    "milliseconds",
    "span",
)


def tokens_csv(recording: Recording) -> str:
    """The session as CSV, one row per token.

    Turns and tokens are numbered from 1. Sample 0 is the reply that is part of the history. Projections
    are in axis units at the probe layer; the correction is summed over the capped layers. The span says
    whether a token belongs to the answer or to the reasoning before it.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, turn in enumerate(recording.turns, 1):
        for branch in ALL_BRANCHES:
            reply = turn.replies.get(branch)
            for sample, one in enumerate([reply, *reply.samples] if reply else []):
                for place, token in enumerate(one.tokens, 1):
                    writer.writerow([number, branch, sample, place, *_cells(token)])
    return file.getvalue()


def _cells(token: Token) -> tuple[object, ...]:
    """The columns of one token, from its text on."""
    return (
        _escaped(token.text),
        int(token.special),
        token.before,
        token.after,
        token.correction,
        token.probability,
        token.at,
        "reasoning" if token.reasoning else "answer",
    )


def _escaped(text: str) -> str:
    """The text with an apostrophe in front where a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
