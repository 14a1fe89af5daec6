"""Ask many things under several caps at once, through the engine: the rows of one request run side by side in one batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.engine.protocol import Cap, Engine, Request, Sampling, TokenEvent
from demo.models.chat_template import Message
from demo.utils.progress import ProgressLine

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


class Ledger:
    """Results by key. The first line says what they depend on: results of other settings are not used again."""

    def __init__(self, path: Path | None, fingerprint: dict[str, Any], label: str = "evaluation") -> None:
        """path None: nothing is kept."""
        self._path, self._done = path, dict[str, Any]()
        self._progress, self._planned, self._spent = ProgressLine(label), 0.0, 0.0
        if path is None:
            return
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        records = [record for line in lines if (record := _parsed(line)) is not None]
        if records and records[0] == {"fingerprint": fingerprint}:
            self._done = {record["key"]: record["value"] for record in records[1:]}
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [{"fingerprint": fingerprint}, *({"key": k, "value": v} for k, v in self._done.items())]
        path.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")

    def plan(self, work: float) -> None:
        """Announce work to come, in any unit that goes with its time."""
        self._planned += work

    def get(self, key: str, work: float, measure: Callable[[], Any]) -> Any:
        """The result under `key`: of an earlier run, or measured now and kept. work: its share of what was planned."""
        fresh = key not in self._done
        if fresh:
            value = json.loads(json.dumps(measure()))  # as a later run will read it
            self._done[key] = value
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "value": value}) + "\n")
        self._spent += work
        if fresh and self._planned:
            self._progress.update(min(1.0, self._spent / self._planned), f"({key})")
        return self._done[key]


def _parsed(line: str) -> dict[str, Any] | None:
    """A line; None for one that a kill cut short."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
