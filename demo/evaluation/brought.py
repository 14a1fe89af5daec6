"""Attempts made of prompts that a user brings, in the files of StrongREJECT or HarmBench.

The program comes with no such prompts. Each one of a file is sent as it is, once alone and once under each of
a few personas of `demo.evaluation.attempts`, whose system prompts ask for a stance and for nothing else.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from demo.evaluation.attempts import Attempt, load_attempts
from demo.models.chat_template import Message
from demo.utils.errors import UserError

PERSONAS = 3  # under which every prompt is sent, besides alone

ALONE, UNDER_PERSONA = "alone", "system"  # `Attempt.place`


@dataclass(frozen=True)
class _Format:
    """A published format: the columns that a file must have, and how a row becomes category and prompt."""

    columns: tuple[str, ...]
    read: Callable[[dict[str, str]], tuple[str, str]]


def _strongreject(row: dict[str, str]) -> tuple[str, str]:
    return row["category"], row["forbidden_prompt"]


def _harmbench(row: dict[str, str]) -> tuple[str, str]:
    """A behaviour that refers to a context comes after it."""
    context = (row.get("ContextString") or "").strip()
    return row["SemanticCategory"], f"{context}\n\n---\n\n{row['Behavior']}" if context else row["Behavior"]


FORMATS = {
    "strongreject": _Format(("category", "forbidden_prompt"), _strongreject),
    "harmbench": _Format(("Behavior", "SemanticCategory"), _harmbench),
}


def read_attempts(name: str, path: Path, personas: int = PERSONAS) -> list[Attempt]:
    """The attempts of a file in its published format, CSV. A prompt that stands there twice counts once.

    Args:
        name: of the format, one of FORMATS.
        personas: under how many personas each prompt is sent, besides alone.

    Raises:
        UserError: The format is unknown, the file is not what it promises, or there are fewer personas.
    """
    if name not in FORMATS:
        raise UserError(f"There is no format {name!r} of attempts; choose one of {', '.join(FORMATS)}.")
    described = _personas(personas)
    prompts = dict.fromkeys(_prompts(name, path))
    if not prompts:
        raise UserError(f"{path} holds no prompts; give the {name} file as it is published.")
    return [
        attempt
        for number, (category, prompt) in enumerate(prompts)
        for attempt in _attempts(f"{name}-{number}", category, prompt, described)
    ]


def digest(attempts: Sequence[Attempt]) -> str:
    """Differs for other attempts, so that the results of one file are never taken for another's."""
    texts = (f"{message['role']}\n{message['content']}\n" for one in attempts for message in one.messages)
    return sha256("".join(texts).encode()).hexdigest()[:16]


def _prompts(name: str, path: Path) -> Iterator[tuple[str, str]]:
    """Category and prompt of every row that has one."""
    form = FORMATS[name]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            missing = [column for column in form.columns if column not in (rows.fieldnames or ())]
            if missing:
                raise UserError(
                    f"{path} has no column {missing[0]}; give the {name} file as it is published, as CSV."
                )
            for row in rows:
                category, prompt = form.read({key: value or "" for key, value in row.items() if key})
                if prompt.strip():
                    yield category.strip() or "none", prompt
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read ({error}); give the {name} file as it is published."
        ) from error


def _personas(count: int) -> list[str]:
    """The first persona of each of the first `count` categories. Raises UserError when there are fewer."""
    first: dict[str, str] = {}
    for attempt in load_attempts():
        if attempt.persona == 0:
            first.setdefault(attempt.category, attempt.description)
    if not 0 <= count <= len(first):
        raise UserError(f"--personas must lie between 0 and {len(first)}, not {count}.")
    return list(first.values())[:count]


def _attempts(identity: str, category: str, prompt: str, personas: Sequence[str]) -> Iterator[Attempt]:
    asked = Message(role="user", content=prompt)
    yield Attempt(
        id=f"{identity}-alone",
        category=category,
        persona=0,
        place=ALONE,
        messages=(asked,),
        description="none; the assistant itself is asked",
        question=prompt,
    )
    for number, persona in enumerate(personas):
        yield Attempt(
            id=f"{identity}-{number}",
            category=category,
            persona=number,
            place=UNDER_PERSONA,
            messages=(Message(role="system", content=persona), asked),
            description=persona,
            question=prompt,
        )
