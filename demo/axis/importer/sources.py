"""Reads a published axis from a file, a folder laid out like the published data set, or the hub."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demo.axis.importer.by_layer import by_layer, is_by_layer
from demo.axis.importer.capping_config import CappingConfig, is_capping_config, parse_config
from demo.axis.importer.formats import SUFFIXES, check_matrix, named, read_content, read_matrix
from demo.axis.published import DATASET, KnownFile, known_file
from demo.utils.errors import UserError, first_sentence
from demo.utils.files import file_sha256

AXIS, DEFAULT, CONFIG, ROLES = "assistant_axis", "default_vector", "capping_config", "role_vectors"

_MAX_ROLES = 2000

_HUB = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/([\w./-]+))?")

_HUB_SHORT = re.compile(r"([\w.-]+/[\w.-]+)():([\w./-]+)")


@dataclass
class Found:
    """What a source holds. Tensors are [L, D] as stored; their sign is not decided yet.

    Attributes:
        name: Of the source, for messages and the manifest.
        folder: Name of the folder, which may be that of the model.
        axis: float32, or None where the source is only a capping config.
        default: Mean activation of the default Assistant, float32, or None.
        roles: Role -> mean activation, in the file's own dtype, which takes half the memory of float32.
        config: The capping config, or None.
        known: The published file that the axis, or the only config, was recognised as; None for any other.
        files: Name, SHA-256 and meaning of each file that was read, for the manifest.
        about: Where the source is from, for the manifest.
        conversions: What reading changed, in sentences, for the manifest.
    """

    name: str
    folder: str
    axis: Tensor | None = None
    default: Tensor | None = None
    roles: dict[str, Tensor] = field(default_factory=dict)
    config: CappingConfig | None = None
    known: KnownFile | None = None
    files: list[dict[str, Any]] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    conversions: list[str] = field(default_factory=list)

    def add(self, path: Path, what: str) -> KnownFile | None:
        """Record a file that was read. Returns the published file that it is, or None."""
        digest = file_sha256(path)
        known = known_file(digest)
        self.files.append({"file": path.name, "sha256": digest, "what": what})
        if known is not None:
            self.files[-1]["known_as"] = known.what
        return known


def is_importable(source: str | Path) -> bool:
    """Whether `find` can read this; anything else may be an axis folder or the slug of a shipped axis."""
    path = Path(source).expanduser()
    if path.is_dir():
        return _member(path, AXIS) is not None or any(_member(folder, AXIS) for folder in path.glob("*/"))
    return path.suffix in SUFFIXES or _hub_parts(str(source)) is not None


def find(source: str) -> Found:
    """Read a published axis.

    Args:
        source: A file, a folder, hf://owner/dataset/folder or owner/dataset:folder.

    Raises:
        UserError: There is nothing to import, or it is malformed.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path)
    if path.is_file():
        beside = {kind: _member(path.parent, kind) for kind in (AXIS, DEFAULT, CONFIG)}
        if (
            path in (beside[AXIS], beside[CONFIG])
            and sum(member is not None for member in beside.values()) > 1
        ):
            return _read_folder(path.parent)  # the files beside it show which way it points
        return _read_file(path)
    hub = _hub_parts(source)
    if hub is None:
        raise UserError(
            f"There is nothing to import at {source!r}: give a .pt file, a folder with {AXIS}.pt, or "
            f"hf://{DATASET}/qwen-3-32b."
        )
    return _from_hub(*hub)


def _read_file(path: Path) -> Found:
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} is not a tensor file: give one that ends in {', '.join(SUFFIXES)}.")
    if path.stem == DEFAULT or path.parent.name in (ROLES, "trait_vectors"):
        raise UserError(f"{path} is a mean activation, not an axis; give the folder that holds {AXIS}.pt.")
    content = read_content(path)
    found = Found(path.name, path.resolve().parent.name)
    if is_capping_config(content):
        found.config = parse_config(content, path)
        found.known = found.add(path, "capping config")
        return found
    if is_by_layer(content) and "axis" not in content:
        found.axis = _complete(by_layer(content, path).vectors, path, found)
        found.known = found.add(path, "axis, one vector per layer")
        return found
    if isinstance(content, dict):
        if "axis" not in content:
            raise UserError(
                f"{path} holds a dict without 'axis' (it has {named(content)}); give an axis file."
            )
        found.about |= _plain(content.get("metadata"))
        found.axis = check_matrix(content["axis"], path).float()
        found.known = found.add(path, "axis, from a dict")
        return found
    found.axis = check_matrix(content, path).float()
    found.known = found.add(path, "axis, a bare tensor")
    return found


