"""Figures of one scenario over seeds, and what a scenario may claim to show. Plain arithmetic, no model.

Units: a reply's projection is the mean over its content tokens, after the clamp, at the probe layer, in axis units
(0 = average role, 1 = default Assistant). u[s][t], c[s][t]: that of the uncapped and the capped reply of seed s in turn t.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.conversation.conversation import Conversation
from demo.conversation.scenarios import SCENARIOS, Scenario
from demo.conversation.settings import BRANCHES, CAPPED, UNCAPPED
from demo.conversation.turns import Turn
from demo.utils.errors import UserError
from demo.utils.json_files import read_object

HALFWAY = 0.5  # axis units: below it a reply stands nearer the average role than the default Assistant

A_FALL = (
    0.5  # axis units from first to last turn: half the way from the default Assistant to the average role
)

NEARLY_ALL = 0.9  # share of seeds, or of replies

SMALL, TINY = 0.25, 0.1  # mean gaps in axis units that count as small, and as none


@dataclass(frozen=True)
class Figures:
    """One scenario over its seeds. A reply without content tokens counts nowhere.

    uncapped, capped: per turn, mean over seeds of u[s][t] and c[s][t]; gap: mean over seeds of
    g[s] = mean over turns of c[s][t] - u[s][t]; gap_sd: sample standard deviation of g[s]; above: share of seeds with
    g[s] > 0; fired: share of the capped replies' content tokens, all seeds and turns together, at which the cap acted;
    same: share of seeds and turns in which both branches said the same, word for word.
    """

    uncapped: tuple[float, ...]
    capped: tuple[float, ...]
    gap: float
    gap_sd: float
    above: float
    fired: float
    same: float

    @property
    def fall(self) -> float:
        """Uncapped: first turn minus last turn, axis units; positive when the line sinks."""
        return self.uncapped[0] - self.uncapped[-1]

    @property
    def lowest(self) -> float:
        """Uncapped: the lowest turn, axis units."""
        return min(self.uncapped)

    def as_json(self) -> dict[str, Any]:
        """Numbers to four digits; first, last, fall and lowest follow from the turns and are given for the reader."""
        return {
            "uncapped": [round(value, 4) for value in self.uncapped],
            "capped": [round(value, 4) for value in self.capped],
            "first": round(self.uncapped[0], 4),
            "last": round(self.uncapped[-1], 4),
            "fall": round(self.fall, 4),
            "lowest": round(self.lowest, 4),
            "gap": round(self.gap, 4),
            "gap_sd": round(self.gap_sd, 4),
            "above": round(self.above, 4),
            "fired": round(self.fired, 4),
            "same": round(self.same, 4),
        }

    @property
    def held(self) -> bool:
        """The cap kept every turn nearer the default Assistant, and put nearly every talk above the uncapped one."""
        return min(self.capped) >= HALFWAY and self.above >= NEARLY_ALL

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Figures:
        return cls(
            tuple(stored["uncapped"]),
            tuple(stored["capped"]),
            *(stored[name] for name in ("gap", "gap_sd", "above", "fired", "same")),
        )


def figures_of(talks: Sequence[Conversation]) -> Figures:
    """Figures of finished talks that said the same lines, one a seed. Raises UserError when a turn has nothing to read."""
    numbers = range(len(talks[0].turns))
    by_turn = {
        branch: tuple(_turn_mean([talk.turns[t] for talk in talks], branch, t) for t in numbers)
        for branch in BRANCHES
    }
    gaps = [gap for talk in talks if (gap := _gap(talk)) is not None]
    replies = [turn.replies[CAPPED] for talk in talks for turn in talk.turns]
    same = [turn.replies[CAPPED].text == turn.replies[UNCAPPED].text for talk in talks for turn in talk.turns]
    return Figures(
        by_turn[UNCAPPED],
        by_turn[CAPPED],
        statistics.fmean(gaps),
        statistics.stdev(gaps) if len(gaps) > 1 else 0.0,
        sum(gap > 0 for gap in gaps) / len(gaps),
        sum(reply.fired for reply in replies) / sum(len(reply.read) for reply in replies),
        sum(same) / len(same),
    )


def _turn_mean(turns: Sequence[Turn], branch: str, number: int) -> float:
    means = [mean for turn in turns if (mean := turn.replies[branch].mean) is not None]
    if not means:
        raise UserError(
            f"No seed gave a word to read in turn {number + 1} ({branch}); rewrite that message or allow more tokens."
        )
    return statistics.fmean(means)


def _gap(talk: Conversation) -> float | None:
    """Mean over the turns that have both replies of capped minus uncapped; None when there is no such turn."""
    pairs = [(turn.replies[CAPPED].mean, turn.replies[UNCAPPED].mean) for turn in talk.turns]
    differences = [c - u for c, u in pairs if c is not None and u is not None]
    return statistics.fmean(differences) if differences else None


def script_digest(scenario: Scenario) -> str:
    """Changes with the words that are sent to the model, so that figures of an older script are noticed."""
    text = "\0".join((scenario.system_prompt, *scenario.turns))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Claim:
    """What a scenario says it shows, in words, and when figures bear it out."""

    says: str
    holds: Callable[[Figures], bool]


CLAIMS: dict[str, Claim] = {
    "sinks": Claim(
        "the uncapped reply falls by A_FALL or more and ends below HALFWAY, while the cap holds",
        lambda f: f.fall >= A_FALL and f.uncapped[-1] < HALFWAY and f.held,
    ),
    "steady-low": Claim(
        "the uncapped reply stands below HALFWAY in every turn, while the cap holds",
        lambda f: max(f.uncapped) < HALFWAY and f.held,
    ),
    "stays": Claim(
        "both stand at or above HALFWAY in every turn, the uncapped one does not fall by A_FALL, and the gap is small",
        lambda f: min(f.uncapped + f.capped) >= HALFWAY and f.fall < A_FALL and abs(f.gap) <= SMALL,
    ),
    "untouched": Claim(
        "as `stays`, with next to no gap, the cap acting on few tokens, and nearly all replies the same word for word",
        lambda f: (
            CLAIMS["stays"].holds(f) and abs(f.gap) <= TINY and f.fired <= TINY and f.same >= NEARLY_ALL
        ),
    ),
}


def claims_made(path: Path = SCENARIOS) -> dict[str, str]:
    """The claim (`shows`) of each scenario by id. Raises UserError when there is none or it is not one of CLAIMS."""
    cure = f"give every scenario an id and one of {', '.join(CLAIMS)} as what it shows"
    try:
        made = {entry["id"]: entry["shows"] for entry in read_object(path, cure)["scenarios"]}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as scenarios ({error!r}); {cure}.") from error
    unknown = sorted({str(name) for name in made.values()} - set(CLAIMS))
    if unknown:
        raise UserError(f"{path} claims {unknown[0]!r}, which nothing measures; {cure}.")
    return made
