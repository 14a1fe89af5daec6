"""Which rollouts an extraction runs: roles x questions on one side, default prompts x questions on the other.

Both sides answer the same questions, so that the axis measures who answers and not what was asked. A role need not
answer all of them: roles take turns over overlapping windows of the list, every question is asked of equally many roles,
and `vectors` takes the questions' own effect out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from demo.models.chat_template import Message
from demo.utils.json_files import read_object
from demo.utils.paths import ASSETS

Split = Literal["extract", "held_out", "control"]

DEFAULT = "default"

NEUTRAL = "neutral system prompt"

# Roles left out together when an axis is made to be tested on them.
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Rollout:
    """One reply to be generated: who answers, which question, under which system prompt ("" for none).

    question: number within its split; half: which half of a split-half comparison it is in, 0 or 1; sample: its random
    numbers, which rollouts of the same question and sample share across roles.
    """

    index: int
    group: str
    split: Split
    question: int
    half: int
    sample: int
    system: str
    text: str

    @property
    def messages(self) -> tuple[Message, ...]:
        user: Message = {"role": "user", "content": self.text}
        return ({"role": "system", "content": self.system}, user) if self.system else (user,)

    @property
    def is_role(self) -> bool:
        return self.group not in (DEFAULT, NEUTRAL)


@dataclass(frozen=True)
class Plan:
    """All rollouts of an extraction in the order they run (extraction, then held out, then controls), and what they
    were made from. questions: texts by split; instructions: role -> system prompts; plain: questions with known answers
    for the sweep."""

    rollouts: tuple[Rollout, ...]
    roles: tuple[str, ...]
    instructions: dict[str, tuple[str, ...]]
    questions: dict[str, tuple[str, ...]]
    default_prompts: tuple[str, ...]
    plain: tuple[tuple[str, tuple[str, ...]], ...]
    max_new_tokens: int
    sweep_questions: int

    def fold(self, role: str) -> int:
        """Which of FOLDS groups of roles this one is left out with."""
        return self.roles.index(role) % FOLDS


def make_plan(model_name: str, preset: Preset, assets: Path = ASSETS) -> Plan:
    """Read roles and questions from `assets` and lay out the rollouts of `preset`."""
    cure = "restore it from the repository"
    cast = _spread(read_object(assets / "roles.json", cure)["roles"], preset.roles)
    file = read_object(assets / "questions.json", cure)
    prompts = tuple(prompt.replace("{model_name}", model_name) for prompt in file["default_prompts"])
    asked = {
        split: tuple(q["text"] for q in file["questions"] if q["split"] == split)
        for split in ("extract", "held_out")
    }
    asked["extract"] = asked["extract"][: preset.questions]
    instructions = {role["name"]: tuple(role["instructions"][: preset.instructions]) for role in cast}
    neutral = tuple(file["neutral_prompts"])
    rows = [
        *_defaults(prompts, asked["extract"], "extract", preset.default_samples),
        *_role_rows(instructions, asked["extract"], "extract", preset.role_rollouts),
        *_defaults(prompts, asked["held_out"], "held_out", 1),
        *_role_rows(instructions, asked["held_out"], "held_out", preset.held_out),
        *_neutral(neutral, asked["extract"]),
    ]
    return Plan(
        tuple(Rollout(index, *row) for index, row in enumerate(rows)),
        tuple(instructions),
        instructions,
        asked,
        prompts,
        tuple((q["text"], tuple(q["answers"])) for q in file["plain_questions"]),
        preset.max_new_tokens,
        preset.sweep_questions,
    )


# group, split, question, half, sample, system, text: the fields of a Rollout after its index
Row = tuple[str, Split, int, int, int, str, str]


def _spread(roles: Sequence[dict[str, Any]], count: int | None) -> Sequence[dict[str, Any]]:
    """`count` entries at even distances, so that a small extraction sees the whole alphabetical list."""
    if count is None or count >= len(roles):
        return roles
    return [roles[index * len(roles) // count] for index in range(count)]


def _defaults(prompts: Sequence[str], questions: Sequence[str], split: Split, samples: int) -> Iterator[Row]:
    """Every default prompt answers every question `samples` times; samples alternate between the halves, so that both
    halves hold the same prompts and questions."""
    for number, text in enumerate(questions):
        for sample in range(samples):
            for prompt in prompts:
                yield DEFAULT, split, number, sample % 2, sample, prompt, text


def _role_rows(
    instructions: dict[str, tuple[str, ...]], questions: Sequence[str], split: Split, count: int
) -> Iterator[Row]:
    """`count` rollouts a role. Its window of questions starts 7 places after the last role's: one more than there are
    kinds of questions, so that however short the window, all kinds and questions come up equally often.

    Consecutive rollouts of a role alternate between the halves. Pairs of roles alternate which half they begin with:
    single ones would tie the half to the question's being odd or even.
    """
    total = len(questions)
    for turn in range(count):
        for index, (role, prompts) in enumerate(instructions.items()):
            number = (7 * index + turn) % total
            # Two rollouts in a row share an instruction, one for each half; once around the list, the next one meets
            # the same question.
            prompt = prompts[(turn // 2 + turn // total) % len(prompts)]
            yield role, split, number, (index // 2 + turn) % 2, turn // total, prompt, questions[number]


def _neutral(prompts: Sequence[str], questions: Sequence[str]) -> Iterator[Row]:
    for number, text in enumerate(questions):
        yield NEUTRAL, "control", number, 0, 0, prompts[number % len(prompts)], text


@dataclass(frozen=True, slots=True)
class Preset:
    """Numbers of an extraction; None takes all there are.

    roles: how many of the 275, spread evenly over the list; instructions: how many of a role's, in the file's order: what
    it is, how it speaks, what it wants, a scene, its past. Small models answer the last two with a story whoever tells it,
    which drowns the role, so only large extractions use them. questions: extraction questions, shared by both sides;
    role_rollouts: rollouts a role; default_samples: times every default prompt answers every question; held_out: held-out
    rollouts a role; max_new_tokens: length of a rollout; sweep_questions: plain questions, and as many role rollouts,
    a setting of the cap is tried on.
    """

    roles: int | None
    instructions: int | None
    questions: int | None
    role_rollouts: int
    default_samples: int
    held_out: int
    max_new_tokens: int
    sweep_questions: int


PRESETS = {
    "quick": Preset(
        roles=90, instructions=2, questions=24, role_rollouts=4, default_samples=2, held_out=1, max_new_tokens=32, sweep_questions=12
    ),
    "standard": Preset(
        roles=None, instructions=2, questions=72, role_rollouts=8, default_samples=2, held_out=2, max_new_tokens=64, sweep_questions=40
    ),
    # The paper's scale: 1,200 rollouts a role, 512 tokens each (arXiv 2601.10387, section 2).
    "full": Preset(
        roles=None, instructions=None, questions=None, role_rollouts=1200, default_samples=4, held_out=12, max_new_tokens=512,
        sweep_questions=40,
    ),
}  # fmt: skip
