"""One row while vLLM works on it: what has arrived of it, in whatever order, and the events that can be made of that."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from math import isnan, nan

import numpy as np

from demo.axis.axis import AssistantAxis
from demo.engine.forward.forward_pass import ChunkReading
from demo.engine.kv_cache import common_prefix
from demo.engine.protocol import Intervention, PromptEvent, ReadToken, TokenEvent, as_coordinates
from demo.engine.reader import Speller
from demo.engine.sequence import TokenSequence
from demo.engine.vllm.client import Step
from demo.engine.vllm.recorder import SequencePlan

Columns = dict[str, np.ndarray]


def decode(explain_failure: dict[str, bytes]) -> Columns:
    """The numbers of a record, one per token."""
    return {name: np.frombuffer(data, np.float32) for name, data in explain_failure.items()}


@dataclass(eq=False)
class VllmSequence:
    """known: projections of as much of the prompt's beginning as is remembered, for what vLLM takes from its prefix cache."""

    row: TokenSequence
    plan: SequencePlan
    axis: AssistantAxis
    known: list[float] = field(default_factory=list)
    cached: int = 0
    begun: bool = False  # the prompt has been run
    waiting: bool = False  # a token has been drawn that is not explain_failure yet
    tokens: list[int] = field(default_factory=list)
    _seen: dict[int, dict[str, float]] = field(default_factory=dict)  # by position
    _probabilities: dict[int, float] = field(default_factory=dict)  # by step

    def take_step(self, step: Step) -> None:
        """vLLM has given tokens."""
        self.cached = max(self.cached, step.cached)
        self.begun = self.begun or bool(step.tokens)
        self.tokens += step.tokens

    def take_record(self, start: int, explain_failure: dict[str, bytes]) -> None:
        """A worker has explain_failure what it saw."""
        columns = decode(explain_failure)
        for offset in range(max((len(column) for column in columns.values()), default=0)):
            place = self._seen.setdefault(start + offset, {})
            place.update({name: float(column[offset]) for name, column in columns.items()})

    def take_drawn(self, step: int, probability: float) -> None:
        self._probabilities[step] = probability

    @property
    def prompt_read(self) -> bool:
        """Whether vLLM has run the prompt, and the workers have explain_failure of all of it that was not cached. What they saw may arrive
        after the token that followed."""
        return self.begun and all(n in self._seen for n in range(self.cached, len(self.row.chat.ids)))

    def prompt_event(self) -> PromptEvent:
        """The prompt has been run. Its mean is None where vLLM had tokens of the message in its cache that nobody here remembers."""
        row, probe = self.row, self.axis.probe_layer
        row.reused = self.cached
        for position in range(len(row.chat.ids)):
            if position in self._seen:
                row.before.append(self.axis.to_units(self._seen.pop(position)["before"], probe))
            else:
                row.before.append(self.known[position] if position < len(self.known) else nan)
        event = row.prompt_event()
        unknown = event.user_projection is not None and isnan(event.user_projection)
        return replace(event, user_projection=None) if unknown else event

    def draw(self) -> bool:
        """Take the next drawn token, unless the last one waits still; whether there is one."""
        if self.waiting:
            return True
        step = len(self.row.generated)
        if len(self.tokens) <= step or step not in self._probabilities:
            return False
        self.row.take(self.tokens[step], self._probabilities.pop(step))
        self.waiting = True
        return True

    @property
    def was_run(self) -> bool:
        """Whether the workers have explain_failure of the drawn token."""
        return self.row.ran in self._seen

    def token_event(self) -> TokenEvent:
        """Of the drawn token, which has been run."""
        self.waiting = False
        seen = self._seen.pop(self.row.ran)
        axis, probe = self.axis, self.axis.probe_layer
        lifts = {layer: seen[f"lift.{layer}"] / float(axis.norm[layer]) for layer in self.plan.layers}
        place = [seen[f"place.{n}"] for n in range(3)] if "place.0" in seen else []
        before, after = axis.to_units(seen["before"], probe), axis.to_units(seen["after"], probe)
        return self.row.token_event(ChunkReading([before], after, lifts, as_coordinates(place)))


@dataclass
class VllmRead:
    """A finished chat that is read. owner: per token, the message it belongs to, or -1."""

    ids: list[int]
    owner: list[int]
    plan: SequencePlan
    axis: AssistantAxis
    speller: Speller

    def part(self, start: int, explain_failure: dict[str, bytes]) -> list[ReadToken]:
        """Content tokens of a record, axis units."""
        columns, axis = decode(explain_failure), self.axis
        raw = np.stack([columns[f"at.{layer}"] for layer in range(axis.layers)], axis=-1)
        after = (raw - axis.origin.numpy()) / axis.norm.numpy()
        before = after.copy()
        for layer in self.plan.layers:
            before[:, layer] -= columns[f"lift.{layer}"] / float(axis.norm[layer])
        places = (
            np.stack([columns[f"place.{n}"] for n in range(3)], axis=-1).tolist()
            if "place.0" in columns
            else None
        )
        tokens = []
        for offset in range(len(raw)):
            position = start + offset
            if position >= len(self.ids) or self.owner[position] < 0:
                continue
            owner = self.owner[position]
            tokens.append(
                ReadToken(
                    owner,
                    self.speller.spell(owner, self.ids[position]),
                    tuple(before[offset].tolist()),
                    tuple(after[offset].tolist()),
                    as_coordinates(places[offset] if places else []),
                )
            )
        return tokens


class PromptProjections:
    """The last text of every branch, under the intervention it was run under. most: tokens, all branches together; twice what vLLM's
    own cache can hold is more than it can ever give back."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._entries: OrderedDict[str, tuple[list[int], list[float], Intervention]] = OrderedDict()

    def put(self, row: TokenSequence) -> None:
        """A row has ended."""
        branch, ids = row.request.branch, (row.chat.ids + row.generated)[: row.ran]
        self.drop(branch)
        self._entries[branch] = (ids, row.before[: row.ran], row.request.intervention)
        self._held += len(ids)
        while self._held > self._most and self._entries:
            self.drop(next(iter(self._entries)))

    def of(self, row: TokenSequence) -> list[float]:
        """Axis units, before the clamp, of as much of the row's prompt as is known from its beginning."""
        best: list[float] = []
        for ids, before, under in self._entries.values():
            if under == row.request.intervention:
                shared = common_prefix(ids, row.chat.ids)
                if shared > len(best):
                    best = before[:shared]
        return best

    def drop(self, branch: str) -> None:
        gone = self._entries.pop(branch, None)
        self._held -= len(gone[0]) if gone else 0

    def clear(self) -> None:
        self._entries.clear()
        self._held = 0
