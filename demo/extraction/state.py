"""What an extraction has gathered so far, kept on disk so that a killed run goes on where it was.

Role vectors are running sums, one per role and half of the questions, so memory does not grow with the number of
rollouts. Whole rollout means [L, D] are kept only where each one is needed: for the default side (floors), for the
held-out roles (AUC), and for a sample of every role (choice of the probe layer).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from demo.extraction.plan import DEFAULT
from demo.extraction.rollouts import Reply

# Rollouts to the first so many extraction questions are kept whole for every role.
SAMPLED_QUESTIONS = 4
HALVES = ("even", "odd")


@dataclass
class State:
    """batches: how many are done; sums, counts: "<group>/<half>" -> [L, D] and number of rollouts (extract split);
    kept: "<split>/<group>" -> list of rollout means [L, D]; texts: one record per rollout."""

    batches: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    kept: dict[str, list[Tensor]] = field(default_factory=dict)
    texts: list[dict[str, Any]] = field(default_factory=list)

    def add(self, replies: list[Reply]) -> None:
        """Take in one finished batch. Empty replies have no mean and are counted out."""
        for reply in replies:
            rollout = reply.rollout
            self.texts.append(
                {"index": rollout.index, "group": rollout.group, "split": rollout.split, "system": rollout.system,
                 "question": rollout.text, "reply": reply.text, "tokens": reply.tokens}
            )  # fmt: skip
            if reply.tokens == 0:
                continue
            if rollout.split == "extract":
                key = f"{rollout.group}/{HALVES[rollout.question % 2]}"
                self.sums[key] = self.sums.get(key, torch.zeros(())) + reply.mean
                self.counts[key] = self.counts.get(key, 0) + 1
            if (
                rollout.split == "held_out"
                or rollout.group == DEFAULT
                or rollout.question < SAMPLED_QUESTIONS
            ):
                self.kept.setdefault(f"{rollout.split}/{rollout.group}", []).append(reply.mean.clone())
        self.batches += 1

    def save(self, folder: Path, fingerprint: str) -> None:
        """Replace the saved state in one step: a kill at any moment leaves the last whole one."""
        tensors = {f"sum:{key}": value for key, value in self.sums.items()}
        tensors |= {f"kept:{key}": torch.stack(values) for key, values in self.kept.items()}
        about = {
            "fingerprint": fingerprint,
            "batches": self.batches,
            "counts": self.counts,
            "texts": self.texts,
        }
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
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
        if about["fingerprint"] != fingerprint:
            return cls()
        tensors = load_file(path)
        return cls(
            about["batches"],
            {key.removeprefix("sum:"): value for key, value in tensors.items() if key.startswith("sum:")},
            about["counts"],
            {
                key.removeprefix("kept:"): list(value)
                for key, value in tensors.items()
                if key.startswith("kept:")
            },
            about["texts"],
        )

    def vector(self, group: str, half: str | None = None) -> Tensor:
        """Mean of a group's rollout means, [L, D]: a role vector. `half` keeps to one half of the questions."""
        keys = [
            f"{group}/{name}" for name in HALVES if half in (None, name) and f"{group}/{name}" in self.sums
        ]
        total = torch.stack([self.sums[key] for key in keys]).sum(0)
        return total / sum(self.counts[key] for key in keys)

    def rollouts(self, group: str) -> int:
        return sum(self.counts.get(f"{group}/{half}", 0) for half in HALVES)
