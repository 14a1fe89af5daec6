"""How a turn is answered: branches, sampling, cap and steering, as named settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from demo.axis.gates import is_assistant_axis
from demo.engine.protocol import Cap, Sampling, Span, Steer
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError

if TYPE_CHECKING:  # they import torch, which takes seconds, and a recorded session is to be seen at once
    from demo.axis.axis import AssistantAxis
    from demo.axis.directions import Direction

UNCAPPED, CAPPED, STEERED = "uncapped", "capped", "steered"
BRANCHES = (UNCAPPED, CAPPED)
ALL_BRANCHES = (*BRANCHES, STEERED)
# Distance between the seeds of a turn's samples, clear of the seeds of the turns that follow.
SEED_STEP = 1000
# What the page opens with. A reply ends with a sentence: half a sentence reads like a fault of the model.
PAGE_SAMPLING = Sampling(max_new_tokens=128, soft_limit=60)
MOST_SEEDS = 8
MOST_ALONG = 8


@dataclass(frozen=True, slots=True)
class OwnSettings:
    """What one branch has for itself in a turn; None for what it shares with the others.

    Attributes:
        cap: of the steered branch only, which has none otherwise.
        floor_name: the name of the cap's floor.
    """

    system_prompt: str | None = None
    temperature: float | None = None
    cap: Cap | None = None
    floor_name: str = ""


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """How one turn is answered.

    Attributes:
        cap: None means that the capped branch runs uncapped too.
        steer: adds the steered branch; None for no such branch.
        only: the one branch that answers; None for all of them.
        seeds: how many times each branch answers, each time with other random numbers. The first answer
            goes into the history.
        thinking: whether the model is asked to reason before it answers.
        span: which part of the reply cap and steering act on, where the model reasons.
        marks: the charts' reference lines for `cap`; None where nobody looks at charts.
        dtype: number format of the model's weights, such as float32; empty when unknown.
        template: digest of the chat template's text; empty when unknown.
        attempt: 1, and one more each time the same message is answered again.
        read: whether the replies came from elsewhere and were only read. Sampling then had no effect.
        also: a cap of the capped branch along another direction, beside `cap` or instead of it.
        along: further directions whose projections are read along.
        second: the one of `along` that both charts show as a second line; empty for none.
        plain: read the capped words without the cap too, as they are written.
        own: by branch, what differs there.
    """

    sampling: Sampling
    cap: Cap | None
    system_prompt: str = ""
    steer: Steer | None = None
    only: str | None = None
    seeds: int = 1
    thinking: bool = False
    span: Span = "both"
    marks: PlotMarks | None = None
    dtype: str = ""
    attempt: int = 1
    read: bool = False
    also: Cap | None = None
    along: tuple[str, ...] = ()
    second: str = ""
    plain: bool = False
    own: tuple[tuple[str, OwnSettings], ...] = ()
    template: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise UserError(f"The number of seeds must lie between 1 and {MOST_SEEDS}, not {self.seeds}.")
        if len(self.along) > MOST_ALONG:
            raise UserError(f"At most {MOST_ALONG} directions can be read along, not {len(self.along)}.")
        if self.second and self.second not in self.along:
            raise UserError(f"The second direction {self.second!r} is not among those that are read along.")
        if self.only == STEERED and self.steer is None:
            raise UserError("The steered reply is off; switch it on before you write to it alone.")
        for branch, own in self.own:
            if own.cap is not None and branch != STEERED:
                raise UserError(f"Only the steered reply can have a cap of its own, not the {branch} one.")
            self.sampling_in(branch)  # refuses a temperature that cannot be

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches that answer."""
        present = BRANCHES if self.steer is None else ALL_BRANCHES
        return present if self.only is None else (self.only,)

    def _own(self, branch: str) -> OwnSettings:
        return dict(self.own).get(branch, OwnSettings())

    def prompt_in(self, branch: str) -> str:
        """The system prompt of a branch."""
        own = self._own(branch).system_prompt
        return self.system_prompt if own is None else own

    def sampling_in(self, branch: str) -> Sampling:
        """How a branch samples."""
        own = self._own(branch).temperature
        return self.sampling if own is None else replace(self.sampling, temperature=own)

    def cap_in(self, branch: str) -> Cap | None:
        """The cap of a branch along the axis; None for none."""
        return self.cap if branch == CAPPED else self._own(branch).cap

    def seed_of(self, sample: int) -> int:
        """The seed of answer number `sample`; 0 is the one in the history."""
        return self.sampling.seed + SEED_STEP * sample


# In the place of a threshold: the cap acts on every reply, even if the axis has a threshold of its own.
EVERY_REPLY = "off"


