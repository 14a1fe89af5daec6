"""A maker of axes without a model: it does what it is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from demo.engine.protocol import Load
from demo.extraction.so_far import Check, Making, Offer, ReplySoFar, RoleSoFar
from demo.models.chat_template import Message
from demo.utils.errors import UserError

REPLIES = (
    ReplySoFar("pirate", "What is the sea?", "Arr, my home.", True),
    ReplySoFar("default", "What is the sea?", "A body of salt water.", None),
    ReplySoFar("ghost", "What is the sea?", "Water, mostly.", False),
)
ROLES = tuple(RoleSoFar(f"role_{n}", n / 10 - 1, 2) for n in range(21))
CHECKS = (Check("The default Assistant lies above 100% of the roles.", True), Check("A coin would.", False))


class ScriptedMaker:
    """Answers as `AxisMaker` does.

    Attributes:
        started: the presets that were asked for.
        chats: the chats that were answered.
    """

    def __init__(self) -> None:
        self.now = Making(
            "tiny-model", "measuring", {"quick": Offer(90, None, 0), "standard": Offer(275, None, 0)}
        )
        self.load = Load(0, 0, 0, 1)
        self.started: list[str] = []
        self.chats: list[Sequence[Message]] = []

    def set(self, **changes: Any) -> None:
        self.now = replace(self.now, **changes)

    def start(self, preset: str) -> None:
        if preset not in self.now.offers:
            raise UserError("There is no such extraction.")
        self.started.append(preset)
        self.set(phase="running", preset=preset, stage="rollouts", share=0.25, seconds_left=90.0)

    def stop(self) -> None:
        self.set(phase="stopped", offers=self.now.offers | {"quick": Offer(90, 2.0, 0.25)})

    def answer(self, messages: Sequence[Message]) -> Iterator[str]:
        self.chats.append(messages)
        if messages[-1]["content"] == "too long":
            raise UserError("That does not fit; write less.")
        if messages[-1]["content"] == "break":
            raise ZeroDivisionError
        yield from ("Hello", " from", " the", " model.")
