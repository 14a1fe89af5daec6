"""What one visitor has open: their conversations, and for each the scripted messages that are still to come."""

from __future__ import annotations

from dataclasses import dataclass, field
from secrets import token_hex
from threading import Lock
from typing import Any

from demo.conversation.conversation import Conversation
from demo.conversation.session_file import Recording
from demo.utils.errors import UserError

# Enough for a class; beyond that the oldest goes, so that a page left open does not fill the machine.
MOST_TALKS = 12


@dataclass(eq=False)
class Talk:
    """One conversation. script: scripted messages in order, of which `said` have been taken; recording: the file it came
    from, None for one that began here; watch_only: no model here could go on with it; id: by which the browser keeps it."""

    conversation: Conversation = field(default_factory=Conversation)
    title: str = "Free chat"
    blurb: str = ""
    care: str = ""
    system_prompt: str = ""
    script: tuple[str, ...] = ()
    said: int = 0
    recording: Recording | None = None
    watch_only: bool = False
    id: str = field(default_factory=lambda: token_hex(8))

    def next_line(self) -> str:
        """The scripted message that comes next, taken off the script; empty when there is none."""
        if self.said >= len(self.script):
            return ""
        self.said += 1
        return self.script[self.said - 1]

    def line_in_box(self) -> str:
        """The scripted message that was taken and not yet answered."""
        return self.script[self.said - 1] if len(self.conversation.turns) < self.said else ""

    def fork(self, turns: int) -> Talk:
        """A copy that shares the first `turns` turns and goes its own way from there."""
        said = min(self.said, turns)
        return Talk(
            self.conversation.fork(turns), f"{self.title} ⑂{turns}", self.blurb, self.care, self.system_prompt,
            self.script, said, self.recording, self.watch_only,
        )  # fmt: skip


class Session:
    """A visitor's conversations, one of which is shown. `gone` is set when the visitor has left.

    Not a dataclass: Gradio takes dataclasses apart when it describes the page.
    """

    def __init__(self) -> None:
        self.talks = [Talk()]
        self.current = 0
        self.gone = False
        self.running: Talk | None = None
        self._claims = Lock()

    def __deepcopy__(self, memo: object) -> Session:
        """A new session. Gradio copies a page's initial state for every visitor, and no two may share a chat."""
        return Session()

    @property
    def talk(self) -> Talk:
        """The conversation that is shown."""
        return self.talks[self.current]

    def claim(self, talk: Talk) -> None:
        """A turn of this talk begins. Raises UserError while one is being answered already."""
        with self._claims:
            if self.running is talk:
                raise UserError("A reply is still being written; stop it first.")
            self.running = talk

    def release(self, talk: Talk) -> None:
        """Its turn is over."""
        with self._claims:
            if self.running is talk:
                self.running = None

    def show(self, talk: Talk) -> list[Talk]:
        """Show `talk`, which may be new. An untouched empty chat makes room for it; so do the oldest ones when there are too
        many. Gives the talks that went."""
        if self.running is not None:
            self.running.conversation.stop()
        went: list[Talk] = []
        if talk not in self.talks:
            kept = [one for one in self.talks if one.conversation.turns]
            kept = [*kept, talk][-MOST_TALKS:]
            went = [one for one in self.talks if one not in kept]
            self.talks = kept
        self.current = self.talks.index(talk)
        return went

    def drop(self, index: int) -> Talk:
        """Close a conversation; the last one leaves an empty chat behind."""
        gone = self.talks.pop(index)
        gone.conversation.stop()
        if not self.talks:
            self.talks = [Talk()]
        self.current = min(self.current - (index < self.current), len(self.talks) - 1)
        return gone

    def overview(self) -> dict[str, Any]:
        """What the stage says about the conversations and about the script of the one that is shown."""
        talk = self.talk
        return {
            "list": [one.title for one in self.talks],
            "ids": [one.id for one in self.talks],
            "current": self.current,
            "watch_only": talk.watch_only,
            "recorded": talk.recording is not None,
            "script": {"title": talk.title, "blurb": talk.blurb, "care": talk.care, "said": talk.said, "of": len(talk.script)},
        }  # fmt: skip
