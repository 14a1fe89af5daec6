"""Published capping configurations: vectors that point toward the roles, and ceilings on them.

Layout of the file:

    {"vectors": {name: {"vector": tensor [D], "layer": int}},
     "experiments": [{"id": str, "interventions": [{"vector": name, "cap": float}]}]}

An id such as layers_46:54-p0.25 names a half-open slice of layers and a percentile of role-wardness.
Some interventions have no cap; they are skipped.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demo.axis.importer.formats import MAX_HIDDEN, MAX_LAYERS, check_rows, named
from demo.utils.errors import UserError

_MAX_CAP = 1e30  # raw units; floors must fit in float32

_EXPERIMENT = re.compile(r"layers_(\d+):(\d+)-p(\d*\.?\d+)")


@dataclass(frozen=True, slots=True)
class Slice:
    """What an experiment's id states: layers `first` to `last`, both inclusive, and a percentile."""

    first: int
    last: int
    percentile: str

    @property
    def floor(self) -> str:
        """The floor's name in an imported axis. The prefix marks the percentile as one of role-wardness."""
        return f"published-p{self.percentile}"


def parse_id(experiment: str) -> Slice | None:
    """The slice that an experiment's id names, or None: layers_46:54-p0.25 is layers 46 to 53."""
    match = _EXPERIMENT.fullmatch(experiment)
    return Slice(int(match[1]), int(match[2]) - 1, match[3]) if match else None


@dataclass(frozen=True)
class Experiment:
    """One experiment of a capping config.

    Attributes:
        id: Its id.
        caps: Vector name -> ceiling, raw units.
        without_cap: Names of vectors whose intervention has no cap.
    """

    id: str
    caps: dict[str, float]
    without_cap: tuple[str, ...]


@dataclass(frozen=True)
class CappingConfig:
    """The checked content of a capping config.

    Attributes:
        vectors: Name -> (layer, tensor [D] float32 as stored).
        experiments: Id -> experiment, in the file's order.
    """

    vectors: dict[str, tuple[int, Tensor]]
    experiments: dict[str, Experiment]

    def pick(self, wanted: str | None, recommended: str | None) -> Experiment:
        """The experiment `wanted`, else the one `recommended`, else the only one. Raises UserError."""
        for choice in (wanted, recommended):
            if choice in self.experiments:
                return self.experiments[choice]
            if choice is wanted and wanted is not None:
                raise UserError(f"There is no experiment {wanted!r} in the capping config; {self._offer()}.")
        if len(self.experiments) > 1:
            raise UserError(
                f"The capping config holds {len(self.experiments)} experiments; "
                f"{self._offer()} with --experiment."
            )
        return next(iter(self.experiments.values()))

    def at_layers(self, experiment: Experiment) -> dict[int, str]:
        """The capping vectors of `experiment`, and those of the same kind at all other layers.

        The kind is what follows the slash in a name such as layer_40/contrast_role_pos3_default1.

        Returns:
            Layer -> vector name.

        Raises:
            UserError: A layer has two such vectors.
        """
        kinds = {_kind(name) for name in experiment.caps}
        others = [name for name in self.vectors if name not in experiment.caps and _kind(name) in kinds]
        chosen: dict[int, str] = {}
        for name in (*experiment.caps, *others):
            layer = self.vectors[name][0]
            taken = chosen.setdefault(layer, name)
            if taken != name and (name in experiment.caps or taken not in experiment.caps):
                raise UserError(
                    f"The capping config has two vectors for layer {layer} ({taken}, {name}) "
                    "and only one can be used; choose another --experiment."
                )
        return chosen

    def _offer(self) -> str:
        names = list(self.experiments)
        rest = f" and {len(names) - 6} more" if len(names) > 6 else ""
        return f"choose one of {', '.join(names[:6])}{rest}"


def is_capping_config(content: object) -> bool:
    """Whether a file's content looks like a capping config."""
    return isinstance(content, dict) and "vectors" in content and "experiments" in content


def parse_config(content: Any, path: Path) -> CappingConfig:
    """Check and convert an untrusted capping config. Raises UserError for a malformed one."""
    if not is_capping_config(content):
        have = named(content) if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f"{path} is not a capping config: it needs 'vectors' and 'experiments' (it has {have})."
        )
    vectors, listed = content["vectors"], content["experiments"]
    if not (isinstance(vectors, dict) and vectors and isinstance(listed, list) and listed):
        raise UserError(f"{path} holds a capping config without vectors or experiments; get the file again.")
    parsed = {_text(name, path): _vector(entry, path) for name, entry in vectors.items()}
    if len({tensor.shape for _, tensor in parsed.values()}) > 1:
        raise UserError(f"{path} mixes capping vectors of different sizes; get the file again.")
    experiments = [_experiment(entry, parsed, path) for entry in listed]
    return CappingConfig(parsed, {experiment.id: experiment for experiment in experiments})


def finite(value: Any, where: str) -> float:
    """Convert a number, or a tensor that holds one, to float. Raises UserError if it is not finite."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    if not abs(number) < _MAX_CAP:  # also NaN
        raise UserError(f"{where} has the cap {str(value)[:40]!r}, not a finite number; give another file.")
    return number


def stack(vectors: dict[int, Tensor], layers: int) -> Tensor:
    """The vectors of all layers as one tensor [L, D]. Raises UserError when a layer is missing."""
    missing = [layer for layer in range(layers) if layer not in vectors]
    if missing:
        raise UserError(
            f"The capping config has no vector for layer {missing[0]} ({len(missing)} of {layers} layers "
            "lack one), so it is not a complete axis; give the folder that also holds assistant_axis.pt."
        )
    return torch.stack([vectors[layer] for layer in range(layers)])


def _vector(entry: Any, path: Path) -> tuple[int, Tensor]:
    layer, vector = (entry.get("layer"), entry.get("vector")) if isinstance(entry, dict) else (None, None)
    if not isinstance(layer, int) or isinstance(layer, bool) or not 0 <= layer < MAX_LAYERS:
        raise UserError(f"{path} has a capping vector without a usable layer number; get the file again.")
    if not isinstance(vector, Tensor) or vector.ndim != 1 or not 1 <= vector.shape[0] <= MAX_HIDDEN:
        raise UserError(f"{path} has no vector [hidden size] for layer {layer}; get the file again.")
    return layer, check_rows(vector, path).float()


def _experiment(entry: Any, vectors: dict[str, tuple[int, Tensor]], path: Path) -> Experiment:
    steps = entry.get("interventions") if isinstance(entry, dict) else None
    if not isinstance(steps, list):
        raise UserError(f"{path} has an experiment without interventions; get the file again.")
    name = _text(entry.get("id"), path)
    caps: dict[str, float] = {}
    without: list[str] = []
    for step in steps:
        vector = step.get("vector") if isinstance(step, dict) else None
        if not isinstance(vector, str) or vector not in vectors:
            raise UserError(
                f"{path} has an intervention in {name} that names no vector of the file; get it again."
            )
        if vector in caps or vector in without:
            raise UserError(f"{path} names vector {vector} twice in {name}; get the file again.")
        cap = step.get("cap")
        if cap is None:
            without.append(vector)
        else:
            caps[vector] = finite(cap, f"{path}, {name}")
    return Experiment(name, caps, tuple(without))


def _kind(name: str) -> str:
    return name.partition("/")[2]


def _text(value: Any, path: Path) -> str:
    if not isinstance(value, str) or not value or len(value) > 200:
        raise UserError(f"{path} has a name that is not a short text; get the file again.")
    return value
