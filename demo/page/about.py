"""The panel "What am I looking at?": about.md, with the layers and the cap that a page shows."""

from __future__ import annotations

from pathlib import Path

from demo.axis.zones import ROLE_PLAYED, UNCLEAR, upper_zone
from demo.plots.marks import PlotMarks

TITLE = "What am I looking at?"

# A bullet of about.md, for models that can reason.
_REASONING = (
    "- **Reasoning** is what the model writes before its answer. It is shown above the answer, and fainter "
    "in the charts. A reply's mean and its place on the map are those of the answer alone.\n"
)
# A bullet of about.md, for an axis with zones.
_ZONES = (
    "- **The shaded zones** in the charts say what a reply’s mean is worth: in the lower one it reads as "
    "*{role}*, in the upper one as *{assistant}*, between them it is *{unclear}*. {measured} These replies "
    "were read without a cap; the zone of a capped reply says where the cap has put it.\n"
)
_INSIDE = (
    "The reading is taken inside the capped layers, so the capped line is shown after the clamp; "
    "hollow marks show the value before it."
)
_OUTSIDE = "The reading is taken outside the capped layers, so the floor line is only for orientation there."


def about_text(marks: PlotMarks | None, reasoning: bool) -> str:
    """The panel's Markdown.

    Args:
        marks: the probe layer, the capped layers and the zones; None where no session is open that would
            name them.
        reasoning: whether there is reasoning to explain.
    """
    probe, layers, where, zones = "one decoder layer", "a band of layers", "", ""
    if marks is not None:
        probe = f"decoder layer {marks.probe_layer}"
        if marks.zones is not None:
            measured, upper = marks.zones.measured(marks.assistant), upper_zone(marks.assistant)
            zones = _ZONES.format(role=ROLE_PLAYED, unclear=UNCLEAR, assistant=upper, measured=measured)
        if marks.cap_layers is not None:
            layers = "layers {} to {}".format(*marks.cap_layers)
            where = _INSIDE if marks.floor_at_probe else _OUTSIDE
    text = (Path(__file__).parent / "about.md").read_text(encoding="utf-8")
    return text.format(
        probe=probe, layers=layers, where=where, zones=zones, reasoning=_REASONING if reasoning else ""
    )
