"""Activation capping along the Assistant Axis, steering for comparison, and the hooks that apply both.

Capping (arXiv 2601.10387, section on activation capping, Eq. 1) is  h <- h - v * min(<h, v> - tau, 0)  with
v the unit vector toward the Assistant and tau the floor. The code writes it as a lift:
h <- h + max(tau - <h, v>, 0) * v.  Only the component along v changes, and nothing changes where the
projection is at or above the floor.

Steering (section on steering) is  h <- h + alpha * axis.  It moves every token, whatever its projection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Clamped:
    """Result of `clamp`.

    Attributes:
        hidden: [..., D] in the input dtype.
        projection: [...] float32, raw units, before the clamp.
        lift: [...] float32, raw units, >= 0: what was added along the unit direction.
    """

    hidden: Tensor
    projection: Tensor
    lift: Tensor


def clamp(hidden: Tensor, unit: Tensor, floor: Tensor, exempt: Tensor | None = None) -> Clamped:
    """Lift the projection of `hidden` onto `unit` to `floor` wherever it lies below (paper Eq. 1).

    The arithmetic is float32 whatever the dtype of `hidden`. Positions that need no lift are returned bit for
    bit.

    Args:
        hidden: [B, T, D], any float dtype.
        unit: [D] float32, norm 1, pointing toward the Assistant.
        floor: [B] float32 in raw projection units, -inf for a sequence without a cap.
        exempt: [B, T] bool, True where the clamp must not act.
    """
    hidden32 = hidden.float()
    # vecdot and not @: a matrix product may round a row differently depending on the rows beside it.
    projection = torch.linalg.vecdot(hidden32, unit)
    lift = (floor[:, None] - projection).clamp(min=0.0)
    if exempt is not None:
        lift = lift.masked_fill(exempt, 0.0)
    lifted = (hidden32 + lift[..., None] * unit).to(hidden.dtype)
    return Clamped(torch.where((lift > 0)[..., None], lifted, hidden), projection, lift)


def steer(hidden: Tensor, direction: Tensor, alpha: Tensor, exempt: Tensor | None = None) -> Tensor:
    """h + alpha * direction, one alpha per sequence.

    The arithmetic is float32. Sequences whose alpha is 0 and exempt positions are returned bit for bit.

    Args:
        hidden: [B, T, D], any float dtype.
        direction: [D] float32, the unnormalised axis of this layer, toward the Assistant.
        alpha: [B] float32, in axis units, since `direction` is one axis unit long.
        exempt: [B, T] bool, True where nothing is added.
    """
    amount = alpha[:, None].expand(hidden.shape[:2])
    if exempt is not None:
        amount = amount.masked_fill(exempt, 0.0)
    steered = (hidden.float() + amount[..., None] * direction).to(hidden.dtype)
    return torch.where((amount != 0)[..., None], steered, hidden)


@dataclass(frozen=True, slots=True)
class LayerSteering:
    """Steering at one decoder layer of a batch: direction [D] and alpha [B] as in `steer`."""

    direction: Tensor
    alpha: Tensor

    def apply(self, hidden: Tensor, exempt: Tensor | None) -> Tensor:
        """Steer the residual stream [B, T, D] of this layer."""
        return steer(hidden, self.direction.to(hidden.device), self.alpha.to(hidden.device), exempt)


@dataclass(frozen=True, slots=True)
class LayerCap:
    """A cap along another direction than the axis, at one decoder layer of a batch.

    Attributes:
        key: names the cap in `AxisHooks.further_lift`.
        unit: [D] float32, norm 1; the negative of the direction's where a ceiling is held.
        floors: [B] float32, raw units along `unit`, -inf for sequences without this cap.
    """

    key: str
    unit: Tensor
    floors: Tensor


@dataclass(frozen=True, slots=True)
class AxisReading:
    """The readings of one forward pass, float32, raw units.

    Attributes:
        before, after: [B, T], projection at the probe layer before and after the clamps there. They are
            equal when the probe layer carries no cap.
        lifts: [B, T, K], what each of the K capped layers added.
        places: [B, P], the result of `AxisHooks.place` for the last column at the probe layer, after the
            clamp there. P is 0 without it.
    """

    before: Tensor
    after: Tensor
    lifts: Tensor
    places: Tensor


@dataclass
class AxisHooks:
    """Reads the projection at the probe layer, and steers and clamps at the requested layers.

    Set `exempt` before every forward pass and read `reading()` after it.

    Attributes:
        layers: the decoder layers, for `installed`.
        unit: [L, D] unit directions.
        floors: decoder layer -> [B] float32 raw floors, -inf for sequences without a cap at that layer.
        steering: decoder layer -> steering of the batch, one for each direction, alpha 0 for sequences
            without it.
        further: decoder layer -> caps along other directions. They act before the cap along the axis, so
            that its floor holds in any case.
        exempt: [B, T] bool, True where neither acts.
        place: an additional reading at the probe layer: the last column's residual stream [B, D] -> [B, P].
        record: called with each decoder layer's number, its residual stream [B, T, D] after steering and
            clamp, and what the clamp added there, [B, T], or None at a layer without a cap.
    """

    layers: Sequence[nn.Module]
    unit: Tensor
    probe_layer: int
    floors: dict[int, Tensor]
    steering: Mapping[int, Sequence[LayerSteering]] = field(default_factory=dict)
    further: Mapping[int, Sequence[LayerCap]] = field(default_factory=dict)
    exempt: Tensor | None = None
    place: Callable[[Tensor], Tensor] | None = None
    record: Callable[[int, Tensor, Tensor | None], None] | None = None
    _before: Tensor | None = field(default=None, init=False)
    _after: Tensor | None = field(default=None, init=False)
    _lifts: dict[int, Tensor] = field(default_factory=dict, init=False)
    _further_lifts: dict[tuple[int, str], Tensor] = field(default_factory=dict, init=False)
    _places: Tensor | None = field(default=None, init=False)

    @property
    def capped_layers(self) -> tuple[int, ...]:
        """The layers with a floor, in order."""
        return tuple(sorted(self.floors))

    @contextmanager
    def installed(self) -> Iterator[AxisHooks]:
        """Register the hooks on the model's own modules for the duration of a `with` block."""
        hooked = {*self.floors, *self.steering, *self.further, self.probe_layer}
        if self.record is not None:
            hooked = set(range(len(self.layers)))
        handles = []
        try:
            for index in sorted(hooked):
                handles.append(self.layers[index].register_forward_hook(self._hook(index)))
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def reading(self) -> AxisReading:
        """Projections and lifts of the last forward pass."""
        if self._before is None or self._after is None:
            raise RuntimeError("no forward pass has run under these hooks")
        device = self._before.device
        columns = [self._lifts[index].to(device) for index in self.capped_layers]
        lifts = torch.stack(columns, dim=-1) if columns else self._before.new_zeros((*self._before.shape, 0))
        places = self._before.new_zeros((len(self._before), 0)) if self._places is None else self._places
        return AxisReading(self._before, self._after, lifts, places)

    def further_lift(self, layer: int, key: str) -> Tensor:
        """What the cap along another direction added at a layer, [B, T] float32, raw units."""
        return self._further_lifts[layer, key]

    def columns(self) -> dict[str, Tensor]:
        """The readings of a batch with one column, by name, each [B].

        The names are "before", "after", "place.0" and so on, and "lift.L" for a capped layer L.

        They cover only the layers that have run in this process. Where several machines share the layers,
        the probe layer may not be among them.
        """
        seen = {
            f"lift.{index}": self._lifts[index][:, 0] for index in self.capped_layers if index in self._lifts
        }
        if self._before is not None and self._after is not None:
            seen |= {"before": self._before[:, 0], "after": self._after[:, 0]}
        if self._places is not None:
            seen |= {f"place.{axis}": self._places[:, axis] for axis in range(self._places.shape[1])}
        return seen

    def apply(self, index: int, hidden: Tensor) -> Tensor:
        """Read, steer and clamp the residual stream [B, T, D] after decoder layer `index`; return the result.

        Module hooks call this, and so does a forward pass that does not run the model's own modules.
        """
        acts = index in self.floors or index in self.steering or index in self.further
        if acts or index == self.probe_layer:
            hidden = self._act(index, hidden)
        if self.record is not None:
            self.record(index, hidden, self._lifts[index] if index in self.floors else None)
        return hidden

    def _act(self, index: int, hidden: Tensor) -> Tensor:
        unit = self.unit[index].to(hidden.device)
        exempt = None if self.exempt is None else self.exempt.to(hidden.device)
        for steering in self.steering.get(index, ()):
            hidden = steering.apply(hidden, exempt)
        before = None
        if index in self.further:
            before = torch.linalg.vecdot(hidden.float(), unit)
            hidden = self._clamp_further(index, hidden, exempt)
        if index in self.floors:
            clamped = clamp(hidden, unit, self.floors[index].to(hidden.device), exempt)
            self._lifts[index] = clamped.lift
            hidden, projection, after = clamped.hidden, clamped.projection, clamped.projection + clamped.lift
        elif index == self.probe_layer:
            projection = after = torch.linalg.vecdot(hidden.float(), unit)
        if index == self.probe_layer:
            self._before, self._after = projection if before is None else before, after
            self._places = None if self.place is None else self.place(hidden[:, -1])
        return hidden

    def _clamp_further(self, index: int, hidden: Tensor, exempt: Tensor | None) -> Tensor:
        for cap in self.further[index]:
            clamped = clamp(hidden, cap.unit.to(hidden.device), cap.floors.to(hidden.device), exempt)
            self._further_lifts[index, cap.key] = clamped.lift
            hidden = clamped.hidden
        return hidden

    def _hook(self, index: int) -> Callable[[nn.Module, object, object], object]:
        def hook(module: nn.Module, args: object, output: object) -> object:
            hidden = residual_of(output)
            applied = self.apply(index, hidden)
            return None if applied is hidden else with_residual(output, applied)

        return hook


def residual_of(output: object) -> Tensor:
    """The residual stream [B, T, D] in a decoder layer's output: a tensor, or a tuple that starts with it.

    A tensor [K, B, T, D] holds K versions of the stream (AltUp, Gemma 3n). The first is the one on which
    attention and MLP work.

    Raises:
        TypeError: the output is neither. A wrong guess would present an uncapped model as a capped one.
    """
    hidden = output[0] if isinstance(output, tuple) else output
    if isinstance(hidden, Tensor) and hidden.ndim == 4:
        hidden = hidden[0]
    if not isinstance(hidden, Tensor) or hidden.ndim != 3:
        raise TypeError(
            f"a decoder layer returned {type(output).__name__}, not a [batch, tokens, hidden] tensor"
        )
    return hidden


def with_residual(output: object, hidden: Tensor) -> object:
    """The same layer output with its residual stream replaced."""
    old = output[0] if isinstance(output, tuple) else output
    if isinstance(old, Tensor) and old.ndim == 4:
        hidden = torch.cat([hidden[None], old[1:]])
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden
