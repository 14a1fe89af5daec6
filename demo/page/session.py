"""What one visitor has open: a conversation and the scripted messages that are still to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.chat import Conversation
from demo.errors import UserError
from demo.jsonfile import read_object

SCENARIOS = Path(__file__).resolve().parent.parent.parent / "assets" / "presets" / "scenarios.json"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A script of user messages that shows something, started with one click. blurb: what to watch for."""

    id: str
    title: str
    blurb: str
    system_prompt: str
    turns: tuple[str, ...]


class Session:
    """A visitor's conversation, what is left of its script, and whether it is over.

    `closed` is set when the visitor has gone or started another chat: a turn that is still running must not draw into
    that one. Not a dataclass: Gradio takes dataclasses apart when it describes the page.
    """

    def __init__(self, script: Sequence[str] = ()) -> None:
        self.conversation = Conversation()
        self.script = list(script)
        self.closed = False

    def __deepcopy__(self, memo: object) -> Session:
        """A new session. Gradio copies a page's initial state for every visitor, and no two may share a chat."""
        return Session()

    def next_line(self) -> str:
        """The scripted message that comes next, taken off the script; empty when there is none."""
        return self.script.pop(0) if self.script else ""


def load_scenarios(path: Path = SCENARIOS) -> tuple[Scenario, ...]:
    """Read the scenario file. Raises UserError when it is missing or malformed."""
    try:
        entries = read_object(path, "restore it from the repository")["scenarios"]
        return tuple(
            Scenario(
                entry["id"], entry["title"], entry["blurb"], entry["system_prompt"], tuple(entry["turns"])
            )
            for entry in entries
        )
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read as scenarios ({error!r}); restore it from the repository."
        ) from error
