"""Answer many prompts under several caps, and cache results so that a killed run resumes."""

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

BATCH_SIZE = 48  # sequences; on a CPU larger batches are not faster


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a reply answers. The random numbers (`sampling.seed`) are the same under every cap."""

    messages: tuple[Message, ...]
    sampling: Sampling


@dataclass
class Answer:
    """The reply to a prompt.

    Attributes:
        ids: Content tokens.
        acted: Number of content tokens at which the cap acted.
    """

    text: str = ""
    ids: list[int] = field(default_factory=list)
    acted: int = 0
    _sum: float = 0.0

    @property
    def projection(self) -> float | None:
        """Mean projection after the clamp, axis units; None for an empty reply."""
        return self._sum / len(self.ids) if self.ids else None

    def add(self, event: TokenEvent) -> None:
        self.text += event.token.text
        if event.token_id is not None and not event.token.special:
            self.ids.append(event.token_id)
            self.acted += any(correction > 0 for correction in event.token.corrections)
            self._sum += event.token.after or 0.0


def batches(prompts: Sequence[Prompt], caps: int) -> list[Sequence[Prompt]]:
    """Split the prompts into parts that fill a batch when each is answered under `caps` caps."""
    size = max(1, BATCH_SIZE // caps)
    return [prompts[start : start + size] for start in range(0, len(prompts), size)]


def answer(
    engine: Engine, prompts: Sequence[Prompt], caps: Mapping[str, Cap | None]
) -> dict[str, list[Answer]]:
    """Answer every prompt under every cap, in one batch.

    Returns:
        Name of the cap -> answers in the order of the prompts.
    """
    answers: dict[str, list[Answer]] = {name: [Answer() for _ in prompts] for name in caps}
    requests = [
        Request(f"{name}#{index}", prompt.messages, prompt.sampling, cap)
        for index, prompt in enumerate(prompts)
        for name, cap in caps.items()
    ]
    with closing(engine.stream(requests)) as events:
        for event in events:
            if isinstance(event, TokenEvent):
                name, _, index = event.branch.rpartition("#")
                answers[name][int(index)].add(event)
    engine.forget([request.branch for request in requests])
    return answers


class ResultCache:
    """Results by key, in a file of JSON lines.

    The first line is the fingerprint of what the results depend on. A file with another fingerprint
    is discarded.
    """

    def __init__(self, path: Path | None, fingerprint: dict[str, Any], label: str = "evaluation") -> None:
        """path None: results are kept in memory only."""
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
        """Announce work to come, for the progress line, in any unit proportional to its time."""
        self._planned += work

    def get(self, key: str, work: float, measure: Callable[[], Any]) -> Any:
        """The cached result under `key`, or else the result of `measure`, which is cached.

        Args:
            work: The result's share of the planned work.
        """
        fresh = key not in self._done
        if fresh:
            value = json.loads(json.dumps(measure()))  # as a resumed run reads it
            self._done[key] = value
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "value": value}) + "\n")
        self._spent += work
        if fresh and self._planned:
            self._progress.update(min(1.0, self._spent / self._planned), f"({key})")
        return self._done[key]


def _parsed(line: str) -> dict[str, Any] | None:
    """The record in a line; None for a line that a kill cut short."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
