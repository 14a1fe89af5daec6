"""Capping and reading inside a vLLM worker, where one flat tensor holds the tokens of all requests.

`AxisHooks` gets each token as a sequence of its own. So the clamp is the same function that the
transformers engine runs: in float32, with one floor per sequence and template tokens exempt. Only a
few numbers per token leave the worker, never a residual stream. This module does not import vLLM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.axis.components import probe_components
from demo.capping import AxisHooks, LayerSteering
from demo.engine.protocol import Sampling
from demo.engine.sampling import Choice, Likeliest

# The key of `SamplingParams.extra_args` under which a plan travels to the workers.
KEY = "persona_drift"

# More than run at once: vLLM does not say when a request has ended.
_MOST_TRACKERS = 4096

# A sampled token: request id, step, and token id, probability and likeliest tokens as in `Choice`.
SampledToken = tuple[str, int, int, float, Likeliest]

# What a worker read at consecutive tokens of one request: the request id, the position of the first
# token, and for each quantity one float32 per token, as bytes. The quantities are, for decoder layer L:
#
#   "before", "after"        projection at the probe layer before and after the clamp, raw units
#   "place.0" to "place.2"   coordinates on the persona map, axis units
#   "lift.L"                 what the clamp added, raw units
#   "at.L"                   projection after the clamp, raw units; only for plans with every_layer
#   "entry.L"                projection of what the next layer is given, raw units; only in the self-test
Record = tuple[str, int, dict[str, bytes]]


@dataclass(frozen=True, slots=True)
class SpanPlan:
    """Which part of a reply clamp and steering act on.

    Attributes:
        opening, closing: Ids of the tokens that open and close reasoning.
        inside: Whether the reply begins inside reasoning.
        on_reasoning: Whether they act on the reasoning rather than on the answer.
    """

    opening: Sequence[int]
    closing: Sequence[int]
    inside: bool
    on_reasoning: bool


@dataclass
class SpanTracker:
    """Finds out, token by token, which part of a reply clamp and steering leave alone."""

    plan: SpanPlan
    exempt: list[bool] = field(default_factory=list)  # per token of the reply so far
    _ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._inside = self.plan.inside

    def flag(self, number: int, token: int) -> bool:
        """Whether reply token `number` is exempt. vLLM may run a token again; its flag stays the same."""
        if number < len(self.exempt):
            return self.exempt[number]
        self._ids.append(token)
        self.exempt.append(self._inside != self.plan.on_reasoning)
        mark = list(self.plan.closing if self._inside else self.plan.opening)
        if mark and self._ids[-len(mark) :] == mark:
            self._inside = not self._inside
            self.exempt[-1] = True
        return self.exempt[-1]


@dataclass(frozen=True, slots=True)
class SequencePlan:
    """What the workers must do with one request.

    Attributes:
        id: The request's id.
        exempt: One byte per prompt token, 1 where neither clamp nor steering may act.
        sampling: How tokens are sampled.
        layers: The capped decoder layers.
        floors: One floor per capped layer, raw units.
        steer: Decoder layer and alpha (axis units) of the steering, if any.
        every_layer: Whether projections are read at all decoder layers, not only at the probe layer.
        said: Prompt tokens under the repetition penalty, in order.
        opening: The tokens that the reply begins with, which are not sampled.
        barred: Token ids that are never sampled.
        spans: Where reasoning begins and ends in the reply, if clamp and steering act on a part of it only.
    """

    id: str
    exempt: bytes
    sampling: Sampling
    layers: tuple[int, ...] = ()
    floors: tuple[float, ...] = ()
    steer: tuple[int, float] | None = None
    every_layer: bool = False
    said: tuple[int, ...] = ()
    barred: tuple[int, ...] = ()
    opening: tuple[int, ...] = ()
    spans: SpanPlan | None = None

    def to_args(self) -> dict[str, Any]:
        """The value for `SamplingParams.extra_args`, made of plain values only."""
        return {KEY: asdict(self)}

    @classmethod
    def from_args(cls, args: Mapping[str, Any] | None) -> SequencePlan | None:
        """The plan in `SamplingParams.extra_args`; None for a request that this program did not send."""
        if not args or KEY not in args:
            return None
        plain = dict(args[KEY])
        for name in ("layers", "floors", "said", "barred", "opening"):
            plain[name] = tuple(plain[name])
        plain["sampling"] = Sampling(**plain["sampling"])
        plain["steer"] = tuple(plain["steer"]) if plain["steer"] else None
        plain["spans"] = SpanPlan(**plain["spans"]) if plain["spans"] else None
        return cls(**plain)


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive tokens of one request in a forward pass; `start` is the position of the first one."""

    plan: SequencePlan
    start: int
    ids: Sequence[int]

    @property
    def end(self) -> int:
        return self.start + len(self.ids)


