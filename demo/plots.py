"""Base figures of the page: axes, reference lines and empty traces. The browser appends the points.

Both figures have y in *axis units*: (projection - average role) / ||axis||, so 0 is the average role-playing
reply and 1 the default Assistant. Colours here are neutral defaults: the page recolours every named shape and
annotation, and every trace (found by its ``meta``), for the light and the dark theme.
"""

from __future__ import annotations

import html
import json
import math
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

BRANCHES = ("uncapped", "capped", "steered")
TRAILING_TOKENS = 8
SYMBOLS = {"uncapped": "circle", "capped": "diamond", "steered": "square"}
DASHES = {"uncapped": "4px,3px", "capped": "solid", "steered": "1px,3px"}
DEFAULT_COLOURS = {"uncapped": "#b84a00", "capped": "#0067a8", "steered": "#2f7d32"}
NEUTRAL = "#7a8594"
CLEAR_OF_LABELS = 0.3  # axis units between two labels in the margin of a small plot
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class PlotMarks:
    """What the reference lines say.

    ``floor`` is the cap's floor at ``probe_layer`` in axis units, ``None`` when the cap is off.
    ``floor_at_probe`` is False when the cap acts at other layers than the one read here; ``cap_layers``
    (first and last capped decoder layer, both included) then names them in the label. ``default_range`` is what
    default-Assistant replies span, 5th to 95th percentile, in axis units; ``None`` when the axis does not say.
    Raises ValueError for a floor that is not a finite number: it could not be drawn or sent as JSON.
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


def token_figure(marks: PlotMarks) -> dict[str, Any]:
    """The per-token plot: x = token number in the reply (from 1), y = projection in axis units.

    Returns {"data": [...], "layout": {...}} of plain JSON values. Each trace's ``meta`` is
    {"role": "raw" | "smooth" | "lift" | "before" | "fired", "branch": ...}; all start empty.
    """
    traces = [_raw_trace(branch) for branch in BRANCHES]
    traces += [_lift_trace(), _before_trace()]
    traces += [_smooth_trace(branch) for branch in BRANCHES]
    traces.append(_fired_trace())
    traces.append(_frame_trace(1, 48))
    layout = _layout(marks, f"token · lines: mean of the last {TRAILING_TOKENS}")
    return _plain(go.Figure(traces, layout))


def turn_figure(marks: PlotMarks) -> dict[str, Any]:
    """The per-turn plot: x = turn (from 1), y = mean projection of a reply, or faintly of the user's message.

    Returns plain JSON values like :func:`token_figure`; ``meta`` roles are "reply", "user" and "spread": what the same
    turn gave with other random numbers. Straight
    segments join measured replies; nothing is drawn before the first one.
    """
    traces = [_spread_trace(branch) for branch in BRANCHES] + [_user_trace(branch) for branch in BRANCHES]
    traces += [_reply_trace(branch) for branch in BRANCHES]
    traces.append(_frame_trace(0.6, 4.4))
    layout = _layout(marks, "turn", floor_break="<br>")
    layout.xaxis.update(tick0=1, dtick=1, tickformat="d")
    return _plain(go.Figure(traces, layout))


def floor_label(marks: PlotMarks) -> str | None:
    """What the floor line is called, HTML-escaped; None when there is no floor."""
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


def _scatter(role: str, branch: str, **options: Any) -> go.Scatter:
    return go.Scatter(
        x=[], y=[], customdata=[], meta={"role": role, "branch": branch}, showlegend=False, **options
    )


def _raw_trace(branch: str) -> go.Scatter:
    marker = {"symbol": SYMBOLS[branch], "size": 5, "color": DEFAULT_COLOURS[branch], "opacity": 0.4}
    # customdata: [token text, already escaped; sentence about the projection]
    hover = f"<b>{branch}</b> %{{customdata[0]}} · token %{{x}}<br>%{{customdata[1]}}<extra></extra>"
    return _scatter(
        "raw", branch, name=f"{branch}: each token", mode="markers", marker=marker, hovertemplate=hover
    )


def _smooth_trace(branch: str) -> go.Scatter:
    line = {"width": 2.5, "dash": DASHES[branch], "color": DEFAULT_COLOURS[branch]}
    name = f"{branch}: trailing mean of {TRAILING_TOKENS} tokens"
    hover = f"<b>{branch}</b> mean of the last {TRAILING_TOKENS} tokens: %{{y:.2f}}<extra></extra>"
    return _scatter("smooth", branch, name=name, mode="lines", line=line, hovertemplate=hover)


def _lift_trace() -> go.Scatter:
    line = {"width": 1.5, "color": DEFAULT_COLOURS["capped"]}
    return _scatter(
        "lift", "capped", name="lifted by the cap", mode="lines", line=line, opacity=0.45, hoverinfo="skip"
    )


def _before_trace() -> go.Scatter:
    marker = {
        "symbol": "diamond-open",
        "size": 6,
        "opacity": 0.6,
        "color": DEFAULT_COLOURS["capped"],
        "line": {"width": 1},
    }
    hover = "<b>capped</b>, before the cap · token %{x}: %{y:.2f}<extra></extra>"
    return _scatter(
        "before", "capped", name="before the cap", mode="markers", marker=marker, hovertemplate=hover
    )


def _fired_trace() -> go.Scatter:
    marker = {"symbol": "triangle-up", "size": 8, "color": DEFAULT_COLOURS["capped"], "line": {"width": 1}}
    hover = "<b>capped</b> %{customdata[0]} · token %{x}<br>%{customdata[1]}<extra></extra>"
    return _scatter(
        "fired", "capped", name="the cap acted", mode="markers", marker=marker, hovertemplate=hover
    )


def _reply_trace(branch: str) -> go.Scatter:
    marker = {
        "symbol": SYMBOLS[branch],
        "size": 10,
        "opacity": 1,
        "color": DEFAULT_COLOURS[branch],
        "line": {"width": 1},
    }
    line = {"width": 2, "dash": DASHES[branch], "color": DEFAULT_COLOURS[branch], "shape": "linear"}
    hover = f"<b>{branch}</b> · turn %{{x}}<br>mean of the reply %{{y:.2f}}<extra></extra>"
    return _scatter(
        "reply",
        branch,
        name=f"{branch} reply",
        mode="lines+markers",
        marker=marker,
        line=line,
        hovertemplate=hover,
    )


def _user_trace(branch: str) -> go.Scatter:
    marker = {
        "symbol": f"{SYMBOLS[branch]}-open",
        "size": 6,
        "opacity": 0.55,
        "color": DEFAULT_COLOURS[branch],
    }
    hover = f"your turn %{{x}}, as the {branch} row reads it: %{{y:.2f}}<extra></extra>"
    return _scatter(
        "user", branch, name=f"user, {branch}", mode="markers", marker=marker, hovertemplate=hover
    )


def _spread_trace(branch: str) -> go.Scatter:
    marker = {
        "symbol": "line-ew-open",
        "size": 9,
        "opacity": 0.7,
        "color": DEFAULT_COLOURS[branch],
        "line": {"width": 1.5},
    }
    line = {"width": 1, "color": DEFAULT_COLOURS[branch]}
    # customdata: beginning of the reply, already escaped
    hover = f"<b>{branch}</b>, other seed · turn %{{x:.0f}}: %{{y:.2f}}<br>%{{customdata}}<extra></extra>"
    return _scatter(
        "spread",
        branch,
        name=f"{branch}, other seeds",
        mode="lines+markers",
        marker=marker,
        line=line,
        hovertemplate=hover,
    )


def _frame_trace(first: float, last: float) -> go.Scatter:
    # Never seen: it only keeps the axes from collapsing while there is little or nothing to show.
    meta = {"role": "frame", "branch": ""}
    return go.Scatter(
        x=[first, last],
        y=[-0.75, 1.5],
        meta=meta,
        mode="lines",
        opacity=0,
        hoverinfo="skip",
        showlegend=False,
    )


def _layout(marks: PlotMarks, x_title: str, floor_break: str = " ") -> go.Layout:
    axis = {"showline": False, "zeroline": False, "gridcolor": NEUTRAL, "ticks": "", "automargin": False}
    y_title = f"layer {marks.probe_layer}, {html.escape(marks.unit_note, quote=False)}"
    return go.Layout(
        template=go.layout.Template(),
        font={"family": FONT, "size": 12, "color": NEUTRAL},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 50, "r": 116, "t": 8, "b": 36},
        showlegend=False,
        hovermode="closest",
        dragmode="zoom",
        uirevision="keep",
        xaxis={**axis, "showgrid": False, "title": {"text": x_title, "standoff": 4}},
        yaxis={**axis, "nticks": 6, "title": {"text": y_title, "standoff": 4}},
        shapes=_shapes(marks),
        annotations=_annotations(marks, floor_break),
        meta={
            "probe_layer": marks.probe_layer,
            "floor": marks.floor,
            "floor_label": floor_label(marks),
            "cap_layers": marks.cap_layers,
            "default_range": marks.default_range,
        },
    )


def _shapes(marks: PlotMarks) -> list[dict[str, Any]]:
    across = {"xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
    # The shaded ends are paper-based: they say which way is which, not where a border would lie.
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


def _annotations(marks: PlotMarks, floor_break: str) -> list[dict[str, Any]]:
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
        # Too long for the margin, or too near another label there: on the line, inside the plot.
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


def _plain(figure: go.Figure) -> dict[str, Any]:
    """Only dicts, lists, strings and finite numbers: what a page can be sent."""
    return json.loads(json.dumps(figure.to_plotly_json(), allow_nan=False))
