"""The clamp of the Assistant Axis paper (arXiv 2601.10387, section on activation capping, Eq. 1) and the hooks
that apply it to decoder layers, one floor per row of the batch.

The paper writes  h <- h - v * min(<h, v> - tau, 0)  with v the unit vector toward the Assistant. The same thing
as a lift:  h <- h + max(tau - <h, v>, 0) * v.  Nothing else about h changes, and nothing at all where the
projection is already at or above the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Clamped:
    """Result of `clamp`.

    hidden [..., D] in the input dtype; projection [...] float32, raw units, before the clamp; lift [...] float32,
    raw units, >= 0: what was added along the unit direction.
    """

    hidden: Tensor
    projection: Tensor
    lift: Tensor


def clamp(hidden: Tensor, unit: Tensor, floor: Tensor, exempt: Tensor | None = None) -> Clamped:
    """Lift the projection of `hidden` onto `unit` to `floor` wherever it lies below (paper Eq. 1).

    hidden [B, T, D], any float dtype; unit [D] float32, norm 1, pointing toward the Assistant; floor [B] float32
    in raw projection units, -inf for a row without a cap; exempt [B, T] bool, True where the clamp must not act.
    The arithmetic is float32 whatever the dtype of `hidden`. Positions that need no lift come back bit for bit.
    """
    hidden32 = hidden.float()
    # vecdot and not @: a matrix product rounds a row differently in different company.
    projection = torch.linalg.vecdot(hidden32, unit)
    lift = (floor[:, None] - projection).clamp(min=0.0)
    if exempt is not None:
        lift = lift.masked_fill(exempt, 0.0)
    lifted = (hidden32 + lift[..., None] * unit).to(hidden.dtype)
    return Clamped(torch.where((lift > 0)[..., None], lifted, hidden), projection, lift)


@dataclass(frozen=True, slots=True)
class AxisReading:
    """What one forward pass showed, float32 raw units.

    before, after [B, T]: projection at the probe layer before and after the clamp there (equal when the probe layer
    carries no cap). lifts [B, T, K]: what each of the K capped layers added. places [B, P]: what `place` made of the
    last column at the probe layer, after the clamp there; P is 0 without it.
    """

    before: Tensor
    after: Tensor
    lifts: Tensor
    places: Tensor


@dataclass
class AxisHooks:
    """ForwardPass hooks that read the projection at the probe layer and clamp at the capped layers.

    `floors` maps a decoder layer's index to a [B] float32 tensor of raw floors, -inf for rows without a cap at that
    layer; `steering` maps a layer's index to [B] float32 multiples of its `direction`, added before the clamp (0 for rows
    without steering). Set `exempt` ([B, T] bool) before every forward pass; read `reading()` after it. `place` reads more off the
    probe layer: it is given the last column's residual stream [B, D] and returns [B, P].
    """

    layers: Sequence[nn.Module]
    unit: Tensor
    probe_layer: int
    floors: dict[int, Tensor]
    steering: dict[int, LayerSteering] = field(default_factory=dict)
    exempt: Tensor | None = None
    place: Callable[[Tensor], Tensor] | None = None
    _before: Tensor | None = field(default=None, init=False)
    _after: Tensor | None = field(default=None, init=False)
    _lifts: dict[int, Tensor] = field(default_factory=dict, init=False)
    _places: Tensor | None = field(default=None, init=False)

    @property
    def capped_layers(self) -> tuple[int, ...]:
        return tuple(sorted(self.floors))

    @contextmanager
    def installed(self) -> Iterator[AxisHooks]:
        """Register the hooks for the duration of a `with` block; they are always removed."""
        handles = []
        try:
            for index in sorted({*self.floors, *self.steering, self.probe_layer}):
                handles.append(self.layers[index].register_forward_hook(self._hook(index)))
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order, after other rows have left the batch."""
        kept = list(rows)
        self.floors = {index: floor[kept] for index, floor in self.floors.items()}
        self.steering = {index: push.select(kept) for index, push in self.steering.items()}

    def reading(self) -> AxisReading:
        """Projections and lifts of the last forward pass."""
        if self._before is None or self._after is None:
            raise RuntimeError("no forward pass has run under these hooks")
        device = self._before.device
        columns = [self._lifts[index].to(device) for index in self.capped_layers]
        lifts = torch.stack(columns, dim=-1) if columns else self._before.new_zeros((*self._before.shape, 0))
        places = self._before.new_zeros((len(self._before), 0)) if self._places is None else self._places
        return AxisReading(self._before, self._after, lifts, places)

    def columns(self) -> dict[str, Tensor]:
        """The same of a batch with one column, by name, each [B]: before, after, place.0 and so on, lift.L. Of the layers that have run
        here, which need not include the probe layer where several machines share the layers."""
        seen = {
            f"lift.{index}": self._lifts[index][:, 0] for index in self.capped_layers if index in self._lifts
        }
        if self._before is not None and self._after is not None:
            seen |= {"before": self._before[:, 0], "after": self._after[:, 0]}
        if self._places is not None:
            seen |= {f"place.{axis}": self._places[:, axis] for axis in range(self._places.shape[1])}
        return seen

    def apply(self, index: int, hidden: Tensor) -> Tensor:
        """What decoder layer `index` passes on: its residual stream [B, T, D] read, pushed and clamped as asked for there.

        Module hooks call it, and so does a forward pass that does not run the model's own modules.
        """
        if index != self.probe_layer and index not in self.floors and index not in self.steering:
            return hidden
        unit = self.unit[index].to(hidden.device)
        exempt = None if self.exempt is None else self.exempt.to(hidden.device)
        if index in self.steering:
            hidden = self.steering[index].apply(hidden, exempt)
        if index in self.floors:
            clamped = clamp(hidden, unit, self.floors[index].to(hidden.device), exempt)
            self._lifts[index] = clamped.lift
            hidden, before, after = clamped.hidden, clamped.projection, clamped.projection + clamped.lift
        elif index == self.probe_layer:
            before = after = torch.linalg.vecdot(hidden.float(), unit)
        if index == self.probe_layer:
            self._before, self._after = before, after
            self._places = None if self.place is None else self.place(hidden[:, -1])
        return hidden

    def _hook(self, index: int):
        def hook(module: nn.Module, args: object, output: object) -> object:
            hidden = residual_of(output)
            applied = self.apply(index, hidden)
            return None if applied is hidden else with_residual(output, applied)

        return hook


