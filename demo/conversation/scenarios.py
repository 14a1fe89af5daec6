"""Scenarios: scripts of user messages, each of which demonstrates something about drift."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.paths import ASSETS

SCENARIOS = ASSETS / "presets" / "scenarios.json"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A script that starts with one click.

    Attributes:
        blurb: what to watch for.
        content_warning: shown with a script that touches on something painful; may be empty.
    """

    id: str
    title: str
    blurb: str
    system_prompt: str
    turns: tuple[str, ...]
    content_warning: str = ""


def load_scenarios(path: Path = SCENARIOS) -> tuple[Scenario, ...]:
    """Read the scenario file. Raises UserError when it is missing or malformed."""
    try:
        entries = read_object(path, "restore it from the repository")["scenarios"]
        return tuple(_scenario(entry) for entry in entries)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read as scenarios ({error!r}); restore it from the repository."
        ) from error


def _scenario(entry: dict[str, Any]) -> Scenario:
    warning = entry.get("content_warning", entry.get("care", ""))  # "care" in files of earlier versions
    texts = [entry["id"], entry["title"], entry["blurb"], entry["system_prompt"], warning]
    turns = entry["turns"]
    if not isinstance(turns, list) or not all(isinstance(text, str) for text in (*texts, *turns)):
        raise TypeError("every field must be text")
    identity, title, blurb, system_prompt, _ = texts
    return Scenario(identity, title, blurb, system_prompt, tuple(turns), warning)
