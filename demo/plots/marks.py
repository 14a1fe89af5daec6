"""Reference lines, bands and labels of the figures: the meaning of axis units, and the cap's floor."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any

from demo.axis.gates import ASSISTANT_WORDS, MEASURED_WORDS
from demo.axis.zones import ROLE_PLAYED, UNCLEAR, Zones, upper_zone

NEUTRAL = "#7a8594"

LONGEST_NAME = 12  # characters of a floor's name that fit the margin


@dataclass(frozen=True)
class PlotMarks:
    """What the reference lines show.

    Attributes:
        probe_layer: The layer at which projections are read.
        floor: The cap's floor at `probe_layer` in axis units; None when the cap is off.
        floor_name: Name of the floor.
        floor_at_probe: False when the cap acts only at other layers than the probe layer.
        cap_layers: First and last capped decoder layer, both included, which the label then names.
        zones: Where a reply counts as role-played, unclear or the Assistant's; None if not measured.
        assistant: Whether the ends may be called by the Assistant's name, see `is_assistant_axis`.
        unit_note: Name of the unit, for the vertical axis.

    Raises:
        ValueError: The floor is not a finite number, so it cannot be drawn or sent as JSON.
    """

    probe_layer: int
    floor: float | None = None
    floor_name: str | None = None
    floor_at_probe: bool = True
    cap_layers: tuple[int, int] | None = None
    zones: Zones | None = None
    unit_note: str = "axis units"
    assistant: bool = True

    def __post_init__(self) -> None:
        if self.floor is not None and not math.isfinite(self.floor):
            raise ValueError(f"The floor must be a finite number of axis units or None, not {self.floor}.")


def floor_label(marks: PlotMarks) -> str | None:
    """What the floor line shows, HTML-escaped; None when there is no floor."""
    if marks.floor is None:
        return None
    name = html.escape(marks.floor_name, quote=False) if marks.floor_name else ""
    if marks.floor_at_probe:
        return f"floor {name}".strip()
    label = f"{name} level at the probe layer".strip()
    if marks.cap_layers is None:
        return f"{label} (the cap acts at other layers)"
    first, last = marks.cap_layers
    where = f"layer {first}" if first == last else f"layers {first}–{last}"
    return f"{label} (cap acts at {where})"


def zones_meta(zones: Zones | None, assistant: bool) -> dict[str, Any] | None:
    """What the page needs to put a mean into words; None where it is to name no zone."""
    if zones is None:
        return None
    names = [ROLE_PLAYED, UNCLEAR, upper_zone(assistant)]
    return {"low": zones.low, "high": zones.high, "names": names, "measured": zones.measured(assistant)}


def mark_shapes(marks: PlotMarks) -> list[dict[str, Any]]:
    """The lines and bands as Plotly layout shapes."""
    across = {"xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
    shapes: list[dict[str, Any]] = []
    if marks.zones is not None:
        # A band reaches to the end of the axis, which only the page knows: it puts them there.
        band = {"type": "rect", "yref": "paper", "fillcolor": NEUTRAL, "opacity": 0.14, "line": {"width": 0}}
        ends = {"band-role": 0, "band-assistant": 1}
        shapes += [{**across, **band, "name": name, "y0": end, "y1": end} for name, end in ends.items()]
    lines: list[tuple[str, float, float, str]] = [
        ("line-average", 0.0, 1.0, "solid"),
        ("line-default", 1.0, 1.0, "solid"),
    ]
    if marks.floor is not None:
        lines.append(("line-floor", marks.floor, 1.75, "solid" if marks.floor_at_probe else "dash"))
    for name, level, width, dash in lines:
        line = {"width": width, "dash": dash, "color": NEUTRAL}
        shapes.append({**across, "name": name, "type": "line", "y0": level, "y1": level, "line": line})
    return shapes


def mark_labels(marks: PlotMarks) -> list[dict[str, Any]]:
    """The labels as Plotly annotations. All stand in the right margin, where they cover no points."""
    margin = {
        "xref": "paper",
        "x": 1,
        "xanchor": "left",
        "xshift": 4,
        "align": "left",
        "showarrow": False,
        "font": {"size": 11, "color": NEUTRAL},
    }
    words = ASSISTANT_WORDS if marks.assistant else MEASURED_WORDS
    # The page moves labels of near lines apart, because only it knows the range of the axis.
    notes: list[dict[str, Any]] = [
        {**margin, "name": "label-default", "y": 1, "yanchor": "middle", "text": words.default},
        {**margin, "name": "label-average", "y": 0, "yanchor": "middle", "text": "average role"},
    ]
    # Above and below the plot, where no other label is.
    for name, y, side, text in [
        ("label-end-assistant", 1, "bottom", f"▲ {words.up}"),
        ("label-end-role", 0, "top", f"▼ {words.down}"),
    ]:
        notes.append({**margin, "name": name, "yref": "paper", "y": y, "yanchor": side, "text": text})
    if marks.floor is not None:
        label = {"text": _short_floor_label(marks), "hovertext": floor_label(marks)}
        notes.append({**margin, "name": "label-floor", "y": marks.floor, "yanchor": "middle", **label})
    return notes


def _short_floor_label(marks: PlotMarks) -> str:
    """The floor's label as it fits the margin, HTML-escaped."""
    name = marks.floor_name or ""
    name = html.escape(name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…", quote=False)
    return f"floor {name}".strip() if marks.floor_at_probe else f"{name} level".strip() + "<br>(outside cap)"
