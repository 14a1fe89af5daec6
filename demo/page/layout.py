"""The page: scenario buttons, the stage, the message box and the settings.

This module declares the components and connects them with their handlers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from demo.axis.axis import AssistantAxis
from demo.axis.directions import Direction
from demo.axis.gates import broken_banner, reliability
from demo.conversation.scenarios import GROUPS, Scenario
from demo.conversation.session_file import Recording
from demo.conversation.settings import CapChoice
from demo.engine.protocol import Engine, Sampling
from demo.page import about
from demo.page.api import Api, add_api
from demo.page.chat_handlers import ChatHandlers
from demo.page.made_with import MadeWith
from demo.page.rate_limit import RateLimiter
from demo.page.session import Chat, Session
from demo.page.settings_panel import SettingsPanel, build_settings_panel, panel_values
from demo.page.shared_sessions import SharedSessions
from demo.page.stage.component import plotly_head, stage
from demo.page.stage_handlers import StageHandlers

if TYPE_CHECKING:
    from demo.models.loading import Thinking

TITLE = "Persona drift, live"

# The queue lets the turns of all visitors run side by side. The engine makes turns wait, because it knows how
# many come first.
MODEL_QUEUE = "model"

# Threads of the server. Every reply that is being written occupies one.
_THREADS = 256

# Events that may wait for a thread. Turns wait in the engine, with a limit of their own, so this one only
# guards against floods.
_MOST_QUEUED = 512

# Tabs, open or closed within the hour. Beyond that Gradio forgets the least recently used ones.
_MOST_TABS = 512

# On a phone the open settings would cover everything else; in a narrow window they take space from the
# replies. The message box gets the focus only where that neither scrolls the page nor opens a keyboard on the
# screen.
_ON_ARRIVAL = """() => {
  if (innerWidth < 1360) document.querySelector('#settings .toggle-button')?.click();
  if (innerWidth < 700 || document.activeElement !== document.body) return;
  document.querySelector('#message textarea')?.focus({ preventScroll: true });
}"""

RELIABILITY = "How reliable is this axis?"

_OPEN_RELIABILITY = """() => {
  const button = document.querySelector('#reliability > button');
  if (!button.classList.contains('open')) button.click();
  setTimeout(() => document.querySelector('#reliability').scrollIntoView({ behavior: 'smooth' }), 100);
}"""

# Only whoever has started the program opens a class, on its machine; the server checks that again.
_OFFER_CLASS = """() => {
  const here = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  document.querySelector("#open-class")?.classList.toggle("offered", here);
}"""
_OPEN_CLASS = """async () => {
  const tab = window.open("about:blank");
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch("class/start", { method: "POST", headers, body: "{}" });
  const { secret, detail } = await answer.json();
  if (!answer.ok) { tab?.close(); alert(detail); return; }
  if (tab) tab.location = new URL(`class/board#${secret}`, location.href).href;
}"""

# What a scenario shows appears under the mouse; Gradio's buttons have no such text. The browser opens and
# closes the list of further scenarios, with Escape and a click outside too.
_SCENARIOS = """() => {{
  const hints = {hints};
  const [list, button] = ['#all-scenarios', '#more-scenarios'].map((one) => document.querySelector(one));
  document.querySelectorAll('.scenario').forEach((one, n) => {{ one.title = hints[n]; }});
  if (!list || !button) return;
  list.popover = 'auto';
  button.popoverTargetElement = list;
  button.setAttribute('aria-haspopup', 'true');
  list.addEventListener('click', (event) => event.target.closest('.scenario') && list.hidePopover());
  list.addEventListener('beforetoggle', (event) => {{
    const {{ left, bottom }} = button.getBoundingClientRect();
    list.style.left = `${{Math.max(8, Math.min(left, innerWidth - 340))}}px`;
    list.style.top = `${{bottom + 4}}px`;
    button.setAttribute('aria-expanded', String(event.newState === 'open'));
  }});
}}"""

# Options of event listeners.
_QUIET: dict[str, Any] = {"show_progress": "hidden"}
_PRIVATE: dict[str, Any] = {**_QUIET, "api_visibility": "private"}

_SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]


@dataclass(frozen=True)
class Components:
    """The components that are connected with handlers."""

    session: gr.State
    view: gr.HTML
    message: gr.Textbox
    send: gr.Button
    stop: gr.Button
    new_chat: gr.Button
    panel: SettingsPanel
    scenarios: list[tuple[gr.Button, Scenario]]


def build_page(
    engine: Engine,
    axis: AssistantAxis,
    model_name: str,
    status: str,
    scenarios: tuple[Scenario, ...],
    defaults: Sampling,
    evaluation: str = "",
    rate_limiter: RateLimiter | None = None,
    thinking: Thinking = "never",
    dtype: str = "",
    intro: Recording | None = None,
    directions: Mapping[str, Direction] | None = None,
    reads_plain: bool = False,
    conditional_caps: bool = False,
    made_with: MadeWith | None = None,
    shared_sessions: SharedSessions | None = None,
    may_open_class: bool = False,
) -> gr.Blocks:
    """The whole page.

    Args:
        status: one line about model and axis.
        defaults: the sampling settings that the page opens with.
        evaluation: Markdown on whether capping works on this model.
        rate_limiter: None for one with the default limits.
        thinking: whether the model reasons before it answers.
        dtype: number format of the model's weights, for the settings of each turn.
        intro: the recording that plays when a visitor arrives; None for an empty page.
        directions: the engine's further directions.
        reads_plain: whether the engine can read the capped words without the cap as they are written.
        conditional_caps: whether the engine can cap only the replies that begin below a threshold.
        made_with: what a command needs to load the same model; None if that is not known.
        shared_sessions: those that visitors may open by address; None for none.
        may_open_class: whether a visitor of this machine may open a class.
    """
    rate_limiter = rate_limiter or RateLimiter()
    named = directions or {}
    handlers = ChatHandlers(
        engine,
        axis,
        model_name,
        rate_limiter,
        dtype,
        intro,
        named,
        made_with=made_with or MadeWith(),
        shared_sessions=shared_sessions or SharedSessions(),
    )
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        # A lambda, because Gradio copies the callback and would copy the engine with a bound method.
        session = gr.State(Session(), delete_callback=lambda gone: handlers.close(gone))
        with gr.Sidebar(position="right", width=300, elem_id="settings"):
            gr.Markdown("### Settings")
            panel = build_settings_panel(axis, defaults, thinking, named, reads_plain, conditional_caps)
            if may_open_class:
                open_class = gr.Button("Open a class…", size="sm", elem_id="open-class")
                open_class.click(None, js=_OPEN_CLASS, api_visibility="private")
                page.load(None, js=_OFFER_CLASS, api_visibility="private")
        with gr.Column(elem_id="screen"):
            with gr.Row(elem_id="top"):
                gr.Markdown(f"# {TITLE}", elem_id="title")
                reliable = gr.Button(RELIABILITY, size="sm", min_width=90, elem_id="how-reliable")
                started_by = _scenario_buttons([scenario for scenario in scenarios if scenario.first])
                further = [scenario for scenario in scenarios if not scenario.first]
                if further:
                    gr.Button("More scenarios", size="sm", min_width=90, elem_id="more-scenarios")
            if further:
                with gr.Column(elem_id="all-scenarios"):
                    started_by += _grouped_buttons(further)
            banner = broken_banner(axis.manifest)
            if banner is not None:
                gr.Markdown(banner, elem_id="gates")
            view = stage()
            message, send, stop, new_chat = _message_box()
        gr.Markdown(status, elem_id="status")
        with gr.Accordion(about.TITLE, open=False, elem_id="about"):
            gr.Markdown(about.about_text(CapChoice.of_axis(axis).marks(axis), thinking != "never"))
        with gr.Accordion(RELIABILITY, open=False, elem_id="reliability"):
            gr.Markdown(reliability(axis.manifest))
        reliable.click(None, js=_OPEN_RELIABILITY, api_visibility="private")
        with gr.Accordion("Does capping work here, and what does it cost?", open=False, elem_id="evaluation"):
            gr.Markdown(evaluation)
        components = Components(session, view, message, send, stop, new_chat, panel, started_by)
        _connect(page, handlers, components)
        add_api(Api(engine, axis, model_name, rate_limiter, thinking), MODEL_QUEUE)
    page.queue(max_size=_MOST_QUEUED)
    return page


def _scenario_buttons(scenarios: Sequence[Scenario]) -> list[tuple[gr.Button, Scenario]]:
    """A button for each scenario, in the current Gradio context."""
    return [
        (gr.Button(one.title, size="sm", min_width=90, elem_classes="scenario"), one) for one in scenarios
    ]


def _grouped_buttons(scenarios: Sequence[Scenario]) -> list[tuple[gr.Button, Scenario]]:
    """The same, under the names of their groups."""
    buttons = []
    for group in GROUPS:
        members = [scenario for scenario in scenarios if scenario.group == group]
        if members:
            gr.Markdown(f"**{group}**")
            with gr.Row():
                buttons += _scenario_buttons(members)
    return buttons


def _message_box() -> tuple[gr.Textbox, gr.Button, gr.Button, gr.Button]:
    with gr.Row(elem_id="say"):
        message = gr.Textbox(
            placeholder="Say something to both…",
            label="Message",
            show_label=False,
            container=False,
            max_lines=4,
            scale=8,
            elem_id="message",
        )
        send = gr.Button("Send", variant="primary", scale=1, min_width=80, elem_id="send")
        stop = gr.Button("Stop", variant="stop", scale=1, min_width=80, visible=False, elem_id="stop")
        new_chat = gr.Button("New chat", scale=1, min_width=90, elem_id="new-chat")
    return message, send, stop, new_chat


def launch_options() -> dict[str, Any]:
    """The options of `Blocks.launch`: everything is served from this server, and nothing is recorded."""
    theme = gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=_SYSTEM_FONTS,
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
    ).set(
        # Gradio's own colours have less contrast than WCAG AA asks for.
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


# Handlers below are named functions with plain parameters, because Gradio passes the request and the event by
# their annotations. Every handler receives all settings and returns all outputs.


def _connect(page: gr.Blocks, handlers: ChatHandlers, components: Components) -> None:
    """Connect the components with their handlers."""
    panel = components.panel
    settings = [components.session, *panel.inputs()]
    outputs = [components.view, components.message, panel.system_prompt, components.send, components.stop]
    _connect_stage(handlers, components.view, settings, outputs)

    def opened(session: Session, request: gr.Request, *values: Any) -> Any:
        return handlers.open(session, panel_values(values), request).outputs()

    def redraw_marks(session: Session, *values: Any) -> Any:
        return handlers.redraw_marks(session, panel_values(values)).outputs()

    def show_prompts(session: Session, *values: Any) -> Any:
        return handlers.show_prompts(session, panel_values(values)).outputs()

    page.load(opened, settings, outputs, **_PRIVATE)
    page.unload(handlers.leave)
    page.load(None, js=_ON_ARRIVAL, api_visibility="private")
    hints = json.dumps([scenario.blurb for _, scenario in components.scenarios])
    page.load(None, js=_SCENARIOS.format(hints=hints), api_visibility="private")
    _connect_buttons(handlers, components, settings, outputs)
    changes = [component.change for component in panel.cap_inputs()]
    gr.on(changes, redraw_marks, settings, outputs, trigger_mode="always_last", **_PRIVATE)
    changes = [component.change for component in panel.prompt_inputs()]
    gr.on(changes, show_prompts, settings, outputs, trigger_mode="always_last", **_PRIVATE)


def _connect_stage(handlers: ChatHandlers, view: gr.HTML, settings: list[Any], outputs: list[Any]) -> None:
    """Connect the stage. Its requests that run the model come as submit and wait in the model's queue."""
    requests = StageHandlers(handlers)

    def stage_request(
        session: Session, event: gr.EventData, request: gr.Request, *values: Any
    ) -> Iterator[Any]:
        for update in requests.dispatch(session, event._data, panel_values(values), request):
            yield update.outputs()

    # Two requests that come at once are both answered.
    options: dict[str, Any] = {**_PRIVATE, "trigger_mode": "multiple", "concurrency_limit": None}
    view.select(stage_request, settings, outputs, **options)
    view.submit(stage_request, settings, outputs, concurrency_id=MODEL_QUEUE, **options)