def residual_of(output: object) -> Tensor:
    """The residual stream [B, T, D] in a decoder layer's output, which is a tensor or a tuple that starts with it."""
    hidden = output[0] if isinstance(output, tuple) else output
    if not isinstance(hidden, Tensor) or hidden.ndim != 3:
        # A hook that guesses wrong would silently show an uncapped model as a capped one.
        raise TypeError(
            f"a decoder layer returned {type(output).__name__}, not a [batch, tokens, hidden] tensor"
        )
    return hidden


def with_residual(output: object, hidden: Tensor) -> object:
    """The same layer output with its residual stream replaced."""
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def push(hidden: Tensor, direction: Tensor, alpha: Tensor, exempt: Tensor | None = None) -> Tensor:
    """h + alpha * direction, one alpha per row.

    hidden [B, T, D], any float dtype; direction [D] float32, the unnormalised axis of this layer, toward the Assistant, so
    that alpha [B] float32 is in axis units; exempt [B, T] bool, True where nothing is added. The arithmetic is float32;
    rows whose alpha is 0 and exempt positions come back bit for bit.
    """
    amount = alpha[:, None].expand(hidden.shape[:2])
    if exempt is not None:
        amount = amount.masked_fill(exempt, 0.0)
    pushed = (hidden.float() + amount[..., None] * direction).to(hidden.dtype)
    return torch.where((amount != 0)[..., None], pushed, hidden)


@dataclass(frozen=True, slots=True)
class LayerSteering:
    """Steering at one decoder layer of a batch: direction [D], alpha [B], as in `push`; alpha 0 for rows without it."""

    direction: Tensor
    alpha: Tensor

    def apply(self, hidden: Tensor, exempt: Tensor | None) -> Tensor:
        return push(hidden, self.direction.to(hidden.device), self.alpha.to(hidden.device), exempt)

    def select(self, rows: Sequence[int]) -> LayerSteering:
        """The same for these rows only."""
        return replace(self, alpha=self.alpha[list(rows)])
