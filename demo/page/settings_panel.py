"""The settings beside the chat, and how their values become the settings of a turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import gradio as gr

from demo.axis.axis import AssistantAxis
from demo.conversation.settings import CAPPED, MOST_SEEDS, STEERED, UNCAPPED, CapChoice, TurnSettings
from demo.conversation.turns import well_formed
from demo.engine.protocol import Sampling, Span, Steer
from demo.utils.errors import UserError

if TYPE_CHECKING:
    from demo.models.loading import Thinking

_EVERY = "All"
_ONLY = {_EVERY: None, "Uncapped": UNCAPPED, "Capped": CAPPED, "Steered": STEERED}
_FLOOR_INFO = "Percentile of default-Assistant replies used as the floor. A higher floor is stricter."
_IMPORTED_INFO = "Published ceiling on role-wardness, used as a floor. A lower number is stricter."
_BOTH = "Answer and reasoning"
_SPANS: dict[str, Span] = {_BOTH: "both", "Answer only": "answer", "Reasoning only": "reasoning"}
_THINKING_INFO = "The model reasons before it answers. The reasoning counts as new tokens, too."
_ALWAYS_INFO = "This model always reasons before it answers."
# Reasoning is often several times as long as the answer.
_TOKENS_WITH_REASONING = 1024


@dataclass(frozen=True)
class PanelValues:
    """The values of the panel's components as the browser sent them. Each may be anything.

    The fields have the names and the order of those of `SettingsPanel`.
    """

    system_prompt: Any
    temperature: Any
    top_p: Any
    repetition_penalty: Any
    max_new_tokens: Any
    soft_limit: Any
    seed: Any
    seeds: Any
    only: Any
    steer_on: Any
    steer_layer: Any
    steer_alpha: Any
    cap_on: Any
    floor: Any
    first_layer: Any
    last_layer: Any
    thinking: Any = False
    span: Any = _BOTH

    @property
    def characters(self) -> int:
        """Length of all texts together."""
        values = (getattr(self, field.name) for field in fields(self))
        return sum(len(value) for value in values if isinstance(value, str))

    def turn_settings(self, axis: AssistantAxis, turn: int, seed: int = 0) -> TurnSettings:
        """The settings of turn number `turn`, from 0. Each turn has another seed than the one before.

        Args:
            seed: added to the chosen seed, for a scenario that has one of its own.

        Raises:
            UserError: a value is not valid.
        """
        sampling = Sampling(
            temperature=_real(self.temperature, "temperature"),
            top_p=_real(self.top_p, "top-p"),
            max_new_tokens=_whole(self.max_new_tokens, "number of new tokens"),
            seed=_whole(self.seed, "seed") + seed + turn,
            repetition_penalty=_real(self.repetition_penalty, "repetition penalty"),
            soft_limit=_whole(self.soft_limit, "number of tokens before a sentence ends the reply"),
        )
        system = self.system_prompt or ""
        if not isinstance(system, str) or not isinstance(self.only, str | None):
            raise UserError("The system prompt or the selected branch is not text; reload the page.")
        if not isinstance(self.span, str | None):
            raise UserError("The part of the reply that the cap acts on is not text; reload the page.")
        chosen = self.cap_choice()
        return TurnSettings(
            sampling=sampling,
            cap=chosen.cap(axis),
            marks=chosen.marks(axis),
            system_prompt=well_formed(system),
            steer=self._steer(),
            only=_ONLY.get(self.only or _EVERY),
            seeds=_whole(self.seeds, "number of seeds"),
            thinking=bool(self.thinking),
            # The choice is hidden while the model does not reason, and then has no effect.
            span=_SPANS.get(self.span or _BOTH, "both") if self.thinking else "both",
        )

    def cap_choice(self) -> CapChoice:
        """The chosen cap. Raises UserError for a value that is not valid."""
        if not self.cap_on:
            return CapChoice(False, "", 0, 0)
        first = _whole(self.first_layer, "first capped layer")
        return CapChoice(True, str(self.floor)[:100], first, _whole(self.last_layer, "last capped layer"))

    def _steer(self) -> Steer | None:
        if not self.steer_on:
            return None
        layer = _whole(self.steer_layer, "steered layer")
        return Steer(layer, _real(self.steer_alpha, "steering strength"))


@dataclass(frozen=True)
class SettingsPanel:
    """The components."""

    system_prompt: gr.Textbox
    temperature: gr.Slider
    top_p: gr.Slider
    repetition_penalty: gr.Slider
    max_new_tokens: gr.Slider
    soft_limit: gr.Slider
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
    thinking: gr.Checkbox
    span: gr.Radio

    def inputs(self) -> list[Any]:
        """The components whose values make `PanelValues`, in its order."""
        return [getattr(self, field.name) for field in fields(PanelValues)]

    def cap_inputs(self) -> list[Any]:
        """The components that decide the cap."""
        return [self.cap_on, self.floor, self.first_layer, self.last_layer]


def build_settings_panel(
    axis: AssistantAxis, defaults: Sampling, thinking: Thinking = "never"
) -> SettingsPanel:
    """Lay the settings out, in the current Gradio context.

    Args:
        thinking: whether the model reasons before it answers.
    """
    system = gr.Textbox(
        label="System prompt",
        lines=3,
        max_lines=6,
        value="",
        placeholder="None: the model's own default",
        elem_id="system-prompt",
    )
    cap = _cap_components(axis)
    reasoning = _reasoning_components(thinking)
    sampling = _sampling_components(defaults, thinking)
    return SettingsPanel(system_prompt=system, **sampling, **_branch_components(axis), **cap, **reasoning)


def _cap_components(axis: AssistantAxis) -> dict[str, Any]:
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
    return {"cap_on": cap_on, "floor": floor, "first_layer": first_layer, "last_layer": last_layer}


def _reasoning_components(thinking: Thinking) -> dict[str, Any]:
    always = thinking == "always"
    with gr.Group(visible=thinking != "never"):
        on = gr.Checkbox(
            value=always,
            label="Thinking",
            info=_ALWAYS_INFO if always else _THINKING_INFO,
            interactive=not always,
            elem_id="thinking",
        )
        span = gr.Radio(list(_SPANS), value=_BOTH, label="Cap acts on", visible=always, elem_id="span")
    on.change(
        lambda checked: gr.update(visible=bool(checked)),
        on,
        span,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    return {"thinking": on, "span": span}


def _sampling_components(defaults: Sampling, thinking: Thinking) -> dict[str, Any]:
    tokens = max(defaults.max_new_tokens, _TOKENS_WITH_REASONING if thinking == "always" else 0)
    most = 1024 if thinking == "never" else 4 * _TOKENS_WITH_REASONING
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
        max_new_tokens = gr.Slider(8, most, tokens, step=8, label="Max new tokens", elem_id="max-new-tokens")
        soft_limit = gr.Slider(
            0,
            512,
            defaults.soft_limit,
            step=4,
            label="End at a sentence after",
            elem_id="soft-limit",
            info="From so many tokens on, a reply ends with its sentence. 0: it never ends early.",
        )
        seed = gr.Number(
            defaults.seed,
            label="Seed",
            precision=0,
            elem_id="seed",
            info="Both replies use the same random numbers. A scenario and each turn add to it.",
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
    return {
        "temperature": temperature,
        "top_p": top_p,
        "repetition_penalty": penalty,
        "max_new_tokens": max_new_tokens,
        "soft_limit": soft_limit,
        "seed": seed,
        "seeds": seeds,
    }


def _branch_components(axis: AssistantAxis) -> dict[str, Any]:
    """The choice of the branches that answer, and the steered reply."""
    layers = f"0 to {axis.layers - 1}"
    with gr.Group():
        only = gr.Radio(_addressed(False), value=_EVERY, label="Speak to", elem_id="only")
    with gr.Group():
        steer_on = gr.Checkbox(value=False, label="Third reply: steered", elem_id="steer-on")
        steer_alpha = gr.Slider(
            -4,
            4,
            1,
            step=0.25,
            label="Strength α",
            elem_id="steer-alpha",
            info="Adds α × axis to every token; the cap acts only on tokens below the floor.",
        )
        steer_layer = gr.Number(
            axis.probe_layer, label="Steered layer", precision=0, elem_id="steer-layer", info=layers
        )
    steer_on.change(
        _offer_branches, [steer_on, only], only, queue=False, show_progress="hidden", api_visibility="private"
    )
    return {"only": only, "steer_on": steer_on, "steer_layer": steer_layer, "steer_alpha": steer_alpha}


def _addressed(steered: bool) -> list[str]:
    """The branches that a message can be meant for."""
    return [name for name, branch in _ONLY.items() if steered or branch != STEERED]


def _offer_branches(steer_on: Any, chosen: Any) -> Any:
    """The steered branch is offered only while it answers."""
    offered = _addressed(bool(steer_on))
    return gr.update(choices=offered, value=chosen if chosen in offered else _EVERY)


def panel_values(values: Sequence[Any]) -> PanelValues:
    """The values of `SettingsPanel.inputs()`, named."""
    return PanelValues(*values)


def _real(value: Any, name: str) -> float:
    if value is None:
        raise UserError(f"The {name} is empty; enter a number.")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"The {name} must be a finite number; enter another value.")
    return number


def _whole(value: Any, name: str) -> int:
    return int(_real(value, name))