def _complete(vectors: dict[int, Tensor], path: Path, found: Found) -> Tensor:
    """An axis [L, D] from vectors by layer, up to the last layer that has one. Raises UserError."""
    if 0 not in vectors and 1 in vectors and path.suffix == ".gguf":
        vectors = {0: vectors[1], **vectors}
        found.conversions.append("control vectors have none at layer 0 -> that of layer 1 stands in there")
    layers = max(vectors) + 1
    missing = [layer for layer in range(layers) if layer not in vectors]
    if missing or len({vector.shape for vector in vectors.values()}) > 1:
        what = f"no vector for layer {missing[0]}" if missing else "vectors of different sizes"
        raise UserError(
            f"{path} has {what}, so it is no complete axis; add it beside one with python -m demo.axis add."
        )
    return torch.stack([vectors[layer] for layer in range(layers)])


def _read_folder(folder: Path) -> Found:
    axis = _member(folder, AXIS)
    if axis is None:
        inside = sorted(child.name for child in folder.glob("*/") if _member(child, AXIS))
        hint = (
            f"give one of its folders {', '.join(inside)}" if inside else "give a folder that does, or a file"
        )
        raise UserError(f"{folder} holds no {AXIS}.pt; {hint}.")
    found = Found(str(folder), folder.resolve().name)
    found.axis = read_matrix(axis, "axis").float()
    found.known = found.add(axis, "axis")
    default = _member(folder, DEFAULT)
    if default is not None:
        found.default = _check_shape(read_matrix(default, "vector"), found.axis, default).float()
        found.add(default, "mean activation of the default Assistant")
    config = _member(folder, CONFIG)
    if config is not None:
        found.config = parse_config(read_content(config), config)
        found.add(config, "capping config")
    _read_roles(folder / ROLES, found)
    return found


def _read_roles(folder: Path, found: Found) -> None:
    paths = sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES and path.stem != "default")
    if len(paths) > _MAX_ROLES:
        raise UserError(
            f"{folder} holds {len(paths)} files, more than {_MAX_ROLES} roles; give another folder."
        )
    assert found.axis is not None
    digest = hashlib.sha256()
    for path in paths:
        found.roles[path.stem] = _check_shape(read_matrix(path, "vector"), found.axis, path)
        digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    if paths:
        entry = {"file": f"{ROLES}/", "count": len(paths), "what": "mean activation of each role"}
        # One hash stands for hundreds of files: that of the lines "name sha256", ordered by name.
        found.files.append({**entry, "sha256_of_list": digest.hexdigest()})


def _check_shape(tensor: Tensor, axis: Tensor, path: Path) -> Tensor:
    """Return `tensor` if it has the axis's shape. Raises UserError."""
    if tensor.shape != axis.shape:
        raise UserError(
            f"{path} has shape {tuple(tensor.shape)}, but the axis beside it has {tuple(axis.shape)}; "
            "get both again."
        )
    return tensor


def _member(folder: Path, stem: str) -> Path | None:
    """The file called `stem` in a published folder, in any of the formats, or None."""
    paths = (folder / f"{stem}{suffix}" for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _hub_parts(source: str) -> tuple[str, str, str] | None:
    """Data set, revision ("" for the newest) and folder that `source` names on the hub, or None."""
    match = _HUB.fullmatch(source) or _HUB_SHORT.fullmatch(source)
    if match is None or ".." in source:
        return None
    return match[1], match[2] or "", (match[3] or "").strip("/")


def _from_hub(dataset: str, revision: str, folder: str) -> Found:
    """Download what an import needs, without the trait vectors, and read it."""
    from huggingface_hub import snapshot_download

    prefix = f"{folder}/" if folder else ""
    wanted = [*(f"{prefix}{kind}.*" for kind in (AXIS, DEFAULT, CONFIG)), f"{prefix}{ROLES}/*"]
    try:
        snapshot = snapshot_download(
            dataset, repo_type="dataset", revision=revision or None, allow_patterns=wanted
        )
    except Exception as error:  # the hub's client raises its own errors and those of HTTP library and system
        raise UserError(
            f"The data set {dataset} could not be downloaded ({first_sentence(error)}): check its name and "
            "the connection, or download the folder yourself and give its path."
        ) from error
    if not (Path(snapshot) / folder).is_dir():
        raise UserError(f"The data set {dataset} has no folder {folder!r}; check its name on the hub.")
    found = _read_folder(Path(snapshot) / folder)
    found.name, found.folder = f"{dataset}/{folder}".rstrip("/"), (folder or dataset).rpartition("/")[2]
    found.about |= {"dataset": dataset, "folder": folder, "revision": Path(snapshot).name}
    return found


def _plain(metadata: object) -> dict[str, Any]:
    """The short plain values of an untrusted metadata dict, for the manifest."""
    if not isinstance(metadata, dict):
        return {}
    kept = {
        str(key)[:80]: value[:200] if isinstance(value, str) else value
        for key, value in list(metadata.items())[:20]
        if isinstance(value, str | bool) or (isinstance(value, int) and abs(value) < 2**53)
    }
    return {"metadata": kept}