def threshold_of(asked: float | str | None, axis: AssistantAxis) -> float | None:
    """Below what a reply must begin for the cap to act on it, axis units; None for a cap on every reply.

    Args:
        asked: a number, EVERY_REPLY, or None or an empty text for what belongs to the axis's own cap.

    Raises:
        UserError: it is something else.
    """
    if asked is None or asked == "":
        return axis.cap_only_below
    if asked == EVERY_REPLY:
        return None
    try:
        below = float(asked)
    except (TypeError, ValueError):
        below = math.nan
    if not math.isfinite(below):
        raise UserError(
            "The threshold below which a reply must begin is a number of axis units, or "
            f"{EVERY_REPLY!r} for a cap on every reply, not {str(asked)[:80]!r}."
        )
    return below


@dataclass(frozen=True, slots=True)
class CapChoice:
    """The cap as a user chooses it.

    Attributes:
        on: False for no cap, whatever the rest says.
        floor: the name of a floor of the axis.
        first_layer, last_layer: the capped decoder layers, both inclusive.
        only_below: as in `Cap`.
    """

    on: bool
    floor: str
    first_layer: int
    last_layer: int
    only_below: float | None = None

    @classmethod
    def of_axis(cls, axis: AssistantAxis) -> CapChoice:
        """The cap that the axis was saved with."""
        return cls(True, axis.cap_floor, *axis.cap_band, axis.cap_only_below)

    def cap(self, axis: AssistantAxis) -> Cap | None:
        """The cap for the engine. Raises UserError when the axis has no such layers or floor."""
        if not self.on:
            return None
        return make_cap(axis, self.first_layer, self.last_layer, self.floor, self.only_below)

    def marks(self, axis: AssistantAxis) -> PlotMarks:
        """The charts' reference lines for this cap. Raises UserError like `cap`."""
        chosen, probe = self.cap(axis), axis.probe_layer
        assistant = is_assistant_axis(axis.manifest)
        if chosen is None:
            return PlotMarks(probe, zones=axis.zones, assistant=assistant)
        has_floor = probe in axis.floor_layers(self.floor)
        return PlotMarks(
            probe_layer=probe,
            floor=axis.floor_units(self.floor, probe) if has_floor else None,
            floor_name=self.floor,
            floor_at_probe=probe in chosen.layers,
            cap_layers=(chosen.layers[0], chosen.layers[-1]),
            zones=axis.zones,
            assistant=assistant,
        )


# The floor along another direction, where the chosen one is the axis's own.
_USUAL_FLOOR = "p25"


def reads_differ(cap: Cap | None, axis: AssistantAxis) -> bool:
    """Whether words that were capped can read differently without the cap.

    A clamp above the probe layer does not move what is read there.
    """
    return cap is not None and cap.layers[0] <= axis.probe_layer


def direction_cap(direction: Direction, first: int, last: int, floor: str, downward: bool) -> Cap:
    """A cap along another direction, at those decoder layers of a band at which it has vectors.

    Args:
        first, last: the band, both inclusive.
        floor: name of a percentile of default-Assistant replies; any other name stands for the usual one.
        downward: keep the projection from rising instead of from falling.

    Raises:
        UserError: the direction has no floors, or no vectors in the band.
    """
    layers = tuple(layer for layer in range(first, last + 1) if layer in direction.layers)
    if not layers:
        have = direction.layers
        raise UserError(
            f"The direction {direction.name!r} has vectors at layers {have[0]} to {have[-1]}, none of them "
            f"between {first} and {last}; choose other layers."
        )
    name = floor if floor in direction.floors else _USUAL_FLOOR
    floors = tuple(direction.floor(name, layer, not downward) for layer in layers)
    return Cap(layers, floors, direction.name, downward)


def own_cap(axis: AssistantAxis) -> Cap:
    """The cap that the axis was saved with."""
    return make_cap(axis, *axis.cap_band, axis.cap_floor, axis.cap_only_below)


def make_cap(axis: AssistantAxis, first: int, last: int, floor: str, only_below: float | None = None) -> Cap:
    """A cap at decoder layers `first` to `last`, inclusive, each at its own named floor.

    Args:
        only_below: as in `Cap`, rounded to four decimals.

    Raises:
        UserError: the axis has no such layers or floor, or the threshold is not finite.
    """
    if only_below is not None and not math.isfinite(only_below):
        raise UserError(f"The threshold below which a reply must begin is a finite number, not {only_below}.")
    if not 0 <= first <= last < axis.layers:
        raise UserError(
            f"The capped layers must run from a lower to a higher number between 0 and {axis.layers - 1}, "
            f"not from {first} to {last}."
        )
    layers = tuple(range(first, last + 1))
    floors = axis.floor(floor)
    # A cap that silently does nothing at some layers would be shown as one that acts there.
    if not set(layers) <= set(axis.floor_layers(floor)):
        have = axis.floor_layers(floor)
        raise UserError(
            f"{floor} has floors at only {len(have)} layers between {have[0]} and {have[-1]}, "
            f"not at all of {first} to {last}; choose layers among them."
        )
    # To the decimals that session files keep of where a reply begins, so that both can be compared there.
    below = None if only_below is None else round(only_below, 4)
    return Cap(layers, tuple(float(floors[layer]) for layer in layers), only_below=below)
