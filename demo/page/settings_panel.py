"""The settings beside the chat, and how their values become one turn's settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from demo.axis.axis import AssistantAxis
from demo.conversation.settings import CAPPED, MOST_SEEDS, STEERED, UNCAPPED, TurnSettings, make_cap
from demo.conversation.turns import well_formed
from demo.engine.protocol import Sampling, Steer
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError

_EVERY = "All"

_ONLY = {_EVERY: None, "Uncapped": UNCAPPED, "Capped": CAPPED, "Steered": STEERED}

_FLOOR_INFO = "Percentile of default-Assistant replies that becomes the floor. Higher holds harder."

_IMPORTED_INFO = "Published ceiling on role-wardness, as a floor. A lower number holds harder."


@dataclass(frozen=True)
class Controls:
    """The components, in the order in which their values reach `read_settings`."""

    system_prompt: gr.Textbox
    temperature: gr.Slider
    top_p: gr.Slider
    repetition_penalty: gr.Slider
    max_new_tokens: gr.Slider
    seed: gr.Number
    seeds: gr.Slider
    only: gr.Radio
    steer_on: gr.Checkbox
    steer_layer: gr.Number
    steer_alpha: gr.Slider
    cap_on: gr.Checkbox
    floor: gr.Radio
    first_layer: gr.Number
    last_layer: gr.Number

    def inputs(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]

    def cap_inputs(self) -> list[Any]:
        return [self.cap_on, self.floor, self.first_layer, self.last_layer]


def build_controls(axis: AssistantAxis, defaults: Sampling) -> Controls:
    """Lay the settings out, in the current Gradio context."""
    system = gr.Textbox(
        label="System prompt",
        lines=3,
        max_lines=6,
        placeholder="None: the model's own default",
        elem_id="system-prompt",
    )
    cap = _cap_controls(axis)
    sampling = _sampling_controls(defaults)
    return Controls(system, *sampling, *_branch_controls(axis), *cap)


def _cap_controls(axis: AssistantAxis) -> tuple[gr.Checkbox, gr.Radio, gr.Number, gr.Number]:
    first, last = axis.cap_band
    layers = f"0 to {axis.layers - 1}"
    with gr.Group():
        cap_on = gr.Checkbox(value=True, label="Cap on", elem_id="cap-on")
        floor = gr.Radio(
            list(axis.floors),
            value=axis.cap_floor,
            label="Floor",
            info=_IMPORTED_INFO if "import" in axis.manifest else _FLOOR_INFO,
            elem_id="floor",
        )
        with gr.Row():
            first_layer = gr.Number(
                first, label="First layer", precision=0, min_width=80, elem_id="first-layer", info=layers
            )
            last_layer = gr.Number(
                last, label="Last layer", precision=0, min_width=80, elem_id="last-layer", info=layers
            )
    return cap_on, floor, first_layer, last_layer


def _sampling_controls(
    defaults: Sampling,
) -> tuple[gr.Slider, gr.Slider, gr.Slider, gr.Slider, gr.Number, gr.Slider]:
    with gr.Group():
        temperature = gr.Slider(
            0, 2, defaults.temperature, step=0.05, label="Temperature", elem_id="temperature"
        )
        top_p = gr.Slider(0.05, 1, defaults.top_p, step=0.05, label="Top-p", elem_id="top-p")
        penalty = gr.Slider(
            1,
            1.5,
            defaults.repetition_penalty,
            step=0.01,
            label="Repetition penalty",
            elem_id="repetition-penalty",
        )
        tokens = gr.Slider(
            8, 1024, defaults.max_new_tokens, step=8, label="Max new tokens", elem_id="max-new-tokens"
        )
        seed = gr.Number(
            defaults.seed,
            label="Seed",
            precision=0,
            elem_id="seed",
            info="Both replies draw the same random numbers.",
        )
        seeds = gr.Slider(
            1,
            MOST_SEEDS,
            1,
            step=1,
            label="Seeds at once",
            elem_id="seeds",
            info="More answers to each message, to show the spread. The first one counts.",
        )
    return temperature, top_p, penalty, tokens, seed, seeds


def _branch_controls(axis: AssistantAxis) -> tuple[gr.Radio, gr.Checkbox, gr.Number, gr.Slider]:
    """Who is spoken to, and the third reply."""
    layers = f"0 to {axis.layers - 1}"
    with gr.Group():
        only = gr.Radio(list(_ONLY), value=_EVERY, label="Speak to", elem_id="only")
    with gr.Group():
        steer_on = gr.Checkbox(value=False, label="Third reply: steered", elem_id="steer-on")
        steer_alpha = gr.Slider(
            -4,
            4,
            1,
            step=0.25,
            label="Strength α",
            elem_id="steer-alpha",
            info="Adds α × axis to every token, needed or not; the cap only lifts what has fallen.",
        )
        steer_layer = gr.Number(
            axis.probe_layer, label="Steered layer", precision=0, elem_id="steer-layer", info=layers
        )
    return only, steer_on, steer_layer, steer_alpha


def cap_values(values: Sequence[Any]) -> Sequence[Any]:
    """Of the values of `Controls.inputs()`, those of `Controls.cap_inputs()`: the last ones."""
    return values[-4:]


def read_settings(axis: AssistantAxis, turn: int, values: Sequence[Any]) -> TurnSettings:
    """The values of `Controls.inputs()` as settings of turn number `turn` (from 0).

    Each turn draws other random numbers than the one before. Raises UserError for a value that cannot be used.
    """
    system, temperature, top_p, penalty, tokens, seed, seeds, only, *steer = values[:-4]
    sampling = Sampling(
        _real(temperature, "temperature"),
        _real(top_p, "top-p"),
        _whole(tokens, "number of new tokens"),
        _whole(seed, "seed") + turn,
        _real(penalty, "repetition penalty"),
    )
    if not isinstance(system or "", str) or not isinstance(only, str | None):
        raise UserError("The system prompt or the choice of whom to speak to is no text; reload the page.")
    return TurnSettings(
        sampling,
        _cap(axis, cap_values(values)),
        well_formed(system or ""),
        _steer(steer),
        _ONLY.get(only or _EVERY),
        _whole(seeds, "number of seeds"),
    )


def plot_marks(axis: AssistantAxis, cap: Sequence[Any]) -> PlotMarks:
    """Reference lines for the values of `Controls.cap_inputs()`. Raises UserError like `read_settings`."""
    chosen = _cap(axis, cap)
    if chosen is None:
        return PlotMarks(axis.probe_layer, default_range=axis.default_range)
    name = cap[1]
    return PlotMarks(
        probe_layer=axis.probe_layer,
        floor=axis.floor_units(name, axis.probe_layer)
        if axis.probe_layer in axis.floor_layers(name)
        else None,
        floor_name=name,
        floor_at_probe=axis.probe_layer in chosen.layers,
        cap_layers=(chosen.layers[0], chosen.layers[-1]),
        default_range=axis.default_range,
    )


def _cap(axis: AssistantAxis, values: Sequence[Any]):
    on, floor, first, last = values
    if not on:
        return None
    return make_cap(
        axis, _whole(first, "first capped layer"), _whole(last, "last capped layer"), str(floor)[:100]
    )


def _steer(values: Sequence[Any]) -> Steer | None:
    on, layer, alpha = values
    if not on:
        return None
    return Steer(_whole(layer, "steered layer"), _real(alpha, "steering strength"))


def _real(value: Any, name: str) -> float:
    if value is None:
        raise UserError(f"The {name} is empty; type a number.")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"The {name} is no number that can be used; type another.")
    return number


def _whole(value: Any, name: str) -> int:
    return int(_real(value, name))
