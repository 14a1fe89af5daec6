"""The page: scenario buttons, the stage, the message box, the settings. Declares components and wires them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from demo.axis.axis import AssistantAxis
from demo.axis.gates import gate_banner
from demo.conversation.scenarios import Scenario
from demo.engine.protocol import Engine, Sampling
from demo.page.api import Api, add_api
from demo.page.chat_handlers import ChatHandlers
from demo.page.hosting import Limits
from demo.page.rate_limit import RateLimiter
from demo.page.session import Session
from demo.page.settings_panel import Controls, build_controls
from demo.page.stage.component import plotly_head, stage
from demo.page.stage_handlers import StageHandlers

TITLE = "Persona drift, live"

# Turns of all visitors run side by side; who must wait, waits in the engine, which knows for how many.
MODEL_QUEUE = "model"

# Every reply that is being written holds one of the server's threads.
_THREADS = 256

# Events that wait for a thread. Turns wait in the engine and have a limit of their own, so this is for a flood.
_MOST_QUEUED = 512

# Of tabs, open or closed within the hour; beyond that Gradio forgets the one that has been still for longest.
_MOST_TABS = 512

# On a phone the open settings would cover everything else, on a projector they take room from the replies.
_CLOSE_SETTINGS_WHERE_NARROW = (
    "() => { if (innerWidth < 1360) document.querySelector('#settings .toggle-button')?.click() }"
)

_SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]


@dataclass(frozen=True)
class Parts:
    """The components that events connect."""

    session: gr.State
    view: gr.HTML
    message: gr.Textbox
    send: gr.Button
    stop: gr.Button
    new_chat: gr.Button
    controls: Controls
    scenarios: list[tuple[gr.Button, Scenario]]


def build_page(
    engine: Engine,
    axis: AssistantAxis,
    model_name: str,
    status: str,
    scenarios: tuple[Scenario, ...],
    defaults: Sampling,
    evaluation: str = "",
    limits: Limits | None = None,
) -> gr.Blocks:
    """The whole page. status: one line about model and axis; defaults: the sampling settings it opens with; evaluation: markdown
    on whether capping works on this model; limits: what one visitor may ask for."""
    rate_limiter = RateLimiter(limits or Limits())
    actions = ChatHandlers(engine, axis, model_name, rate_limiter)
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        # A function, not the bound method: Gradio copies what it is given, and would copy the engine with it.
        session = gr.State(Session(), delete_callback=lambda gone: actions.close(gone))
        with gr.Sidebar(position="right", width=300, elem_id="settings"):
            gr.Markdown("### Settings")
            controls = build_controls(axis, defaults)
        with gr.Row(elem_id="top"):
            gr.Markdown(f"# {TITLE}", elem_id="title")
            buttons = [
                gr.Button(s.title, size="sm", min_width=90, elem_classes="scenario") for s in scenarios
            ]
        banner = gate_banner(axis.manifest)
        if banner is not None:
            gr.Markdown(banner, elem_id="gates")
        view = stage()
        with gr.Row(elem_id="say"):
            message = gr.Textbox(
                placeholder="Say something to both…",
                label="Message",
                show_label=False,
                container=False,
                max_lines=4,
                scale=8,
                autofocus=True,
                elem_id="message",
            )
            send = gr.Button("Send", variant="primary", scale=1, min_width=80, elem_id="send")
            stop = gr.Button("Stop", variant="stop", scale=1, min_width=80, visible=False, elem_id="stop")
            new_chat = gr.Button("New chat", scale=1, min_width=90, elem_id="new-chat")
        gr.Markdown(status, elem_id="status")
        with gr.Accordion("What am I looking at?", open=False, elem_id="about"):
            gr.Markdown(_about(axis))
        with gr.Accordion("Does capping work here, and what does it cost?", open=False, elem_id="evaluation"):
            gr.Markdown(evaluation)
        started_by = list(zip(buttons, scenarios, strict=True))
        _wire(page, actions, Parts(session, view, message, send, stop, new_chat, controls, started_by))
        add_api(Api(engine, axis, model_name, rate_limiter), MODEL_QUEUE)
    page.queue(max_size=_MOST_QUEUED)
    return page


def launch_options() -> dict[str, Any]:
    """What `Blocks.launch` needs for this page: everything is served from here, nothing is recorded."""
    theme = gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=_SYSTEM_FONTS,
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
    ).set(
        # Gradio's own are too pale to read from the back of a room (WCAG AA).
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_cancel_background_fill="#b42318",
        button_cancel_text_color="white",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )
    return {
        "theme": theme,
        "head": plotly_head(),
        "css": (Path(__file__).parent / "page.css").read_text(encoding="utf-8"),
        "share": False,
        "run_history": False,
        "show_error": True,
        "footer_links": [],
        "ssr_mode": False,
        "max_threads": _THREADS,
        "state_session_capacity": _MOST_TABS,
    }


def _wire(page: gr.Blocks, actions: ChatHandlers, parts: Parts) -> None:
    quiet: dict[str, Any] = {"show_progress": "hidden"}
    private: dict[str, Any] = {**quiet, "api_visibility": "private"}
    cap = parts.controls.cap_inputs()
    answer: dict[str, Any] = {
        "fn": actions.send,
        "inputs": [parts.session, parts.message, *parts.controls.inputs()],
        "outputs": [parts.view, parts.message, parts.send, parts.stop],
        "concurrency_id": MODEL_QUEUE,
        "concurrency_limit": None,
    }
    asks = StageHandlers(actions)
    everything = [parts.session, *parts.controls.inputs()]
    # The stage's own buttons. Two asked for at once are both answered: what needs the model in its queue, the rest beside it.
    stage: dict[str, Any] = {**private, "trigger_mode": "multiple"}
    quick = [parts.view, parts.message, parts.controls.system_prompt]
    parts.view.select(asks.quick, everything, quick, concurrency_limit=None, **stage)
    parts.view.submit(
        asks.slow, everything, answer["outputs"], concurrency_id=MODEL_QUEUE, concurrency_limit=None, **stage
    )
    page.load(actions.open, [parts.session, *cap], parts.view, **private)
    page.unload(actions.leave)
    page.load(None, js=_CLOSE_SETTINGS_WHERE_NARROW, api_visibility="private")
    gr.on([parts.message.submit, parts.send.click], **answer, **quiet, api_name="send", trigger_mode="once")
    # Not queued: a stop must not wait behind the turn it is to end.
    parts.stop.click(actions.stop, parts.session, None, queue=False, api_name="stop", **quiet)
    parts.new_chat.click(
        actions.new_chat, [parts.session, *cap], [parts.view, parts.message], api_name="new_chat", **quiet
    )
    for button, scenario in parts.scenarios:
        button.click(
            partial(_start, actions, scenario),
            [parts.session, *cap],
            [parts.view, parts.message, parts.controls.system_prompt],
            **private,
        ).then(**answer, **private)
    gr.on(
        [component.change for component in cap],
        actions.redraw_marks,
        [parts.session, *cap],
        parts.view,
        trigger_mode="always_last",
        **private,
    )


def _start(actions: ChatHandlers, scenario: Scenario, session: Session, *cap: object):
    return actions.start(session, scenario, *cap)


def _about(axis: AssistantAxis) -> str:
    first, last = axis.cap_band
    covered = first <= axis.probe_layer <= last
    where = (
        "The reading is taken inside the capped layers, so the capped line is shown after the clamp; hollow marks show "
        "the value before it."
        if covered
        else "The reading is taken outside the capped layers, so the floor line is only for orientation there."
    )
    text = (Path(__file__).parent / "about.md").read_text(encoding="utf-8")
    return text.format(probe=axis.probe_layer, first=first, last=last, where=where)
