"""Base figures of the page: axes, reference lines and empty traces. The browser appends the points.

In both figures y is in axis units: (projection - average role) / ||axis||, so 0 is the average
role-playing reply and 1 the default Assistant. The colours here are neutral defaults: for the light and
the dark theme, the page recolours every named shape and annotation, and every trace (found by its `meta`).
"""

from __future__ import annotations

import html
import json
from typing import Any

import plotly.graph_objects as go

from demo.plots.marks import NEUTRAL, PlotMarks, floor_label, mark_labels, mark_shapes, zones_meta

BRANCHES = ("uncapped", "capped", "steered")

TRAILING_TOKENS = 8

SYMBOLS = {"uncapped": "circle", "capped": "diamond", "steered": "square"}

DASHES = {"uncapped": "4px,3px", "capped": "solid", "steered": "1px,3px"}

PLAIN_DASH, SECOND_DASH = "1px,2px", "9px,4px,1px,4px"

DEFAULT_COLOURS = {"uncapped": "#b84a00", "capped": "#0067a8", "steered": "#2f7d32"}

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def token_figure(marks: PlotMarks) -> dict[str, Any]:
    """The per-token plot: x = token number in the reply (from 1), y = projection in axis units.

    Returns {"data": [...], "layout": {...}} of plain JSON values. Each trace's `meta` is
    {"role": "raw" | "smooth" | "lift" | "before" | "fired" | "answer-start" | "plain" | "second",
    "branch": ...}, with "reasoning-" before "raw", "smooth" and "fired" of the reasoning before an answer;
    all start empty. "plain": the capped words as the unsteered model reads them. "second": the projection
    along another direction, on its own scale.
    """
    traces = [_raw_trace(branch) for branch in BRANCHES]
    traces += [_in_reasoning(_raw_trace(branch)) for branch in BRANCHES]
    traces += [_answer_start_trace(branch) for branch in BRANCHES]
    traces += [_lift_trace(), _before_trace()]
    traces += [_plain_token_trace(), *(_second_trace(branch, "lines") for branch in BRANCHES)]
    traces += [_in_reasoning(_smooth_trace(branch)) for branch in BRANCHES]
    traces += [_smooth_trace(branch) for branch in BRANCHES]
    traces += [_in_reasoning(_fired_trace()), _fired_trace()]
    traces.append(_frame_trace(1, 48))
    layout = _layout(marks, f"token · lines: mean of the last {TRAILING_TOKENS}")
    layout.xaxis.rangemode = "nonnegative"
    return _plain(go.Figure(traces, layout))


def turn_figure(marks: PlotMarks) -> dict[str, Any]:
    """The per-turn plot: x = turn (from 1), y = mean projection of a reply or of the user's message.

    Returns plain JSON values like `token_figure`. The `meta` roles are "reply", "reasoning" (before it),
    "user", "spread" (all replies of a turn with several seeds), "interval" (their mean with its 95%
    interval), "compared" (the replies of the conversation that this one is compared with), "plain" and
    "second" as above. Straight segments join the replies of
    successive turns; nothing is drawn before the first one.
    """
    traces = [_spread_trace(branch) for branch in BRANCHES] + [_user_trace(branch) for branch in BRANCHES]
    traces += [_interval_trace(branch) for branch in BRANCHES]
    traces += [_reasoning_trace(branch) for branch in BRANCHES]
    traces += [_compared_trace(branch) for branch in BRANCHES]
    traces += [_plain_reply_trace(), *(_second_trace(branch, "lines+markers") for branch in BRANCHES)]
    traces += [_reply_trace(branch) for branch in BRANCHES]
    traces.append(_frame_trace(0.6, 4.4))
    layout = _layout(marks, "turn · points: mean of a reply")
    layout.xaxis.update(tick0=1, dtick=1, tickformat="d")
    return _plain(go.Figure(traces, layout))


