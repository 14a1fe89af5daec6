"""Builds an axis from published files: its sign, floors, units and roles, and a record of the import."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demo.axis.axis import FORMAT, AssistantAxis, check_axis
from demo.axis.components import pca
from demo.axis.importer import floors, sign
from demo.axis.importer.capping_config import CappingConfig, stack
from demo.axis.importer.sources import Found, find
from demo.axis.published import PublishedModel, Side, match_model
from demo.utils.errors import UserError

NO_ANCHORS = (
    "There are no anchors in the source of this axis: "
    "0 is not the average role and 1 is not the default Assistant."
)

COMPONENTS = 3

_MAX_FLOOR_UNITS = (
    3.0  # axis units; published floors lie between the average role and a little above the default
)


@dataclass(frozen=True)
class ImportOptions:
    """What the user may state in addition to the files.

    Attributes:
        experiment: Id of an experiment in the capping config.
        model_id: Hub id of the axis's model.
        sign: Where the axis points as stored.
        caps: JSON file {layer: ceiling}.
        band: Capped layers, first and last inclusive.
        probe_layer: The layer at which projections are read.
    """

    experiment: str | None = None
    model_id: str | None = None
    sign: Side | None = None
    caps: Path | None = None
    band: tuple[int, int] | None = None
    probe_layer: int | None = None


@dataclass(frozen=True)
class _Material:
    """What is known before the sign is decided.

    Attributes:
        stored: The axis as stored, [L, D] float32.
        vectors: Capping vectors, layer -> [D].
        ceilings: The ceilings to cap by.
        model: The published model, if the source was recognised as one.
        probe: The probe layer.
        anchors: Role mean and default mean, each [L, D]; None unless both are known.
    """

    stored: Tensor
    vectors: dict[int, Tensor]
    ceilings: floors.Ceilings
    model: PublishedModel | None
    probe: int
    anchors: tuple[Tensor, Tensor] | None


def import_axis(source: str | Path, options: ImportOptions | None = None) -> AssistantAxis:
    """Import a published axis.

    Args:
        source: Anything that `sources.find` reads.
        options: What the user states in addition.

    Raises:
        UserError: The source is malformed or leaves something open, such as the sign.
    """
    options = options or ImportOptions()
    found = find(str(source))
    material = _gather(found, options)
    evidence = _evidence(found, material, options.sign)
    role_ward = evidence[0].side == "role"
    axis, converted = _anchored(-material.stored if role_ward else material.stored, material)
    ceilings = material.ceilings
    sign.check_along(axis.direction, material.vectors, ceilings.layers & material.vectors.keys())
    turned = ["the stored vectors point toward the roles -> turned around"] if role_ward else []
    record = {
        "source": found.name,
        **found.about,
        "files": found.files,
        "sign_evidence": [reason.record() for reason in evidence],
        "caps_from": ceilings.source,
        "conversions": [*found.conversions, *turned, *converted, *ceilings.conversions()],
    }
    manifest = {
        "format": FORMAT,
        "model": _model_entry(material, options),
        "probe_layer": material.probe,
        "cap": {"layers": list(floors.choose_band(ceilings, options.band)), "floor": ceilings.main},
        "anchors": material.anchors is not None,
        "notes": [],
        "roles": role_entries(found.roles, axis, material.probe),
        "import": record,
    }
    # The persona map is centred on the mean role vector, which is known only with anchors.
    components = principal_components(found.roles, axis.direction) if material.anchors else None
    axis = replace(axis, manifest=manifest, pca=components)
    check_axis(axis, found.name, "check the files and the options of the import")
    manifest["notes"] = _notes(axis, material)
    return axis


def role_mean(roles: dict[str, Tensor]) -> Tensor:
    """Mean of the role vectors, [L, D] float32.

    They are added one at a time, because hundreds of them would not fit in memory as float32.
    """
    total = torch.zeros_like(next(iter(roles.values())), dtype=torch.float64)
    for vector in roles.values():
        total += vector
    return (total / len(roles)).float()


def role_entries(roles: dict[str, Tensor], axis: AssistantAxis, probe: int) -> list[dict[str, Any]]:
    """The manifest's roles: name, and projection in axis units at the probe layer, lowest first."""
    entries = []
    for name, vector in roles.items():
        raw = float(vector[probe].float() @ axis.unit[probe])
        entries.append({"name": name, "projection": round(axis.to_units(raw, probe), 4)})
    return sorted(entries, key=lambda entry: entry["projection"])


def principal_components(roles: dict[str, Tensor], direction: Tensor) -> Tensor | None:
    """First three principal components of the centred role vectors at each layer, [3, L, D] float32.

    They are unit vectors. The sign of a component is arbitrary, so each gets the one with a cosine >= 0 with
    `direction` [L, D]. None where there are too few roles, or too similar ones, for three components.
    """
    layers = []
    for layer, toward in enumerate(direction):
        vectors = torch.stack([vector[layer] for vector in roles.values()]).double()
        found = pca(vectors, toward, COMPONENTS).directions
        if len(found) < COMPONENTS:
            return None
        layers.append(found)
    return torch.stack(layers, dim=1) if layers else None


