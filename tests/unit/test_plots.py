"""The page's base figures: their lines and labels, and that they are plain JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from demo.axis.zones import Told, Zones
from demo.plots.figures import BRANCHES, token_figure, turn_figure
from demo.plots.marks import PlotMarks, floor_label

ZONES = Zones(0.2, 0.7, Told(120, 0.1, 0.6), Told(152, 0.5, 0.1))
FIGURES = [token_figure, turn_figure]
CAPPED = PlotMarks(probe_layer=17, floor=0.55, floor_name="p25")
ELSEWHERE = PlotMarks(17, 0.8, "p25", floor_at_probe=False, cap_layers=(18, 25))


def shape(figure: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((s for s in figure["layout"]["shapes"] if s["name"] == name), None)


def note(figure: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((a for a in figure["layout"]["annotations"] if a["name"] == name), None)


@pytest.mark.parametrize("build", FIGURES)
def test_reference_lines_lie_at_the_average_role_and_the_default_assistant(build: Any) -> None:
    figure = build(CAPPED)
    for name, level in [("line-average", 0.0), ("line-default", 1.0), ("line-floor", 0.55)]:
        line = shape(figure, name)
        assert line is not None
        assert (line["y0"], line["y1"]) == (level, level)
        assert (line["xref"], line["x0"], line["x1"]) == ("paper", 0, 1)
    average, default = note(figure, "label-average"), note(figure, "label-default")
    assert average is not None and default is not None
    assert (average["y"], average["text"]) == (0, "average role")
    assert (default["y"], default["text"]) == (1, "default Assistant")


@pytest.mark.parametrize("build", FIGURES)
def test_the_assistant_is_at_the_top_and_roles_at_the_bottom(build: Any) -> None:
    figure = build(CAPPED)
    top, bottom = note(figure, "label-end-assistant"), note(figure, "label-end-role")
    assert top is not None and bottom is not None
    assert "Assistant" in top["text"] and "role" in bottom["text"]
    assert (top["y"], top["yanchor"]) == (1, "bottom") and (bottom["y"], bottom["yanchor"]) == (0, "top")
    assert (top["yref"], bottom["yref"]) == ("paper", "paper")


@pytest.mark.parametrize("build", FIGURES)
def test_an_axis_that_is_not_the_assistants_is_labelled_by_what_was_measured(build: Any) -> None:
    figure = build(replace(CAPPED, assistant=False))
    assert figure["layout"]["meta"]["assistant"] is False and build(CAPPED)["layout"]["meta"]["assistant"]
    texts = {one["name"]: one["text"] for one in figure["layout"]["annotations"]}
    assert texts["label-default"] == "own replies"
    assert (texts["label-end-assistant"], texts["label-end-role"]) == ("▲ own", "▼ role-played")
    assert "Assistant" not in json.dumps(figure)


@pytest.mark.parametrize("build", FIGURES)
def test_without_a_cap_there_is_no_floor(build: Any) -> None:
    figure = build(PlotMarks(probe_layer=17))
    assert shape(figure, "line-floor") is None
    assert note(figure, "label-floor") is None
    assert figure["layout"]["meta"]["floor"] is None
    assert floor_label(PlotMarks(probe_layer=17)) is None


def test_floor_label_says_whether_the_cap_acts_at_the_probe_layer() -> None:
    assert floor_label(CAPPED) == "floor p25"
    assert floor_label(PlotMarks(17, 0.5)) == "floor"
    assert floor_label(ELSEWHERE) == "p25 level at the probe layer (cap acts at layers 18–25)"
    one = PlotMarks(17, 0.8, "p50", floor_at_probe=False, cap_layers=(20, 20))
    assert floor_label(one) == "p50 level at the probe layer (cap acts at layer 20)"
    unknown = PlotMarks(17, 0.8, "p50", floor_at_probe=False)
    assert floor_label(unknown) == "p50 level at the probe layer (the cap acts at other layers)"


def test_floor_label_is_html_escaped() -> None:
    marks = PlotMarks(17, 0.5, '<a href="https://example.org">p25</a>', unit_note="<b>units</b>")
    figure = token_figure(marks)
    label = note(figure, "label-floor")
    assert label is not None
    assert "<a" not in label["text"] and "&lt;a" in label["text"]
    assert "<b>" not in figure["layout"]["yaxis"]["title"]["text"]


@pytest.mark.parametrize("build", FIGURES)
@pytest.mark.parametrize("marks", [CAPPED, ELSEWHERE, PlotMarks(17, 1.0, "p50"), PlotMarks(17)])
def test_no_label_covers_the_points(build: Any, marks: PlotMarks) -> None:
    for label in build(marks)["layout"]["annotations"]:
        assert (label["xref"], label["x"], label["xanchor"]) == ("paper", 1, "left")
        assert max(len(line) for line in label["text"].split("<br>")) <= 18, "it must fit the margin"


@pytest.mark.parametrize("build", FIGURES)
def test_labels_stand_at_their_lines_until_the_page_moves_them_apart(build: Any) -> None:
    figure = build(PlotMarks(17, 0.75, "p50"))
    labels = [note(figure, f"label-{name}") for name in ("default", "average", "floor")]
    assert [(label["y"], label["yanchor"]) for label in labels if label] == [
        (1, "middle"),
        (0, "middle"),
        (0.75, "middle"),
    ]


@pytest.mark.parametrize("build", FIGURES)
def test_zones_are_bands_that_do_not_widen_the_axis(build: Any) -> None:
    figure = build(PlotMarks(17, zones=ZONES))
    for name in ("band-role", "band-assistant"):
        band = shape(figure, name)
        assert band is not None and band["yref"] == "paper" and band["layer"] == "below"
    meta = figure["layout"]["meta"]["zones"]
    assert (meta["low"], meta["high"], meta["measured"]) == (ZONES.low, ZONES.high, ZONES.measured())


@pytest.mark.parametrize("build", FIGURES)
def test_an_axis_without_zones_has_no_bands(build: Any) -> None:
    figure = build(CAPPED)
    assert figure["layout"]["meta"]["zones"] is None
    assert all(one["type"] == "line" for one in figure["layout"]["shapes"])


def test_a_floor_that_does_not_act_at_the_probe_layer_says_so_in_the_margin() -> None:
    label = note(turn_figure(ELSEWHERE), "label-floor")
    assert label is not None
    assert (label["text"], label["hovertext"]) == ("p25 level<br>(outside cap)", floor_label(ELSEWHERE))


@pytest.mark.parametrize("build", FIGURES)
@pytest.mark.parametrize("marks", [CAPPED, ELSEWHERE, PlotMarks(3)])
def test_figures_survive_a_json_round_trip(build: Any, marks: PlotMarks) -> None:
    figure = build(marks)
    assert set(figure) == {"data", "layout"}
    assert json.loads(json.dumps(figure, allow_nan=False)) == figure
    assert "http" not in json.dumps(figure)


def test_token_traces_start_empty_and_are_distinguishable() -> None:
    traces = token_figure(CAPPED)["data"]
    roles = {(t["meta"]["role"], t["meta"]["branch"]) for t in traces}
    of_all = ("raw", "smooth", "reasoning-raw", "reasoning-smooth", "answer-start", "second")
    per_branch = {(role, branch) for role in of_all for branch in BRANCHES}
    only_capped = {(role, "capped") for role in ("lift", "before", "fired", "reasoning-fired", "plain")}
    assert roles == per_branch | only_capped | {("frame", "")}
    assert len(traces) == len(roles)
    for trace in traces:
        if trace["meta"]["role"] != "frame":
            assert (trace["x"], trace["y"], trace["customdata"]) == ([], [], [])
    fired = next(t for t in traces if t["meta"]["role"] == "fired")
    assert fired["marker"]["symbol"] == "triangle-up"


def test_reasoning_is_drawn_fainter_than_the_answer() -> None:
    traces = {(t["meta"]["role"], t["meta"]["branch"]): t for t in token_figure(CAPPED)["data"]}
    for branch in BRANCHES:
        answer, reasoning = traces["smooth", branch], traces["reasoning-smooth", branch]
        assert reasoning["line"]["width"] < answer["line"]["width"] and reasoning["opacity"] < 1
        assert reasoning["line"]["dash"] == answer["line"]["dash"]
        answer, reasoning = traces["raw", branch], traces["reasoning-raw", branch]
        assert reasoning["marker"]["opacity"] < answer["marker"]["opacity"]
        assert "reasoning" in reasoning["hovertemplate"] and "reasoning" not in answer["hovertemplate"]


def test_turn_traces_start_empty_and_join_points_with_straight_lines() -> None:
    traces = turn_figure(CAPPED)["data"]
    replies = {t["meta"]["branch"]: t for t in traces if t["meta"]["role"] == "reply"}
    assert set(replies) == set(BRANCHES)
    for reply in replies.values():
        assert reply["line"]["shape"] == "linear"
        assert reply["x"] == []
    assert replies["uncapped"]["marker"]["symbol"] != replies["capped"]["marker"]["symbol"]
    assert replies["uncapped"]["line"]["dash"] != replies["capped"]["line"]["dash"]


def test_a_compared_conversation_differs_from_the_shown_one_by_more_than_its_shade() -> None:
    traces = {(t["meta"]["role"], t["meta"]["branch"]): t for t in turn_figure(CAPPED)["data"]}
    symbols = {
        t["marker"]["symbol"] for (role, _), t in traces.items() if role != "compared" and "marker" in t
    }
    for branch in BRANCHES:
        own, other = traces["reply", branch], traces["compared", branch]
        assert other["x"] == [] and other["marker"]["symbol"] not in symbols
        assert other["opacity"] < 1 and other["line"]["width"] < own["line"]["width"]
        assert "%{customdata}" in other["hovertemplate"], "it names the conversation"


@pytest.mark.parametrize("build", FIGURES)
def test_the_frame_trace_is_invisible(build: Any) -> None:
    frame = next(t for t in build(CAPPED)["data"] if t["meta"]["role"] == "frame")
    assert frame["opacity"] == 0
    assert frame["hoverinfo"] == "skip"


def test_the_vertical_axis_names_probe_layer_and_unit() -> None:
    title = token_figure(CAPPED)["layout"]["yaxis"]["title"]["text"]
    assert "17" in title and "axis units" in title


@pytest.mark.parametrize("floor", [math.nan, math.inf, -math.inf])
def test_a_floor_that_cannot_be_drawn_is_refused(floor: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        PlotMarks(17, floor)
