"""Finds the files of a model: the default model, a local folder, a GGUF file, or a model on the hub."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.models.default import DEFAULT_MODEL, ensure_default_model, model_cache_dir
from demo.models.default_download import GGUF_SHA256
from demo.models.gguf_file import GgufHeader, check_gguf, is_gguf
from demo.utils.errors import UserError, first_sentence
from demo.utils.files import file_sha256
from demo.utils.progress import Progress

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")

# Only files of the top folder: in subfolders, repositories keep other formats or the same weights again.
_WANTED = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"]

_UNWANTED = ["*/*", "consolidated*", "adapter*"]


@dataclass(frozen=True)
class ModelSource:
    """Where a model is.

    Attributes:
        folder: The folder that holds its files.
        slug: Its name, safe for file names: a-z, 0-9, dot and hyphen.
        revision: SHA-256 of a GGUF file (of the default model's too), a hub commit hash, or None for a local
            folder.
        gguf: What the GGUF file states, if the model is one file in `folder`.
    """

    folder: Path
    slug: str
    revision: str | None
    gguf: GgufHeader | None = None


def find_source(
    spec: str, *, cache_dir: Path | None, trust_remote_code: bool, progress: Progress
) -> ModelSource:
    """Find the model named by `spec`, downloading it where needed.

    Args:
        spec: The default model's name, a local folder, a GGUF file, or a hub id.
        cache_dir: Where to keep the converted default model and hub downloads. None stands for the
            user's cache for the former and the hub's own cache for the latter.
        trust_remote_code: Whether code in the model's repository may be downloaded and run.
        progress: Called with a message and a fraction 0..1, or None where that is unknown.

    Raises:
        UserError: There is no such model, it cannot be downloaded, or folder or file do not hold a model
            that this program can load.
    """
    if spec.lower() == DEFAULT_MODEL:
        folder = ensure_default_model(cache_dir or model_cache_dir(), progress)
        return ModelSource(folder, DEFAULT_MODEL, GGUF_SHA256)
    path = Path(spec).expanduser()
    if spec and path.is_dir():
        check_folder(path, spec, trust_remote_code)
        return ModelSource(path, slugify(path.resolve().name), None)
    if path.is_file():
        return _file_source(path, spec, progress)
    if path.is_absolute() or spec.startswith((".", "~")) or path.suffix.lower() == ".gguf":
        raise UserError(f"There is no folder or file {spec}: check the path passed to --model.")
    if not _HUB_ID.fullmatch(spec):
        raise UserError(
            f"No model is called {spec!r}: pass {DEFAULT_MODEL} (the default), a local folder, a GGUF "
            "file, or a hub id such as Qwen/Qwen3-0.6B."
        )
    folder = _fetch_from_hub(spec, cache_dir, trust_remote_code, progress)
    check_folder(folder, spec, trust_remote_code)
    return ModelSource(folder, slugify(spec), folder.name)


def slugify(spec: str) -> str:
    """The last part of a path or hub id in lower case, with only a-z, 0-9, dot and hyphen."""
    last = re.split(r"[/\\]", spec.rstrip("/\\"))[-1].lower()
    return re.sub(r"[^a-z0-9.-]+", "-", last).strip(".-") or "model"


def check_folder(folder: Path, spec: str, trust_remote_code: bool = False) -> None:
    """Check that `folder` holds a complete model with safetensors weights and a tokenizer.

    Raises:
        UserError: Something is missing; the message calls the model `spec`.
    """
    if not (folder / "config.json").is_file():
        files = sorted(folder.glob("*.gguf"))
        if files:
            raise UserError(
                f"{spec} holds no config.json, but a GGUF file: pass the file itself, --model {files[0]}."
            )
        raise UserError(
            f"{spec} is not a model folder, because it holds no config.json: pass a folder that does."
        )
    missing = _missing_weights(folder)
    if missing:
        if any(path for pattern in _PICKLES for path in folder.glob(pattern)):
            raise UserError(
                f"{spec} has only pickled weights, which can run code when opened, so they are refused: "
                "convert them to safetensors, or choose another model."
            )
        raise UserError(
            f"{spec} lacks the weights {missing}: only complete models in safetensors format can be loaded."
        )
    if not trust_remote_code and not any((folder / name).is_file() for name in _TOKENIZERS):
        raise UserError(
            f"{spec} holds no tokenizer: put tokenizer.json and tokenizer_config.json beside config.json."
        )


def _file_source(path: Path, spec: str, progress: Progress) -> ModelSource:
    """The model in a GGUF file. Its checksum takes about a second per gigabyte, and brings it into memory."""
    try:
        known = is_gguf(path)
    except OSError as error:
        raise UserError(f"{spec} cannot be read ({error.strerror}): check its permissions.") from error
    if not known:
        raise UserError(
            f"{spec} is not a GGUF file: pass one, or the folder that holds config.json and safetensors "
            "weights."
        )
    header = check_gguf(path, spec)
    progress(f"computing the checksum of {spec}", None)
    return ModelSource(
        path.parent, slugify(path.name[: -len(path.suffix)] or path.name), file_sha256(path), header
    )


def reporting_bar(message: str, progress: Progress) -> type[Any]:
    """A progress bar class for the hub's client, which draws nothing and reports bytes to `progress`."""
    from tqdm.auto import tqdm

    class ReportingBar(tqdm):  # type: ignore[type-arg, misc, unused-ignore]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._shown = kwargs.get("unit") == "B" and not str(kwargs.get("desc")).startswith("Downloading")
            kwargs.update(file=io.StringIO(), disable=False)
            kwargs.pop("name", None)
            super().__init__(*args, **kwargs)

        def display(self, *args: Any, **kwargs: Any) -> None:
            if self._shown and self.total:
                progress(message, min(self.n / self.total, 1.0))

    return ReportingBar


def _missing_weights(folder: Path) -> str:
    """The first missing weight file, or an empty string. Several files are listed in an index."""
    if (folder / _WEIGHTS).is_file():
        return ""
    if not (folder / _INDEX).is_file():
        return _WEIGHTS
    try:
        shards = sorted(set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError):
        return f"that {_INDEX} should name"
    return next((name for name in shards if not (folder / name).is_file()), "")


def _fetch_from_hub(spec: str, cache_dir: Path | None, trust_remote_code: bool, progress: Progress) -> Path:
    """The snapshot folder of a hub model, named after its commit; from the hub's cache when offline."""
    from huggingface_hub import snapshot_download

    progress(f"looking for {spec}", None)
    try:
        found = snapshot_download(
            spec,
            cache_dir=cache_dir,
            allow_patterns=[*_WANTED, "*.py"] if trust_remote_code else _WANTED,
            ignore_patterns=_UNWANTED,
            tqdm_class=reporting_bar(f"downloading {spec}", progress),
        )
    except Exception as error:  # the hub's client raises its own errors and those of HTTP library and system
        # A snapshot that lacks some of the wanted files can still be a complete model: check_folder decides.
        partial = getattr(error, "snapshot_path", None)
        if partial is None:
            raise _hub_error(spec, error) from error
        found = partial
    return Path(found)


def _hub_error(spec: str, error: Exception) -> UserError:
    from huggingface_hub import errors
    from huggingface_hub.constants import is_offline_mode

    if isinstance(error, errors.GatedRepoError):  # a subclass of RepositoryNotFoundError, so it comes first
        return UserError(
            f"{spec} is gated: accept its licence on its hub page, run `hf auth login`, then start again."
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return UserError(
            f"The hub has no model {spec}, or it is private: check the name, or run "
            "`hf auth login` if it is yours."
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        if is_offline_mode():
            why = "the hub is switched off (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE)"
            advice = "unset that and connect once"
        else:
            why, advice = "the hub is out of reach", "connect once"
        return UserError(f"{spec} is not in the local cache and {why}: {advice}, or pass a local folder.")
    return UserError(
        f"{spec} could not be downloaded ({first_sentence(error)}): check the connection and the free "
        "disk space, then start again."
    )
