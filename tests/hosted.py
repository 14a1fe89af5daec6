"""The page on a real port of this process, with an engine whose answers are known."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

from demo.engine.protocol import Load, Sampling
from demo.hosting import Limits
from demo.page.guard import guarded
from demo.page.layout import build_page, launch_options
from demo.page.session import load_scenarios
from tests.conftest import random_axis
from tests.scripted import ScriptedEngine

MODEL_NAME = "a-model-of-the-tests"


class PatientEngine(ScriptedEngine):
    """Holds every reply back after its first token until `go` is set; `queued` replies wait for room."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.queued, self.answered = Event(), 0, 0
        self.go.set()

    def _events(self, cancel):
        for number, event in enumerate(super()._events(cancel)):
            if number == 3 and not self.go.wait(30):
                raise RuntimeError("the test never said go")
            yield event
        self.answered += 1

    @property
    def load(self):
        return Load(0, self.queued, 0, 2**30)


@contextmanager
def hosted(engine: Any, limits: Limits | None = None, password: str | None = None) -> Iterator[str]:
    """Gives the address."""
    axis = random_axis(4, 16, 2, (1, 2), MODEL_NAME)
    page = build_page(engine, axis, MODEL_NAME, MODEL_NAME, load_scenarios(), Sampling(), "", limits)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = launch_options() | guarded(password)
    page.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True, **options)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        page.close()
