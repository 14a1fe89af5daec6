"""What one request asks of vLLM's workers beside its tokens. It travels with the request, so nothing has to be registered before
or cleaned up after it. No vLLM in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from demo.engine.protocol import Sampling

# The key of `SamplingParams.extra_args` under which it travels.
KEY = "persona_drift"


@dataclass(frozen=True, slots=True)
class RowPlan:
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
    def from_args(cls, args: Mapping[str, Any] | None) -> RowPlan | None:
        """None for a request that is not one of ours."""
        if not args or KEY not in args:
            return None
        plain = dict(args[KEY])
        for name in ("layers", "floors", "said", "barred"):
            plain[name] = tuple(plain[name])
        plain["sampling"] = Sampling(**plain["sampling"])
        plain["steer"] = tuple(plain["steer"]) if plain["steer"] else None
        return cls(**plain)
