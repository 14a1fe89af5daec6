"""What each pane can have for itself: a system prompt, a temperature, and the third one a floor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from demo.axis.axis import AssistantAxis
from demo.conversation.settings import ALL_BRANCHES, STEERED, OwnSettings, make_cap
from demo.conversation.turns import well_formed
from demo.utils.errors import UserError

if TYPE_CHECKING:
    from demo.page.settings_panel import PanelValues

NO_FLOOR = "no cap"
_TITLES = {"uncapped": "Uncapped", "capped": "Capped", "steered": "Third reply"}


def own_settings(
    values: PanelValues, axis: AssistantAxis, real: Callable[[Any, str], float]
) -> tuple[tuple[str, OwnSettings], ...]:
    """What differs in each pane, as it was chosen; nothing while the panes are locked together.

    Args:
        real: Makes a number of what the browser sent, or raises UserError with the given name.

    Raises:
        UserError: A value is not valid.
    """
    if values.locked:
        return ()
    found = []
    for branch in ALL_BRANCHES if values.steer_on else ALL_BRANCHES[:2]:
        prompt, temperature = getattr(values, f"{branch}_prompt"), getattr(values, f"{branch}_temperature")
        if not isinstance(prompt, str | None):
            raise UserError("The system prompt of a pane is not text; reload the page.")
        floor = values.steered_floor if branch == STEERED else NO_FLOOR
        cap = None
        if floor and floor != NO_FLOOR:
            first, last = (int(real(one, "capped layer")) for one in (values.first_layer, values.last_layer))
            cap = make_cap(axis, first, last, str(floor)[:100])
        own = OwnSettings(
            well_formed(prompt) if prompt and prompt.strip() else None,
            None if temperature is None else real(temperature, "temperature of a pane"),
            cap,
            "" if cap is None else str(floor),
        )
        if own != OwnSettings():
            found.append((branch, own))
    return tuple(found)


def pane_prompts(values: PanelValues) -> dict[str, str]:
    """The system prompts that the next message gets in single panes, by branch."""
    prompts = {branch: getattr(values, f"{branch}_prompt") for branch in ALL_BRANCHES}
    return {
        branch: well_formed(prompt)
        for branch, prompt in prompts.items()
        if not values.locked and isinstance(prompt, str) and prompt.strip()
    }


def pane_components(axis: AssistantAxis) -> dict[str, Any]:
    """The switch that locks the panes together, and what each has for itself where they are not."""
    with gr.Group():
        locked = gr.Checkbox(
            value=True,
            label="All panes have the same settings",
            info="Unlock them to compare prompts or temperatures, or two floors in the third reply.",
            elem_id="locked",
        )
    parts: dict[str, Any] = {"locked": locked}
    with gr.Column(visible=False, elem_id="pane-settings") as box:
        for branch, title in _TITLES.items():
            with gr.Group(elem_id=f"own-{branch}"):
                parts[f"{branch}_prompt"] = gr.Textbox(
                    label=f"{title}: system prompt", lines=2, placeholder="The one above", max_lines=6
                )
                parts[f"{branch}_temperature"] = gr.Number(
                    value=None, label=f"{title}: temperature", placeholder="The one above", step=0.05
                )
                if branch == STEERED:
                    parts["steered_floor"] = gr.Dropdown(
                        [NO_FLOOR, *axis.floors],
                        value=NO_FLOOR,
                        label=f"{title}: floor",
                        info="At the capped layers above. With strength 0 it is capped and not steered.",
                    )
    locked.change(
        lambda on: gr.update(visible=not on),
        locked,
        box,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    return parts
