"""What the page tells of the model, so that a reply can be made again from a command line.

A visitor learns no path of the machine that serves the page: of a local file or folder only its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.models.names import AUTO


@dataclass(frozen=True, slots=True)
class MadeWith:
    """The model and the axis that are loaded here, as a command names them.

    Attributes:
        model: for --model; empty when unknown.
        axis: for --axis; empty for the model's own.
        template: digest of the chat template; empty when unknown.
        local: the flags whose value is only the name of a local file or folder, so that a path must take its
            place.
        base: whether chats are plain transcripts.
    """

    model: str = ""
    axis: str = ""
    template: str = ""
    local: tuple[str, ...] = ()
    base: bool = False


def made_with(model: str, axis: str, template: str, base: bool = False) -> MadeWith:
    """How a command names the model and the axis.

    Args:
        model, axis: as whoever started the program named them.
    """
    names = {"--model": model, "--axis": "" if axis == AUTO else axis}
    local = tuple(flag for flag, name in names.items() if _is_local(name))
    model, axis = (Path(name).name if flag in local else name for flag, name in names.items())
    return MadeWith(model, axis, template, local, base)


def _is_local(name: str) -> bool:
    """Whether it names something on a disk: of this machine, or of that of the engine process."""
    return name.startswith(("/", ".", "~", "\\")) or "\\" in name or (bool(name) and Path(name).exists())


def made_meta(known: MadeWith | None, date: str) -> dict[str, Any]:
    """What the stage is told about how replies are made.

    Args:
        known: None where no model is loaded that could make them again.
        date: the day on which the conversation began; empty when unknown.
    """
    named = {} if known is None or not known.model else {"made_with": _named(known)}
    return {"date": date, **named}


def _named(known: MadeWith) -> dict[str, Any]:
    base = {"base": True} if known.base else {}
    return {"model": known.model, "axis": known.axis, "local": list(known.local), **base}
