"""python app.py: load a model and its axis, and open the page."""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import configargparse

from demo.page.hosting import (
    add_class_options,
    add_hosting_options,
    add_intro_option,
    class_address_of,
    host_of,
    limits_of,
    password_of,
    proxies_of,
    root_path_of,
    sessions_folder_of,
)
from demo.space import on_zerogpu

# Set before gradio is imported: no analytics, whatever the environment says. Gradio would also keep the last
# 10,000 events with their sessions, and aggregate all of them after each one.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)
if on_zerogpu():
    import spaces  # noqa: F401 - it must be imported before torch

from demo.engine.options import (
    NamedModel,
    ServedEngine,
    add_engine_options,
    end_plainly_when_asked,
    load_engine,
)
from demo.models.names import AUTO
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.progress import ConsoleProgress

if TYPE_CHECKING:
    from starlette.routing import Route

    from demo.conversation.session_file import Recording
    from demo.page.completions.endpoint import Completions
    from demo.page.hosting import Limits


@command
def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    end_plainly_when_asked()
    limits = limits_of(options)
    password_of(options), root_path_of(options), proxies_of(options)  # mistakes are reported before loading
    folder, class_address = sessions_folder_of(options), class_address_of(options)
    options.host = host_of(options)
    if options.class_mode and options.replay is not None:
        raise UserError("A class needs a model; leave out --replay.")
    if options.openai and (options.replay is not None or on_zerogpu()):
        raise UserError(
            "--openai needs a model that stays loaded: leave out --replay, and use no ZeroGPU Space."
        )
    if options.replay is not None:
        _replay(options, folder)
        return
    if options.make_axis and (options.engine != "transformers" or on_zerogpu()):
        raise UserError(
            "--make-axis needs the default engine on a machine of its own: make the axis there first, "
            "and start this engine afterwards."
        )
    # Imported late, so that a mistake in the flags is reported at once.
    from demo.conversation.session_file import open_file
    from demo.page.recordings import intro_file

    found = intro_file(options.intro)
    intro = None if found is None else open_file(found)
    engine, notes = _load(options, intro, limits)

    from demo.conversation.scenarios import load_scenarios, with_measured_shares
    from demo.conversation.settings import PAGE_SAMPLING
    from demo.page.classroom.routes import ClassPages
    from demo.page.classroom.talk import Loaded
    from demo.page.evaluation_panel import evaluation_text
    from demo.page.layout import build_page, launch_options
    from demo.page.made_with import made_with
    from demo.page.rate_limit import RateLimiter
    from demo.page.shared_sessions import SharedSessions

    rate_limiter = RateLimiter(limits)
    model, axis = engine.model, engine.axis
    evaluation = evaluation_text(axis, _axis_folder(options, model))
    status = " · ".join([f"**{model.slug}** on {model.device}, {model.dtype_reason}", *notes])
    scenarios = with_measured_shares(load_scenarios(dtype=model.dtype_name), model.slug, model.dtype_name)
    page = build_page(
        engine,
        axis,
        model.slug,
        status,
        scenarios,
        PAGE_SAMPLING,
        evaluation=evaluation,
        rate_limiter=rate_limiter,
        thinking=model.thinking,
        dtype=model.dtype_name,
        intro=intro,
        directions=engine.directions,
        reads_plain=engine.reads_plain,
        conditional_caps=engine.conditional_caps,
        shared_sessions=SharedSessions(folder),
        made_with=made_with(model.spec, options.axis or AUTO, model.template, model.base),
        may_open_class=_may_open_class(options),
    )
    print(status.replace("*", ""))
    completions = None
    if options.openai:
        from demo.page.completions.endpoint import Completions

        completions = Completions(engine, axis, model.slug, rate_limiter, model.thinking)
        print(f"OpenAI-compatible endpoint: http://{options.host}:{options.port}/v1")
    loaded = Loaded(engine, axis, model.slug, model.dtype_name, model.template, model.thinking == "always")
    classes = ClassPages(
        loaded,
        rate_limiter,
        scenarios,
        root_path_of(options) or "",
        options.class_size,
        class_address,
        _may_open_class(options),
        _is_reachable(options),
    )
    if options.class_mode:
        _announce_class(classes.open().secret, options)
    _launch(page, options, launch_options(), completions, classes.routes())


def _may_open_class(options: argparse.Namespace) -> bool:
    """Whether a visitor of this machine may open a class: not where a proxy makes everybody look like one."""
    return not (_is_behind_proxy(options) or options.password or on_zerogpu())


def _is_behind_proxy(options: argparse.Namespace) -> bool:
    """Whether the flags tell of a proxy before the page."""
    return bool(options.root_path or options.trusted_proxies or options.class_address)


