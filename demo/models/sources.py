"""From what the user typed to a folder with a model in it: the default model, a local folder, or a hub id."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.models.default import DEFAULT_MODEL, ensure_default_model, model_cache_dir
from demo.models.default_download import GGUF_SHA256, Progress
from demo.utils.errors import UserError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")

# Only the top folder: repositories also keep other formats or the same weights again below it.
_WANTED = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"]

_UNWANTED = ["*/*", "consolidated*", "adapter*"]


@dataclass(frozen=True)
class ModelSource:
    """Where a model lies: its folder, a name safe for folders, and what pins its content if anything."""

    folder: Path
    slug: str
    revision: str | None


def find_source(
    spec: str, *, cache_dir: Path | None, trust_remote_code: bool, progress: Progress
) -> ModelSource:
    """Make the model named by ``spec`` available in a folder, downloading it where that is needed.

    ``cache_dir`` holds both the converted default model and hub downloads; None means the user's cache for
    the first and the hub's own cache for the second.

    Raises:
        UserError: nothing is there, it cannot be had, or the folder is not a model this program loads.
    """
    if spec.lower() == DEFAULT_MODEL:
        folder = ensure_default_model(cache_dir or model_cache_dir(), progress)
        return ModelSource(folder, DEFAULT_MODEL, GGUF_SHA256)
    path = Path(spec).expanduser()
    if spec and path.is_dir():
        check_folder(path, spec, trust_remote_code)
        return ModelSource(path, slugify(path.resolve().name), None)
    if path.is_file():
        raise UserError(
            f"{spec} is a file: pass the folder that holds it, with config.json and safetensors weights."
        )
    if path.is_absolute() or spec.startswith((".", "~")):
        raise UserError(f"There is no folder {spec}: check the path passed to --model.")
    if not _HUB_ID.fullmatch(spec):
        raise UserError(
            f"No model is called {spec!r}: pass {DEFAULT_MODEL} (the default), a local folder, or a hub id "
            "such as Qwen/Qwen3-0.6B."
        )
    folder = _fetch_from_hub(spec, cache_dir, trust_remote_code, progress)
    check_folder(folder, spec, trust_remote_code)
    return ModelSource(folder, slugify(spec), folder.name)


def slugify(spec: str) -> str:
    """The last part of a path or hub id in lower case, with only a-z, 0-9, dot and hyphen."""
    last = re.split(r"[/\\]", spec.rstrip("/\\"))[-1].lower()
    return re.sub(r"[^a-z0-9.-]+", "-", last).strip(".-") or "model"


def check_folder(folder: Path, spec: str, trust_remote_code: bool = False) -> None:
    """Refuse a folder that is not a whole model with safetensors weights and a tokenizer, in one sentence."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{spec} is not a model folder: it holds no config.json.")
    missing = _missing_weights(folder)
    if missing:
        if any(path for pattern in _PICKLES for path in folder.glob(pattern)):
            raise UserError(
                f"{spec} has only pickled weights, which can run code when opened, so they are refused: "
                "convert them to safetensors, or choose another model."
            )
        raise UserError(
            f"{spec} lacks the weights {missing}: only whole models in safetensors format can be loaded."
        )
    if not trust_remote_code and not any((folder / name).is_file() for name in _TOKENIZERS):
        raise UserError(
            f"{spec} holds no tokenizer: put tokenizer.json and tokenizer_config.json beside config.json."
        )


def _missing_weights(folder: Path) -> str:
    """The first weight file that is not there, or an empty string; an index names its shards."""
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
            tqdm_class=_bar_class(f"downloading {spec}", progress),
        )
    except Exception as error:  # the hub's client raises its own, its HTTP library's and the system's errors
        # A cache that lacks some wanted file can still hold a whole model: check_folder decides.
        partial = getattr(error, "snapshot_path", None)
        if partial is None:
            raise _hub_error(spec, error) from error
        found = partial
    return Path(found)


def _hub_error(spec: str, error: Exception) -> UserError:
    from huggingface_hub import errors
    from huggingface_hub.constants import is_offline_mode

    if isinstance(error, errors.GatedRepoError):  # a kind of RepositoryNotFoundError, so asked first
        return UserError(
            f"{spec} is gated: accept its licence on its hub page, run `hf auth login`, then start again."
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return UserError(
            f"The hub has no model {spec}, or it is private: check the name, or run "
            "`hf auth login` if it is yours."
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        blocked = is_offline_mode()
        why = (
            "the hub is switched off (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE)"
            if blocked
            else "the hub is out of reach"
        )
        cure = "unset that and connect once" if blocked else "connect once"
        return UserError(f"{spec} is not in the local cache and {why}: {cure}, or pass a local folder.")
    return UserError(
        f"{spec} could not be downloaded ({first_sentence(error)}): check the connection and the free "
        "disk space, then start again."
    )


def first_sentence(error: BaseException) -> str:
    """The kind and opening words of another library's error, short enough to stand in a sentence of ours."""
    lines = str(error).strip().splitlines()
    opening = re.split(r"(?<=\w)[.!?](?:\s|$)", lines[0])[0].rstrip(":;,. ")[:160] if lines else ""
    return f"{type(error).__name__}: {opening}" if opening else type(error).__name__


def _bar_class(message: str, progress: Progress) -> type[Any]:
    """A progress bar for the hub's client that draws nothing and reports bytes written to ``progress``."""
    import io

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
