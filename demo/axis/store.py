"""Where the axis of a model is found: among those of the program, or those made on this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.axis.axis import AssistantAxis
from demo.axis.files import axis_folder, load_axis
from demo.axis.sharing import find, pull
from demo.models.names import AUTO, HUB, Named
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.paths import AXES

# The environment variable that names the folder for the axes that are made or fetched on this machine.
AXES_VARIABLE = "PERSONA_DRIFT_AXES"

_MANIFEST = "axis.json"
_MOST_TRIED = 5  # axes on the hub for one model


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of an axis.

    Attributes:
        note: where it comes from, as a sentence for the user; "" for one that comes with the program.
    """

    folder: Path
    note: str = ""


def user_axes() -> Path:
    """The folder for axes of this machine: `$PERSONA_DRIFT_AXES`, else in the user's data folder."""
    chosen = os.environ.get(AXES_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("persona-drift-microscope", appauthor=False) / "axes"


def new_home(model: Named) -> Path:
    """The folder in which to put an axis of `model` that is made on this machine."""
    return user_axes() / f"{model.slug}-{model.digest or 'unknown'}{'-base' if model.base else ''}"


def find_home(model: Named) -> Home | None:
    """The axis of `model`: the one that comes with the program, else one of this machine, else None.

    One of this machine is recognised by the digest of the weights, or by name and revision where the axis or
    the model has no digest. With the same digest it comes before one of the program, which may be of another
    model with the same name.
    """
    found = [home for home in _homes_here() if _is_of(home[1].get("model"), model)]
    exact = [home for home in found if model.digest and home[1]["model"].get("digest") == model.digest]
    if not exact and not model.base and (AXES / model.slug / _MANIFEST).is_file():
        return Home(AXES / model.slug)
    for folder, manifest in [*exact, *found]:
        return Home(folder, _origin(manifest.get("fetched")))
    return None


def _homes_here() -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders of this machine's axes, with their manifests."""
    for path in sorted(user_axes().glob(f"*/{_MANIFEST}")):
        with suppress(UserError):  # a damaged file belongs to no model
            yield path.parent, read_object(path, "extract the axis again")


def _is_of(about: object, model: Named) -> bool:
    """Whether an axis was made from this model. about: what its manifest says of the model."""
    if not isinstance(about, dict) or bool(about.get("base")) != model.base:
        return False
    if model.digest is not None and about.get("digest"):
        return bool(about["digest"] == model.digest)
    return about.get("id") == model.spec and about.get("revision") == model.revision


def _origin(fetched: object) -> str:
    """Where an axis of this machine comes from. fetched: what its manifest says of that."""
    if isinstance(fetched, dict):
        return f"The axis was fetched from {str(fetched.get('from'))[:100]}."
    return "The axis was made on this machine."


def home_of(where: str | None, model: Named) -> Home | None:
    """The folder of the axis that --axis names, or of the model's own for None, "auto" and "hub".

    Returns:
        None for a published axis, which has no folder of its own, and where the model has no axis.

    Raises:
        UserError: there is no axis at `where`.
    """
    if not where or where == AUTO:
        return find_home(model)
    if where == HUB:
        return find_home(model) or _fetch(model)
    folder = axis_folder(where)
    return None if folder is None else Home(folder)


def fetched_home(repository: str) -> Path:
    """The folder in which to put an axis that is fetched from the hub."""
    return user_axes() / repository.replace("/", "--")


def _fetch(model: Named) -> Home | None:
    """The most downloaded axis on the hub that was made from this model, fetched; None when there is none."""
    for listed in find(model.spec)[:_MOST_TRIED]:
        folder = fetched_home(listed.repository)
        try:
            axis = pull(listed.repository, folder)
        except UserError:  # an unsound one must not hide the next
            continue
        if _is_of(axis.manifest.get("model"), model):
            return Home(folder, _origin(axis.manifest.get("fetched")))
        shutil.rmtree(folder, ignore_errors=True)
    return None


def axis_of(where: str | None, model: Named) -> tuple[AssistantAxis, str]:
    """Load the axis that --axis names, or the model's own.

    Returns:
        The axis, and where it comes from, as a sentence for the user; "" where nothing need be said.

    Raises:
        UserError: there is none, or it is malformed.
    """
    home = home_of(where, model)
    if home is not None:
        return load_axis(home.folder), home.note
    if not where or where in (AUTO, HUB):
        raise UserError(no_axis(model))
    return load_axis(where), ""


def no_axis(model: Named) -> str:
    """The sentence for a model without an axis."""
    return (
        f"{model.spec} has no axis {'for plain transcripts ' if model.base else ''}yet: start python app.py "
        "with --make-axis quick, which makes one, or give one with --axis."
    )
