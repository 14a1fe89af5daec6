"""The settings beside the chat, and how their values become the settings of a turn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from demo.axis.axis import AssistantAxis
from demo.axis.directions import Direction
from demo.conversation.settings import (
    ALL_BRANCHES,
    BRANCHES,
    CAPPED,
    MOST_ALONG,
    MOST_SEEDS,
    STEERED,
    UNCAPPED,
    CapChoice,
    TurnSettings,
    direction_cap,
    reads_differ,
)
from demo.conversation.turns import well_formed
from demo.engine.protocol import Cap, Sampling, Span, Steer
from demo.page.pane_settings import NO_FLOOR, PaneChoice, pane_components
from demo.utils.errors import UserError

if TYPE_CHECKING:
    from demo.models.loading import Thinking

_EVERY = "All"
_ONLY = {_EVERY: None, "Uncapped": UNCAPPED, "Capped": CAPPED, "Steered": STEERED}
_FLOOR_INFO = "Percentile of default-Assistant replies used as the floor. A higher floor is stricter."
_IMPORTED_INFO = "Published ceiling on role-wardness, used as a floor. A lower number is stricter."
_READ_ONLY, _AS_WELL, _INSTEAD = "No", "As well as the axis", "Instead of the axis"
_AT_LEAST, _AT_MOST = "From falling below", "From rising above"
_ALONG_AXIS, _ALONG_SECOND = "The axis", "The second direction"
_KINDS = {
    "trait": "trait",
    "role": "role",
    "component": "component",
    "imported": "imported",
    "pairs": "your own",
}
# Traits that are read along from the start, where the axis comes with them.
_READY = ("empathetic", "transparent", "sycophantic")
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
    plain: Any = False
    second: Any = None
    second_use: Any = _READ_ONLY
    second_side: Any = _AT_LEAST
    along: Any = ()
    steer_along: Any = _ALONG_AXIS
    locked: Any = True
    uncapped_prompt: Any = ""
    uncapped_temperature: Any = None
    capped_prompt: Any = ""
    capped_temperature: Any = None
    steered_prompt: Any = ""
    steered_temperature: Any = None
    steered_floor: Any = NO_FLOOR
    only_below_on: Any = False
    only_below: Any = None

    @property
    def characters(self) -> int:
        """Length of all texts together."""
        values = (getattr(self, field.name) for field in fields(self))
        return sum(len(value) for value in values if isinstance(value, str))

    def turn_settings(
        self, axis: AssistantAxis, turn: int, seed: int = 0, directions: Mapping[str, Direction] | None = None
    ) -> TurnSettings:
        """The settings of turn number `turn`, from 0. Each turn has another seed than the one before.

        Args:
            seed: added to the chosen seed, for a scenario that has one of its own.
            directions: the engine's further directions.

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
        chosen, second = self.cap_choice(), self._second(directions or {})
        instead = second is not None and self.second_use == _INSTEAD
        if instead:
            chosen = CapChoice(False, "", 0, 0)
        cap, marks = chosen.cap(axis), chosen.marks(axis)
        return TurnSettings(
            sampling=sampling,
            cap=cap,
            marks=marks,
            system_prompt=well_formed(system),
            steer=self._steer(second),
            only=_ONLY.get(self.only or _EVERY),
            seeds=_whole(self.seeds, "number of seeds"),
            thinking=bool(self.thinking),
            # The choice is hidden while the model does not reason, and then has no effect.
            span=_SPANS.get(self.span or _BOTH, "both") if self.thinking else "both",
            also=self._second_cap(second, axis),
            along=self._along(second, directions or {}, axis.probe_layer),
            second=second.name if second is not None and axis.probe_layer in second.layers else "",
            plain=bool(self.plain) and reads_differ(cap, axis),
            own=self.panes.own(axis, ALL_BRANCHES if self.steer_on else BRANCHES, _real),
        )

    @property
    def panes(self) -> PaneChoice:
        """What was chosen for single panes."""
        return PaneChoice(
            self.locked,
            {branch: getattr(self, f"{branch}_prompt") for branch in ALL_BRANCHES},
            {branch: getattr(self, f"{branch}_temperature") for branch in ALL_BRANCHES},
            self.steered_floor,
            (self.first_layer, self.last_layer),
        )

    def _second(self, directions: Mapping[str, Direction]) -> Direction | None:
        """The direction that is chosen beside the axis. Raises UserError when there is none of that name."""
        if not self.second:
            return None
        if not isinstance(self.second, str) or self.second not in directions:
            raise UserError(f"There is no direction {str(self.second)[:80]!r} here; choose another one.")
        return directions[self.second]

    def _second_cap(self, second: Direction | None, axis: AssistantAxis) -> Cap | None:
        if second is None or not self.cap_on or self.second_use not in (_AS_WELL, _INSTEAD):
            return None
        choice = self.cap_choice()
        if not 0 <= choice.first_layer <= choice.last_layer < axis.layers:
            choice.cap(axis)  # raises
        downward = self.second_side == _AT_MOST
        cap = direction_cap(second, choice.first_layer, choice.last_layer, choice.floor, downward)
        below = choice.only_below
        return replace(cap, only_below=None if below is None else round(below, 4))

    def _along(
        self, second: Direction | None, directions: Mapping[str, Direction], probe_layer: int
    ) -> tuple[str, ...]:
        """The directions that are read along, the second line first, where they can be read."""
        if not isinstance(self.along, Sequence) or isinstance(self.along, str):
            raise UserError("The directions to read along are not a list; reload the page.")
        names = dict.fromkeys([*([second.name] if second else []), *map(str, self.along)])
        known = (directions[name] for name in names if name in directions)
        return tuple(one.name for one in known if probe_layer in one.layers)

    def cap_choice(self) -> CapChoice:
        """The chosen cap. Raises UserError for a value that is not valid."""
        if not self.cap_on:
            return CapChoice(False, "", 0, 0)
        first = _whole(self.first_layer, "first capped layer")
        last = _whole(self.last_layer, "last capped layer")
        below = _real(self.only_below, "threshold for where replies begin") if self.only_below_on else None
        return CapChoice(True, str(self.floor)[:100], first, last, below)

    def _steer(self, second: Direction | None) -> Steer | None:
        if not self.steer_on:
            return None
        layer = _whole(self.steer_layer, "steered layer")
        along = second.name if second is not None and self.steer_along == _ALONG_SECOND else ""
        if second is not None and along:
            second.index(layer)  # raises where it has no vector
        return Steer(layer, _real(self.steer_alpha, "steering strength"), along)


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
    plain: gr.Checkbox
    second: gr.Dropdown
    second_use: gr.Radio
    second_side: gr.Radio
    along: gr.Dropdown
    steer_along: gr.Radio
    locked: gr.Checkbox
    uncapped_prompt: gr.Textbox
    uncapped_temperature: gr.Number
    capped_prompt: gr.Textbox
    capped_temperature: gr.Number
    steered_prompt: gr.Textbox
    steered_temperature: gr.Number
    steered_floor: gr.Dropdown
    only_below_on: gr.Checkbox
    only_below: gr.Number

    def inputs(self) -> list[Any]:
        """The components whose values make `PanelValues`, in its order."""
        return [getattr(self, field.name) for field in fields(PanelValues)]

    def cap_inputs(self) -> list[Any]:
        """The components that decide the cap."""
        band = [self.first_layer, self.last_layer]
        return [self.cap_on, self.floor, *band, self.only_below_on, self.only_below]

    def prompt_inputs(self) -> list[Any]:
        """The components that decide the system prompts of single panes."""
        return [self.locked, self.uncapped_prompt, self.capped_prompt, self.steered_prompt]


