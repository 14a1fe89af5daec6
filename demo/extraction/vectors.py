"""Accumulate the rollouts of an extraction on disk and compute role vectors from them.

`State` holds running sums, so memory does not grow with the number of rollouts, and a killed run
resumes from the saved state. Whole rollout means [L, D] are kept only for the default side, whose
floors need them; held-out rollouts leave only their projections. `Vectors` turns a state into role
vectors.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from demo.extraction.plan import CONTROLS, DEFAULT, Plan, Rollout
from demo.extraction.rollouts import Reply

HALVES = (0, 1)

# Which role rollouts count, by the judge's verdict: only those kept as role-play, or all of them.
KEPT, ALL = ("kept",), ("kept", "ignored")


@dataclass(frozen=True, slots=True)
class Judged:
    """A reply with the judge's verdict.

    Attributes:
        score: The judge's score, None for groups that are not judged.
        kept: Whether the reply counts.
    """

    reply: Reply
    score: float | None
    kept: bool

    @property
    def rollout(self) -> Rollout:
        return self.reply.rollout


@dataclass
class State:
    """What an extraction has accumulated so far.

    Keys of the sums are "<role>/<half>/<kept|ignored>", "default/<half>", "question
    <n>/<kept|ignored>" (role replies to the question), "full length/<role|default>" (replies cut
    off at the length limit), and the control groups' names.

    Attributes:
        batches: Number of finished batches.
        sums: Key -> summed rollout means [L, D].
        counts: Key -> number of rollouts in the sum.
        defaults: Means [L, D] of default replies to extraction questions.
        moments: "default", "role/kept" and "role/ignored" -> sums over rollout means of replies to
            extraction questions, of each coordinate and of its square: [2, L, D], float64.
        held_out: Projections of held-out replies in axis units, as lists of [L] under
            "<role>/<kept|ignored>" and of [FOLDS, L] under "default".
        held_out_standardised: The same on the standardised axes, see `Cast`.
        texts: One record per rollout, which becomes a line of rollouts.jsonl.
        verdicts: KEPT or ALL, whichever the held-out projections were computed with.
    """

    batches: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    defaults: list[Tensor] = field(default_factory=list)
    held_out: dict[str, list[Tensor]] = field(default_factory=dict)
    moments: dict[str, Tensor] = field(default_factory=dict)
    held_out_standardised: dict[str, list[Tensor]] = field(default_factory=dict)
    texts: list[dict[str, Any]] = field(default_factory=list)
    verdicts: tuple[str, ...] = ()

    def add(self, judged: Judged, limit: int) -> None:
        """Add a reply to an extraction or control question.

        Args:
            limit: Maximum length of a reply in tokens.
        """
        self._record(judged)
        rollout, mean = judged.rollout, judged.reply.mean
        if not judged.reply.tokens:
            return  # an empty reply has no mean
        for key in self._keys(judged, limit):
            self.sums[key] = self.sums.get(key, torch.zeros(())) + mean
            self.counts[key] = self.counts.get(key, 0) + 1
        if rollout.group == DEFAULT:
            self.defaults.append(mean.clone())
        if rollout.split == "extract":
            side = f"role/{_verdict(judged.kept)}" if rollout.is_role else DEFAULT
            exact = mean.double()  # the difference of two large sums is left of a large coordinate
            seen = torch.stack([exact, exact**2])
            self.moments[side] = self.moments[side] + seen if side in self.moments else seen
            self.counts[f"moments/{side}"] = self.counts.get(f"moments/{side}", 0) + 1

    def add_held_out(self, judged: Judged, projections: Tensor, standardised: Tensor) -> None:
        """Add a held-out reply.

        Args:
            projections: Axis units, [L] for a role and [FOLDS, L] for the default.
            standardised: The same on the standardised axes.
        """
        self._record(judged)
        if judged.reply.tokens:
            verdict = "" if judged.rollout.group == DEFAULT else f"/{_verdict(judged.kept)}"
            key = judged.rollout.group + verdict
            self.held_out.setdefault(key, []).append(projections)
            self.held_out_standardised.setdefault(key, []).append(standardised)

    def variance(self, verdicts: Sequence[str]) -> Tensor:
        """The variance of each coordinate of rollout means about the mean of its side, [L, D] float32.

        The sides are the default rollouts and the role rollouts with these verdicts, weighted by number.
        """
        role = [f"role/{verdict}" for verdict in verdicts if f"role/{verdict}" in self.moments]
        scatter, total = torch.zeros((), dtype=torch.float64), 0
        for side in ([DEFAULT] if DEFAULT in self.moments else [], role):
            if side:
                count = self.count(*(f"moments/{key}" for key in side))
                sums, squares = torch.stack([self.moments[key] for key in side]).sum(0)
                scatter, total = scatter + squares - sums**2 / count, total + count
        return (scatter / max(1, total)).clamp(min=0).float()

    def on_standardised_axes(self) -> State:
        """The same state with the held-out projections on the standardised axes."""
        return replace(self, held_out=self.held_out_standardised)

    def forget_held_out(self, batches: int) -> None:
        """Return to the end of the extraction rollouts; the held-out ones then run again.

        Args:
            batches: Number of batches that the extraction rollouts took.
        """
        self.held_out, self.held_out_standardised, self.batches = {}, {}, batches
        self.texts = [record for record in self.texts if record["split"] == "extract"]
        # The controls run after the held-out rollouts, so they run again too.
        for group in CONTROLS:
            self.sums.pop(group, None)
            self.counts.pop(group, None)

    def count(self, *keys: str) -> int:
        """The number of rollouts under these keys."""
        return sum(self.counts.get(key, 0) for key in keys)

    def mean(self, *keys: str) -> Tensor:
        """The mean over all rollouts under these keys, [L, D]. Raises KeyError without any."""
        present = [key for key in keys if key in self.sums]
        if not present:
            raise KeyError(keys)
        return torch.stack([self.sums[key] for key in present]).sum(0) / self.count(*present)

    def save(self, folder: Path, fingerprint: str) -> None:
        """Replace the saved state atomically: a kill at any moment leaves the last complete one."""
        tensors = {f"sum:{key}": value for key, value in self.sums.items()}
        tensors |= {f"held_out:{key}": torch.stack(values) for key, values in self.held_out.items()}
        tensors |= {f"standardised:{key}": torch.stack(v) for key, v in self.held_out_standardised.items()}
        tensors |= {f"moments:{key}": value for key, value in self.moments.items()}
        if self.defaults:
            tensors["defaults"] = torch.stack(self.defaults)
        about = {
            "fingerprint": fingerprint,
            "batches": self.batches,
            "counts": self.counts,
            "texts": self.texts,
            "verdicts": self.verdicts,
        }
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"state.{os.getpid()}.tmp"
        save_file(tensors, temporary, metadata={"about": json.dumps(about)})
        os.replace(temporary, folder / "state.safetensors")

    @classmethod
    def load(cls, folder: Path, fingerprint: str) -> State:
        """The saved state, or an empty one when there is none or its fingerprint differs."""
        path = folder / "state.safetensors"
        if not path.is_file():
            return cls()
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
        if about["fingerprint"] != fingerprint:
            return cls()
        tensors = load_file(path)

        def under(prefix: str) -> dict[str, Tensor]:
            return {
                key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
            }

        return cls(
            about["batches"],
            under("sum:"),
            about["counts"],
            list(tensors.get("defaults", ())),
            {key: list(values) for key, values in under("held_out:").items()},
            under("moments:"),
            {key: list(values) for key, values in under("standardised:").items()},
            about["texts"],
            tuple(about["verdicts"]),
        )

    def _record(self, judged: Judged) -> None:
        rollout, reply = judged.rollout, judged.reply
        record: dict[str, Any] = {
            "index": rollout.index,
            "group": rollout.group,
            "split": rollout.split,
            "system": rollout.system,
            "question": rollout.text,
            "reply": reply.text,
            "tokens": len(reply.tokens),
        }
        if rollout.history:
            record["history"] = [list(exchange) for exchange in rollout.history]
        if judged.score is not None and reply.tokens:
            record |= {"uptake": round(judged.score, 4), "kept": judged.kept}
        self.texts.append(record)

    def _keys(self, judged: Judged, limit: int) -> Iterable[str]:
        """The keys of the sums that a reply belongs to."""
        rollout = judged.rollout
        if rollout.split == "control":
            yield rollout.group
            return
        verdict = _verdict(judged.kept)
        yield f"{rollout.group}/{rollout.half}" + (f"/{verdict}" if rollout.is_role else "")
        if rollout.is_role:
            yield f"question {rollout.question}/{verdict}"
        if len(judged.reply.tokens) == limit and judged.kept:
            yield f"full length/{'role' if rollout.is_role else DEFAULT}"


def _verdict(kept: bool) -> str:
    return "kept" if kept else "ignored"


@dataclass(frozen=True)
class Cast:
    """The roles that count, with their vectors, beside the default side.

    Attributes:
        roles: Names of the roles.
        vectors: Role vectors [R, L, D], in the order of `roles`.
        default_mean: Mean of the default side, [L, D].
        variance: None for the plain axis. For the standardised one, the variance of each coordinate, [L, D].
    """

    roles: tuple[str, ...]
    vectors: Tensor
    default_mean: Tensor
    variance: Tensor | None = None

    @property
    def role_mean(self) -> Tensor:
        """Mean role vector, [L, D]."""
        return self.vectors.mean(0)

    @property
    def direction(self) -> Tensor:
        """The axis, [L, D], which points toward the Assistant, see `direction_of`."""
        return direction_of(self.default_mean, self.role_mean, self.variance)

    def in_own_coordinates(self) -> Cast:
        """The same roles in the coordinates in which their components are taken.

        Those of the standardised axis are divided by their standard deviations.
        """
        if self.variance is None:
            return self
        scale = safe_variance(self.variance).rsqrt()
        return Cast(self.roles, self.vectors * scale, self.default_mean * scale)


def direction_of(default_mean: Tensor, role_mean: Tensor, variance: Tensor | None = None) -> Tensor:
    """The axis from the mean role vector to the mean of the default side, all [..., L, D].

    Without variances it is their difference. With them each coordinate of the difference is divided by its
    variance: the direction of a linear discriminant with a diagonal covariance (Fisher 1936), in which
    coordinates with a large spread do not drown the others. Its length is such that the two means are one
    axis unit apart on it, as they are on the plain axis.
    """
    difference = default_mean - role_mean
    if variance is None:
        return difference
    weighted = difference / safe_variance(variance)
    products = (difference * weighted).sum(-1, keepdim=True), (weighted**2).sum(-1, keepdim=True)
    return weighted * (products[0] / products[1].clamp(min=torch.finfo(torch.float32).tiny))


def safe_variance(variance: Tensor) -> Tensor:
    """Variances [..., D] of at least a hundredth of the layer's median: idle coordinates weigh little."""
    least = 0.01 * variance.median(dim=-1, keepdim=True).values
    return torch.maximum(variance, least).clamp(min=torch.finfo(torch.float32).tiny)


