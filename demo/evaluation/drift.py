"""Where replies stand turn by turn in scripted talks of four domains, as they are and under the cap (arXiv 2601.10387,
section 4): coding help, writing help, therapy-like talk, philosophy about AI.

The scripts are in assets/evaluation/talks.json. A capped reply is also read once more by the unsteered model: within the capped
band its projection under the cap cannot be lower than the floor, so only that reading says where its words stand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from demo.conversation.conversation import Conversation
from demo.conversation.scenarios import Scenario
from demo.conversation.settings import BRANCHES, CAPPED
from demo.engine.protocol import Cap, Request
from demo.engine.transformers_engine import TransformersEngine
from demo.evaluation.scenarios import Part, play_together
from demo.utils.json_files import read_object
from demo.utils.paths import EVALUATION_ASSETS

TOKENS = 48

Rows = list[list[float | None]]  # talks x turns, axis units; None for a reply without content


@dataclass(frozen=True)
class Domain:
    id: str
    title: str
    scripts: tuple[Scenario, ...]


def load_domains() -> list[Domain]:
    return [
        Domain(
            entry["id"],
            entry["title"],
            tuple(Scenario(talk["id"], talk["id"], "", "", tuple(talk["turns"])) for talk in entry["talks"]),
        )
        for entry in read_object(EVALUATION_ASSETS / "talks.json", "restore it from the repository")[
            "domains"
        ]
    ]


def measure_talks(
    engine: TransformersEngine, cap: Cap, scripts: Sequence[Scenario], seed: int, told: Callable[[int], None]
) -> dict[str, Rows]:
    """Mean projection per talk and turn: "uncapped"; "capped", after the clamp; "capped, read plainly"."""
    parts = [Part(script, seed + number) for number, script in enumerate(scripts)]
    talks = play_together(engine, cap, parts, TOKENS, told)
    rows: dict[str, Rows] = {
        branch: [[turn.replies[branch].mean for turn in talk.turns] for talk in talks] for branch in BRANCHES
    }
    rows["capped, read plainly"] = [_plainly(engine, talk) for talk in talks]
    return rows


def _plainly(engine: TransformersEngine, talk: Conversation) -> list[float | None]:
    """The capped talk as the unsteered model reads it: one mean a turn."""
    probe = engine.axis.probe_layer
    sums: dict[int, list[float]] = {}
    for part in engine.read(Request("", tuple(talk.messages(CAPPED, "")))):
        for token in part:
            sums.setdefault(token.message, []).append(token.after[probe])
    replies = [sums.get(2 * turn + 1, []) for turn in range(len(talk.turns))]
    return [sum(values) / len(values) if values else None for values in replies]


def domain_figures(rows: dict[str, Rows]) -> dict[str, Any]:
    """Per branch and turn: mean over talks and the middle half of them (25th and 75th percentile), axis units."""
    figures: dict[str, Any] = {}
    for branch, talks in rows.items():
        values = np.array([[np.nan if v is None else v for v in talk] for talk in talks], dtype=float)
        low, high = np.nanpercentile(values, [25, 75], axis=0)
        figures[branch] = {
            "mean": [round(float(v), 4) for v in np.nanmean(values, axis=0)],
            "low": [round(float(v), 4) for v in low],
            "high": [round(float(v), 4) for v in high],
        }
    return figures
