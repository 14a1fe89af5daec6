"""python -m demo.conversation.again MESSAGE …: make the replies of a turn again, and print them.

Give all messages of the chat, or --session FILE --turn N for a turn of a session file. The page's *Copy as a
command* writes this command.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from demo.conversation.conversation import Conversation
from demo.conversation.forks import as_before
from demo.conversation.session_file import Recording, is_date, open_file
from demo.conversation.settings import (
    EVERY_REPLY,
    PAGE_SAMPLING,
    CapChoice,
    TurnSettings,
    reads_differ,
    threshold_of,
)
from demo.conversation.turns import Reply, Turn
from demo.engine.options import ServedEngine, add_engine_options, end_plainly_when_asked, load_engine
from demo.engine.protocol import Sampling
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.progress import ConsoleProgress


@command
def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    seeds, layers = _seeds(options), _layers(options)  # mistakes are reported before the model is loaded
    recording = _recording(options)
    end_plainly_when_asked()
    engine, notes = load_engine(options, ConsoleProgress())
    for note in notes:
        print(note, file=sys.stderr)
    if recording is not None:
        number = options.turn or len(recording.turns)
        turn = again(engine, recording, number - 1)
    else:
        number = len(options.messages)
        settings = _settings(options, engine, layers)
        turn = answer(engine, options.messages, settings, seeds, options.date)
    print(described(number, turn))


def answer(
    engine: ServedEngine, messages: Sequence[str], settings: TurnSettings, seeds: Sequence[int], date: str
) -> Turn:
    """Answer the messages one after the other, as the page does.

    Args:
        seeds: one for each message, or the first, which grows by one with every message.
        date: the day on which the conversation began; empty for today.

    Returns:
        The last turn.
    """
    conversation = Conversation()
    conversation.date = date or conversation.date
    for number, message in enumerate(messages):
        seed = seeds[number] if len(seeds) > 1 else seeds[0] + number
        sampling = replace(settings.sampling, seed=seed)
        for _ in conversation.send(engine, message, replace(settings, sampling=sampling)):
            pass
    return conversation.turns[-1]


def again(engine: ServedEngine, recording: Recording, index: int) -> Turn:
    """Answer the message of a recorded turn again, with the turn's own settings and the recorded history.

    Raises:
        UserError: the turn was not made by this model, or how it was made is not known.
    """
    recorded = recording.turns[index]
    settings = recorded.settings
    if recording.model != engine.model.slug:
        raise UserError(
            f"This session was made with {recording.model}, not {engine.model.slug}; name it with --model."
        )
    if settings is None:
        raise UserError(f"The file does not say how turn {index + 1} was made; choose a newer session file.")
    if settings.read:
        raise UserError(f"Turn {index + 1} was read from elsewhere and not made; choose another turn.")
    for note in differences(engine, settings):
        print(note, file=sys.stderr)
    conversation = Conversation(list(recording.turns[:index]))
    conversation.date = recording.date or conversation.date
    for _ in conversation.send(engine, recorded.user, settings, begin=as_before(recorded)):
        pass
    return conversation.turns[-1]


def differences(engine: ServedEngine, settings: TurnSettings) -> list[str]:
    """What is not as it was when the turn was made, one sentence each."""
    pairs = (
        ("number format", settings.dtype, engine.model.dtype_name),
        ("chat template", settings.template, engine.model.template),
    )
    return [
        f"The {what} is {now} here and was {then}, so the words may differ."
        for what, then, now in pairs
        if then and now and then != now
    ]


def described(number: int, turn: Turn) -> str:
    """The replies of a turn with their means, as text."""
    return "\n\n".join(_reply_text(number, branch, reply) for branch, reply in turn.replies.items())


def _reply_text(number: int, branch: str, reply: Reply) -> str:
    mean = "no mean" if reply.mean is None else f"mean {reply.mean:.2f}"
    fault = f", failed: {reply.fault}" if reply.fault else ""
    reasoning = f"{reply.reasoning.strip()}\n---\n" if reply.reasoning.strip() else ""
    return f"turn {number}, {branch}, {mean}{fault}\n{reasoning}{reply.text}"


# --- flags


def _recording(options: argparse.Namespace) -> Recording | None:
    """The session file that is named, with a turn that exists; None for messages. Raises UserError."""
    if options.session is None:
        if not options.messages:
            raise UserError("Give the messages of the chat, or a session file with --session.")
        return None
    if options.messages:
        raise UserError("Give either messages or --session, not both.")
    recording = open_file(options.session)
    if options.fork:
        if not 0 < options.fork <= len(recording.forks):
            raise UserError(f"{options.session} has {len(recording.forks)} forks, not a fork {options.fork}.")
        recording = replace(recording, turns=recording.forks[options.fork - 1].turns)
    count, turn = len(recording.turns), options.turn
    if not count or (turn is not None and not 1 <= turn <= count):
        raise UserError(f"{options.session} has {count} turns, so it has no turn {turn or 1}.")
    return recording


def _seeds(options: argparse.Namespace) -> list[int]:
    """The seeds that are asked for. Raises UserError."""
    if not re.fullmatch(r"\d+(,\d+)*", options.seed):
        raise UserError(
            f"--seed takes a whole number, or one for each message: 3,4,105; not {options.seed!r}."
        )
    seeds = [int(seed) for seed in options.seed.split(",")]
    if len(seeds) not in (1, len(options.messages)):
        raise UserError(
            f"There are {len(seeds)} seeds for {len(options.messages)} messages; give one for each."
        )
    if not is_date(options.date):
        raise UserError(f"--date takes a day such as 2026-01-31, not {options.date!r}.")
    return seeds


def _layers(options: argparse.Namespace) -> tuple[int, int] | None:
    """The capped layers that are asked for; None for those of the axis. Raises UserError."""
    if options.layers is None:
        return None
    found = re.fullmatch(r"(\d+)-(\d+)", options.layers)
    if not found:
        raise UserError(f"--layers takes the first and the last capped layer: 18-25, not {options.layers!r}.")
    return int(found[1]), int(found[2])


def _settings(
    options: argparse.Namespace, engine: ServedEngine, layers: tuple[int, int] | None
) -> TurnSettings:
    """The settings of every turn, but for the seed. Raises UserError."""
    axis = engine.axis
    usual = CapChoice.of_axis(axis)
    first, last = layers or (usual.first_layer, usual.last_layer)
    below = threshold_of(options.only_below, axis)
    choice = CapChoice(not options.no_cap, options.floor or usual.floor, first, last, below)
    cap = choice.cap(axis)
    return TurnSettings(
        Sampling(
            temperature=options.temperature,
            top_p=options.top_p,
            max_new_tokens=options.tokens,
            repetition_penalty=options.repetition_penalty,
            soft_limit=options.soft_limit,
        ),
        cap,
        options.system,
        thinking=options.thinking,
        span=options.span,
        marks=choice.marks(axis),
        dtype=engine.model.dtype_name,
        template=engine.model.template,
        plain=options.plain and reads_differ(cap, axis),
    )


def _parser() -> argparse.ArgumentParser:
    usual = PAGE_SAMPLING
    parser = argparse.ArgumentParser(
        prog="python -m demo.conversation.again",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_engine_options(parser)
    parser.add_argument("messages", nargs="*", metavar="MESSAGE", help="the user's messages, in order")
    parser.add_argument(
        "--session", type=Path, metavar="FILE", help="take a turn and its history from a file"
    )
    parser.add_argument("--fork", type=int, metavar="N", help="the file's N-th fork (default: none)")
    parser.add_argument("--turn", type=int, metavar="N", help="which one (default: the last)")
    group = parser.add_argument_group("with messages")
    group.add_argument(
        "--seed",
        default=str(usual.seed),
        metavar="N[,N…]",
        help="of the first message, and one more with every further one; or one for each message",
    )
    group.add_argument("--date", default="", help="the day on which the chat began (default: today)")
    group.add_argument("--system", default="", metavar="TEXT", help="the system prompt")
    group.add_argument("--no-cap", action="store_true", help="leave the capped reply uncapped, too")
    group.add_argument("--floor", metavar="NAME", help="of the cap (default: that of the axis)")
    group.add_argument("--layers", metavar="A-B", help="of the cap (default: those of the axis)")
    group.add_argument(
        "--only-below",
        metavar="X",
        help="cap only replies that begin below so many axis units; "
        f"{EVERY_REPLY}: every reply (default: as the axis says)",
    )
    group.add_argument("--temperature", type=float, default=usual.temperature)
    group.add_argument("--top-p", type=float, default=usual.top_p)
    group.add_argument("--repetition-penalty", type=float, default=usual.repetition_penalty)
    group.add_argument("--tokens", type=int, default=usual.max_new_tokens, help="most tokens per reply")
    group.add_argument(
        "--soft-limit", type=int, default=usual.soft_limit, help="end with a sentence after so many; 0: never"
    )
    group.add_argument("--thinking", action="store_true", help="let the model reason before it answers")
    group.add_argument("--span", choices=("both", "answer", "reasoning"), default="both")
    group.add_argument("--plain", action="store_true", help="read the capped words without the cap, too")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