class Vectors:
    """Computes role vectors from a state."""

    def __init__(
        self, state: State, plan: Plan, verdicts: Sequence[str] = KEPT, variance: Tensor | None = None
    ) -> None:
        """Prepare to compute vectors.

        Args:
            verdicts: Which role rollouts count, KEPT or ALL.
            variance: Of the casts, see `Cast`.
        """
        self._state = state
        self.variance = variance
        self._plan = plan
        self._verdicts = tuple(verdicts)
        # (role, half) -> how often each question was answered by a rollout that counts.
        self._questions: dict[tuple[str, int], Counter[int]] = {}
        for record in state.texts:
            rollout = plan.rollouts[record["index"]]
            counts = record["tokens"] and record.get("kept", True) | ("ignored" in self._verdicts)
            if rollout.split == "extract" and rollout.is_role and counts:
                self._questions.setdefault((rollout.group, rollout.half), Counter())[rollout.question] += 1
        self._effects = self._question_effects()

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Which role rollouts count."""
        return self._verdicts

    def kept(self, role: str, halves: Sequence[int] = HALVES) -> int:
        """The number of the role's rollouts that count."""
        return sum(self._asked(role, halves).values())

    def vector(self, role: str, halves: Sequence[int] = HALVES) -> Tensor:
        """The mean of the role's rollout means without the effects of its questions, [L, D]."""
        raw = self._state.mean(*(f"{role}/{half}/{verdict}" for half in halves for verdict in self._verdicts))
        asked = self._asked(role, halves)
        effect = sum(self._effects[question] * count for question, count in asked.items())
        return raw - effect / sum(asked.values())

    def cast(self, roles: Sequence[str], halves: Sequence[int] = HALVES) -> Cast:
        """Vectors of these roles beside the default side, from the same halves."""
        return Cast(
            tuple(roles),
            torch.stack([self.vector(role, halves) for role in roles]),
            self._state.mean(*(f"{DEFAULT}/{half}" for half in halves)),
            self.variance,
        )

    def roles_with(self, least: int, parts: Sequence[Sequence[int]] = (HALVES,)) -> tuple[str, ...]:
        """Roles with at least `least` rollouts that count in each of `parts`, sets of halves."""
        return tuple(
            role for role in self._plan.roles if all(self.kept(role, part) >= least for part in parts)
        )

    def _asked(self, role: str, halves: Sequence[int]) -> Counter[int]:
        """How often the role's rollouts that count answered each question."""
        return sum((self._questions.get((role, half), Counter()) for half in halves), Counter[int]())

    def _question_effects(self) -> dict[int, Tensor]:
        """Question -> mean of all role replies to it - mean over questions, [L, D]."""
        means: dict[int, Tensor] = {}
        for question in range(len(self._plan.questions["extract"])):
            keys = [f"question {question}/{verdict}" for verdict in self._verdicts]
            if self._state.count(*keys):
                means[question] = self._state.mean(*keys)
        if not means:
            return {}
        overall = torch.stack(list(means.values())).mean(0)
        return {question: mean - overall for question, mean in means.items()}
