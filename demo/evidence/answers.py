"""Ask many things under several caps at once, through the engine: the rows of one request run side by side in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from demo.engine.protocol import Cap, Engine, Message, Request, Sampling, TokenEvent

ROWS = 48  # of one batch: beyond that a CPU gains nothing more


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. Every cap answers it with the same random numbers (`sampling.seed`)."""

    messages: tuple[Message, ...]
    sampling: Sampling


@dataclass
class Answer:
    """ids: content tokens; standing: their mean projection after the clamp, axis units, None for an empty reply; acted:
    on how many of them the cap acted."""

    text: str = ""
    ids: list[int] = field(default_factory=list)
    acted: int = 0
    _sum: float = 0.0

    @property
    def standing(self) -> float | None:
        return self._sum / len(self.ids) if self.ids else None

    def take(self, event: TokenEvent) -> None:
        self.text += event.text
        if event.token_id is not None and not event.is_special:
            self.ids.append(event.token_id)
            self.acted += any(correction > 0 for correction in event.corrections)
            self._sum += event.projection_after or 0.0

    def as_json(self) -> dict[str, Any]:
        return {"text": self.text, "ids": self.ids, "acted": self.acted, "sum": round(self._sum, 4)}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Answer:
        return cls(stored["text"], stored["ids"], stored["acted"], stored["sum"])


Answers = dict[str, list[Answer]]


def chunks(asks: Sequence[Ask], caps: int) -> list[Sequence[Ask]]:
    """The asks in parts that fill a batch when each is answered under `caps` caps."""
    size = max(1, ROWS // caps)
    return [asks[start : start + size] for start in range(0, len(asks), size)]


def answer(engine: Engine, asks: Sequence[Ask], caps: Mapping[str, Cap | None]) -> Answers:
    """One batch: every ask under every cap. Gives the answers by the cap's name, in the order of the asks."""
    answers: Answers = {name: [Answer() for _ in asks] for name in caps}
    requests = [
        Request(f"{name}#{index}", ask.messages, ask.sampling, cap)
        for index, ask in enumerate(asks)
        for name, cap in caps.items()
    ]
    with closing(engine.stream(requests)) as events:
        for event in events:
            if isinstance(event, TokenEvent):
                name, _, index = event.branch.rpartition("#")
                answers[name][int(index)].take(event)
    engine.forget([request.branch for request in requests])
    return answers
