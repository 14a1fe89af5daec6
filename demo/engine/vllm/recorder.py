"""Capping and reading inside a vLLM worker, where the tokens of all requests lie one after the other in one long tensor.

Every token is a row of `AxisHooks` here, so the clamp is the very same function that the transformers engine runs: float32, a floor
per row, template tokens exempt. Nothing but numbers leaves the worker: a few per token, never a residual stream. No vLLM in here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.axis.components import probe_components
from demo.capping import AxisHooks, LayerSteering
from demo.engine.protocol import Sampling

# What was drawn: request, step, token, probability.
SampledToken = tuple[str, int, int, float]

# What a worker tells of some tokens of a request: its id, the position of the first token, and per quantity one float32 per token
# as bytes. Quantities: "before", "after" (raw units at the probe layer), "place.0" to "place.2" (axis units), "lift.L" (raw
# units), and "at.L" (raw units after the clamp, of a request that reads every layer).
Record = tuple[str, int, dict[str, bytes]]


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens of one request in a forward pass. start: position of the first of them."""

    plan: SequencePlan
    start: int
    ids: Sequence[int]


@dataclass
class Recorder:
    """Of one worker: `begin` before a forward pass, `apply` at every decoder layer it runs, `finish` after it."""

    axis: AssistantAxis
    special: frozenset[int]
    device: torch.device
    tokens: int = 0  # that the pass runs
    _every_layer: bool = False
    _segments: list[Segment] = field(default_factory=list)
    _hooks: AxisHooks | None = None
    _columns: dict[str, Tensor] = field(default_factory=dict)
    _records: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._unit = self.axis.unit.to(self.device)
        components = probe_components(self.axis, self.device)
        self._place = None if components is None else components.place

    def begin(self, segments: Sequence[Segment]) -> None:
        """A forward pass over these segments, one after the other, begins."""
        self._segments, self._columns, self._hooks = list(segments), {}, None
        self.tokens = sum(len(segment.ids) for segment in segments)
        self._every_layer = any(segment.plan.every_layer for segment in segments)
        if not segments:
            return
        lengths = torch.tensor([len(segment.ids) for segment in segments])
        plans = [segment.plan for segment in segments]

        def spread(values: list[float]) -> Tensor:
            return torch.tensor(values).repeat_interleave(lengths).to(self.device)

        capped = [dict(zip(plan.layers, plan.floors, strict=True)) for plan in plans]
        floors = {
            layer: spread([floors.get(layer, float("-inf")) for floors in capped])
            for layer in sorted({layer for plan in plans for layer in plan.layers})
        }
        steering = {}
        for layer in {plan.steer[0] for plan in plans if plan.steer}:
            alphas = [plan.steer[1] if plan.steer and plan.steer[0] == layer else 0.0 for plan in plans]
            steering[layer] = LayerSteering(self.axis.direction[layer].to(self.device), spread(alphas))
        self._hooks = AxisHooks([], self._unit, self.axis.probe_layer, floors, steering, place=self._place)
        exempt = [flag for segment in segments for flag in self._exempt(segment)]
        self._hooks.exempt = torch.tensor(exempt, device=self.device)[:, None]

    def _exempt(self, segment: Segment) -> list[bool]:
        prompt = [
            bool(flag) for flag in segment.plan.exempt[segment.start : segment.start + len(segment.ids)]
        ]
        return prompt + [token in self.special for token in segment.ids[len(prompt) :]]

    def looks_at(self, layer: int) -> bool:
        """Whether anybody in this pass reads or changes the residual stream after this decoder layer."""
        hooks = self._hooks
        return hooks is not None and (
            self._every_layer
            or layer == self.axis.probe_layer
            or layer in hooks.floors
            or layer in hooks.steering
        )

    def apply(self, layer: int, hidden: Tensor) -> Tensor:
        """The residual stream [N, D] after decoder layer `layer`, pushed and clamped as each token's request asks. The same object
        comes back where nobody asks for anything."""
        assert self._hooks is not None  # begin() comes first
        rows = hidden[:, None]
        applied = self._hooks.apply(layer, rows)
        if self._every_layer:
            self.note(f"at.{layer}", layer, applied[:, 0])
        return hidden if applied is rows else applied[:, 0]

    def note(self, name: str, layer: int, hidden: Tensor) -> None:
        """Keep the projection of a residual stream [N, D] onto the axis of decoder layer `layer`, for those who read every layer."""
        self._columns[name] = torch.linalg.vecdot(hidden.float(), self._unit[layer])

    def finish(self) -> None:
        """The forward pass is over: keep what it showed."""
        if self._hooks is None:
            return
        columns = self._columns | self._hooks.columns()
        if columns:
            names, values = list(columns), torch.stack(list(columns.values())).float().cpu().numpy()
            start = 0
            for segment in self._segments:
                wanted = [index for index, name in enumerate(names) if _wants(segment, name)]
                part = values[:, start : start + len(segment.ids)]
                start += len(segment.ids)
                explain_failure = {names[index]: part[index].tobytes() for index in wanted}
                self._records.append((segment.plan.id, segment.start, explain_failure))
        self.begin([])

    def drain(self) -> list[Record]:
        """What has been seen since the last time."""
        records, self._records = self._records, []
        return records


