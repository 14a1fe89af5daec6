"""Converts published ceilings on role-wardness to floors on Assistant-ness.

A ceiling tau on the role-ward unit vector v is h - max(<h, v> - tau, 0) v. With u = -v toward the
Assistant that is h + max(-tau - <h, u>, 0) u: a floor of -tau.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demo.axis.importer.capping_config import CappingConfig, Experiment, finite, parse_id
from demo.axis.published import PublishedModel
from demo.utils.errors import UserError
from demo.utils.json_files import read_object

NO_FLOOR = float("-inf")  # the clamp leaves activations unchanged at layers with this floor


@dataclass
class Ceilings:
    """Ceilings on role-wardness, with the choice of what to cap.

    Attributes:
        caps: Floor name -> layer -> ceiling, raw units.
        main: Name of the floor to cap at.
        band: The layers to cap, first and last inclusive.
        source: Where the ceilings come from, for the manifest.
        notes: Sentences to show.
    """

    caps: dict[str, dict[int, float]]
    main: str
    band: tuple[int, int]
    source: str
    notes: list[str] = field(default_factory=list)

    @property
    def layers(self) -> set[int]:
        """Layers with a ceiling under any name."""
        return {layer for caps in self.caps.values() for layer in caps}

    def floors(self, layers: int) -> dict[str, Tensor]:
        """Floors on the Assistant-ward unit vector, name -> [layers] float32, -inf where there is none."""
        floors = {name: torch.full((layers,), NO_FLOOR) for name in sorted(self.caps)}
        for name, caps in self.caps.items():
            for layer, cap in caps.items():
                floors[name][layer] = -cap
        return floors

    def conversions(self) -> list[str]:
        """What was done to the numbers, in sentences for the manifest."""
        sentences = []
        for name, caps in self.caps.items():
            layer = self.band[0] if self.band[0] in caps else min(caps)
            sentences.append(
                f"{name}: ceiling {caps[layer]:+g} on the role-ward unit vector -> floor {-caps[layer]:+g} "
                f"on the Assistant-ward one at layer {layer}, and so at each of {len(caps)} layers"
            )
            percentile = name.rpartition("-p")[2]
            if name.startswith(("published-p", "neuronpedia-p")):
                sentences.append(
                    f"{name}: published p{percentile} of role-wardness = "
                    f"{100 - 100 * float(percentile):g}th percentile of Assistant-ness"
                )
        return sentences


def from_config(config: CappingConfig, experiment: Experiment, chosen: Mapping[int, str]) -> Ceilings:
    """The ceilings of `experiment`, and those that other experiments give for the same vectors.

    The other experiments cap other windows of layers; with their ceilings the band can be moved.

    Args:
        config: The capping config.
        experiment: The experiment to cap by.
        chosen: Layer -> vector name, from `CappingConfig.at_layers`.

    Raises:
        UserError: The experiment has no cap.
    """
    if not experiment.caps:
        raise UserError(f"The experiment {experiment.id!r} gives no cap at all; choose another --experiment.")
    main = _floor_name(experiment) or experiment.id
    own = {config.vectors[name][0]: cap for name, cap in experiment.caps.items()}
    caps, unclear = {main: dict(own)}, set()
    for other in config.experiments.values():
        name = _floor_name(other)
        if name is None:
            continue
        for vector, cap in other.caps.items():
            layer = config.vectors[vector][0]
            if chosen.get(layer) == vector and caps.setdefault(name, {}).setdefault(layer, cap) != cap:
                unclear.add(name)
    for name in unclear:  # where experiments disagree, only the chosen one is used
        del caps[name]
    caps[main] = caps.get(main, own)
    band = _longest_run(own)
    ceilings = Ceilings({name: values for name, values in caps.items() if values}, main, band, experiment.id)
    ceilings.notes = _notes(experiment, config, own, band)
    return ceilings


def from_json(path: Path, layers: int) -> Ceilings:
    """Read ceilings from a JSON object {layer: cap}, raw projection on the role-ward unit vector.

    Raises:
        UserError: The file is malformed, or names a layer beyond `layers`.
    """
    content = read_object(path, 'give {layer: cap}, such as {"46": -1.9, "47": -1.86}')
    caps: dict[int, float] = {}
    for key, value in content.items():
        if not (key.isascii() and key.isdigit() and len(key) < 6 and int(key) < layers):
            raise UserError(f"{path} names layer {key[:20]!r}; give layers between 0 and {layers - 1}.")
        caps[int(key)] = finite(value, str(path))
    if not caps:
        raise UserError(f"{path} gives no cap; give {{layer: cap}} for at least one layer.")
    return Ceilings({"given": caps}, "given", _longest_run(caps), path.name)


def from_registry(model: PublishedModel) -> Ceilings:
    """The ceilings that Neuronpedia published for this model's contrast vectors."""
    caps = dict(model.caps)
    name = "neuronpedia-p0.25"
    return Ceilings({name: caps}, name, _longest_run(caps), f"Neuronpedia's caps for {model.name}")


def choose_band(ceilings: Ceilings, wanted: tuple[int, int] | None) -> tuple[int, int]:
    """The band `wanted`, else the published one. Raises UserError if a wanted layer has no floor."""
    if wanted is None:
        return ceilings.band
    have = ceilings.caps[ceilings.main]
    if wanted[0] > wanted[1] or any(layer not in have for layer in range(wanted[0], wanted[1] + 1)):
        raise UserError(
            f"--cap-layers {wanted[0]}-{wanted[1]} goes beyond the layers with a floor; "
            f"{ceilings.main} has floors at {spans(have)}."
        )
    return wanted


def spans(layers: Collection[int]) -> str:
    """Layers as text: {1, 2, 3, 7} -> 1-3, 7."""
    runs = [f"{first}-{last}" if first < last else str(first) for first, last in _runs(layers)]
    return ", ".join(runs)


def _notes(
    experiment: Experiment, config: CappingConfig, own: Mapping[int, Any], band: tuple[int, int]
) -> list[str]:
    notes = []
    if experiment.without_cap:
        skipped = sorted(config.vectors[name][0] for name in experiment.without_cap)
        notes.append(
            f"{experiment.id} has interventions without a cap at layers {spans(skipped)}; they are skipped."
        )
    if set(range(band[0], band[1] + 1)) != set(own):
        notes.append(
            f"{experiment.id} has caps at layers {spans(own)}; "
            f"the longest run, {spans(range(band[0], band[1] + 1))}, is used."
        )
    named = parse_id(experiment.id)
    if named is not None and (named.first, named.last) != band:
        notes.append(
            f"{experiment.id} names layers {named.first}-{named.last}, "
            f"but layers {band[0]}-{band[1]} are capped."
        )
    return notes


def _floor_name(experiment: Experiment) -> str | None:
    named = parse_id(experiment.id)
    return named.floor if named else None


def _runs(layers: Collection[int]) -> list[tuple[int, int]]:
    """Runs of consecutive layers, each as first and last."""
    runs: list[tuple[int, int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], layer)
        else:
            runs.append((layer, layer))
    return runs


def _longest_run(layers: Collection[int]) -> tuple[int, int]:
    return max(_runs(layers), key=lambda run: run[1] - run[0])
