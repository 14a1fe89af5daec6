"""The Assistant Axis: directions, means, floors and their units, and the files that hold them.

direction[l] = mean activation of default-Assistant replies - mean role vector, at the output of decoder layer l
(arXiv 2601.10387, section 2). It points TOWARD the Assistant. Raw projection p = <h, unit[l]>. Axis units are
(p - p_role_mean) / ||direction[l]||: 0 is the average role, 1 is the default Assistant.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from demo.axis_check import check_axis
from demo.errors import UserError
from demo.jsonfile import read_object

if TYPE_CHECKING:
    from demo.model_facts import ModelFacts
    from demo.models import LoadedModel

FORMAT = 1
FLOOR_NAMES = ("p05", "p25", "p50", "p75")  # of an extracted axis; an imported one has others
_REQUIRED_TENSORS = ("direction", "role_mean", "default_mean")
_FLOOR = "floor_"
_CHECKSUM = "tensors_sha256"
_REQUIRED_KEYS = ("format", "model", "probe_layer", "cap")
AXES_DIR = Path(__file__).resolve().parent.parent / "axes"

Number = TypeVar("Number", float, Tensor)


@dataclass(frozen=True)
class AssistantAxis:
    """An axis for one model of L decoder layers and hidden size D. All tensors float32 on the CPU.

    direction, role_mean, default_mean [L, D]; floors: name -> [L] raw projection units, -inf at layers without a floor,
    where "p25" is the 25th percentile of default-Assistant reply means; manifest: the content of axis.json;
    pca [3, L, D] or None: unit rows, the first principal components of the centred role vectors of each layer, each with
    its sign such that the Assistant's side is positive.
    """

    direction: Tensor
    role_mean: Tensor
    default_mean: Tensor
    floors: dict[str, Tensor]
    manifest: dict[str, Any] = field(default_factory=dict)
    pca: Tensor | None = None

    @cached_property
    def norm(self) -> Tensor:
        """||direction|| per layer, [L], raw units. The length of one axis unit."""
        return self.direction.norm(dim=-1)

    @cached_property
    def unit(self) -> Tensor:
        """Unit direction toward the Assistant per layer, [L, D]."""
        return self.direction / self.norm[:, None]

    @cached_property
    def origin(self) -> Tensor:
        """Raw projection of the mean role vector per layer, [L]: 0 in axis units."""
        return (self.role_mean * self.unit).sum(-1)

    @property
    def layers(self) -> int:
        return self.direction.shape[0]

    @property
    def probe_layer(self) -> int:
        return int(self.manifest["probe_layer"])

    @property
    def cap_band(self) -> tuple[int, int]:
        """First and last capped layer, both inclusive."""
        first, last = self.manifest["cap"]["layers"]
        return int(first), int(last)

    @property
    def cap_floor(self) -> str:
        return str(self.manifest["cap"]["floor"])

    @property
    def default_range(self) -> tuple[float, float] | None:
        """5th and 95th percentile of default-Assistant reply means at the probe layer, axis units; None when unknown."""
        span = self.manifest.get("default_range")
        return None if span is None else (float(span[0]), float(span[1]))

    def to_units(self, raw: Number, layer: int) -> Number:
        """Raw projection at `layer` -> axis units (0 = average role, 1 = default Assistant)."""
        return (raw - float(self.origin[layer])) / float(self.norm[layer])

    def floor_units(self, name: str, layer: int) -> float:
        """A named floor at `layer`, in axis units; -inf where it has none."""
        return self.to_units(float(self.floor(name)[layer]), layer)

    def floor(self, name: str) -> Tensor:
        """A named floor for every layer, [L], raw units. Raises UserError for an unknown name."""
        if name not in self.floors:
            raise UserError(
                f"There is no floor {name!r} in this axis; choose one of {', '.join(self.floors)}."
            )
        return self.floors[name]

    def floor_layers(self, name: str) -> tuple[int, ...]:
        """Layers at which a named floor exists. Raises UserError for an unknown name."""
        return tuple(torch.isfinite(self.floor(name)).nonzero().flatten().tolist())

    def check_model(self, model: LoadedModel | ModelFacts) -> list[str]:
        """Refuse a model this axis cannot belong to (UserError); return notes to show for one it may not fit."""
        made_for = self.manifest["model"]
        have: dict[str, Any] = {
            "architecture": model.architecture,
            "layers": model.layer_count,
            "hidden_size": model.hidden_size,
            "vocab_size": len(model.tokenizer),
        }
        for key, value in have.items():
            wanted = made_for.get(key, value)
            if wanted != value:
                raise UserError(
                    f"This axis was made for {made_for.get('id', 'another model')} ({key} {wanted}) and cannot be "
                    f"used with {model.spec} ({key} {value}); give --axis one that was extracted from this model."
                )
        notes = [str(note) for note in self.manifest.get("notes", [])]
        revision, dtype = made_for.get("revision"), made_for.get("dtype")
        if "id" not in made_for:
            notes.append("The axis does not say which model it was made from: floors may not transfer.")
        elif made_for["id"] != model.spec or (revision and model.revision and revision != model.revision):
            notes.append(
                f"The axis was extracted from {made_for['id']}, not from this checkpoint: floors may not transfer."
            )
        if dtype and dtype != str(model.dtype).removeprefix("torch."):
            notes.append(
                f"The axis was extracted in {dtype}; this model runs in {model.dtype}, so floors may be slightly off."
            )
        return notes

    def save(self, folder: Path) -> None:
        """Write axis.safetensors and axis.json into `folder`, which is made when missing.

        Raises UserError when that fails; what was there before is then whole.
        """
        tensors = save(self._tensors())
        manifest = {**self._manifest(), _CHECKSUM: hashlib.sha256(tensors).hexdigest()}
        text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        parts = [(folder / ".axis.safetensors.part", tensors), (folder / ".axis.json.part", text.encode())]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path, content in parts:
                path.write_bytes(content)
            os.replace(parts[0][0], folder / "axis.safetensors")
            os.replace(parts[1][0], folder / "axis.json")
        except OSError as error:
            for path, _ in parts:
                path.unlink(missing_ok=True)
            raise UserError(
                f"{folder} cannot be written ({error.strerror}): free some space or choose another folder."
            ) from error

    def to_bytes(self) -> tuple[bytes, str]:
        """The same two files, to be sent to another process."""
        return save(self._tensors()), json.dumps(self._manifest(), allow_nan=False)

    def _manifest(self) -> dict[str, Any]:
        """Without what speaks of a file that this need not be."""
        return {
            name: value for name, value in {**self.manifest, "format": FORMAT}.items() if name != _CHECKSUM
        }

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {
            "direction": self.direction,
            "role_mean": self.role_mean,
            "default_mean": self.default_mean,
        }
        tensors |= {f"{_FLOOR}{name}": value for name, value in self.floors.items()}
        if self.pca is not None:
            tensors["pca"] = self.pca
        return {key: value.float().contiguous() for key, value in tensors.items()}


def load_axis(where: str | Path) -> AssistantAxis:
    """Load an axis folder, given by path or by the slug of a shipped one, or read a published axis (`demo.axis_import`).

    Raises UserError on anything malformed.
    """
    folder = axis_folder(where)
    if folder is None:
        from demo.axis_import import import_axis  # here, because the importer builds on this module

        return import_axis(where)
    manifest = _read_manifest(folder / "axis.json")
    file = folder / "axis.safetensors"
    try:
        content = file.read_bytes()
        tensors = load(content)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read ({error}); extract the axis again.") from error
    digest = hashlib.sha256(content).hexdigest()
    if manifest.pop(_CHECKSUM, digest) != digest:
        raise UserError(f"{file} is not the file that axis.json was written with; extract the axis again.")
    return _from_tensors(tensors, manifest, file)


def axis_from_bytes(tensors: bytes, manifest: dict[str, Any], where: str) -> AssistantAxis:
    """The axis whose two files were sent as `to_bytes` made them. where: for the sentence of the UserError on anything malformed."""
    _check_keys(manifest, where)
    try:
        return _from_tensors(load(tensors), manifest, where)
    except SafetensorError as error:
        raise UserError(f"{where} cannot be read ({error}).") from error


def _from_tensors(tensors: dict[str, Tensor], manifest: dict[str, Any], where: object) -> AssistantAxis:
    missing = [name for name in _REQUIRED_TENSORS if name not in tensors]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}; extract the axis again.")
    axis = AssistantAxis(
        direction=tensors["direction"].float(),
        role_mean=tensors["role_mean"].float(),
        default_mean=tensors["default_mean"].float(),
        floors={
            key.removeprefix(_FLOOR): tensors[key].float()
            for key in sorted(tensors)
            if key.startswith(_FLOOR)
        },
        manifest=manifest,
        pca=tensors["pca"].float() if "pca" in tensors else None,
    )
    check_axis(axis, where)
    return axis


def axis_digest(axis: AssistantAxis) -> str:
    """Changes with the axis's directions, so that figures of another axis are noticed."""
    return hashlib.sha256(axis.direction.contiguous().numpy().tobytes()).hexdigest()[:16]


def axis_folder(where: str | Path) -> Path | None:
    """The axis folder meant by `where`, a path or the slug of a shipped axis; None for a published axis, which has none. Raises
    UserError when it is neither."""
    for folder in (Path(where), AXES_DIR / str(where)):
        if (folder / "axis.json").is_file():
            return folder
    from demo.axis_import import is_importable

    if is_importable(where):
        return None
    shipped = sorted(path.parent.name for path in AXES_DIR.glob("*/axis.json"))
    raise UserError(
        f"No axis at {str(where)!r}: give a folder that holds axis.json, or one of {', '.join(shipped) or 'none shipped'}; "
        "make one with python -m demo.extraction."
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = read_object(path, "extract the axis again")
    _check_keys(manifest, path)
    return manifest


def _check_keys(manifest: dict[str, Any], where: object) -> None:
    missing = [key for key in _REQUIRED_KEYS if key not in manifest]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}; extract the axis again.")
    if manifest["format"] != FORMAT:
        raise UserError(
            f"{where} has format {manifest['format']!r}, but this program reads format {FORMAT}; update the program or the axis."
        )


if __name__ == "__main__":
    from demo.axis_import import main

    raise SystemExit(main())