def _wants(segment: Segment, name: str) -> bool:
    """Whether the request is to be explain_failure this quantity. Of prompt tokens one number is needed, of those it draws all."""
    plan, (kind, _, layer) = segment.plan, name.partition(".")
    if kind in ("at", "entry"):
        return plan.every_layer
    if kind == "lift" and int(layer) not in plan.layers:
        return False
    prompt_only = segment.start + len(segment.ids) <= len(plan.exempt)
    return kind == "before" or plan.every_layer or not prompt_only


@dataclass
class SampledTokens:
    """What was drawn in this process and not yet explain_failure."""

    _items: list[SampledToken] = field(default_factory=list)

    def add(self, plan: SequencePlan, step: int, token: int, probability: float) -> None:
        self._items.append((plan.id, step, token, probability))

    def take(self) -> list[SampledToken]:
        items, self._items = self._items, []
        return items


# vLLM makes what draws by itself and gives no way to reach it; a worker is a process.
drawn = SampledTokens()


def merged(ranks: Sequence[Sequence[Sequence[Any]]]) -> list[Record]:
    """The records of all workers as one list. With tensor parallelism all tell the same, with pipeline parallelism each tells of its
    own decoder layers."""
    found: dict[tuple[str, int], dict[str, bytes]] = {}
    for rank in ranks:
        for id_, start, explain_failure in rank:
            found.setdefault((id_, start), {}).update(explain_failure)
    return [(id_, start, explain_failure) for (id_, start), explain_failure in found.items()]


# The key of `SamplingParams.extra_args` under which it travels.
KEY = "persona_drift"


@dataclass(frozen=True, slots=True)
class SequencePlan:
    """id: the request's; exempt: a byte per prompt token, 1 where the clamp leaves it alone; layers, floors: the cap, floors in
    raw units; steer: decoder layer and alpha in axis units; every_layer: read projections at all layers, not at the probe
    layer alone; said: prompt tokens under the repetition penalty, in order; barred: token ids that are never drawn."""

    id: str
    exempt: bytes
    sampling: Sampling
    layers: tuple[int, ...] = ()
    floors: tuple[float, ...] = ()
    steer: tuple[int, float] | None = None
    every_layer: bool = False
    said: tuple[int, ...] = ()
    barred: tuple[int, ...] = ()

    def to_args(self) -> dict[str, Any]:
        """For `SamplingParams.extra_args`: plain values only."""
        return {KEY: asdict(self)}

    @classmethod
    def from_args(cls, args: Mapping[str, Any] | None) -> SequencePlan | None:
        """None for a request that is not one of ours."""
        if not args or KEY not in args:
            return None
        plain = dict(args[KEY])
        for name in ("layers", "floors", "said", "barred"):
            plain[name] = tuple(plain[name])
        plain["sampling"] = Sampling(**plain["sampling"])
        plain["steer"] = tuple(plain["steer"]) if plain["steer"] else None
        return cls(**plain)