def _connect_buttons(
    handlers: ChatHandlers, components: Components, settings: list[Any], outputs: list[Any]
) -> None:
    """Connect the message box and the page's own buttons."""

    def send(session: Session, text: str, request: gr.Request, *values: Any) -> Iterator[Any]:
        for update in handlers.send(session, text, panel_values(values), request):
            yield update.outputs()

    def new_chat(session: Session, *values: Any) -> Any:
        return handlers.new_chat(session, panel_values(values)).outputs()

    answer: dict[str, Any] = {
        "fn": send,
        "inputs": [components.session, components.message, *components.panel.inputs()],
        "outputs": outputs,
        "concurrency_id": MODEL_QUEUE,
        "concurrency_limit": None,
    }
    sent = [components.message.submit, components.send.click]
    gr.on(sent, **answer, **_QUIET, api_name="send", trigger_mode="once")
    # Not queued: a stop must not wait behind the turn that it ends.
    components.stop.click(handlers.stop, components.session, None, queue=False, api_name="stop", **_QUIET)
    components.new_chat.click(new_chat, settings, outputs, api_name="new_chat", **_QUIET)
    for button, scenario in components.scenarios:
        start = _starting(handlers, scenario)
        button.click(start, settings, outputs, **_PRIVATE).then(**answer, **_PRIVATE)


def _starting(handlers: ChatHandlers, scenario: Scenario) -> Callable[..., Any]:
    """The handler of a scenario's button."""

    def start(session: Session, *values: Any) -> Any:
        return handlers.start(session, Chat.of_scenario(scenario), panel_values(values)).outputs()

    return start