@dataclass
class Recorder:
    """Applies the plans of one worker's requests and records what it reads.

    Call `begin` before a forward pass, `apply` after every decoder layer that the worker runs, and
    `finish` at the end.

    Attributes:
        special: Ids of special tokens, which are exempt from clamp and steering in replies.
        tokens: How many tokens of the current forward pass belong to requests; the rest is padding.
    """

    axis: AssistantAxis
    special: frozenset[int]
    device: torch.device
    tokens: int = 0
    _every_layer: bool = False
    _segments: list[Segment] = field(default_factory=list)
    _hooks: AxisHooks | None = None
    _columns: dict[str, Tensor] = field(default_factory=dict)
    _records: list[Record] = field(default_factory=list)
    _trackers: dict[str, SpanTracker] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._unit = self.axis.unit.to(self.device)
        components = probe_components(self.axis, self.device)
        self._place = None if components is None else components.place

    def begin(self, segments: Sequence[Segment]) -> None:
        """Prepare for a forward pass over these segments, which follow one another in the batch."""
        self._segments, self._columns, self._hooks = list(segments), {}, None
        self.tokens = sum(len(segment.ids) for segment in segments)
        self._every_layer = any(segment.plan.every_layer for segment in segments)
        if not segments:
            return
        lengths = torch.tensor([len(segment.ids) for segment in segments])
        plans = [segment.plan for segment in segments]

        def per_token(values: list[float]) -> Tensor:
            return torch.tensor(values).repeat_interleave(lengths).to(self.device)

        caps = [dict(zip(plan.layers, plan.floors, strict=True)) for plan in plans]
        floors = {
            layer: per_token([cap.get(layer, float("-inf")) for cap in caps])
            for layer in sorted({layer for plan in plans for layer in plan.layers})
        }
        steering = {}
        for layer in {plan.steer[0] for plan in plans if plan.steer}:
            alphas = [plan.steer[1] if plan.steer and plan.steer[0] == layer else 0.0 for plan in plans]
            direction = self.axis.direction[layer].to(self.device)
            steering[layer] = [LayerSteering(direction, per_token(alphas))]
        self._hooks = AxisHooks([], self._unit, self.axis.probe_layer, floors, steering, place=self._place)
        exempt = [flag for segment in segments for flag in self.exempt(segment)]
        self._hooks.exempt = torch.tensor(exempt, device=self.device)[:, None]

    def exempt(self, segment: Segment) -> list[bool]:
        """For each token of a segment, whether it is exempt from clamp and steering."""
        plan = segment.plan
        prompt = [bool(flag) for flag in plan.exempt[segment.start : segment.end]]
        reply = [token in self.special for token in segment.ids[len(prompt) :]]
        if plan.spans is not None and reply:
            tracker = self._trackers.setdefault(plan.id, SpanTracker(plan.spans))
            first = segment.start + len(prompt) - len(plan.exempt)
            for offset, token in enumerate(segment.ids[len(prompt) :]):
                reply[offset] = tracker.flag(first + offset, token) or reply[offset]
            while len(self._trackers) > _MOST_TRACKERS:
                del self._trackers[next(iter(self._trackers))]
        return prompt + reply

    def needs(self, layer: int) -> bool:
        """Whether this forward pass reads or changes the residual stream after this decoder layer."""
        hooks = self._hooks
        return hooks is not None and (
            self._every_layer
            or layer == self.axis.probe_layer
            or layer in hooks.floors
            or layer in hooks.steering
        )

    def apply(self, layer: int, hidden: Tensor) -> Tensor:
        """Steer and clamp the residual stream [N, D] after a decoder layer as each token's plan asks.

        Returns the same object when no plan changes this layer.
        """
        assert self._hooks is not None  # begin() comes first
        batch = hidden[:, None]
        applied = self._hooks.apply(layer, batch)
        if self._every_layer:
            self.note(f"at.{layer}", layer, applied[:, 0])
        return hidden if applied is batch else applied[:, 0]

    def note(self, name: str, layer: int, hidden: Tensor) -> None:
        """Record the projection of a residual stream [N, D] onto the axis of decoder layer `layer`.

        Only plans with every_layer report it.
        """
        self._columns[name] = torch.linalg.vecdot(hidden.float(), self._unit[layer])

    def finish(self) -> None:
        """End the forward pass and store what it showed."""
        if self._hooks is None:
            return
        columns = self._columns | self._hooks.columns()
        if columns:
            # One transfer for all columns: on a GPU each one waits for the device.
            names, values = list(columns), torch.stack(list(columns.values())).float().cpu().numpy()
            start = 0
            for segment in self._segments:
                own = values[:, start : start + len(segment.ids)]
                start += len(segment.ids)
                wanted = {
                    name: own[index].tobytes() for index, name in enumerate(names) if _wants(segment, name)
                }
                self._records.append((segment.plan.id, segment.start, wanted))
        self.begin([])

    def drain(self) -> list[Record]:
        """The records since the last call."""
        records, self._records = self._records, []
        return records


def _wants(segment: Segment, name: str) -> bool:
    """Whether a segment reports this quantity. Prompt tokens need only "before", reply tokens need all."""
    plan, (kind, _, layer) = segment.plan, name.partition(".")
    if kind in ("at", "entry"):
        return plan.every_layer
    if kind == "lift" and int(layer) not in plan.layers:
        return False
    prompt_only = segment.end <= len(plan.exempt)
    return kind == "before" or plan.every_layer or not prompt_only


def merge_records(ranks: Sequence[Sequence[Sequence[Any]]]) -> list[Record]:
    """Combine the records of all workers.

    With tensor parallelism all workers report the same; with pipeline parallelism each reports its
    own decoder layers.
    """
    found: dict[tuple[str, int], dict[str, bytes]] = {}
    for rank in ranks:
        for request, start, columns in rank:
            found.setdefault((request, start), {}).update(columns)
    return [(request, start, columns) for (request, start), columns in found.items()]


def decode(columns: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """The numbers of a record, one per token and quantity."""
    return {name: np.frombuffer(data, np.float32) for name, data in columns.items()}


@dataclass
class SampledTokens:
    """Tokens that were sampled in this process and not yet reported."""

    _items: list[SampledToken] = field(default_factory=list)

    def add(self, plan: SequencePlan, step: int, choice: Choice) -> None:
        self._items.append((plan.id, step, choice.token, choice.probability, choice.likeliest))

    def drain(self) -> list[SampledToken]:
        """The tokens since the last call."""
        items, self._items = self._items, []
        return items


# Global, because vLLM creates the logits processor itself and offers no way to reach it. Each worker
# is a process of its own.
sampled_tokens = SampledTokens()
