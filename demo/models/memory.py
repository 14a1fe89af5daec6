"""How much memory a model takes, estimated from its files before weights are read, and how much there is."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.models.gguf_file import GgufHeader
from demo.utils.errors import UserError

if TYPE_CHECKING:
    import torch

# Python, torch, transformers and a tokenizer, and what a forward pass works in.
PROGRAM_BYTES = 420_000_000

# The KV cache of a few short conversations. It grows with them, up to --kv-budget.
CACHE_BYTES = 400_000_000

# What the lists of vocabulary and merges take, per entry, while transformers reads a GGUF header.
_HEADER_BYTES_PER_ENTRY = 1000

_FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}

_LONGEST_HEADER = 100_000_000  # bytes, the limit of the safetensors format

# Limit, use, and statistics of a container's memory: control groups of version 2, then 1.
_CONTAINER = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What a model needs, in bytes.

    Attributes:
        weights: Its weights, in the number format it will run in.
        reading: More that is held at the peak of reading them, apart from files.
        files: Its files, as far as they are in memory beside the weights; the system can drop them.
    """

    weights: int
    reading: int = 0
    files: int = 0

    @property
    def peak(self) -> int:
        """The most memory that the program holds while it loads the model."""
        return self.weights + self.reading + self.files + PROGRAM_BYTES


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a machine, a container or a GPU, in bytes, and what to call it in a sentence."""

    free: int
    total: int
    name: str


def folder_need(folder: Path, itemsize: int) -> MemoryNeed | None:
    """What the safetensors files in `folder` need, or None where they cannot be understood.

    Args:
        folder: The model's folder.
        itemsize: Bytes per number in the format that it will run in.
    """
    weights = converted = 0
    for path in _weight_files(folder):
        try:
            tensors = _safetensors_header(path)
            for tensor in tensors.values():
                stored = _FLOATS.get(tensor["dtype"])
                start, end = (int(place) for place in tensor["data_offsets"])
                # Numbers of other kinds are those of a quantised model, which keeps them as they are.
                weights += (end - start) if stored is None else (end - start) // stored * itemsize
                converted += (end - start) if stored not in (None, itemsize) else 0
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
    return MemoryNeed(weights, files=converted) if weights else None


def gguf_need(header: GgufHeader, itemsize: int) -> MemoryNeed:
    """What the model in a GGUF file needs.

    It is read tensor by tensor. Each exists four times as float32 for a moment, which counts where one tensor
    is a large part of the model; the vocabulary's comes first in the file.
    """
    sizes = [tensor.elements for tensor in header.tensors.values()]
    counts = [header.fields.get(f"tokenizer.ggml.{name}") for name in ("tokens", "merges")]
    parsed = _HEADER_BYTES_PER_ENTRY * sum(count for count in counts if isinstance(count, int))
    weights = sum(sizes) * itemsize
    largest = 4 * 4 * max(sizes, default=0)
    return MemoryNeed(weights, parsed + max(largest - weights - header.file_bytes, 0), header.file_bytes)


def check_memory(spec: str, need: MemoryNeed | None, device: torch.device) -> str:
    """Compare a model's need with the memory of its device.

    Returns:
        A phrase for a progress line; an empty string where the need or the memory is not known.

    Raises:
        UserError: The model cannot fit, even if nothing else were in memory.
    """
    memory = device_memory(device)
    if need is None or memory is None:
        return ""
    least = need.weights + PROGRAM_BYTES + CACHE_BYTES
    peak = need.peak if device.type != "cuda" else need.weights + PROGRAM_BYTES
    if least > memory.total:
        raise UserError(
            f"{spec} needs about {_gb(least)} of memory and {memory.name} has {_gb(memory.total)} in all: "
            "try --dtype bfloat16, a smaller model, or a GPU with more memory."
        )
    phrase = f"takes about {_gb(peak)} of memory; {_gb(memory.free)} are free"
    if peak + CACHE_BYTES > memory.free:
        phrase += (
            ", which may not be enough: close other programs, or try --dtype bfloat16 or a smaller model"
        )
    return phrase


def device_memory(device: torch.device) -> Memory | None:
    """Memory of the GPU, or else of the machine or the container, swap space included; None if unknown."""
    if device.type != "cuda":
        return host_memory()
    import torch

    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError:  # a host that lends its GPU only for a moment
        return None
    return Memory(free, total, "this GPU")


def host_memory(groups: Path = Path("/sys/fs/cgroup")) -> Memory:
    """Memory of this machine with its swap space, or of the container where that has a lower limit.

    Args:
        groups: Where Linux shows the container's control groups.
    """
    import psutil

    machine = psutil.virtual_memory()
    for limit_name, used_name, statistics_name, cache_key in _CONTAINER:
        try:
            limit = int((groups / limit_name).read_text(encoding="ascii"))
            used = int((groups / used_name).read_text(encoding="ascii"))
            lines = (groups / statistics_name).read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):  # no such group, or "max"
            continue
        if limit < machine.total:
            cache = sum(int(line.split()[1]) for line in lines if line.split()[:1] == [cache_key])
            free = max(limit - used + cache, 0)
            return Memory(min(free, machine.available), limit, "this container")
    return Memory(machine.available, machine.total + psutil.swap_memory().total, "this machine")


def _weight_files(folder: Path) -> list[Path]:
    single = folder / "model.safetensors"
    return [single] if single.is_file() else sorted(folder.glob("model-*.safetensors"))


def _safetensors_header(path: Path) -> dict[str, dict[str, Any]]:
    """The tensors listed at the beginning of the file: dtype, shape and place by name."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return dict(header)


def _gb(count: int) -> str:
    size = count / 1e9
    return f"{size:.0f} GB" if size >= 20 else f"{math.ceil(size * 10) / 10:.1f} GB"
