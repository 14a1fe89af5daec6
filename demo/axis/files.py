"""The files that hold an axis: axis.safetensors and axis.json, in a folder or sent to another process."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from demo.axis.axis import FORMAT, AssistantAxis, check_axis
from demo.axis.importer.build import import_axis
from demo.axis.importer.sources import is_importable
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.paths import AXES

_REQUIRED_TENSORS = ("direction", "role_mean", "default_mean")

_REQUIRED_KEYS = ("format", "model", "probe_layer", "cap")

_FLOOR_PREFIX = "floor_"

_CHECKSUM = "tensors_sha256"


def load_axis(where: str | Path) -> AssistantAxis:
    """Load an axis.

    Args:
        where: An axis folder, the slug of a shipped axis, or a published axis, which is imported.

    Raises:
        UserError: There is no axis, or it is malformed.
    """
    folder = axis_folder(where)
    if folder is None:
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


def save_axis(axis: AssistantAxis, folder: Path) -> None:
    """Write axis.safetensors and axis.json into `folder`, which is created if needed.

    Raises:
        UserError: Writing failed. Files that were there before are then intact.
    """
    tensors = save(_tensors(axis))
    manifest = {**_manifest(axis), _CHECKSUM: hashlib.sha256(tensors).hexdigest()}
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


def axis_folder(where: str | Path) -> Path | None:
    """The folder of the axis `where`, given by path or by the slug of a shipped axis.

    Returns:
        The folder, or None for a published axis, which has no axis.json.

    Raises:
        UserError: `where` is none of these.
    """
    for folder in (Path(where), AXES / str(where)):
        if (folder / "axis.json").is_file():
            return folder
    if is_importable(where):
        return None
    shipped = sorted(path.parent.name for path in AXES.glob("*/axis.json"))
    raise UserError(
        f"No axis at {str(where)!r}: give a folder that holds axis.json, or one of "
        f"{', '.join(shipped) or 'none shipped'}; make one with python -m demo.extraction."
    )


def axis_to_bytes(axis: AssistantAxis) -> tuple[bytes, str]:
    """The content of axis.safetensors and axis.json, to be sent to another process."""
    return save(_tensors(axis)), json.dumps(_manifest(axis), allow_nan=False)


def axis_from_bytes(tensors: bytes, manifest: dict[str, Any], where: str) -> AssistantAxis:
    """The axis that was sent as `axis_to_bytes` made it.

    Args:
        tensors: The content of axis.safetensors.
        manifest: The content of axis.json.
        where: Where they come from, for the error message.

    Raises:
        UserError: They are malformed.
    """
    _check_keys(manifest, where)
    try:
        return _from_tensors(load(tensors), manifest, where)
    except SafetensorError as error:
        raise UserError(f"{where} cannot be read ({error}); start the engine again.") from error


def axis_digest(axis: AssistantAxis) -> str:
    """A short hash of the axis's directions, to recognise figures that belong to another axis."""
    return hashlib.sha256(axis.direction.contiguous().numpy().tobytes()).hexdigest()[:16]


def _tensors(axis: AssistantAxis) -> dict[str, Tensor]:
    tensors = {"direction": axis.direction, "role_mean": axis.role_mean, "default_mean": axis.default_mean}
    tensors |= {f"{_FLOOR_PREFIX}{name}": value for name, value in axis.floors.items()}
    if axis.pca is not None:
        tensors["pca"] = axis.pca
    return {key: value.float().contiguous() for key, value in tensors.items()}


def _from_tensors(tensors: dict[str, Tensor], manifest: dict[str, Any], where: object) -> AssistantAxis:
    missing = [name for name in _REQUIRED_TENSORS if name not in tensors]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}; extract the axis again.")
    axis = AssistantAxis(
        direction=tensors["direction"].float(),
        role_mean=tensors["role_mean"].float(),
        default_mean=tensors["default_mean"].float(),
        floors={
            key.removeprefix(_FLOOR_PREFIX): tensors[key].float()
            for key in sorted(tensors)
            if key.startswith(_FLOOR_PREFIX)
        },
        manifest=manifest,
        pca=tensors["pca"].float() if "pca" in tensors else None,
    )
    check_axis(axis, where)
    return axis


def _manifest(axis: AssistantAxis) -> dict[str, Any]:
    """The manifest without the checksum, which belongs to one particular file."""
    manifest = {**axis.manifest, "format": FORMAT}
    return {name: value for name, value in manifest.items() if name != _CHECKSUM}


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
            f"{where} has format {manifest['format']!r}, but this program reads format {FORMAT}; "
            "update the program or the axis."
        )