def _is_reachable(options: argparse.Namespace) -> bool:
    """Whether phones may reach the page: it listens to other machines, or a proxy does."""
    return _is_behind_proxy(options) or options.host not in ("localhost", "127.0.0.1", "::1")


def _announce_class(secret: str, options: argparse.Namespace) -> None:
    local = options.host in ("0.0.0.0", "::", "127.0.0.1", "::1")
    named = f"[{options.host}]" if ":" in options.host else options.host
    host, root = "localhost" if local else named, root_path_of(options) or ""
    board = f"http://{host}:{options.port}{root}/class/board#{secret}"
    print(f"The class is open. Only you, its speaker, should open this address: {board}", flush=True)


def _load(
    options: argparse.Namespace, intro: Recording | None, limits: Limits
) -> tuple[ServedEngine, list[str]]:
    """Load the engine. Meanwhile the port shows the intro, and the making of the axis if there is none."""
    from demo.page.first_page import FirstPage
    from demo.page.rate_limit import trust_proxies

    trust_proxies(proxies_of(options))
    # Nothing is shown where visitors must enter a password first, or where the host starts the program when
    # it sees a page.
    allowed = password_of(options) is None and not on_zerogpu()
    first = FirstPage(
        options.host,
        options.port,
        root_path_of(options),
        limits,
        options.make_axis,
        allowed,
        options.open,
        options.role_prompts,
    )
    with closing(first), ThreadPoolExecutor(1) as apart:
        if intro is not None:
            first.show_intro(intro)
        # On a thread that ends: one that has computed keeps a pool of helper threads, and several pools slow
        # each other down.
        loading = apart.submit(load_engine, options, ConsoleProgress(), first.make_axis)
        try:
            import demo.page.layout  # noqa: F401 - gradio takes seconds, which would be added otherwise

            found = loading.result()
        finally:
            first.stop()  # where this is interrupted, the other thread must not go on
    options.port, options.open = first.port, options.open and not first.in_browser
    return found


def _axis_folder(options: argparse.Namespace, model: NamedModel) -> Path | None:
    """The folder of the axis in use; None when it has none, or is not on this machine."""
    from demo.axis.store import home_of

    home = home_of(options.axis, model)
    return None if home is None else home.folder


def _replay(options: argparse.Namespace, folder: Path | None) -> None:
    """Show recorded sessions. No model is loaded."""
    from demo.conversation.session_file import open_file
    from demo.page.layout import TITLE, launch_options
    from demo.page.shared_sessions import SharedSessions
    from demo.page.viewer import build_viewer

    first = open_file(Path(options.replay)) if options.replay else None
    _launch(build_viewer(TITLE, first, SharedSessions(folder)), options, launch_options())


def _launch(
    page: Any,
    options: argparse.Namespace,
    more: dict[str, Any],
    completions: Completions | None = None,
    routes: Sequence[Route] = (),
) -> None:
    from demo.page.middleware import middleware_options
    from demo.page.rate_limit import trust_proxies

    trust_proxies(proxies_of(options))
    more |= middleware_options(password_of(options), root_path_of(options), completions, routes)
    gc.freeze()  # objects made so far stay; collecting among them would delay all replies each time
    page.launch(server_name=options.host, server_port=options.port, inbrowser=options.open, **more)


def parser() -> argparse.ArgumentParser:
    """The flags. Each can also be set by an environment variable PERSONA_DRIFT_<FLAG>."""
    found = configargparse.ArgumentParser(
        prog="python app.py",
        description="Live microscope for persona drift.",
        auto_env_var_prefix="PERSONA_DRIFT_",
    )
    add_engine_options(found)
    add_hosting_options(found)
    add_class_options(found)
    add_intro_option(found)
    found.add_argument(
        "--make-axis",
        choices=("quick", "standard", None),
        type=lambda text: text or None,  # a Space passes a variable that is not set as an empty one
        metavar="{quick,standard}",
        help="make an axis before the page opens if the model has none; quick takes minutes for a small "
        "model, standard many times that. The next start finds it in your own data folder",
    )
    found.add_argument(
        "--role-prompts",
        choices=("plain", "strong", "example"),
        help="how roles are asked for where an axis is made here: strong and example are for models that "
        "hardly take up roles (default: plain; with --base, example)",
    )
    found.add_argument("--open", action="store_true", help="open the page in the browser")
    found.add_argument(
        "--replay",
        nargs="?",
        const="",
        metavar="FILE",
        help="watch recorded sessions without a model: this session file, or the ones that come with the "
        "program",
    )
    return found


if __name__ == "__main__":
    raise SystemExit(main())
