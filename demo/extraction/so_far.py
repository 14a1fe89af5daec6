"""What a page shows of an extraction that is going on: plain data, without tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from demo.extraction.plan import DEFAULT, Plan, RolePrompts
from demo.extraction.vectors import HALVES, Judged, State, Vectors

# measuring: a few rollouts are timed. ready: it waits for somebody to start. The others speak for themselves.
Phase = Literal["measuring", "ready", "running", "stopped", "failed", "done"]

_REPLY_CHARACTERS = 240


@dataclass(frozen=True, slots=True)
class RoleSoFar:
    """A role on the axis that is being made.

    Attributes:
        projection: of its replies so far, in axis units: 0 is the mean of all roles so far, 1 the Assistant.
        rollouts: how many of its replies count.
    """

    name: str
    projection: float
    rollouts: int


@dataclass(frozen=True, slots=True)
class ReplySoFar:
    """A rollout. kept: whether it counts, None for the default Assistant's."""

    role: str
    question: str
    text: str
    kept: bool | None


@dataclass(frozen=True, slots=True)
class Offer:
    """A preset that can be started.

    Attributes:
        roles: how many roles it takes.
        minutes: how long it will take on this machine, None before that is known.
        done: the share that an interrupted run has left.
    """

    roles: int
    minutes: float | None
    done: float


@dataclass(frozen=True, slots=True)
class Check:
    """A quality gate of the finished axis, in words."""

    words: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Making:
    """All that a page shows while an axis is made.

    Attributes:
        preset: the one that runs or ran last; "" before any.
        share: of the work that is done, 0 to 1.
        seconds_left: None while that is unknown.
        halves: cosine of the two directions that are made from two halves of the replies; None at first.
        message: why it failed.
        role_prompts: how roles are asked for.
    """

    model: str
    phase: Phase
    offers: dict[str, Offer]
    preset: str = ""
    stage: str = ""
    share: float = 0.0
    seconds_left: float | None = None
    roles: tuple[RoleSoFar, ...] = ()
    halves: float | None = None
    replies: tuple[ReplySoFar, ...] = ()
    checks: tuple[Check, ...] = ()
    message: str = ""
    role_prompts: RolePrompts = "plain"


def roles_so_far(
    state: State, plan: Plan, verdicts: Sequence[str], layer: int
) -> tuple[tuple[RoleSoFar, ...], float | None]:
    """The roles of an unfinished extraction on the axis that they give, at one decoder layer.

    Returns:
        The roles with a rollout that counts, lowest projection first; and the cosine of the two directions
        that two halves of the rollouts give, None as long as a half has no role.
    """
    vectors = Vectors(state, plan, verdicts)
    roles = vectors.roles_with(1)
    if not state.count(*(f"{DEFAULT}/{half}" for half in HALVES)) or not roles:
        return (), None
    cast = vectors.cast(roles)
    direction, origin = cast.direction[layer], cast.role_mean[layer]
    units = ((cast.vectors[:, layer] - origin) @ direction / direction.square().sum()).tolist()
    found = [RoleSoFar(role, unit, vectors.kept(role)) for role, unit in zip(roles, units, strict=True)]
    both = vectors.roles_with(1, [(half,) for half in HALVES])
    cosine = None
    if both:
        first, second = (vectors.cast(both, (half,)).direction[layer] for half in HALVES)
        cosine = float(torch.cosine_similarity(first, second, dim=0))
    return tuple(sorted(found, key=lambda role: role.projection)), cosine


def reply_so_far(judged: Judged) -> ReplySoFar:
    """A rollout of the last batch, cut to what can be shown."""
    rollout, text = judged.rollout, judged.reply.text.strip()
    kept = judged.kept if rollout.is_role else None
    return ReplySoFar(rollout.group, rollout.text, text[:_REPLY_CHARACTERS], kept)
