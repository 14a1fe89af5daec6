"""Answer many prompts under several caps, and cache results so that a killed run resumes."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from demo.engine.protocol import Cap, Engine, PromptEvent, Request, Sampling, Steer, TokenEvent
from demo.models.chat_template import Message
from demo.utils.progress import ProgressLine

Change = Cap | Steer | None  # what is done to the activations of a reply

BATCH_SIZE = 48  # sequences; on a CPU larger batches are not faster


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a reply answers. The random numbers (`sampling.seed`) are the same under every cap.

    Attributes:
        messages: What the model is sent last.
        lead: The user's messages before, each with the sampling of its own reply.
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    lead: tuple[tuple[Message, Sampling], ...] = ()

    @property
    def most_tokens(self) -> int:
        """The most tokens that all replies to the prompt can have."""
        return sum(sampling.max_new_tokens for sampling in (self.sampling, *(own for _, own in self.lead)))


@dataclass
class Answer:
    """The reply to a prompt.

    Attributes:
        ids: Content tokens.
        start: Where the reply begins, axis units; None if the engine does not say.
        acted: Number of content tokens at which the cap acted.
        before: The turns of the prompt's lead, with the replies to them.
    """

    text: str = ""
    ids: list[int] = field(default_factory=list)
    start: float | None = None
    acted: int = 0
    before: tuple[Message, ...] = ()
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


def batches(prompts: Sequence[Prompt], caps: Collection[Change]) -> list[Sequence[Prompt]]:
    """Split the prompts into parts that fill a batch when each is answered under the caps."""
    at_once = [cap for cap in caps if not (None in caps and _is_conditional(cap))]
    size = max(1, BATCH_SIZE // len(at_once))
    return [prompts[start : start + size] for start in range(0, len(prompts), size)]


def answer(engine: Engine, prompts: Sequence[Prompt], caps: Mapping[str, Change]) -> dict[str, list[Answer]]:
    """Answer every prompt under every cap or steering, in one batch, or in two (see `_replies`).

    Messages of a lead are answered first, a turn of all prompts at a time. Every cap has a history of its
    own: its replies to them.

    Returns:
        Name of the cap -> answers in the order of the prompts.
    """
    asked = [(name, cap, prompt) for prompt in prompts for name, cap in caps.items()]
    branches = [f"{name}#{number}" for number, (name, _, _) in enumerate(asked)]
    history: dict[str, tuple[Message, ...]] = dict.fromkeys(branches, ())
    for turn in range(max((len(prompt.lead) for prompt in prompts), default=0)):
        requests = [
            _request(branch, (*history[branch], prompt.lead[turn][0]), prompt.lead[turn][1], cap)
            for branch, (_, cap, prompt) in zip(branches, asked, strict=True)
            if turn < len(prompt.lead)
        ]
        for request, reply in zip(requests, _replies(engine, requests), strict=True):
            history[request.branch] = (*request.messages, Message(role="assistant", content=reply.text))
    requests = [
        _request(branch, (*history[branch], *prompt.messages), prompt.sampling, cap)
        for branch, (_, cap, prompt) in zip(branches, asked, strict=True)
    ]
    answers: dict[str, list[Answer]] = {name: [] for name in caps}
    for (name, _, _), branch, reply in zip(asked, branches, _replies(engine, requests), strict=True):
        reply.before = history[branch]
        answers[name].append(reply)
    engine.forget(branches)
    return answers


def _request(branch: str, messages: tuple[Message, ...], sampling: Sampling, change: Change) -> Request:
    if isinstance(change, Steer):
        return Request(branch, messages, sampling, steer=change)
    return Request(branch, messages, sampling, change)


def _replies(engine: Engine, requests: Sequence[Request]) -> list[Answer]:
    """The replies to all requests, in their order. The engine keeps the caches of their branches.

    A conditional cap leaves a reply alone that begins above its threshold. This is then the reply without a
    cap, so it is copied if that was requested, too.
    """
    twins = {request.branch: _uncapped_twin(request, requests) for request in requests}
    answers = _written(engine, [request for request in requests if twins[request.branch] is None])
    for request in requests:
        twin, cap = twins[request.branch], request.cap
        if twin is not None and cap is not None:
            start = answers[twin.branch].start
            if start is not None and not cap.acts_from(start):
                answers[request.branch] = replace(answers[twin.branch])
    answers |= _written(engine, [request for request in requests if request.branch not in answers])
    return [answers[request.branch] for request in requests]


def _uncapped_twin(request: Request, requests: Sequence[Request]) -> Request | None:
    """The same request without a cap, for one with a conditional cap."""
    if not _is_conditional(request.cap):
        return None
    plain = replace(request, cap=None)
    return next((own for own in requests if replace(own, branch=plain.branch) == plain), None)


def _is_conditional(change: Change) -> bool:
    return isinstance(change, Cap) and change.only_below is not None


def _written(engine: Engine, requests: Sequence[Request]) -> dict[str, Answer]:
    """Branch -> its reply, all written in one batch."""
    answers = {request.branch: Answer() for request in requests}
    if not requests:
        return answers
    with closing(engine.stream(requests)) as events:
        for event in events:
            if isinstance(event, TokenEvent):
                answers[event.branch].add(event)
            elif isinstance(event, PromptEvent):
                answers[event.branch].start = event.start
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
