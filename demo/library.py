"""The program as a library, for notebooks and scripts: `import demo` gives the names in `demo.__all__`.

    model = demo.load_model()
    engine = demo.TransformersEngine(model, demo.load_axis(model.slug))
    chat = demo.Chat(engine, system_prompt="You are a demon.")
    turn = chat.say("Hello! Who are you?")
    print(turn.replies["uncapped"].mean, turn.replies["capped"].text)

The page and a notebook use the same engine, seeds and settings, so both give the same replies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from demo.axis.axis import AssistantAxis
from demo.axis.components import persona_map
from demo.conversation.conversation import Conversation
from demo.conversation.fork_json import MOST_FORKS
from demo.conversation.forks import Fork, ForkPoint, text_of
from demo.conversation.session_file import Recording, dumps, open_file
from demo.conversation.settings import CapChoice, TurnSettings
from demo.conversation.turns import Turn
from demo.engine.protocol import Events, ReadToken, Request, Sampling, Steer, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.extraction.judge import LikelihoodJudge, NoJudge
from demo.extraction.plan import PRESETS, Preset, make_plan
from demo.extraction.run import extract, settings_for
from demo.models.chat_template import Message
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError


class Chat:
    """A conversation in which every message is answered without the cap and with it.

    Both replies are sampled with the same random numbers.

    Attributes:
        engine: The engine that answers.
        system_prompt, cap, steer, sampling, thinking, plain, along: How the next turn is answered. Each may
            be set between turns. A `steer` that is not None adds a third reply, "steered".
    """

    def __init__(
        self,
        engine: TransformersEngine,
        *,
        system_prompt: str = "",
        cap: CapChoice | None = None,
        steer: Steer | None = None,
        sampling: Sampling | None = None,
        thinking: bool = False,
        plain: bool = False,
        along: Sequence[str] = (),
    ) -> None:
        """Begin a conversation.

        Args:
            cap: None for the cap that the axis was saved with.
            sampling: None for the page's. Its seed grows by one with every turn.
            thinking: Whether the model is asked to reason before it answers.
            plain: Whether the capped words are read without the cap as well, as they are written.
            along: Names of the engine's directions that are read along.
        """
        self.plain, self.along = plain, tuple(along)
        self.engine, self.system_prompt, self.steer, self.thinking = engine, system_prompt, steer, thinking
        self.cap = cap or CapChoice.of_axis(engine.axis)
        self.sampling = sampling or Sampling()
        self._conversation = Conversation()
        self._forks: list[tuple[Chat, ForkPoint]] = []

    @property
    def turns(self) -> list[Turn]:
        """The turns so far. The replies of each have the keys "uncapped", "capped" and perhaps "steered"."""
        return self._conversation.turns

    def say(self, text: str, *, seeds: int = 1, on_token: Callable[[TokenEvent], None] | None = None) -> Turn:
        """Send a message and wait for all replies.

        Args:
            seeds: How many times each branch answers, at most 8. The further answers are in `reply.samples`
                and not part of the history.
            on_token: Called with each token of the first answers as it arrives.

        Raises:
            UserError: The message is empty, the cap does not suit the axis, or the conversation does not fit
                the context window. Nothing has changed then.
        """
        settings = TurnSettings(
            replace(self.sampling, seed=self.sampling.seed + len(self.turns)),
            self.cap.cap(self.engine.axis),
            self.system_prompt,
            self.steer,
            seeds=seeds,
            thinking=self.thinking,
            marks=self.cap.marks(self.engine.axis),
            dtype=self.engine.model.dtype_name,
            plain=self.plain,
            along=self.along,
            template=self.engine.model.template,
        )
        _follow(self._conversation.send(self.engine, text, settings), on_token)
        return self.turns[-1]

    def undo(self) -> str:
        """Remove the last turn and return its message. Raises UserError when there is none."""
        return self._conversation.undo()

    def fork(self, turns: int | None = None) -> Chat:
        """A chat with the same settings that starts with the first `turns` turns of this one, or all."""
        conversation = self._conversation.fork(turns)
        return self._forked(conversation, ForkPoint(len(conversation.turns)))

    def fork_at(
        self,
        turn: int,
        branch: str,
        token: int,
        then: int | str,
        *,
        everywhere: bool = False,
        on_token: Callable[[TokenEvent], None] | None = None,
    ) -> Chat:
        """A chat in which a reply goes on with something else in the place of one of its tokens.

        It has the turns up to this one, which is answered with its own settings and random numbers.

        Args:
            turn: Its index; negative ones count from the end.
            branch: Whose reply it is. The other branches keep theirs.
            token: Its index among the reply's `tokens`.
            then: The id of another token, or a text, with the space before it.
            everywhere: Whether the other branches' replies are to begin with the same words instead.
            on_token: Called with each token as it arrives, those of the beginning included.

        Raises:
            UserError: There is no such token, or the model cannot go on from there.
        """
        index = range(len(self.turns))[turn]
        conversation, events = self._conversation.fork_at(
            self.engine, index, branch, token, then, everywhere=everywhere
        )
        _follow(events, on_token)
        tokens = self.turns[index].replies[branch].tokens
        words = then if isinstance(then, str) else text_of(tokens[token], then)
        number = sum(not one.special for one in tokens[: token + 1])
        return self._forked(conversation, ForkPoint(index, branch, number, tokens[token].text, words))

    def go_on(self, branch: str, *, on_token: Callable[[TokenEvent], None] | None = None) -> Turn:
        """Continue the last turn's reply of a branch, which was cut, from its end.

        Raises:
            UserError: The model ended the reply itself.
        """
        if not self.turns:
            raise UserError("There is no reply that could go on; say something first.")
        _follow(self._conversation.go_on(self.engine, len(self.turns) - 1, branch), on_token)
        return self.turns[-1]

    def _forked(self, conversation: Conversation, point: ForkPoint) -> Chat:
        other = Chat(
            self.engine,
            system_prompt=self.system_prompt,
            cap=self.cap,
            steer=self.steer,
            sampling=self.sampling,
            thinking=self.thinking,
            plain=self.plain,
            along=self.along,
        )
        other._conversation = conversation
        self._forks.append((other, point))
        return other

    def recording(self, title: str = "") -> Recording:
        """The conversation and its forks with all that is needed to show them without the model.

        Raises:
            UserError: There are more forks than a session file holds.
        """
        axis, forks = self.engine.axis, _forks_of(self, 0, 1)
        if len(forks) > MOST_FORKS:
            raise UserError(
                f"A session file holds {MOST_FORKS} forks, and this chat has {len(forks)}: save some "
                "of them as chats of their own."
            )
        return Recording(
            self.engine.model.slug,
            list(self.turns),
            self.cap.marks(axis),
            title,
            system_prompt=self.system_prompt,
            map=persona_map(axis),
            date=self._conversation.date,
            forks=tuple(forks),
        )


def _follow(events: Events, on_token: Callable[[TokenEvent], None] | None) -> None:
    for event in events:
        if on_token is not None and isinstance(event, TokenEvent):
            on_token(event)


def _forks_of(chat: Chat, number: int, free: int) -> list[Fork]:
    """The forks of a chat and theirs, each after its parent.

    Args:
        number: The chat's own number in the file.
        free: The number of the next fork.
    """
    found: list[Fork] = []
    for other, point in chat._forks:
        own = free + len(found)
        where = f"token {point.token}" if point.branch else "its end"
        title = f"Fork of turn {point.turn + (1 if point.branch else 0)}, {where}"
        found.append(Fork(number, point, list(other.turns), title, system_prompt=other.system_prompt))
        found += _forks_of(other, own, own + 1)
    return found


def read(
    engine: TransformersEngine, messages: Sequence[Message], cap: CapChoice | None = None
) -> list[ReadToken]:
    """Read a finished chat without generating anything.

    Args:
        messages: {"role": "system" | "user" | "assistant", "content": text} each, as in a chat template.
        cap: None to read as the model is; else under this cap.

    Returns:
        Every content token with its projection at each decoder layer, axis units of that layer. The token's
        `message` is an index into `messages`.

    Raises:
        UserError: The chat does not fit the context window, or its template cannot render it.
    """
    request = Request("read", tuple(messages), cap=None if cap is None else cap.cap(engine.axis))
    return [token for chunk in engine.read(request) for token in chunk]


def extract_axis(
    model: LoadedModel,
    out: str | Path,
    preset: Literal["quick", "standard", "full"] | Preset = "quick",
    *,
    cap_layers: tuple[int, int] | None = None,
    judge_roles: bool = True,
    seed: int = 0,
) -> AssistantAxis:
    """Extract the Assistant Axis of a model (arXiv 2601.10387, section 2) and save it with its report.

    A run that was interrupted continues where it stopped.

    Args:
        out: Folder for axis.safetensors, axis.json, report.md and rollouts.jsonl.
        preset: How many roles, questions and rollouts.
        cap_layers: First and last capped layer, both included; None to choose them by a sweep.
        judge_roles: Whether only replies that adhere to their role count.

    Raises:
        UserError: Too few roles were adopted.
    """
    size = PRESETS[preset] if isinstance(preset, str) else preset
    settings = replace(settings_for(model, size), seed=seed, band=cap_layers, keep_all=not judge_roles)
    judge = LikelihoodJudge(model) if judge_roles else NoJudge()
    return extract(model, make_plan(model.slug.split("-")[0], size), settings, judge, Path(out)).axis


def save_session(session: Chat | Recording, path: str | Path, title: str = "") -> None:
    """Save a chat as a session file, which the page and `python app.py --replay FILE` open."""
    recording = session.recording(title) if isinstance(session, Chat) else session
    Path(path).write_text(dumps(recording), encoding="utf-8")


def open_session(path: str | Path) -> Recording:
    """Read a session file.

    Raises:
        UserError: The file cannot be read, or is not a session file.
    """
    return open_file(Path(path))
