"""Reference lines, bands and labels of the figures: the meaning of axis units, and the cap's floor."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any

NEUTRAL = "#7a8594"

CLEAR_OF_LABELS = 0.3  # axis units between two labels in the margin of a small plot


@dataclass(frozen=True)
class PlotMarks:
    """What the reference lines show.

    Attributes:
        probe_layer: The layer at which projections are read.
        floor: The cap's floor at `probe_layer` in axis units; None when the cap is off.
        floor_name: Name of the floor.
        floor_at_probe: False when the cap acts only at other layers than the probe layer.
        cap_layers: First and last capped decoder layer, both included, which the label then names.
        default_range: 5th and 95th percentile of default-Assistant replies, in axis units; None when unknown.
        unit_note: Name of the unit, for the vertical axis.

    Raises:
        ValueError: The floor is not a finite number, so it cannot be drawn or sent as JSON.
    """

    probe_layer: int
    floor: float | None = None
    floor_name: str | None = None
    floor_at_probe: bool = True
    cap_layers: tuple[int, int] | None = None
    default_range: tuple[float, float] | None = None
    unit_note: str = "axis units"

    def __post_init__(self) -> None:
        if self.floor is not None and not math.isfinite(self.floor):
            raise ValueError(f"The floor must be a finite number of axis units or None, not {self.floor}.")


def floor_label(marks: PlotMarks) -> str | None:
    """The floor line's label, HTML-escaped; None when there is no floor."""
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


def mark_shapes(marks: PlotMarks) -> list[dict[str, Any]]:
    """The lines and bands as Plotly layout shapes."""
    across = {"xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
    # The shaded ends are in paper coordinates: they show the two directions, not a boundary.
    ends = [("end-assistant", 0.9, 1.0), ("end-role", 0.0, 0.1)]
    shapes: list[dict[str, Any]] = [
        {
            **across,
            "name": name,
            "type": "rect",
            "yref": "paper",
            "y0": low,
            "y1": high,
            "fillcolor": NEUTRAL,
            "opacity": 0.12,
            "line": {"width": 0},
        }
        for name, low, high in ends
    ]
    if marks.default_range is not None:
        low, high = marks.default_range
        band = {
            "type": "rect",
            "y0": low,
            "y1": high,
            "fillcolor": NEUTRAL,
            "opacity": 0.1,
            "line": {"width": 0},
        }
        shapes.append({**across, **band, "name": "band-default"})
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


def mark_labels(marks: PlotMarks, floor_break: str) -> list[dict[str, Any]]:
    """The labels as Plotly annotations. `floor_break` separates a long floor label from its parenthesis."""
    plain = {"xref": "paper", "showarrow": False, "font": {"size": 11, "color": NEUTRAL}}
    right = {**plain, "x": 1, "xanchor": "left", "xshift": 4, "yanchor": "middle", "align": "left"}
    inside = {**plain, "x": 0, "xanchor": "left", "xshift": 4, "yanchor": "middle", "yref": "paper"}
    notes: list[dict[str, Any]] = [
        {**right, "name": "label-default", "y": 1, "text": "default Assistant"},
        {**right, "name": "label-average", "y": 0, "text": "average role"},
        {**inside, "name": "label-end-assistant", "y": 0.95, "text": "▲ Assistant"},
        {**inside, "name": "label-end-role", "y": 0.05, "text": "▼ role-playing"},
    ]
    label = floor_label(marks)
    if label is None or marks.floor is None:
        return notes
    if marks.floor_at_probe and min(abs(marks.floor), abs(marks.floor - 1)) >= CLEAR_OF_LABELS:
        place = right
    else:
        # Too long for the margin or too near another label there, so it stands on the line in the plot.
        place = {
            **plain,
            "x": 1,
            "xanchor": "right",
            "xshift": -4,
            "yanchor": "bottom",
            "yshift": 1,
            "align": "right",
        }
        label = label.replace(" (", f"{floor_break}(")
    return [*notes, {**place, "name": "label-floor", "y": marks.floor, "text": label}]
