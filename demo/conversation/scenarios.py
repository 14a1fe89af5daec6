"""What one visitor has open: their conversations, and for each the scripted messages that are still to come."""

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
    """A script of user messages that shows something, started with one click. blurb: what to watch for; care: a note that
    goes with it where it touches on something that hurts."""

    id: str
    title: str
    blurb: str
    system_prompt: str
    turns: tuple[str, ...]
    care: str = ""


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
    texts = [entry["id"], entry["title"], entry["blurb"], entry["system_prompt"], entry.get("care", "")]
    turns = entry["turns"]
    if not isinstance(turns, list) or not all(isinstance(text, str) for text in (*texts, *turns)):
        raise TypeError("a text is missing")
    identity, title, blurb, system_prompt, care = texts
    return Scenario(identity, title, blurb, system_prompt, tuple(turns), care)
