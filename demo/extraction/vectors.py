"""Role vectors and the axis from what was gathered (arXiv 2601.10387, section 2).

Roles answered different questions, and what is asked moves an activation more than who answers. So each question's own
effect, its mean over all roles against the mean over all questions, is taken out of every role vector: the two-way
additive model of a balanced design.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from demo.extraction.plan import DEFAULT, Plan
from demo.extraction.state import HALVES, State

KEPT, ALL = ("kept",), ("kept", "ignored")


@dataclass(frozen=True)
class Cast:
    """Vectors of the roles that count, [R, L, D] in the order of `roles`, their mean [L, D], and the default side's."""

    roles: tuple[str, ...]
    vectors: Tensor
    default_mean: Tensor

    @property
    def role_mean(self) -> Tensor:
        return self.vectors.mean(0)

    @property
    def direction(self) -> Tensor:
        """default mean - mean role vector, [L, D], toward the Assistant."""
        return self.default_mean - self.role_mean


class Vectors:
    """Makes role vectors from a state. verdicts: which rollouts count, KEPT or ALL."""

    def __init__(self, state: State, plan: Plan, verdicts: Sequence[str] = KEPT) -> None:
        self._state = state
        self._plan = plan
        self._verdicts = tuple(verdicts)
        self._asked: dict[tuple[str, int], Counter[int]] = {}
        for record in state.texts:
            rollout = plan.rollouts[record["index"]]
            counts = record["tokens"] and record.get("kept", True) | ("ignored" in self._verdicts)
            if rollout.split == "extract" and rollout.is_role and counts:
                self._asked.setdefault((rollout.group, rollout.half), Counter())[rollout.question] += 1
        self._effects = self._question_effects()

    def kept(self, role: str, halves: Sequence[int] = HALVES) -> int:
        """How many rollouts of the role count."""
        return sum(sum(self._asked.get((role, half), Counter()).values()) for half in halves)

    def vector(self, role: str, halves: Sequence[int] = HALVES) -> Tensor:
        """Mean of the role's rollout means with the questions' effects taken out, [L, D]."""
        raw = self._state.mean(*(f"{role}/{half}/{verdict}" for half in halves for verdict in self._verdicts))
        asked = sum((self._asked.get((role, half), Counter()) for half in halves), Counter[int]())
        effect = sum(self._effects[question] * count for question, count in asked.items())
        return raw - effect / sum(asked.values())

    def cast(self, roles: Sequence[str], halves: Sequence[int] = HALVES) -> Cast:
        """Vectors of these roles beside the default side, from the same halves."""
        return Cast(
            tuple(roles),
            torch.stack([self.vector(role, halves) for role in roles]),
            self._state.mean(*(f"{DEFAULT}/{half}" for half in halves)),
        )

    def taken_up(self, least: int, halves: Sequence[Sequence[int]] = (HALVES,)) -> tuple[str, ...]:
        """Roles with at least `least` counted rollouts in each of `halves`."""
        return tuple(
            role for role in self._plan.roles if all(self.kept(role, part) >= least for part in halves)
        )

    def _question_effects(self) -> dict[int, Tensor]:
        """Question -> mean over all roles' replies to it minus the mean over questions, [L, D]."""
        means: dict[int, Tensor] = {}
        for question in range(len(self._plan.questions["extract"])):
            keys = [f"question {question}/{verdict}" for verdict in self._verdicts]
            if self._state.count(*keys):
                means[question] = self._state.mean(*keys)
        if not means:
            return {}
        overall = torch.stack(list(means.values())).mean(0)
        return {question: mean - overall for question, mean in means.items()}
