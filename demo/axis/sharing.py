"""Axes on the hub: publish the folder of an axis, find those for a model, and fetch one.

What is fetched is checked like any stranger's file, and runs no code. Nothing here is called unless the user
asks for it.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from demo.axis.axis import AssistantAxis
from demo.axis.card import TAG, card
from demo.axis.directions import FILE, load_directions
from demo.axis.files import load_axis, save_axis
from demo.utils.errors import UserError, first_sentence

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# What is fetched of an axis folder. Pictures stay behind: an SVG file of a stranger could run a script. So
# does the evaluation, which the page would show as this program's own.
_FETCHED = ("axis.json", "axis.safetensors", FILE, "report.md")
_UNCHANGED = (FILE, "report.md")  # of these; the other two are written anew
# What is published of it. Rollouts and unfinished work stay here.
_SHARED = (*_FETCHED, "evaluation.json", "evaluation.md", "evaluation-cases.md", "*.svg", "README.md")
_MOST_BYTES = 2 * 1024**3  # an axis of a 70B model is far smaller
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Listed:
    """An axis on the hub.

    Attributes:
        downloads: in the last 30 days.
    """

    repository: str
    downloads: int


def push(folder: Path, repository: str, licence: str, private: bool = False) -> str:
    """Publish an axis folder as a model repository, with a card if the folder has none.

    Args:
        licence: its identifier on the hub, such as apache-2.0. An axis is derived from its model.

    Returns:
        The repository's address.

    Raises:
        UserError: the folder holds no sound axis, or the hub refuses.
    """
    axis, hub = load_axis(folder), _hub()
    _check_name(repository)
    with TemporaryDirectory() as temporary:
        staged = Path(temporary)
        for pattern in _SHARED:
            for path in folder.glob(pattern):
                shutil.copy(path, staged)
        readme = staged / "README.md"
        if not readme.exists():
            readme.write_text("\n".join(card(axis, licence)) + "\n", encoding="utf-8")
        try:
            address = hub.create_repo(repository, private=private, exist_ok=True)
            hub.upload_folder(repo_id=repository, folder_path=staged, commit_message="Add an Assistant Axis")
        except (
            Exception
        ) as error:  # the client raises its own errors, those of its HTTP library and of the system
            raise UserError(
                f"{repository} could not be written ({first_sentence(error)}): check the name, log in with "
                "`hf auth login`, and try again."
            ) from error
    return str(address)


def find(model_id: str) -> list[Listed]:
    """The axes on the hub whose card names this model, most downloaded first.

    Raises:
        UserError: the hub cannot be reached.
    """
    try:
        found = list(_hub().list_models(filter=[TAG, f"base_model:{model_id}"], sort="downloads"))
    except Exception as error:
        raise UserError(
            f"The hub could not be searched ({first_sentence(error)}): check the connection."
        ) from error
    return [Listed(model.id, int(model.downloads or 0)) for model in found]


def pull(repository: str, out: Path, revision: str | None = None) -> AssistantAxis:
    """Fetch an axis, check it, and put it into the folder `out`.

    Args:
        revision: a commit, branch or tag; None for the newest.

    Raises:
        UserError: it cannot be fetched, is too large, or is not sound.
    """
    _check_name(repository)
    hub = _hub()
    with TemporaryDirectory() as temporary:
        try:
            info = hub.model_info(repository, revision=revision, files_metadata=True)
            _check_size(repository, info)
            hub.snapshot_download(
                repository, revision=info.sha, local_dir=temporary, allow_patterns=list(_FETCHED)
            )
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{repository} could not be fetched ({first_sentence(error)}): check its name and the "
                "connection."
            ) from error
        axis = load_axis(Path(temporary))
        load_directions(Path(temporary), axis)  # raises UserError unless they are sound
        axis = replace(axis, manifest=axis.manifest | {"fetched": {"from": repository, "revision": info.sha}})
        try:
            save_axis(axis, out)
        except ValueError as error:  # NaN or half a character, which JSON cannot hold
            raise UserError(
                f"The axis.json of {repository} holds what is no valid JSON; choose another axis."
            ) from error
        for name in _UNCHANGED:
            (out / name).unlink(missing_ok=True)  # of an axis that lay here before
            if (Path(temporary) / name).is_file():
                shutil.copy(Path(temporary) / name, out)
    return axis


def _hub() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi()


def _check_name(repository: str) -> None:
    if not _REPOSITORY.fullmatch(repository) or ".." in repository:
        raise UserError(f"{repository!r} is not the name of a repository; give OWNER/NAME.")


def _check_size(repository: str, info: Any) -> None:
    total = sum(sibling.size or 0 for sibling in info.siblings or [])
    if total > _MOST_BYTES:
        raise UserError(
            f"{repository} holds {total / 1024**3:.1f} GiB, more than an axis can have; check its name."
        )
