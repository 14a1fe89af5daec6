"""A cap for replies that begin below a threshold: in the settings, in files and exports, at the endpoints."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import gradio as gr
import pytest

from demo.axis.__main__ import summary
from demo.axis.axis import AssistantAxis
from demo.axis.card import card
from demo.axis.directions import Direction
from demo.axis.zones import Zones
from demo.conversation.conversation import Conversation
from demo.conversation.exports import tokens_csv
from demo.conversation.session_file import Recording, dumps, from_json, loads, to_json
from demo.conversation.settings import make_cap, threshold_of
from demo.engine.protocol import Sampling
from demo.page.api import Api
from demo.page.settings_panel import PanelValues, SettingsPanel, build_settings_panel, panel_values
from demo.page.updates import Updates
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis
from tests.helpers.scripted import ScriptedEngine

VALUES = PanelValues("", 0.3, 0.9, 1.1, 8, 0, 0, 1, "All", False, 1, 1.0, True, "p25", 1, 2)
SOME = replace(VALUES, only_below_on=True, only_below=-0.06)
START = -0.31237


@pytest.fixture
def axis() -> AssistantAxis:
    return random_axis(4, 16, 1, (1, 2))


@pytest.fixture
def careful(axis: AssistantAxis) -> AssistantAxis:
    """An axis whose own cap has a threshold."""
    return replace(axis, manifest=axis.manifest | {"cap": axis.manifest["cap"] | {"only_below": 0.25}})


def panel_of(axis: AssistantAxis, **more: Any) -> SettingsPanel:
    with gr.Blocks():
        return build_settings_panel(axis, Sampling(), **more)


def chosen(panel: SettingsPanel) -> PanelValues:
    """The values of a panel that nobody has touched."""
    return panel_values([component.value for component in panel.inputs()])


def answered(axis: AssistantAxis, values: PanelValues = SOME, seeds: int = 1) -> Conversation:
    engine, conversation = ScriptedEngine(start=START), Conversation()
    settings = replace(values, seeds=seeds).turn_settings(axis, 0)
    for _ in conversation.send(engine, "Hello", settings):
        pass
    return conversation


# --- the panel


def test_the_panel_leaves_the_cap_unconditional_until_it_is_asked(axis):
    panel = panel_of(axis)
    assert (panel.only_below_on.visible, panel.only_below_on.value, panel.only_below.visible) == (
        True,
        False,
        False,
    )
    cap = chosen(panel).turn_settings(axis, 0).cap
    assert cap is not None and cap.only_below is None


def test_the_panel_begins_with_the_threshold_of_the_axis_else_with_the_lower_cut_point(axis, careful):
    measured = {"replies": 1, "role_played": 0.0, "assistant": 0.0}
    zones = {"low": 0.4, "high": 0.9, "default": measured, "role": measured}
    zoned = replace(axis, manifest=axis.manifest | {"zones": zones})
    assert isinstance(zoned.zones, Zones)
    assert [panel_of(one).only_below.value for one in (axis, zoned, careful)] == [0.0, 0.4, 0.25]
    panel = panel_of(careful)
    assert panel.only_below_on.value and panel.only_below.visible
    cap = chosen(panel).turn_settings(careful, 0).cap
    assert cap is not None and cap.only_below == 0.25


def test_an_engine_that_cannot_do_it_is_not_asked(careful):
    panel = panel_of(careful, conditional_caps=False)
    assert (panel.only_below_on.visible, panel.only_below.visible) == (False, False)
    cap = chosen(panel).turn_settings(careful, 0).cap
    assert cap is not None and cap.only_below is None


def test_the_values_of_the_panel_become_the_cap_of_the_capped_reply_alone(axis):
    settings = replace(SOME, locked=False, steer_on=True, steered_floor="p75").turn_settings(axis, 0)
    assert settings.cap_in("capped") == make_cap(axis, 1, 2, "p25", -0.06)
    assert settings.cap_in("uncapped") is None
    assert settings.cap_in("steered") == make_cap(axis, 1, 2, "p75"), "its own floor acts on every reply"
    assert replace(SOME, cap_on=False, only_below=None).turn_settings(axis, 0).cap is None


@pytest.mark.parametrize("use", ["As well as the axis", "Instead of the axis"])
def test_a_second_cap_waits_for_the_same_threshold(axis, use):
    origin, floors = axis.floors["p05"], {"p25": axis.floors["p25"]}
    poles = ("cold", "warm")
    warm = Direction("warm", "trait", (0, 1, 2, 3), axis.direction, origin, floors, 1.0, None, poles)
    settings = replace(SOME, second="warm", second_use=use).turn_settings(axis, 0, directions={"warm": warm})
    assert settings.also is not None and settings.also.only_below == -0.06
    assert (settings.cap is None) == (use == "Instead of the axis")


@pytest.mark.parametrize("value", [None, "low", float("nan"), float("inf")])
def test_a_threshold_that_is_no_number_is_refused_in_one_sentence(axis, value):
    with pytest.raises(UserError, match=r"^The threshold for where replies begin .*number"):
        replace(SOME, only_below=value).turn_settings(axis, 0)
    assert replace(SOME, only_below_on=False, only_below=value).turn_settings(axis, 0).cap is not None


@pytest.mark.parametrize("below", [float("inf"), float("-inf"), float("nan")])
def test_a_cap_with_a_threshold_that_no_file_can_hold_is_refused(axis, below):
    with pytest.raises(UserError, match=r"^The threshold .* is a finite number, not -?(inf|nan)\.$"):
        make_cap(axis, *axis.cap_band, axis.cap_floor, below)


def test_a_threshold_has_no_more_decimals_than_where_a_reply_begins(axis):
    cap = replace(SOME, only_below=0.123456).turn_settings(axis, 0).cap
    assert cap is not None and cap.only_below == 0.1235


# --- replies, files and exports


def test_every_reply_and_sample_knows_where_it_begins_to_four_decimals(axis):
    (turn,) = answered(axis, seeds=2).turns
    replies = [one for reply in turn.replies.values() for one in (reply, *reply.samples)]
    assert [reply.start for reply in replies] == [-0.3124] * 4


def test_the_page_learns_where_a_reply_begins_before_its_first_token(axis):
    engine, conversation = ScriptedEngine(start=START), Conversation()
    events = conversation.send(engine, "Hello", SOME.turn_settings(axis, 0))
    updates = Updates(conversation)
    updates.add_events([next(events)])
    (op,) = json.loads(updates.take())["ops"]
    assert (op["op"], op["branch"], op["start"]) == ("prompt", "uncapped", -0.3124)


def test_a_reply_that_is_continued_and_one_that_stays_begin_where_they_began(axis):
    conversation = answered(axis)
    before = conversation.turns[0].replies["capped"]
    before.finish = "length"
    for _ in conversation.go_on(ScriptedEngine(start=START), 0, "capped"):
        pass
    replies = conversation.turns[0].replies
    assert replies["capped"] is not before
    assert [replies[branch].start for branch in ("uncapped", "capped")] == [-0.3124] * 2


def test_a_session_keeps_thresholds_and_beginnings_and_files_without_them_open(axis):
    recording = Recording("tiny", answered(axis, seeds=2).turns, PlotMarks(1))
    (turn,) = loads(dumps(recording)).turns
    assert turn.settings is not None and turn.settings.cap == make_cap(axis, 1, 2, "p25", -0.06)
    assert [reply.start for reply in turn.replies.values()] == [-0.3124] * 2
    assert turn.replies["capped"].samples[0].start == -0.3124
    data = json.loads(dumps(recording))
    for reply in data["turns"][0]["branches"].values():
        del reply["start"]
    del data["turns"][0]["settings"]["cap"]["only_below"]
    (old,) = from_json(data).turns
    assert old.settings is not None and old.settings.cap == make_cap(axis, 1, 2, "p25")
    assert [reply.start for reply in old.replies.values()] == [None] * 2
    data["turns"][0]["branches"]["capped"]["start"] = "low"
    with pytest.raises(UserError, match="damaged"):
        from_json(data)


def test_an_engine_that_does_not_tell_leaves_no_trace_in_a_file(axis):
    conversation = Conversation()
    for _ in conversation.send(ScriptedEngine(), "Hello", VALUES.turn_settings(axis, 0)):
        pass
    (turn,) = to_json(Recording("tiny", conversation.turns, PlotMarks(1)))["turns"]
    assert "start" not in turn["branches"]["capped"] and "only_below" not in turn["settings"]["cap"]


@pytest.mark.parametrize(("values", "threshold"), [(SOME, "-0.06"), (VALUES, "")])
def test_the_csv_has_the_threshold_of_the_capped_reply_and_where_each_begins(axis, values, threshold):
    text = tokens_csv(Recording("tiny", answered(axis, values).turns, PlotMarks(1)))
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    found = {(row["branch"], row["start"], row["only_below"]) for row in rows if row["token"]}
    assert found == {("uncapped", "-0.3124", ""), ("capped", "-0.3124", threshold)}


# --- endpoints and commands


@pytest.mark.parametrize(
    ("asked", "threshold"), [(None, 0.25), ("", 0.25), ("off", None), (0, 0.0), ("-0.5", -0.5)]
)
def test_a_program_names_a_threshold_or_takes_that_of_the_axis(careful, asked, threshold):
    assert threshold_of(asked, careful) == threshold


@pytest.mark.parametrize("asked", ["low", "nan", [1]])
def test_a_program_that_names_something_else_is_told_what_it_may_name(careful, asked):
    with pytest.raises(UserError, match=r"number of axis units, or 'off' for a cap on every reply, not"):
        threshold_of(asked, careful)


def test_the_page_s_api_caps_by_the_axis_s_threshold_unless_told_otherwise(axis, careful):
    engine = ScriptedEngine(start=START)
    found = []
    for own, more in (
        (axis, {}),
        (careful, {}),
        (careful, {"only_below": "off"}),
        (axis, {"only_below": 0.5}),
    ):
        said = Api(engine, own, "tiny").reply("Hello", **more)
        found.append(engine.requests[1].cap.only_below)
        assert said["capped"]["start"] == -0.3124
    assert found == [None, 0.25, None, 0.5]
    assert Api(engine, careful, "tiny").info()["cap"]["only_below"] == 0.25


def test_an_axis_says_that_its_cap_waits_for_a_threshold(axis, careful):
    assert any(line.endswith(", replies that begin below +0.25") for line in summary(careful))
    assert any(line.endswith(", on replies that begin below +0.25.") for line in card(careful))
    assert "begin below" not in "\n".join([*summary(axis), *card(axis)])
