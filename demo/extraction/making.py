"""Make the axis of a model that has none, from a preset, in the folder of this machine's axes."""

from __future__ import annotations

from pathlib import Path

from demo.axis.store import new_home
from demo.extraction.judge import LikelihoodJudge
from demo.extraction.plan import PRESETS, make_plan
from demo.extraction.run import extract, settings_for
from demo.models.loading import LoadedModel


def make_axis(model: LoadedModel, preset: str) -> Path:
    """Extract the axis of `model`, as `python -m demo.extraction --preset` does.

    A run that was interrupted goes on where it stopped.

    Returns:
        The folder of the axis.

    Raises:
        UserError: the model takes up too few roles.
    """
    size, folder = PRESETS[preset], new_home(model)
    plan = make_plan(model.slug.split("-")[0], size)
    extract(model, plan, settings_for(model, size), LikelihoodJudge(model), folder)
    return folder
