"""The engines that the conformance suite compares, each on the real default model in float32."""

from __future__ import annotations

import importlib.util
import pickle
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import pytest
import uvicorn

from demo.axis.axis import AssistantAxis
from demo.axis.directions import all_directions
from demo.bench.app_process import free_port
from demo.engine.remote.client import RemoteEngine
from demo.engine.remote.server import Service
from demo.engine.transformers_engine import TransformersEngine
from demo.engine.zerogpu import ZeroGpuEngine
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel

HAS_VLLM = importlib.util.find_spec("vllm") is not None


class _Server(uvicorn.Server):
    """Sets `listening` once it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@contextmanager
def served(engine: Any, **options: Any) -> Iterator[str]:
    """The address of an engine that is served from a thread of this process. options: see `Service`."""
    port = free_port()
    app = Service(engine, ["a note"], **options).app()
    server = _Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = Thread(target=server.run)
    thread.start()
    try:
        assert server.listening.wait(30), "the server did not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


@contextmanager
def transformers_engine(model: LoadedModel, axis: AssistantAxis) -> Iterator[Any]:
    yield TransformersEngine(model, axis, own_thread=True, directions=all_directions(axis, None))


@contextmanager
def unfused_engine(model: LoadedModel, axis: AssistantAxis) -> Iterator[Any]:
    """Runs transformers' own modules."""
    directions = all_directions(axis, None)
    yield TransformersEngine(model, axis, fused=False, own_thread=True, directions=directions)


@contextmanager
def remote_engine(model: LoadedModel, axis: AssistantAxis) -> Iterator[Any]:
    with transformers_engine(model, axis) as engine, served(engine) as url:
        yield RemoteEngine(url)


def fake_gpu(duration: Callable[..., float]) -> Callable[..., Any]:
    """Works like ZeroGPU's decorator.

    Arguments and results are pickled, and closing the generator stops the work.
    """

    def decorate(task: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Iterator[Any]:
            assert 0 < duration(*arguments) <= 120
            work = task(*pickle.loads(pickle.dumps(arguments)))
            try:
                for item in work:
                    yield pickle.loads(pickle.dumps(item))
            finally:
                work.close()

        return run

    return decorate


@contextmanager
def zerogpu_engine(model: LoadedModel, axis: AssistantAxis) -> Iterator[Any]:
    yield ZeroGpuEngine(model, axis, fake_gpu, directions=all_directions(axis, None))


@contextmanager
def vllm_engine(model: LoadedModel | None, axis: AssistantAxis, **options: Any) -> Iterator[Any]:
    """vLLM loads the default model itself; `model` is not used. options: see `VllmOptions`."""
    from demo.engine.vllm.engine import VllmEngine
    from demo.engine.vllm.options import VllmOptions
    from demo.models.loading import read_facts

    chosen = VllmOptions(rows=32, kv_bytes=2**29, **options)
    engine = VllmEngine(read_facts(DEFAULT_MODEL, dtype="float32"), axis, chosen)
    try:
        yield engine
    finally:
        engine.shut_down()


@contextmanager
def vllm_tensor_parallel_engine(model: LoadedModel, axis: AssistantAxis) -> Iterator[Any]:
    """Each layer is spread over three processes, because nine attention heads do not divide by two."""
    with vllm_engine(model, axis, tensor_parallel=3) as engine:
        yield engine


@contextmanager
def vllm_pipeline_parallel_engine(model: LoadedModel, axis: AssistantAxis) -> Iterator[Any]:
    """The layers are spread over two processes. The second has the capped layers and the probe layer."""
    with vllm_engine(model, axis, pipeline_parallel=2) as engine:
        yield engine


ENGINES: dict[str, Callable[[LoadedModel, AssistantAxis], Any]] = {
    "transformers": transformers_engine,
    "modules": unfused_engine,
    "process": remote_engine,
    "zerogpu": zerogpu_engine,
    "vllm": vllm_engine,
    "vllm-tensor-parallel": vllm_tensor_parallel_engine,
    "vllm-pipeline-parallel": vllm_pipeline_parallel_engine,
}


# Engines that start several processes, and engines that other tests of a quick run exercise as well.
_SLOW = ("vllm-tensor-parallel", "vllm-pipeline-parallel", "modules", "process", "zerogpu")


def engine_parameters() -> list[Any]:
    """The names of all engines as pytest parameters, with marks for slow and absent ones."""

    def marks(name: str) -> list[Any]:
        absent = pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed here")
        return [*([absent] if "vllm" in name else []), *([pytest.mark.slow] if name in _SLOW else [])]

    return [pytest.param(name, marks=marks(name)) for name in ENGINES]
