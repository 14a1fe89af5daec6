"""Where the axis of a model is found: among those of the program, or those made on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from demo.axis.axis import AssistantAxis
from demo.axis.files import axis_folder, load_axis
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.paths import AXES

AUTO = "auto"  # the value of --axis that stands for the model's own

# The environment variable that names the folder for the axes that are made or fetched on this machine.
AXES_VARIABLE = "PERSONA_DRIFT_AXES"

_MANIFEST = "axis.json"


class Named(Protocol):
    """What identifies a model. See `demo.models.loading.LoadedModel`."""

    @property
    def spec(self) -> str: ...
    @property
    def slug(self) -> str: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def digest(self) -> str | None: ...


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
    return user_axes() / f"{model.slug}-{model.digest or 'unknown'}"


def find_home(model: Named) -> Home | None:
    """The axis of `model`: the one that comes with the program, else one of this machine, else None.

    One of this machine is recognised by the digest of the weights, or by name and revision where another
    process loads them.
    """
    if (AXES / model.slug / _MANIFEST).is_file():
        return Home(AXES / model.slug)
    for manifest in sorted(user_axes().glob(f"*/{_MANIFEST}")):
        if _is_of(manifest, model):
            return Home(manifest.parent, "The axis was made on this machine.")
    return None


def _is_of(manifest: Path, model: Named) -> bool:
    """Whether an axis was made from this model."""
    try:
        about = read_object(manifest, "extract the axis again").get("model")
    except UserError:  # a damaged file belongs to no model
        return False
    if not isinstance(about, dict):
        return False
    if model.digest is not None:
        return about.get("digest") == model.digest
    return about.get("id") == model.spec and about.get("revision") == model.revision


def home_of(where: str | None, model: Named) -> Home | None:
    """The folder of the axis that --axis names, or of the model's own for None and "auto".

    Returns:
        None for a published axis, which has no folder of its own, and where the model has no axis.

    Raises:
        UserError: there is no axis at `where`.
    """
    if where is None or where == AUTO:
        return find_home(model)
    folder = axis_folder(where)
    return None if folder is None else Home(folder)


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
    if where is None or where == AUTO:
        raise UserError(no_axis(model))
    return load_axis(where), ""


def no_axis(model: Named) -> str:
    """The sentence for a model without an axis."""
    return (
        f"{model.spec} has no axis yet: start python app.py with --make-axis quick, which makes one, "
        "or give one with --axis."
    )
