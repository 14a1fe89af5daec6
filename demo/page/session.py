"""What one visitor has open: a conversation and the scripted messages that are still to come."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from demo.chat import Conversation
from demo.errors import UserError

SCENARIOS = Path(__file__).resolve().parent.parent.parent / "assets" / "presets" / "scenarios.json"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A script of user messages that shows something, started with one click. blurb: what to watch for."""

    id: str
    title: str
    blurb: str
    system_prompt: str
    turns: tuple[str, ...]


@dataclass
class Session:
    conversation: Conversation = field(default_factory=Conversation)
    script: list[str] = field(default_factory=list)

    def next_line(self) -> str:
        """The scripted message that comes next, taken off the script; empty when there is none."""
        return self.script.pop(0) if self.script else ""


def load_scenarios(path: Path = SCENARIOS) -> tuple[Scenario, ...]:
    """Read the scenario file. Raises UserError when it is missing or malformed."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["scenarios"]
        return tuple(
            Scenario(
                entry["id"], entry["title"], entry["blurb"], entry["system_prompt"], tuple(entry["turns"])
            )
            for entry in entries
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read as scenarios ({error!r}); restore it from the repository."
        ) from error