def _gather(found: Found, options: ImportOptions) -> _Material:
    shape = _shape(found)
    model = _model(found, options.model_id, shape)
    vectors, ceilings = _from_config(found.config, shape[0], options, model)
    if options.caps is not None:
        given = floors.from_json(options.caps, shape[0])
        given.caps = (ceilings.caps if ceilings else {}) | given.caps
        ceilings = given
    elif ceilings is None and found.known is not None and found.known.caps_apply:
        ceilings = floors.from_registry(found.known.model)
    if ceilings is None:
        raise UserError(
            f"There are no floors in {found.name}, so nothing says where to cap: give --caps FILE with "
            '{"layer": ceiling on the role-ward vector}, or the folder that holds a capping_config.pt.'
        )
    probe = options.probe_layer
    if probe is None:
        probe = model.probe_layer if model else shape[0] // 2
    if not 0 <= probe < shape[0]:
        raise UserError(f"--probe-layer {probe} is not a layer of this axis; give 0 to {shape[0] - 1}.")
    stored = found.axis if found.axis is not None else stack(vectors, shape[0])
    anchors = None
    if found.default is not None and found.roles:
        anchors = (role_mean(found.roles), found.default)
    return _Material(stored, vectors, ceilings, model, probe, anchors)


def _shape(found: Found) -> tuple[int, int]:
    """Layers and hidden size; for a capping config without an axis, by its highest layer."""
    if found.axis is None:
        assert found.config is not None
        places = list(found.config.vectors.values())
        return max(layer for layer, _ in places) + 1, places[0][1].shape[0]
    layers, hidden = found.axis.shape
    for layer, vector in found.config.vectors.values() if found.config else ():
        if layer >= layers or vector.shape[0] != hidden:
            raise UserError(
                f"The capping config of {found.name} has a vector of size {vector.shape[0]} for layer "
                f"{layer}, but the axis is {layers} layers of {hidden}, so these files do not belong "
                "together; get them again."
            )
    return layers, hidden


def _model(found: Found, model_id: str | None, shape: tuple[int, int]) -> PublishedModel | None:
    """The published model, judged by the user's model id, the file's content, or the folder's name."""
    if model_id is None and found.known is not None:
        return found.known.model
    model = match_model(model_id or found.folder)
    if model is None or (model.layers, model.hidden_size) == shape:
        return model
    if model_id is None:  # a folder may have any name
        return None
    raise UserError(
        f"{model.name} has {model.layers} layers of {model.hidden_size}, but {found.name} holds {shape[0]} "
        f"layers of {shape[1]}; check --model-id."
    )


def _from_config(
    config: CappingConfig | None, layers: int, options: ImportOptions, model: PublishedModel | None
) -> tuple[dict[int, Tensor], floors.Ceilings | None]:
    """Capping vectors by layer, and the ceilings of the chosen experiment."""
    if config is None:
        if options.experiment is not None:
            raise UserError("There is no capping config to take --experiment from; give --caps FILE instead.")
        return {}, None
    experiment = config.pick(options.experiment, model.experiment if model else None)
    chosen = config.at_layers(experiment)
    vectors = {layer: config.vectors[name][1] for layer, name in chosen.items()}
    return vectors, floors.from_config(config, experiment, chosen)


def _evidence(found: Found, material: _Material, stated: Side | None) -> list[sign.Evidence]:
    if found.axis is None and stated == "assistant":
        raise UserError(
            "--sign assistant cannot be right for a capping config: its ceilings would push a model away "
            "from the Assistant; check where the file comes from."
        )
    measured = []
    if material.anchors is not None:
        mean, default = material.anchors
        used = material.ceilings.layers | {material.probe}
        measured.append(sign.from_means(material.stored, default, mean, used))
    if found.axis is not None and material.vectors:
        measured.append(sign.from_capping(material.stored, material.vectors))
    return sign.decide(found.name, found.known, stated, measured)


def _anchored(direction: Tensor, material: _Material) -> tuple[AssistantAxis, list[str]]:
    """The axis with floors and the means that its units are measured from; what was changed, in sentences.

    With anchors, the length of each layer's direction is set to the distance from role mean to default
    mean along it. Without, the role mean is set to 0 and the default mean to the direction itself.
    """
    named = material.ceilings.floors(direction.shape[0])
    if material.anchors is None:
        return AssistantAxis(direction, torch.zeros_like(direction), direction.clone(), named), []
    mean, default = material.anchors
    norm = direction.norm(dim=-1)
    gap = ((default - mean) * direction).sum(-1) / norm
    length = torch.where(gap > 0, gap, norm)  # at layers that are neither read nor capped, gap may be noise
    change = float((length / norm - 1).abs().max())
    converted = (
        f"length of the axis set to the distance from role mean to default mean (by {change:.2%} at most)"
    )
    return AssistantAxis(direction * (length / norm)[:, None], mean, default, named), [converted]


def _model_entry(material: _Material, options: ImportOptions) -> dict[str, Any]:
    """The manifest's `model`. It lacks architecture and vocabulary, which no published file states."""
    layers, hidden = material.stored.shape
    entry: dict[str, Any] = {"layers": layers, "hidden_size": hidden}
    if material.model is not None:
        entry |= {"id": material.model.model_id, "dtype": "bfloat16"}  # the paper's models ran in bfloat16
    return entry | ({"id": options.model_id} if options.model_id else {})


def _notes(axis: AssistantAxis, material: _Material) -> list[str]:
    """Sentences to show wherever this axis is used."""
    notes = list(material.ceilings.notes)
    if material.anchors is None:
        return [NO_ANCHORS, *notes]
    first, last = axis.cap_band
    far = [
        layer
        for layer in range(first, last + 1)
        if abs(axis.floor_units(axis.cap_floor, layer)) > _MAX_FLOOR_UNITS
    ]
    if far:
        notes.append(
            f"The floor at layers {floors.spans(far)} lies more than {_MAX_FLOOR_UNITS:g} axis units "
            "from the average role: the ceilings may belong to another axis."
        )
    return notes
