"""Measure persona drift turn by turn in scripted conversations, with and without the cap.

The scripted conversations are called talks. They belong to four domains: coding help, writing help,
therapy-like talk, and philosophy about AI (arXiv 2601.10387, section 4). The scripts are in
assets/evaluation/talks.json. A capped reply is also read once more by the unsteered model: within
the capped band its projection under the cap cannot be lower than the floor, so only that reading
shows how its words project.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from demo.conversation.conversation import Conversation
from demo.conversation.scenarios import Scenario
from demo.conversation.settings import BRANCHES, CAPPED, UNCAPPED
from demo.engine.protocol import Cap, Request, Sampling
from demo.engine.transformers_engine import TransformersEngine
from demo.evaluation.scenarios import Script, play_together
from demo.utils.json_files import read_object
from demo.utils.paths import EVALUATION_ASSETS

TOKENS = 48  # maximum length of a reply

REREAD = "capped, read plainly"  # the capped replies as the unsteered model reads them
# Of the uncapped replies' shift since the first turn, the share that lies along the axis; not a projection.
SHARE = "share of the shift"

Projections = list[list[float | None]]  # talks x turns, axis units; None for an empty reply


@dataclass(frozen=True)
class Domain:
    """A domain and the scripts of its talks."""

    id: str
    title: str
    scripts: tuple[Scenario, ...]


def load_domains() -> list[Domain]:
    """Read the scripts of all domains."""
    file = read_object(EVALUATION_ASSETS / "talks.json", "restore it from the repository")
    return [
        Domain(
            entry["id"],
            entry["title"],
            tuple(Scenario(talk["id"], talk["id"], "", "", tuple(talk["turns"])) for talk in entry["talks"]),
        )
        for entry in file["domains"]
    ]


def measure_talks(
    engine: TransformersEngine,
    cap: Cap,
    scripts: Sequence[Scenario],
    seed: int,
    on_turn: Callable[[int], None],
) -> dict[str, Projections]:
    """Run the scripts, each with its own seed, and measure the mean projection of every reply.

    Args:
        seed: Seed of the first talk; each further one has the next.
        on_turn: Called with the number of each turn before it runs.

    Returns:
        Projections under "uncapped", "capped" (after the clamp) and REREAD, and shares under SHARE, which
        are None in the first turn.
    """
    parts = [Script(script, seed + number) for number, script in enumerate(scripts)]
    talks = play_together(engine, cap, parts, Sampling(max_new_tokens=TOKENS), on_turn)
    found: dict[str, Projections] = {
        branch: [[turn.replies[branch].mean for turn in talk.turns] for talk in talks] for branch in BRANCHES
    }
    found[REREAD] = [reread(engine, talk) for talk in talks]
    shifts = [[turn.replies[UNCAPPED].shift for turn in talk.turns] for talk in talks]
    found[SHARE] = [[None if shift is None else shift.share for shift in talk] for talk in shifts]
    return found


def reread(engine: TransformersEngine, talk: Conversation) -> list[float | None]:
    """Mean projection of each capped reply as the unsteered model reads it."""
    probe = engine.axis.probe_layer
    by_message: dict[int, list[float]] = {}
    for part in engine.read(Request("", tuple(talk.messages(CAPPED, "")))):
        for token in part:
            by_message.setdefault(token.message, []).append(token.after[probe])
    replies = [by_message.get(2 * turn + 1, []) for turn in range(len(talk.turns))]
    return [sum(values) / len(values) if values else None for values in replies]


def domain_figures(found: dict[str, Projections]) -> dict[str, Any]:
    """Summarise a domain over its talks.

    Returns:
        Per branch: lists over turns of the mean and of the 25th and 75th percentile ("low",
            "high"), axis units. Under SHARE: the mean share over all turns after the first; None if it was
            not measured.
    """
    figures: dict[str, Any] = {}
    for branch, talks in found.items():
        if branch == SHARE:
            later = [share for talk in talks for share in talk[1:] if share is not None]
            figures[SHARE] = {"mean": round(sum(later) / len(later), 4)} if later else None
            continue
        values = np.array([[np.nan if v is None else v for v in talk] for talk in talks], dtype=float)
        low, high = np.nanpercentile(values, [25, 75], axis=0)
        figures[branch] = {
            "mean": [round(float(v), 4) for v in np.nanmean(values, axis=0)],
            "low": [round(float(v), 4) for v in low],
            "high": [round(float(v), 4) for v in high],
        }
    return figures