def build_settings_panel(
    axis: AssistantAxis,
    defaults: Sampling,
    thinking: Thinking = "never",
    directions: Mapping[str, Direction] | None = None,
    reads_plain: bool = True,
    conditional_caps: bool = True,
) -> SettingsPanel:
    """Lay the settings out, in the current Gradio context.

    Args:
        thinking: whether the model reasons before it answers.
        directions: the engine's further directions.
        reads_plain: whether the engine can read the capped words without the cap as they are written.
        conditional_caps: whether the engine can cap only the replies that begin below a threshold.
    """
    system = gr.Textbox(
        label="System prompt",
        lines=3,
        max_lines=6,
        value="",
        placeholder="None: the model's own default",
        elem_id="system-prompt",
    )
    cap = _cap_components(axis, reads_plain, conditional_caps)
    second = _direction_components(directions or {})
    reasoning = _reasoning_components(thinking)
    sampling = _sampling_components(defaults, thinking)
    branches = _branch_components(axis, bool(directions)) | pane_components(axis)
    return SettingsPanel(system_prompt=system, **sampling, **branches, **cap, **second, **reasoning)


def _cap_components(axis: AssistantAxis, reads_plain: bool, conditional_caps: bool) -> dict[str, Any]:
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
        condition = _condition_components(axis, conditional_caps)
        plain = gr.Checkbox(
            value=reads_plain,
            visible=reads_plain,
            label="Read the capped words without the cap, too",
            info="A third sequence reads them as the unsteered model would: the dotted line. Capped tokens "
            "reach the floor by construction, so only this line is evidence.",
            elem_id="plain-reading",
        )
    return {
        "cap_on": cap_on,
        "floor": floor,
        "first_layer": first_layer,
        "last_layer": last_layer,
        "plain": plain,
        **condition,
    }


