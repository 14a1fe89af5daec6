"""Several answers to one message: their mean on the axis, and how far it can be trusted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import stdtrit

from demo.conversation.settings import CAPPED, UNCAPPED
from demo.conversation.turns import Reply, Turn

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class SeedMean:
    """The mean of several values with its 95% interval (Student 1908).

    Attributes:
        count: how many values.
        mean, low, high: axis units.
    """

    count: int
    mean: float
    low: float
    high: float

    def as_json(self) -> dict[str, Any]:
        """The numbers to four decimals, as in session files."""
        numbers = {"mean": self.mean, "low": self.low, "high": self.high}
        return {"count": self.count, **{name: round(value, 4) for name, value in numbers.items()}}


def seed_mean(values: Sequence[float]) -> SeedMean | None:
    """The mean and its interval; None for fewer than two values.

    The values are independent draws: in `reply_means` the means of replies to the same message after the same
    history.
    """
    count = len(values)
    if count < 2:
        return None
    mean = statistics.fmean(values)
    reach = float(stdtrit(count - 1, (1 + _CONFIDENCE) / 2)) * statistics.stdev(values) / math.sqrt(count)
    return SeedMean(count, mean, mean - reach, mean + reach)


def reply_means(reply: Reply) -> SeedMean | None:
    """Of the means of a reply and its further samples; None where fewer than two have one.

    None too where the reply was continued: it is then longer than the others.
    """
    if any(sample.limit != reply.limit for sample in reply.samples):
        return None
    return seed_mean([mean for one in (reply, *reply.samples) if (mean := one.mean) is not None])


def seed_gap(turn: Turn) -> SeedMean | None:
    """How much higher the capped replies lie than the uncapped ones with the same random numbers.

    None where fewer than two pairs have both means, and where more than the cap tells the two apart: settings
    of their own, or words that were given to one of them only.
    """
    uncapped, capped = turn.replies.get(UNCAPPED), turn.replies.get(CAPPED)
    if uncapped is None or capped is None or len(uncapped.samples) != len(capped.samples):
        return None
    if (turn.settings is not None and turn.settings.own) or _beginning(uncapped) != _beginning(capped):
        return None
    pairs = zip((uncapped, *uncapped.samples), (capped, *capped.samples), strict=True)
    means = [(one.mean, other.mean) for one, other in pairs]
    return seed_mean([other - one for one, other in means if one is not None and other is not None])


def _beginning(reply: Reply) -> tuple[int, int]:
    """Up to which token a reply was made to begin so, and the most tokens it could have."""
    given = [index for index, token in enumerate(reply.tokens, 1) if token.given]
    return max(given, default=0), reply.limit
