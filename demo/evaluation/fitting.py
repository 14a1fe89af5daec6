"""Fit a score to labelled replies: several ratings of a reply become one number.

A ridge regression on the replies of the set "chosen on" weighs the ratings, and the thresholds are chosen
there too. The set "tested on" is used for neither, so the agreement measured on it can be reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from demo.evaluation.agreement import KINDS, agreement

LABEL_VALUES = (0, 1, 2)

EXAMPLES = 3  # labelled replies of each label that a judge is shown

_RIDGE = 1.0  # penalty on the squared weights of standardised features


@dataclass(frozen=True)
class Combination:
    """A linear score of several features. See `fit_combination`.

    Attributes:
        weights: one per feature.
    """

    weights: tuple[float, ...]
    intercept: float

    def scores(self, features: np.ndarray) -> list[float]:
        """features: [replies, features]."""
        return (features @ np.asarray(self.weights) + self.intercept).tolist()


def fit_combination(features: np.ndarray, labels: Sequence[int]) -> Combination:
    """Ridge regression of the labels on standardised features (Hoerl & Kennard 1970).

    Args:
        features: [replies, features].
    """
    center, spread = features.mean(0), features.std(0)
    spread = np.where(spread > 0, spread, 1.0)  # a feature that is constant gets the weight 0
    scaled, target = (features - center) / spread, np.asarray(labels, dtype=float)
    penalty = _RIDGE * np.eye(features.shape[1])
    weights = np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ (target - target.mean())) / spread
    return Combination(tuple(weights.tolist()), float(target.mean() - center @ weights))


@dataclass(frozen=True)
class Labelled:
    """Labelled replies that no judge was shown, and how judges and the built-in score rate them.

    Attributes:
        entries: each with its "set" and its "label".
        ratings: name of the built-in score or a judge -> one number per entry.
    """

    entries: list[dict[str, Any]]
    ratings: dict[str, Sequence[float]]

    def features(self, names: Sequence[str]) -> np.ndarray:
        """[replies, names]"""
        return np.array([self.ratings[name] for name in names]).T

    def fitted(self, names: Sequence[str]) -> Combination:
        """The combination of these ratings that fits the labels of the set "chosen on"."""
        own = [index for index, entry in enumerate(self.entries) if entry["set"] == "chosen on"]
        return fit_combination(self.features(names)[own], [self.entries[index]["label"] for index in own])

    def agreement(
        self, names: Sequence[str], kinds: Mapping[str, int] = KINDS
    ) -> dict[str, dict[str, float]]:
        """Kind -> how well the combination agrees with the labels, see `agreement`.

        Args:
            kinds: kind -> the lowest label that counts.
        """
        scores = self.fitted(names).scores(self.features(names))
        scored = [entry | {"score": score} for entry, score in zip(self.entries, scores, strict=True)]
        return {kind: agreement(scored, least) for kind, least in kinds.items()}


def examples_of(labelled: Sequence[Mapping[str, Any]]) -> list[int]:
    """Which labelled replies the judges are shown: of each label EXAMPLES, evenly spread over "chosen on"."""
    chosen: list[int] = []
    for label in LABEL_VALUES:
        own = [i for i, r in enumerate(labelled) if r["set"] == "chosen on" and r["label"] == label]
        chosen += [own[len(own) * step // EXAMPLES] for step in range(EXAMPLES)]
    # Not sorted by label: a judge must not learn an order.
    return sorted(chosen)
