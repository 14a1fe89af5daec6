"""The page: scenario buttons, the stage, the message box, the settings. Declares components and wires them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from demo.axis import AssistantAxis
from demo.engine.protocol import Engine, Sampling
from demo.page.actions import Actions
from demo.page.controls import Controls, build_controls
from demo.page.session import Scenario, Session
from demo.page.stage import STATIC_DIR, plotly_head, stage

TITLE = "Persona drift, live"
# All events that run the model share one queue, so that turns wait for each other and not in the engine.
MODEL_QUEUE = "model"
_SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]


def build_page(engine: Engine, axis: AssistantAxis, model_name: str, status: str, scenarios: tuple[Scenario, ...], defaults: Sampling) -> gr.Blocks:
    """The whole page. status: one line about model and axis; defaults: the sampling settings it opens with."""
    actions = Actions(engine, axis, model_name)
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        session = gr.State(None, delete_callback=lambda value: actions.close(value) if value else None)
        with gr.Sidebar(position="right", width=300, elem_id="settings"):
            gr.Markdown("### Settings")
            controls = build_controls(axis, defaults)
        with gr.Row(elem_id="top"):
            gr.Markdown(f"# {TITLE}", elem_id="title")
            buttons = [gr.Button(s.title, size="sm", min_width=90, elem_classes="scenario") for s in scenarios]
        view = stage()
        with gr.Row(elem_id="say"):
            message = gr.Textbox(show_label=False, container=False, lines=1, max_lines=4, scale=8, autofocus=True,
                                 placeholder="Say something to both…", label="Message", elem_id="message")  # fmt: skip
            send = gr.Button("Send", variant="primary", scale=1, min_width=80, elem_id="send")
            stop = gr.Button("Stop", variant="stop", scale=1, min_width=80, visible=False, elem_id="stop")
            new_chat = gr.Button("New chat", scale=1, min_width=90, elem_id="new-chat")
        gr.Markdown(status, elem_id="status")
        with gr.Accordion("What am I looking at?", open=False, elem_id="about"):
            gr.Markdown(_about(axis))
        _wire(page, actions, session, view, message, send, stop, new_chat, controls, list(zip(buttons, scenarios, strict=True)))
    return page


def launch_options() -> dict[str, Any]:
    """What `Blocks.launch` needs for this page: everything is served from here, nothing is recorded."""
    theme = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=_SYSTEM_FONTS, font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"])
    return {
        "theme": theme,
        "head": plotly_head(),
        "css": (STATIC_DIR / "page.css").read_text(encoding="utf-8"),
        "share": False,
        "run_history": False,
        "show_error": True,
        "footer_links": [],
        "ssr_mode": False,
    }


def _wire(
    page: gr.Blocks,
    actions: Actions,
    session: gr.State,
    view: gr.HTML,
    message: gr.Textbox,
    send: gr.Button,
    stop: gr.Button,
    new_chat: gr.Button,
    controls: Controls,
    scenarios: list[tuple[gr.Button, Scenario]],
) -> None:
    quiet = {"show_progress": "hidden"}
    answer = {
        "fn": actions.send,
        "inputs": [session, message, *controls.inputs()],
        "outputs": [view, message, send, stop],
        "concurrency_id": MODEL_QUEUE,
        "concurrency_limit": 1,
        **quiet,
    }
    page.load(actions.open, controls.cap_inputs(), [session, view], api_visibility="private", **quiet)
    gr.on([message.submit, send.click], **answer, api_name="send", trigger_mode="once")
    stop.click(actions.stop, session, None, api_name="stop", queue=False, **quiet)
    new_chat.click(
        actions.new_chat, [session, *controls.cap_inputs()], [session, view, message], api_name="new_chat", **quiet
    )
    for button, scenario in scenarios:
        button.click(
            partial(_start, actions, scenario),
            [session, *controls.cap_inputs()],
            [session, view, message, controls.system_prompt],
            api_visibility="private",
            **quiet,
        ).then(**answer, api_visibility="private")
    gr.on(
        [component.change for component in controls.cap_inputs()],
        actions.redraw_marks,
        [session, *controls.cap_inputs()],
        view,
        api_visibility="private",
        trigger_mode="always_last",
        **quiet,
    )


def _start(actions: Actions, scenario: Scenario, session: Session, *cap: object):
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
    text = (Path(__file__).parent / "static" / "about.md").read_text(encoding="utf-8")
    return text.format(probe=axis.probe_layer, first=first, last=last, where=where)