def _scatter(role: str, branch: str, **options: Any) -> go.Scatter:
    return go.Scatter(
        x=[], y=[], customdata=[], meta={"role": role, "branch": branch}, showlegend=False, **options
    )


def _raw_trace(branch: str) -> go.Scatter:
    marker = {"symbol": SYMBOLS[branch], "size": 5, "color": DEFAULT_COLOURS[branch], "opacity": 0.4}
    # customdata: [token text, HTML-escaped; sentence about the projection]
    hover = f"<b>{branch}</b> %{{customdata[0]}} · token %{{x}}<br>%{{customdata[1]}}<extra></extra>"
    return _scatter(
        "raw", branch, name=f"{branch}: each token", mode="markers", marker=marker, hovertemplate=hover
    )


def _smooth_trace(branch: str) -> go.Scatter:
    line = {"width": 2.5, "dash": DASHES[branch], "color": DEFAULT_COLOURS[branch]}
    name = f"{branch}: trailing mean of {TRAILING_TOKENS} tokens"
    hover = f"<b>{branch}</b> mean of the last {TRAILING_TOKENS} tokens: %{{y:.2f}}<extra></extra>"
    return _scatter("smooth", branch, name=name, mode="lines", line=line, hovertemplate=hover)


def _in_reasoning(trace: go.Scatter) -> go.Scatter:
    """The same trace in a fainter shade, for the reasoning before an answer."""
    trace.meta = {**trace.meta, "role": f"reasoning-{trace.meta['role']}"}
    trace.name = f"{trace.name}, in the reasoning"
    if trace.mode == "markers":
        trace.marker.opacity = 0.4 * (1 if trace.marker.opacity is None else trace.marker.opacity)
    else:
        trace.opacity, trace.line.width = 0.5, 1.5
    trace.hovertemplate = trace.hovertemplate.replace("</b>", "</b>, reasoning", 1)
    return trace


def _answer_start_trace(branch: str) -> go.Scatter:
    line = {"width": 1, "dash": "2px,3px", "color": DEFAULT_COLOURS[branch]}
    return _scatter(
        "answer-start",
        branch,
        name=f"{branch}: the answer starts",
        mode="lines",
        line=line,
        opacity=0.6,
        hoverinfo="skip",
    )


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


def _plain_token_trace() -> go.Scatter:
    line = {"width": 1.75, "dash": PLAIN_DASH, "color": DEFAULT_COLOURS["capped"]}
    hover = (
        f"<b>capped</b> words, read without the cap: mean of the last {TRAILING_TOKENS} tokens "
        "%{y:.2f}<extra></extra>"
    )
    return _scatter(
        "plain", "capped", name="read without the cap", mode="lines", line=line, hovertemplate=hover
    )


def _plain_reply_trace() -> go.Scatter:
    colour = DEFAULT_COLOURS["capped"]
    marker = {"symbol": "diamond-open", "size": 7, "color": colour, "line": {"width": 1.5}}
    hover = "<b>capped</b> words, read without the cap · turn %{x}<br>mean %{y:.2f}<extra></extra>"
    return _scatter(
        "plain",
        "capped",
        name="read without the cap",
        mode="lines+markers",
        marker=marker,
        line={"width": 1.5, "dash": PLAIN_DASH, "color": colour},
        hovertemplate=hover,
    )


