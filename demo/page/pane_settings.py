"""What each pane can have for itself: a system prompt, a temperature, and the third one a floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from demo.axis.axis import AssistantAxis
from demo.conversation.settings import STEERED, OwnSettings, make_cap
from demo.conversation.turns import well_formed
from demo.utils.errors import UserError

NO_FLOOR = "no cap"
_TITLES = {"uncapped": "Uncapped", "capped": "Capped", "steered": "Third reply"}


@dataclass(frozen=True)
class PaneChoice:
    """What was chosen for single panes, as the browser sent it. Each value may be anything.

    Attributes:
        locked: Whether all panes have the same settings.
        prompts, temperatures: By branch.
        floor: Of the third reply.
        band: First and last capped layer, both inclusive.
    """

    locked: Any
    prompts: Mapping[str, Any]
    temperatures: Mapping[str, Any]
    floor: Any
    band: tuple[Any, Any]

    def own(
        self, axis: AssistantAxis, branches: Sequence[str], real: Callable[[Any, str], float]
    ) -> tuple[tuple[str, OwnSettings], ...]:
        """What differs in each pane; nothing while the panes are locked together.

        Args:
            branches: Those that answer.
            real: Makes a number of what the browser sent, or raises UserError with the given name.

        Raises:
            UserError: A value is not valid.
        """
        found = [(branch, self._own(axis, branch, real)) for branch in branches if not self.locked]
        return tuple((branch, own) for branch, own in found if own != OwnSettings())

    def _own(self, axis: AssistantAxis, branch: str, real: Callable[[Any, str], float]) -> OwnSettings:
        prompt, temperature = self.prompts[branch], self.temperatures[branch]
        if not isinstance(prompt, str | None):
            raise UserError("The system prompt of a pane is not text; reload the page.")
        floor = str(self.floor or NO_FLOOR)[:100] if branch == STEERED else NO_FLOOR
        cap = None
        if floor != NO_FLOOR:
            first, last = (int(real(one, "capped layer")) for one in self.band)
            cap = make_cap(axis, first, last, floor)
        return OwnSettings(
            well_formed(prompt) if prompt and prompt.strip() else None,
            None if temperature is None else real(temperature, "temperature of a pane"),
            cap,
            "" if cap is None else floor,
        )

    def next_prompts(self) -> dict[str, str]:
        """The system prompts that the next message gets in single panes, by branch."""
        return {
            branch: well_formed(prompt)
            for branch, prompt in self.prompts.items()
            if not self.locked and isinstance(prompt, str) and prompt.strip()
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
                        info="At the capped layers above, whatever the reply begins with. "
                        "With strength 0 it is capped and not steered.",
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
