"""What a GGUF file states about its model, read without its weights, and which files are refused."""

from __future__ import annotations

import importlib.util
import math
import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.utils.errors import UserError

MAGIC = b"GGUF"

# Those whose import by transformers was checked here, and whose decoder layers the program finds.
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3")

_VERSIONS = (2, 3)

# The format of each kind of number, by its id in the GGUF specification (ggml's docs/gguf.md).
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

_STRING, _ARRAY = 8, 9

_DEFAULT_ALIGNMENT = 32

_MOST_DIMENSIONS = 8

_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor in a GGUF file.

    Attributes:
        elements: How many numbers it holds.
        kind: The id of its quantization type.
        offset: Where it begins, in bytes from the beginning of the tensor data.
    """

    elements: int
    kind: int
    offset: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file states before its tensor data.

    Attributes:
        path: The file.
        fields: The metadata by key. An array of strings, such as the vocabulary, is given by its length.
        tensors: The tensors by name.
        data_start: Where the tensor data begins, in bytes from the beginning of the file.
        file_bytes: Size of the file.
    """

    path: Path
    fields: dict[str, Any]
    tensors: dict[str, GgufTensor]
    data_start: int
    file_bytes: int

    @property
    def architecture(self) -> str:
        """The architecture's name in GGUF, such as llama or qwen2."""
        return str(self.fields.get("general.architecture"))

    def own(self, key: str) -> Any:
        """The metadata under the architecture's own prefix, or None."""
        return self.fields.get(f"{self.architecture}.{key}")


def is_gguf(path: Path) -> bool:
    """Whether the file is one, by its first bytes, or claims to be one by its name."""
    if path.suffix.lower() == ".gguf":
        return True
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def check_packages(what: str) -> None:
    """Raise UserError when a package that transformers needs to read GGUF files is missing."""
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"Reading {what} needs {' and '.join(missing)}: run `pip install {' '.join(missing)}`."
        )


def check_gguf(path: Path, spec: str) -> GgufHeader:
    """Read the header of a GGUF file and check that this program can load the model in it.

    Raises:
        UserError: A package is missing, or the file is no GGUF file, damaged, one part of several, or holds
            something else than a language model of a known architecture; the message calls it `spec`.
    """
    check_packages("a GGUF file")
    header = read_header(path, spec)
    if _PART.search(path.name) and header.fields.get("split.count", 2) > 1:
        raise UserError(
            f"{spec} is one part of a model in several files: join them with `llama-gguf-split --merge`, "
            "then pass the joined file."
        )
    if header.architecture not in ARCHITECTURES or header.fields.get("general.type", "model") != "model":
        raise UserError(
            f"{spec} holds {_kind_of(header)}, which cannot be loaded from GGUF here: pass a model of one of "
            f"the architectures {', '.join(ARCHITECTURES)}, or a folder with safetensors weights."
        )
    expected = _expected_bytes(header, spec)
    if header.file_bytes < expected:
        raise UserError(
            f"{spec} is incomplete, with {header.file_bytes:,} of at least {expected:,} bytes: download it "
            "again."
        )
    return header


def read_header(path: Path, spec: str) -> GgufHeader:
    """Read metadata and tensor list.

    Raises:
        UserError: The file cannot be read, is not a GGUF file, or ends too early.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise UserError(
                    f"{spec} is not a GGUF file, whatever its name says: pass a GGUF file, or a folder with "
                    "config.json and safetensors weights."
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _Cursor(content).header(path, size, spec)
    except (struct.error, ValueError, OverflowError, MemoryError) as error:
        raise UserError(
            f"{spec} is not a complete GGUF file, because its header cannot be read: download it again."
        ) from error
    except OSError as error:
        raise UserError(f"{spec} cannot be read ({error.strerror}): check its permissions.") from error


class _Cursor:
    """Reads values from a file one after the other. Raises struct.error at the file's end."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._at = len(MAGIC)

    def header(self, path: Path, size: int, spec: str) -> GgufHeader:
        """Read the whole header."""
        (version,) = self.numbers("I")
        if version not in _VERSIONS:
            raise UserError(
                f"{spec} is of GGUF version {version}, and only versions 2 and 3 can be read: convert the "
                "model again with a current llama.cpp."
            )
        tensor_count, field_count = self.numbers("QQ")
        fields: dict[str, Any] = {}
        for _ in range(field_count):
            key = self.text()
            fields[key] = self.value(*self.numbers("I"))
        tensors: dict[str, GgufTensor] = {}
        for _ in range(tensor_count):
            name = self.text()
            (dimensions,) = self.numbers("I")
            if dimensions > _MOST_DIMENSIONS:
                raise ValueError(f"{dimensions} dimensions")
            shape = self.numbers(f"{dimensions}Q")
            kind, offset = self.numbers("IQ")
            tensors[name] = GgufTensor(math.prod(shape), kind, offset)
        alignment = int(fields.get("general.alignment", _DEFAULT_ALIGNMENT))
        return GgufHeader(path, fields, tensors, -(-self._at // alignment) * alignment, size)

    def numbers(self, form: str) -> tuple[Any, ...]:
        """Read little-endian numbers in the format of the module struct."""
        found = struct.unpack_from("<" + form, self._content, self._at)
        self._at += struct.calcsize("<" + form)
        return found

    def text(self) -> str:
        """Read a string."""
        start = self._skip_text()
        return self._content[start : self._at].decode("utf-8")

    def value(self, kind: int) -> Any:
        """Read a metadata value. Of an array of strings, only the length is kept."""
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.numbers(_NUMBERS.get(kind, "unknown"))[0]
        element, count = self.numbers("IQ")
        if element != _STRING:
            return list(self.numbers(f"{count}{_NUMBERS.get(element, 'unknown')}"))
        for _ in range(count):
            self._skip_text()
        return count

    def _skip_text(self) -> int:
        (length,) = self.numbers("Q")
        start = self._at
        self._at += length
        if self._at > len(self._content):
            raise struct.error("the string is longer than the file")
        return start


def _kind_of(header: GgufHeader) -> str:
    kind = header.fields.get("general.type", "model")
    return (
        f"something of the type {kind!r}"
        if kind != "model"
        else f"a model of the architecture {header.architecture!r}"
    )


def _expected_bytes(header: GgufHeader, spec: str) -> int:
    """The size that the file has at least, by its tensor list."""
    from gguf.constants import GGML_QUANT_SIZES

    sizes = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}
    ends = [0]
    for name, tensor in header.tensors.items():
        if tensor.kind not in sizes:
            raise UserError(
                f"{spec} holds the tensor {name} in an unknown quantization (type {tensor.kind}): install a "
                "newer version of the package gguf, or choose another quantization."
            )
        block, size = sizes[tensor.kind]
        ends.append(tensor.offset + tensor.elements // block * size)
    return header.data_start + max(ends)