def _second_trace(branch: str, mode: str) -> go.Scatter:
    colour = DEFAULT_COLOURS[branch]
    hover = f"<b>{branch}</b> along the second direction: %{{y:.2f}}<extra></extra>"
    return _scatter(
        "second",
        branch,
        name=f"{branch}, second direction",
        mode=mode,
        opacity=0.65,
        line={"width": 1.5, "dash": SECOND_DASH, "color": colour},
        hovertemplate=hover,
        **({"marker": {"symbol": SYMBOLS[branch], "size": 4, "color": colour}} if "markers" in mode else {}),
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


def _compared_trace(branch: str) -> go.Scatter:
    colour = DEFAULT_COLOURS[branch]
    # Crossed markers: hollow ones already stand for messages and for readings without the cap.
    marker = {"symbol": f"{SYMBOLS[branch]}-x-open", "size": 9, "color": colour, "line": {"width": 1.5}}
    # customdata: title of the other conversation, HTML-escaped
    hover = f"<b>{branch}</b>, %{{customdata}} · turn %{{x}}<br>mean of the reply %{{y:.2f}}<extra></extra>"
    return _scatter(
        "compared",
        branch,
        name=f"{branch} reply of the other conversation",
        mode="lines+markers",
        opacity=0.7,
        marker=marker,
        line={"width": 1.5, "dash": DASHES[branch], "color": colour},
        hovertemplate=hover,
    )


def _reasoning_trace(branch: str) -> go.Scatter:
    marker = {"symbol": SYMBOLS[branch], "size": 5, "opacity": 0.55, "color": DEFAULT_COLOURS[branch]}
    hover = f"<b>{branch}</b> · turn %{{x:.0f}}<br>mean of the reasoning %{{y:.2f}}<extra></extra>"
    return _scatter(
        "reasoning", branch, name=f"{branch} reasoning", mode="markers", marker=marker, hovertemplate=hover
    )


def _user_trace(branch: str) -> go.Scatter:
    marker = {
        "symbol": f"{SYMBOLS[branch]}-open",
        "size": 6,
        "opacity": 0.55,
        "color": DEFAULT_COLOURS[branch],
    }
    hover = f"your turn %{{x}}, as read by the {branch} branch: %{{y:.2f}}<extra></extra>"
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
    # customdata: beginning of the reply, HTML-escaped
    hover = f"<b>{branch}</b>, all seeds · turn %{{x:.0f}}: %{{y:.2f}}<br>%{{customdata}}<extra></extra>"
    return _scatter(
        "spread",
        branch,
        name=f"{branch}, all seeds",
        mode="lines+markers",
        marker=marker,
        line=line,
        hovertemplate=hover,
    )


def _interval_trace(branch: str) -> go.Scatter:
    line = {"width": 4, "color": DEFAULT_COLOURS[branch]}
    # customdata: the mean and the interval in words
    hover = f"<b>{branch}</b>, %{{customdata}}<extra></extra>"
    return _scatter(
        "interval",
        branch,
        name=f"{branch}, mean of all seeds",
        mode="lines",
        line=line,
        opacity=0.45,
        hovertemplate=hover,
    )


def _frame_trace(first: float, last: float) -> go.Scatter:
    # An invisible trace, which gives the axes a range while there is little or nothing to show.
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


def _layout(marks: PlotMarks, x_title: str) -> go.Layout:
    axis = {"showline": False, "zeroline": False, "gridcolor": NEUTRAL, "ticks": "", "automargin": False}
    y_title = f"layer {marks.probe_layer}, {html.escape(marks.unit_note, quote=False)}"
    return go.Layout(
        template=go.layout.Template(),
        font={"family": FONT, "size": 12, "color": NEUTRAL},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 50, "r": 116, "t": 18, "b": 36},
        showlegend=False,
        hovermode="closest",
        dragmode="zoom",
        uirevision="keep",
        xaxis={**axis, "showgrid": False, "title": {"text": x_title, "standoff": 4}},
        yaxis={**axis, "nticks": 6, "title": {"text": y_title, "standoff": 4}},
        shapes=mark_shapes(marks),
        annotations=mark_labels(marks),
        meta={
            "probe_layer": marks.probe_layer,
            "floor": marks.floor,
            "floor_label": floor_label(marks),
            "cap_layers": marks.cap_layers,
            "zones": zones_meta(marks.zones, marks.assistant),
            "assistant": marks.assistant,
        },
    )


def _plain(figure: go.Figure) -> dict[str, Any]:
    """The figure as dicts, lists, strings and finite numbers, which can be sent to a page."""
    return json.loads(json.dumps(figure.to_plotly_json(), allow_nan=False))
