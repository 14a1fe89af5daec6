"""The page on a real port of this process, with a scripted engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from starlette.routing import Route

from demo.bench.app_process import free_port
from demo.bench.browser_client import BrowserClient
from demo.conversation.scenarios import load_scenarios
from demo.conversation.session_file import Recording
from demo.engine.protocol import Sampling
from demo.page.completions.endpoint import Completions
from demo.page.hosting import Limits
from demo.page.layout import build_page, launch_options
from demo.page.middleware import middleware_options
from demo.page.rate_limit import RateLimiter
from tests.helpers.axes import random_axis

MODEL_NAME = "a-model-of-the-tests"


@contextmanager
def hosted(
    engine: Any,
    limits: Limits | None = None,
    password: str | None = None,
    root_path: str | None = None,
    intro: Recording | None = None,
    port: int | None = None,
    openai: bool = False,
    more: Callable[[Any, RateLimiter], Sequence[Route]] = lambda engine, rate_limiter: (),
) -> Iterator[str]:
    """Serve the page with this engine. more: makes further routes. Yields its address."""
    rate_limiter = RateLimiter(limits or Limits())
    axis = random_axis(4, 16, 2, (1, 2), MODEL_NAME)
    page = build_page(
        engine, axis, MODEL_NAME, MODEL_NAME, load_scenarios(), Sampling(), "", rate_limiter, intro=intro
    )
    port = free_port() if port is None else port
    completions = Completions(engine, axis, MODEL_NAME, rate_limiter, "optional") if openai else None
    options = launch_options() | middleware_options(
        password, root_path, completions, more(engine, rate_limiter)
    )
    page.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True, **options)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        page.close()


def turns_shown(tab: BrowserClient) -> list[str]:
    """The user's messages on the stage, after switching to the conversation that is already open."""
    ops = tab.quick(do="switch", conversation=0)
    return [turn["user"] for op in ops if op["op"] == "reset" for turn in op["turns"]]
