"""What an extraction has gathered so far, kept on disk so that a killed run goes on where it was.

Everything is a running sum, so memory does not grow with the number of rollouts. Whole rollout means [L, D] are kept
for the default side alone (floors); held-out rollouts leave only their projections.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from demo.extraction.plan import DEFAULT, NEUTRAL, Plan, Rollout
from demo.extraction.rollouts import Reply

HALVES = (0, 1)


@dataclass(frozen=True, slots=True)
class Judged:
    """A reply and whether it counts as role-play. score: what the judge said, None for sides that are not judged."""

    reply: Reply
    score: float | None
    kept: bool

    @property
    def rollout(self) -> Rollout:
        return self.reply.rollout


@dataclass
class State:
    """batches: how many are done; sums, counts: key -> summed means [L, D] and number of rollouts;
    defaults: means [L, D] of default replies to extraction questions; held_out: projections of held-out replies in axis
    units, group -> list of [L] (roles) or [FOLDS, L] (default); texts: one record per rollout.

    Keys are "role/<half>/<kept|ignored>", "default/<half>", "question <n>/<kept|ignored>" (roles' replies to it),
    "full length/<role|default>" (replies cut off at the length limit), and the control group's name.
    """

    batches: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    defaults: list[Tensor] = field(default_factory=list)
    held_out: dict[str, list[Tensor]] = field(default_factory=dict)
    texts: list[dict[str, Any]] = field(default_factory=list)
    verdicts: tuple[str, ...] = ()

    def add(self, judged: Judged, limit: int) -> None:
        """Take in one reply to an extraction or control question. limit: tokens at which replies are cut off."""
        self.record(judged)
        rollout, mean = judged.rollout, judged.reply.mean
        if not judged.reply.tokens:
            return  # an empty reply has no mean
        for key in self._keys(judged, limit):
            self.sums[key] = self.sums.get(key, torch.zeros(())) + mean
            self.counts[key] = self.counts.get(key, 0) + 1
        if rollout.group == DEFAULT:
            self.defaults.append(mean.clone())

    def add_held_out(self, judged: Judged, projections: Tensor) -> None:
        """Take in one held-out reply by its projections; a role's counts only when it was taken up."""
        self.record(judged)
        if judged.reply.tokens:
            verdict = "" if judged.rollout.group == DEFAULT else f"/{_verdict(judged.kept)}"
            self.held_out.setdefault(judged.rollout.group + verdict, []).append(projections)

    def record(self, judged: Judged) -> None:
        rollout, reply = judged.rollout, judged.reply
        record = {"index": rollout.index, "group": rollout.group, "split": rollout.split, "system": rollout.system,
                  "question": rollout.text, "reply": reply.text, "tokens": len(reply.tokens)}  # fmt: skip
        if judged.score is not None and reply.tokens:
            record |= {"uptake": round(judged.score, 4), "kept": judged.kept}
        self.texts.append(record)

    def forget_held_out(self, batches: int) -> None:
        """Go back to the end of the first `batches`, the extraction rollouts, for held-out ones to be projected anew."""
        self.held_out, self.batches = {}, batches
        self.texts = [record for record in self.texts if record["split"] == "extract"]
        # Controls ran after the held-out rollouts and run again.
        self.sums.pop(NEUTRAL, None)
        self.counts.pop(NEUTRAL, None)

    def count(self, *keys: str) -> int:
        return sum(self.counts.get(key, 0) for key in keys)

    def mean(self, *keys: str) -> Tensor:
        """Mean over all rollouts under these keys, [L, D]. KeyError when there are none."""
        present = [key for key in keys if key in self.sums]
        if not present:
            raise KeyError(keys)
        return torch.stack([self.sums[key] for key in present]).sum(0) / self.count(*present)

    def _keys(self, judged: Judged, limit: int) -> Iterable[str]:
        rollout = judged.rollout
        if rollout.split == "control":
            yield rollout.group
            return
        verdict = _verdict(judged.kept)
        side = "role" if rollout.is_role else DEFAULT
        yield f"{rollout.group}/{rollout.half}" + (f"/{verdict}" if rollout.is_role else "")
        if rollout.is_role:
            yield f"question {rollout.question}/{verdict}"
        if len(judged.reply.tokens) == limit and judged.kept:
            yield f"full length/{side}"

    def save(self, folder: Path, fingerprint: str) -> None:
        """Replace the saved state in one step: a kill at any moment leaves the last whole one."""
        tensors = {f"sum:{key}": value for key, value in self.sums.items()}
        tensors |= {f"held_out:{key}": torch.stack(values) for key, values in self.held_out.items()}
        if self.defaults:
            tensors["defaults"] = torch.stack(self.defaults)
        about = {"fingerprint": fingerprint, "batches": self.batches, "counts": self.counts, "texts": self.texts,
                 "verdicts": self.verdicts}  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"state.{os.getpid()}.tmp"
        save_file(tensors, temporary, metadata={"about": json.dumps(about)})
        os.replace(temporary, folder / "state.safetensors")

    @classmethod
    def load(cls, folder: Path, fingerprint: str) -> State:
        """The saved state, or an empty one when there is none or it belongs to other settings."""
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
            about["texts"],
            tuple(about["verdicts"]),
        )


def _verdict(kept: bool) -> str:
    return "kept" if kept else "ignored"


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
