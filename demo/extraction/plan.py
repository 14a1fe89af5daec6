"""Which rollouts an extraction runs: roles x questions on one side, default prompts x questions on the other.

Both sides answer the same questions, so that the axis measures who answers and not what was asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from demo.engine.protocol import Message
from demo.jsonfile import read_object

ASSETS = Path(__file__).resolve().parent.parent.parent / "assets"
Split = Literal["extract", "held_out"]
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Rollout:
    """One reply to be generated: who answers, which question, under which system prompt ("" for none)."""

    index: int
    group: str
    split: Split
    question: int
    system: str
    text: str

    @property
    def messages(self) -> tuple[Message, ...]:
        user: Message = {"role": "user", "content": self.text}
        return ({"role": "system", "content": self.system}, user) if self.system else (user,)


@dataclass(frozen=True)
class Plan:
    """All rollouts of an extraction, in the order they run, and what they were made from."""

    rollouts: tuple[Rollout, ...]
    extract_roles: tuple[str, ...]
    held_out_roles: tuple[str, ...]
    questions: dict[str, int]
    default_prompts: tuple[str, ...]


def make_plan(
    model_name: str, *, roles: int | None = None, questions: int | None = None, assets: Path = ASSETS
) -> Plan:
    """Read roles and questions from `assets`; `roles` and `questions` keep only the first so many of each split.

    Each role answers every question once, its instructions taking turns; every default prompt answers every question.
    Held-out roles answer held-out questions only, so that neither was seen by the axis they are tested on.
    """
    cure = "restore it from the repository"
    all_roles = read_object(assets / "roles.json", cure)["roles"]
    question_file = read_object(assets / "questions.json", cure)
    prompts = tuple(prompt.replace("{model_name}", model_name) for prompt in question_file["default_prompts"])
    rollouts: list[Rollout] = []
    used: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    split: Split
    for split in ("extract", "held_out"):
        asked = [q["text"] for q in question_file["questions"] if q["split"] == split][:questions]
        cast = [role for role in all_roles if role["split"] == split][:roles]
        used[split], counts[split] = [role["name"] for role in cast], len(asked)
        for number, text in enumerate(asked):
            for group, system in _speakers(cast, prompts, number):
                rollouts.append(Rollout(len(rollouts), group, split, number, system, text))
    return Plan(tuple(rollouts), tuple(used["extract"]), tuple(used["held_out"]), counts, prompts)


def _speakers(
    cast: Sequence[dict[str, Any]], prompts: Sequence[str], question: int
) -> Iterator[tuple[str, str]]:
    for prompt in prompts:
        yield DEFAULT, prompt
    for role in cast:
        yield role["name"], role["instructions"][question % len(role["instructions"])]
