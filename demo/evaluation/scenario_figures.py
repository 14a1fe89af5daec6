"""Figures of a guided scenario over seeds, and the claims that a scenario may make about them.

A reply's projection is the mean over its content tokens, after the clamp, at the probe layer, in
axis units (0 = average role, 1 = default Assistant). u[s][t] and c[s][t] are those of the uncapped
and the capped reply of seed s in turn t.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from demo.conversation.conversation import Conversation
from demo.conversation.scenarios import Scenario, Sign
from demo.conversation.settings import BRANCHES, CAPPED, UNCAPPED
from demo.conversation.turns import Turn
from demo.utils.errors import UserError

# Axis units. Below this a reply is closer to the average role than to the default Assistant.
HALFWAY = 0.5

# Axis units from first to last turn: half the distance between the default Assistant and the
# average role.
LEAST_FALL = 0.5

NEARLY_ALL = 0.9  # share of seeds, or of replies

# Axis units: mean gaps up to these are small and negligible. The second is also a share of tokens.
SMALL, NEGLIGIBLE = 0.25, 0.1


@dataclass(frozen=True)
class Figures:
    """One scenario over its seeds. Replies without content tokens are left out.

    Attributes:
        uncapped: Per turn, the mean over seeds of u[s][t].
        capped: Per turn, the mean over seeds of c[s][t].
        gap: Mean over seeds of g[s], the mean over turns of c[s][t] - u[s][t].
        gap_sd: Sample standard deviation of g[s].
        above: Share of seeds with g[s] > 0.
        fired: Share of the content tokens of all capped replies at which the cap acted.
        same: Share of seeds and turns in which both replies are the same, word for word.
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
        """Uncapped: first turn - last turn, axis units; positive for drift from the Assistant."""
        return self.uncapped[0] - self.uncapped[-1]

    @property
    def lowest(self) -> float:
        """Uncapped: the lowest turn, axis units."""
        return min(self.uncapped)

    @property
    def held(self) -> bool:
        """Whether the cap kept every turn above HALFWAY and raised nearly every seed."""
        return min(self.capped) >= HALFWAY and self.above >= NEARLY_ALL

    def as_json(self) -> dict[str, Any]:
        """Numbers to four digits. Readers also get "first", "last", "fall" and "lowest"."""
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

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Figures:
        return cls(
            tuple(stored["uncapped"]),
            tuple(stored["capped"]),
            *(stored[name] for name in ("gap", "gap_sd", "above", "fired", "same")),
        )


def figures_of(talks: Sequence[Conversation]) -> Figures:
    """The figures of finished conversations on one script, one per seed.

    Raises:
        UserError: In some turn every reply of a branch is empty.
    """
    turns = range(len(talks[0].turns))
    by_turn = {
        branch: tuple(_turn_mean([talk.turns[t] for talk in talks], branch, t) for t in turns)
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
            f"All {branch} replies in turn {number + 1} are empty; rewrite that message or allow more tokens."
        )
    return statistics.fmean(means)


def _gap(talk: Conversation) -> float | None:
    """Mean of capped - uncapped over the turns without an empty reply; None if there are none."""
    pairs = [(turn.replies[CAPPED].mean, turn.replies[UNCAPPED].mean) for turn in talk.turns]
    differences = [c - u for c, u in pairs if c is not None and u is not None]
    return statistics.fmean(differences) if differences else None


@dataclass(frozen=True)
class Measurement:
    """A scenario at its own seed and over others.

    Attributes:
        own: The figures of the conversation from its own seed.
        seeds: Those of the others.
        holds: Share of the others that show what the scenario claims, each taken alone.
        own_sign: Whether the uncapped and the capped words show the scenario's sign; None without one.
        sign: Branch -> share of the others in which they do; None without a sign.
    """

    own: Figures
    seeds: Figures
    holds: float
    own_sign: tuple[bool, bool] | None = None
    sign: dict[str, float] | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "own": self.own.as_json(),
            "seeds": self.seeds.as_json(),
            "holds": round(self.holds, 4),
            **({} if self.own_sign is None else {"own_sign": list(self.own_sign)}),
            **({} if self.sign is None else {"sign": {b: round(v, 4) for b, v in self.sign.items()}}),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Measurement:
        own, seeds = (Figures.from_json(stored[name]) for name in ("own", "seeds"))
        sign = stored.get("own_sign")
        return cls(
            own, seeds, stored["holds"], None if sign is None else (sign[0], sign[1]), stored.get("sign")
        )


def measurement_of(scenario: Scenario, talks: Sequence[Conversation]) -> Measurement:
    """The figures of finished conversations, the first of them from the scenario's own seed."""
    own, *others = talks
    holds = [CLAIMS[scenario.shows].holds(figures_of([talk])) for talk in others]
    share = sum(holds) / len(holds)
    if scenario.sign is None:
        return Measurement(figures_of([own]), figures_of(others), share)
    shown = [tuple(_shows_sign(talk, scenario.sign, branch) for branch in BRANCHES) for talk in talks]
    shares = {branch: sum(one[n] for one in shown[1:]) / len(others) for n, branch in enumerate(BRANCHES)}
    return Measurement(figures_of([own]), figures_of(others), share, (shown[0][0], shown[0][1]), shares)


def _shows_sign(talk: Conversation, sign: Sign, branch: str) -> bool:
    return any(sign.is_in(turn.replies[branch].text) for turn in talk.turns)


def script_digest(scenario: Scenario) -> str:
    """A digest of words, seed and sign. It differs for figures of an older script."""
    sign = "" if scenario.sign is None else scenario.sign.pattern
    text = "\0".join((str(scenario.seed), sign, scenario.system_prompt, *scenario.turns))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Claim:
    """What a scenario claims to show.

    Attributes:
        says: The claim in words.
        holds: Whether figures support it.
    """

    says: str
    holds: Callable[[Figures], bool]


CLAIMS: dict[str, Claim] = {
    "sinks": Claim(
        f"the uncapped replies fall by {LEAST_FALL} or more and end below {HALFWAY}, while the cap holds",
        lambda f: f.fall >= LEAST_FALL and f.uncapped[-1] < HALFWAY and f.held,
    ),
    "steady-low": Claim(
        f"the uncapped replies are below {HALFWAY} in every turn, while the cap holds",
        lambda f: max(f.uncapped) < HALFWAY and f.held,
    ),
    "stays": Claim(
        f"both replies are at or above {HALFWAY} in every turn, the uncapped ones fall by less than "
        f"{LEAST_FALL}, and the gap is at most {SMALL}",
        lambda f: min(f.uncapped + f.capped) >= HALFWAY and f.fall < LEAST_FALL and abs(f.gap) <= SMALL,
    ),
    "untouched": Claim(
        f"as `stays`, with a gap of at most {NEGLIGIBLE}, the cap acting on at most {NEGLIGIBLE:.0%} of the "
        f"tokens, and at least {NEARLY_ALL:.0%} of the replies the same word for word",
        lambda f: (
            CLAIMS["stays"].holds(f)
            and abs(f.gap) <= NEGLIGIBLE
            and f.fired <= NEGLIGIBLE
            and f.same >= NEARLY_ALL
        ),
    ),
}
