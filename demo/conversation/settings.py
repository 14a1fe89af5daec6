"""One turn of a conversation: what the user said, what each branch replied, and where every token stood. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

from demo.axis.axis import AssistantAxis
from demo.engine.protocol import Cap, Sampling, Steer
from demo.utils.errors import UserError

UNCAPPED, CAPPED, STEERED = "uncapped", "capped", "steered"

BRANCHES = (UNCAPPED, CAPPED)

ALL_BRANCHES = (*BRANCHES, STEERED)

# Repeats of a turn with other random numbers stay clear of the seeds of the turns that follow it.
SEED_STEP = 1000

MOST_SEEDS = 8


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """How a turn is answered. cap None: the capped branch runs uncapped too; steer: adds the steered branch; only: the one
    branch that is spoken to, None for all of them; seeds: how many times each branch answers, each time with other random
    numbers, the first of which goes into the history."""

    sampling: Sampling
    cap: Cap | None
    system_prompt: str = ""
    steer: Steer | None = None
    only: str | None = None
    seeds: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise UserError(f"The number of seeds must lie between 1 and {MOST_SEEDS}, not {self.seeds}.")
        if self.only == STEERED and self.steer is None:
            raise UserError("The steered reply is off; switch it on before you write to it alone.")

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches that answer."""
        present = BRANCHES if self.steer is None else ALL_BRANCHES
        return present if self.only is None else (self.only,)


def make_cap(axis: AssistantAxis, first: int, last: int, floor: str) -> Cap:
    """A cap at decoder layers `first` to `last`, inclusive, each at its own named floor. Raises UserError."""
    if not 0 <= first <= last < axis.layers:
        raise UserError(
            f"The capped layers must run from a lower to a higher number between 0 and {axis.layers - 1}, "
            f"not from {first} to {last}."
        )
    layers = tuple(range(first, last + 1))
    floors = axis.floor(floor)
    if not set(layers) <= set(axis.floor_layers(floor)):  # a cap that silently does nothing would be a lie
        have = axis.floor_layers(floor)
        raise UserError(
            f"{floor} has floors at {len(have)} layers between {have[0]} and {have[-1]} only, not at all of {first} to "
            f"{last}; choose layers among them."
        )
    return Cap(layers, tuple(float(floors[layer]) for layer in layers))
