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
from demo.conversation.session_file import Recording, dumps, loads
from demo.conversation.settings import CapChoice, TurnSettings
from demo.conversation.turns import Turn
from demo.engine.protocol import ReadToken, Request, Sampling, Steer, TokenEvent
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
        for event in self._conversation.send(self.engine, text, settings):
            if on_token is not None and isinstance(event, TokenEvent):
                on_token(event)
        return self.turns[-1]

    def undo(self) -> str:
        """Remove the last turn and return its message. Raises UserError when there is none."""
        return self._conversation.undo()

    def fork(self, turns: int | None = None) -> Chat:
        """A chat with the same settings that starts with the first `turns` turns of this one, or all."""
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
        other._conversation = self._conversation.fork(turns)
        return other

    def recording(self, title: str = "") -> Recording:
        """The conversation with all that is needed to show it without the model."""
        axis = self.engine.axis
        return Recording(
            self.engine.model.slug,
            list(self.turns),
            self.cap.marks(axis),
            title,
            system_prompt=self.system_prompt,
            map=persona_map(axis),
            date=self._conversation.date,
        )


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
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The session file {path} cannot be read: check the path.") from error
    return loads(text)
