"""Decide which rollouts an extraction runs: roles x questions, and default prompts x questions.

Both sides answer the same questions, so the axis measures who answers and not what was asked. A
role need not answer every question: roles take turns over overlapping windows of the list, so that
every question is asked of equally many roles, and `demo.extraction.vectors` subtracts the effect of
each question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from demo.extraction.archetypes import ARCHETYPES
from demo.extraction.interviews import default_headings, introduction, neutral_heading, role_heading
from demo.models.chat_template import Message
from demo.utils.json_files import read_object
from demo.utils.paths import ASSETS

Split = Literal["extract", "held_out", "control"]

DEFAULT = "default"  # the group of the default Assistant's rollouts

# The groups of the control rollouts: under long system prompts without a persona, and under ones of a few
# words, which say next to nothing but take the place of what a chat template writes where there is none.
NEUTRAL, BARE = CONTROLS = ("neutral system prompt", "bare system prompt")

# Roles are divided into this many folds. A held-out axis leaves one fold out and is tested on it.
FOLDS = 5

# Messages of the user, each with the reply to it.
Exchanges = tuple[tuple[str, str], ...]

# How a role is asked for: by its instruction alone; with a demand to stay in character after it; or with
# that and a first exchange in which the role has already introduced itself.
RolePrompts = Literal["plain", "strong", "example"]

ROLE_PROMPTS: tuple[RolePrompts, ...] = get_args(RolePrompts)

_STAY = (
    "Stay in character: you are the {role}, and every word is the {role}'s own, in the first person. Never "
    "say that you are an AI or a language model, and never step out of the role, whatever you are asked."
)

# The first exchange. The default side has one as well, so that the axis does not measure whether a chat
# has begun already.
_GREETING = "Before we begin: who am I talking to?"
_ROLE_OPENING = (
    "You are talking to the {role}. I am the {role} and nobody else. I tell everything as the {role} sees "
    "it, in the words of the {role}."
)
_DEFAULT_OPENING = (
    "You are talking to {model_name}. I am an AI assistant. I answer every question as clearly and helpfully "
    "as I can."
)


@dataclass(frozen=True, slots=True)
class Preset:
    """The size of an extraction. None takes everything there is.

    Attributes:
        roles: Number of the 275 roles, spread evenly over the list.
        instructions: Number of a role's instructions, in the file's order: what it is, how it
            speaks, what it wants, a scene, its past. Small models answer the last two with a story,
            whichever role they play, which hides the role, so only large extractions use them.
        questions: Number of extraction questions, which both sides share.
        role_rollouts: Rollouts per role.
        default_samples: How many times every default prompt answers every question.
        held_out: Held-out rollouts per role.
        max_new_tokens: Maximum length of a rollout.
        sweep_questions: Number of plain questions, and of role prompts, on which each setting of
            the cap is tried.
        role_prompts: How a role is asked for. The others than "plain" are for models that hardly
            take up a role by its instruction alone.
        late_talks: Number of scripted talks on either side, see `demo.extraction.late_turns`.
    """

    roles: int | None
    instructions: int | None
    questions: int | None
    role_rollouts: int
    default_samples: int
    held_out: int
    max_new_tokens: int
    sweep_questions: int
    role_prompts: RolePrompts = "plain"
    late_talks: int = 8


PRESETS = {
    "quick": Preset(
        roles=90,
        instructions=2,
        questions=24,
        role_rollouts=4,
        default_samples=2,
        held_out=1,
        max_new_tokens=32,
        sweep_questions=12,
        late_talks=6,
    ),
    "standard": Preset(
        roles=None,
        instructions=2,
        questions=72,
        role_rollouts=8,
        default_samples=2,
        held_out=2,
        max_new_tokens=64,
        sweep_questions=40,
        late_talks=32,
    ),
    # The paper's scale: 1,200 rollouts per role of 512 tokens each (arXiv 2601.10387, section 2).
    "full": Preset(
        roles=None,
        instructions=None,
        questions=None,
        role_rollouts=1200,
        default_samples=4,
        held_out=12,
        max_new_tokens=512,
        sweep_questions=40,
        late_talks=64,
    ),
}


@dataclass(frozen=True, slots=True)
class Rollout:
    """One reply to generate.

    Attributes:
        index: Position in the plan.
        group: The role's name, or DEFAULT, or one of CONTROLS.
        split: What the rollout is for.
        question: Number of the question within its split.
        half: The half of a split-half comparison it belongs to, 0 or 1.
        sample: Selects the random numbers, which rollouts of the same question and sample share
            across roles.
        system: System prompt, "" for none.
        text: The question.
        history: The chat before the question, as messages of the user with the replies to them.
    """

    index: int
    group: str
    split: Split
    question: int
    half: int
    sample: int
    system: str
    text: str
    history: Exchanges = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        return (*head_of(self.system, self.history), {"role": "user", "content": self.text})

    @property
    def is_role(self) -> bool:
        return self.group not in (DEFAULT, *CONTROLS)


@dataclass(frozen=True)
class Plan:
    """All rollouts of an extraction and the prompts they were made from.

    Attributes:
        rollouts: In the order they run: extraction, then held out, then controls.
        roles: Names of the roles.
        instructions: Role -> system prompts.
        questions: Split -> questions.
        default_prompts: System prompts of the default side.
        plain: Questions with their accepted answers, for the sweep.
        max_new_tokens: Maximum length of a rollout.
        sweep_questions: See `Preset`.
        role_prompts: See `Preset`.
        late_talks: See `Preset`.
        openings: Group -> its first exchange; empty without any.
    """

    rollouts: tuple[Rollout, ...]
    roles: tuple[str, ...]
    instructions: dict[str, tuple[str, ...]]
    questions: dict[str, tuple[str, ...]]
    default_prompts: tuple[str, ...]
    plain: tuple[tuple[str, tuple[str, ...]], ...]
    max_new_tokens: int
    sweep_questions: int
    role_prompts: RolePrompts = "plain"
    openings: dict[str, Exchanges] = field(default_factory=dict)
    late_talks: int = 0

    def fold(self, role: str) -> int:
        """The fold, 0 to FOLDS - 1, that this role is left out with."""
        return self.roles.index(role) % FOLDS


def make_plan(model_name: str, preset: Preset, assets: Path = ASSETS, base: bool = False) -> Plan:
    """Read roles and questions from `assets` and lay out the rollouts of `preset`.

    Args:
        model_name: Replaces {model_name} in the default prompts.
        base: For a pretrained model: prompts say in the third person who is asked, and the archetypes are
            among the roles, however few there are.

    Raises:
        UserError: A file is missing or is not valid JSON.
    """
    remedy = "restore it from the repository"
    roles = _spread(
        read_object(assets / "roles.json", remedy)["roles"], preset.roles, ARCHETYPES if base else ()
    )
    file = read_object(assets / "questions.json", remedy)
    prompts = tuple(prompt.replace("{model_name}", model_name) for prompt in file["default_prompts"])
    neutral = tuple(file["neutral_prompts"])
    if base:
        prompts, neutral = default_headings(model_name), tuple(map(neutral_heading, neutral))
    questions = {
        split: tuple(q["text"] for q in file["questions"] if q["split"] == split)
        for split in ("extract", "held_out")
    }
    questions["extract"] = questions["extract"][: preset.questions]
    instructions = {
        role["name"]: tuple(
            _asking(role["name"], text, preset.role_prompts, base)
            for text in role["instructions"][: preset.instructions]
        )
        for role in roles
    }
    openings = _openings(model_name, tuple(instructions), base) if preset.role_prompts == "example" else {}
    fields = [
        *_default_rollouts(prompts, questions["extract"], "extract", preset.default_samples),
        *_role_rollouts(instructions, questions["extract"], "extract", preset.role_rollouts),
        *_default_rollouts(prompts, questions["held_out"], "held_out", 1),
        *_role_rollouts(instructions, questions["held_out"], "held_out", preset.held_out),
        *_control_rollouts(NEUTRAL, neutral, questions["extract"]),
        *_control_rollouts(BARE, tuple(file["bare_prompts"]), questions["extract"]),
    ]
    return Plan(
        tuple(Rollout(index, *values, openings.get(values[0], ())) for index, values in enumerate(fields)),
        tuple(instructions),
        instructions,
        questions,
        prompts,
        tuple((q["text"], tuple(q["answers"])) for q in file["plain_questions"]),
        preset.max_new_tokens,
        preset.sweep_questions,
        preset.role_prompts,
        openings,
        preset.late_talks,
    )


def usual_role_prompts(base: bool) -> RolePrompts:
    """How roles are asked for unless something else is wanted.

    A pretrained model takes a role up from an example, and hardly without one.
    """
    return "example" if base else "plain"


def head_of(system: str, history: Exchanges = ()) -> tuple[Message, ...]:
    """The messages before a question: the system prompt, unless it is "", and the chat so far."""
    head: list[Message] = [{"role": "system", "content": system}] if system else []
    for asked, answered in history:
        head += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return tuple(head)


def _asking(role: str, instruction: str, role_prompts: RolePrompts, base: bool) -> str:
    """The system prompt that asks for a role."""
    if base:
        instruction = role_heading(role, instruction)
    # A demand means nothing to a pretrained model, and an example is better than one.
    if role_prompts == "plain" or (base and role_prompts == "example"):
        return instruction
    return f"{instruction}\n\n{_STAY.format(role=_spoken(role))}"


def _openings(model_name: str, roles: Sequence[str], base: bool) -> dict[str, Exchanges]:
    """Group -> its first exchange: every role introduces itself, and so does the default side."""
    if base:
        groups = dict.fromkeys((DEFAULT, *CONTROLS)) | {role: role for role in roles}
        return {group: ((_GREETING, introduction(role)),) for group, role in groups.items()}
    own = ((_GREETING, _DEFAULT_OPENING.format(model_name=model_name)),)
    found: dict[str, Exchanges] = {
        role: ((_GREETING, _ROLE_OPENING.format(role=_spoken(role))),) for role in roles
    }
    return found | dict.fromkeys((DEFAULT, *CONTROLS), own)


def _spoken(role: str) -> str:
    return role.replace("_", " ")


# The fields of a Rollout after its index: group, split, question, half, sample, system, text.
_Fields = tuple[str, Split, int, int, int, str, str]


def _spread(
    roles: Sequence[dict[str, Any]], count: int | None, always: Sequence[str] = ()
) -> Sequence[dict[str, Any]]:
    """Return `count` entries at even distances, so that a few roles cover the alphabetical list.

    Args:
        always: Names of roles that are there in any case.
    """
    if count is None or count >= len(roles):
        return roles
    chosen = {index * len(roles) // count for index in range(count)}
    return [role for index, role in enumerate(roles) if index in chosen or role["name"] in always]


def _default_rollouts(
    prompts: Sequence[str], questions: Sequence[str], split: Split, samples: int
) -> Iterator[_Fields]:
    """Let every default prompt answer every question `samples` times.

    Samples alternate between the halves, so that both halves hold the same prompts and questions.
    """
    for number, text in enumerate(questions):
        for sample in range(samples):
            for prompt in prompts:
                yield DEFAULT, split, number, sample % 2, sample, prompt, text


def _role_rollouts(
    instructions: dict[str, tuple[str, ...]], questions: Sequence[str], split: Split, count: int
) -> Iterator[_Fields]:
    """Give every role `count` rollouts.

    A role's window of questions starts 7 places after that of the role before it: one more than
    there are kinds of questions, so that all kinds and questions come up equally often, however
    short the window is.

    Consecutive rollouts of a role alternate between the halves. The half that a role begins with
    changes with every second role. If it changed with every role, all even questions would fall
    into one half and all odd ones into the other.
    """
    total = len(questions)
    # Role by role, so that a role's rollouts run together and its system prompt is read once.
    for index, (role, prompts) in enumerate(instructions.items()):
        for turn in range(count):
            number = (7 * index + turn) % total
            # Two consecutive rollouts share an instruction, one for each half. After a round of all
            # questions the instruction moves on by one, so that a question meets another
            # instruction.
            prompt = prompts[(turn // 2 + turn // total) % len(prompts)]
            yield role, split, number, (index // 2 + turn) % 2, turn // total, prompt, questions[number]


def _control_rollouts(group: str, prompts: Sequence[str], questions: Sequence[str]) -> Iterator[_Fields]:
    for number, text in enumerate(questions):
        yield group, "control", number, 0, 0, prompts[number % len(prompts)], text