def _condition_components(axis: AssistantAxis, offered: bool) -> dict[str, Any]:
    """The choice to cap only the replies that begin below a threshold."""
    zones, below = axis.zones, axis.cap_only_below
    chosen = offered and below is not None
    usual = below if below is not None else zones.low if zones is not None else 0.0
    on = gr.Checkbox(
        value=chosen,
        visible=offered,
        label="Only replies that begin below",
        info="The cap then leaves alone replies that begin above the threshold, and every prompt.",
        elem_id="only-below-on",
    )
    threshold = gr.Number(
        usual, visible=chosen, label="Threshold in axis units", step=0.05, elem_id="only-below"
    )
    _show_while(on, threshold)
    return {"only_below_on": on, "only_below": threshold}


def _show_while(switch: gr.Checkbox, component: Any) -> None:
    """Show a component only while the switch is on."""
    switch.change(
        lambda checked: gr.update(visible=bool(checked)),
        switch,
        component,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )


def _direction_components(directions: Mapping[str, Direction]) -> dict[str, Any]:
    """The choice of another direction beside the axis, and what is done with it."""
    choices = [(f"{name.replace('_', ' ')} · {_KINDS[one.kind]}", name) for name, one in directions.items()]
    with gr.Group(visible=bool(choices)):
        second = gr.Dropdown(
            [("None", ""), *choices],
            value="",
            label="Second direction",
            info="A second line in both charts, on the direction's own scale: 0 is one pole, 1 the other.",
            elem_id="second",
        )
        use = gr.Radio(
            [_READ_ONLY, _AS_WELL, _INSTEAD], value=_READ_ONLY, label="Cap along it", elem_id="second-use"
        )
        side = gr.Radio(
            [_AT_LEAST, _AT_MOST],
            value=_AT_LEAST,
            label="Keep it",
            info="Where default-Assistant replies lie along it, at the percentile chosen above; for rising, "
            "at the mirrored one: p75 for p25.",
            elem_id="second-side",
        )
        along = gr.Dropdown(
            choices,
            value=[name for name in _READY if name in directions],
            multiselect=True,
            max_choices=MOST_ALONG - 1,
            label="Read along",
            info="Read and not touched: does the cap move anything else?",
            elem_id="along",
        )
    return {"second": second, "second_use": use, "second_side": side, "along": along}


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
    _show_while(on, span)
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


def _branch_components(axis: AssistantAxis, has_directions: bool) -> dict[str, Any]:
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
        steer_along = gr.Radio(
            [_ALONG_AXIS, _ALONG_SECOND],
            value=_ALONG_AXIS,
            visible=has_directions,
            label="Steer along",
            elem_id="steer-along",
        )
    steer_on.change(
        _offer_branches, [steer_on, only], only, queue=False, show_progress="hidden", api_visibility="private"
    )
    return {
        "only": only,
        "steer_on": steer_on,
        "steer_layer": steer_layer,
        "steer_alpha": steer_alpha,
        "steer_along": steer_along,
    }


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
