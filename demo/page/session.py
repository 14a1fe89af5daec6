"""What one visitor has open: conversations, each with the scripted messages that are still to come."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from threading import Lock
from typing import Any

from demo.conversation.conversation import Conversation
from demo.conversation.fork_json import MOST_FORKS
from demo.conversation.forks import ForkPoint, Notes
from demo.conversation.scenarios import Scenario
from demo.conversation.session_file import Recording
from demo.conversation.turns import Turn
from demo.models.chat_template import LeftOut
from demo.utils.errors import UserError

# Beyond this the oldest conversation is closed, so that a page left open does not fill the memory.
MOST_CHATS = MOST_FORKS + 1

# By the role of a message, and whether all of it is missing.
_LEFT_OUT = {
    ("system", True): "the system prompt, so it has no effect",
    ("system", False): "part of the system prompt",
    ("user", True): "a message of yours",
    ("user", False): "part of a message of yours",
    ("assistant", True): "an earlier reply",
    ("assistant", False): "part of an earlier reply",
}

# How the title of a fork begins.
_FORK = re.compile(r"^Fork (?:after turn \d+|at turn \d+, token \d+): ")


def prompt_of(turns: Sequence[Turn], otherwise: str) -> str:
    """The system prompt with which the last turn was answered; `otherwise` where that is not known."""
    settings = turns[-1].settings if turns else None
    return otherwise if settings is None else settings.system_prompt


@dataclass(frozen=True, slots=True)
class Origin:
    """What a conversation was forked from.

    Attributes:
        parent: the id of that conversation, which may have been closed.
        point: where the fork leaves it.
    """

    parent: str
    point: ForkPoint


@dataclass(eq=False)
class Chat:
    """One conversation on the page.

    Attributes:
        blurb, content_warning: of the scenario.
        system_prompt: the one that the next turn gets unless the visitor changes it.
        script: scripted user messages in order.
        recording: the file it came from; None for a conversation that began here.
        watch_only: whether it cannot be continued, because its model is not loaded here.
        left_out: what the model's chat template left out of its prompts, one phrase each.
        seed: added to the seed of the settings, as the scenario asks for.
        id: the name under which the browser stores it.
        origin: where it was forked; None for a conversation of its own.
        notes: the star and the note that the visitor gave it.
        address: the query of the page's address at which anybody finds the recording; None for none.
    """

    conversation: Conversation = field(default_factory=Conversation)
    title: str = "Free chat"
    blurb: str = ""
    content_warning: str = ""
    system_prompt: str = ""
    script: tuple[str, ...] = ()
    recording: Recording | None = None
    watch_only: bool = False
    id: str = field(default_factory=lambda: token_hex(8))
    left_out: tuple[str, ...] = ()
    seed: int = 0
    origin: Origin | None = None
    notes: Notes = field(default_factory=Notes)
    address: str | None = None

    @classmethod
    def of_scenario(cls, scenario: Scenario) -> Chat:
        """A new conversation that follows a script."""
        return cls(
            title=scenario.title,
            blurb=scenario.blurb,
            content_warning=scenario.content_warning,
            system_prompt=scenario.system_prompt,
            script=scenario.turns,
            seed=scenario.seed,
        )

    @property
    def said(self) -> int:
        """How many scripted messages have been sent; what is undone or forked away no longer counts."""
        return sum(turn.scripted for turn in self.conversation.turns)

    @property
    def has_just_begun(self) -> bool:
        """Whether nothing but the first message of its script has been sent."""
        return len(self.conversation.turns) == self.said == 1

    def next_line(self) -> str:
        """The scripted message that has not been sent yet; empty when there is none."""
        return self.script[self.said] if self.said < len(self.script) else ""

    def note_scripted(self, at: int, replaced: Turn | None) -> None:
        """Turn `at` has begun: remember whether it is a step of the script.

        Args:
            replaced: the turn whose place and step it took; None for a new turn.
        """
        turn, line = self.conversation.turns[at], self.next_line().strip()
        kept = replaced is not None and replaced.scripted
        turn.scripted = kept or (bool(line) and turn.user.strip() == line)

    def note_left_out(self, parts: Sequence[LeftOut]) -> bool:
        """Remember what the chat template left out of a prompt. False if all of it was known."""
        phrases = dict.fromkeys(_LEFT_OUT[part.role, part.whole] for part in parts)
        fresh = tuple(phrase for phrase in phrases if phrase not in self.left_out)
        self.left_out += fresh
        return bool(fresh)

    def fork(self, turns: int, point: ForkPoint | None = None) -> Chat:
        """A copy that shares the first `turns` turns, and continues the script after them.

        Its system prompt is the one of its last turn.

        Args:
            point: where it leaves this conversation; None for after those turns.
        """
        conversation = self.conversation.fork(turns)
        point = point or ForkPoint(turns)
        where = f"at turn {point.turn + 1}, token {point.token}" if point.branch else f"after turn {turns}"
        return Chat(
            conversation,
            # What tells forks apart comes first, because a narrow tab cuts the end of a title.
            f"Fork {where}: {_FORK.sub('', self.title)}",
            self.blurb,
            self.content_warning,
            prompt_of(conversation.turns, self.system_prompt),
            self.script,
            self.recording,
            self.watch_only,
            left_out=self.left_out,
            seed=self.seed,
            origin=Origin(self.id, point),
        )


def tree_of(chats: Sequence[Chat], chat: Chat) -> list[Chat]:
    """The conversations that belong to one tree with `chat`, each after its parent; the root is first."""
    by_id = {one.id: one for one in chats}
    root, seen = chat, {chat.id}
    while root.origin is not None and (parent := by_id.get(root.origin.parent)) and parent.id not in seen:
        root = parent
        seen.add(root.id)
    tree, waiting = list[Chat](), [root]
    while waiting:
        one = waiting.pop()
        tree.append(one)
        forks = [other for other in chats if other.origin is not None and other.origin.parent == one.id]
        waiting += [fork for fork in reversed(forks) if fork not in tree]
    return tree


class Session:
    """A visitor's conversations, one of which is shown. `gone` is set when the visitor has left.

    Not a dataclass: Gradio takes dataclasses apart when it describes the page.
    """

    def __init__(self) -> None:
        self.chats = [Chat()]
        self.current = 0
        self.gone = False
        self.running: Chat | None = None
        self._claims = Lock()

    def __deepcopy__(self, memo: object) -> Session:
        """A new session. Gradio copies the initial state for every visitor, and visitors share no chats."""
        return Session()

    @property
    def chat(self) -> Chat:
        """The conversation that is shown."""
        return self.chats[self.current]

    @property
    def is_untouched(self) -> bool:
        """Whether there is nothing but an empty chat."""
        return len(self.chats) == 1 and not self.chat.conversation.turns and self.chat.recording is None

    def claim(self, chat: Chat) -> None:
        """A turn of this chat begins. Raises UserError while another one is being answered."""
        with self._claims:
            if self.running is chat:
                raise UserError("A reply is still being written; stop it first.")
            self.running = chat

    def release(self, chat: Chat) -> None:
        """The turn of this chat has ended."""
        with self._claims:
            if self.running is chat:
                self.running = None

    def show(self, chat: Chat) -> list[Chat]:
        """Show `chat`, which may be new.

        When a new chat is shown, an untouched one is closed, and so are the oldest when there are too many.

        Returns:
            The chats that were closed.
        """
        if self.running is not None:
            self.running.conversation.stop()
        closed: list[Chat] = []
        if chat not in self.chats:
            kept = [one for one in self.chats if one.conversation.turns]
            kept = [*kept, chat][-MOST_CHATS:]
            closed = [one for one in self.chats if one not in kept]
            self.chats = kept
        self.current = self.chats.index(chat)
        return closed

    def close(self, index: int) -> Chat:
        """Close a conversation. The last one leaves an empty chat behind."""
        closed = self.chats.pop(index)
        closed.conversation.stop()
        if not self.chats:
            self.chats = [Chat()]
        self.current = min(self.current - (index < self.current), len(self.chats) - 1)
        return closed

    def overview(self) -> dict[str, Any]:
        """The open conversations, and script and system prompt of the one that is shown."""
        chat = self.chat
        return {
            "list": [one.title for one in self.chats],
            "ids": [one.id for one in self.chats],
            "turns": [len(one.conversation.turns) for one in self.chats],
            "current": self.current,
            "fork": tree_of(self.chats, chat).index(chat),
            "watch_only": chat.watch_only,
            "recorded": chat.recording is not None,
            "script": {
                "title": chat.title,
                "blurb": chat.blurb,
                "content_warning": chat.content_warning,
                "said": chat.said,
                "of": len(chat.script),
            },
            "system_prompt": chat.system_prompt,
        }
