"""The engines that the conformance suite holds to one contract, each on the real default model in float32."""

from __future__ import annotations

import importlib.util
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
import uvicorn

from demo.axis.axis import AssistantAxis
from demo.engine.remote.client import RemoteEngine
from demo.engine.remote.server import Service
from demo.engine.transformers_engine import TransformersEngine
from demo.engine.zerogpu import ZeroGpuEngine
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel

HAS_VLLM = importlib.util.find_spec("vllm") is not None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(engine: Any, key: str = "", port: int | None = None) -> Iterator[str]:
    """An engine process's service, on a thread of this process."""
    port = port or free_port()
    config = uvicorn.Config(Service(engine, ["a note"], key).app(), port=port, log_level="error")
    server = uvicorn.Server(config)
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


@contextmanager
def by_transformers(model: LoadedModel, axis: AssistantAxis) -> Iterator[Any]:
    yield TransformersEngine(model, axis, own_thread=True)


@contextmanager
def by_modules(model: LoadedModel, axis: AssistantAxis) -> Iterator[Any]:
    yield TransformersEngine(model, axis, lean=False, own_thread=True)


@contextmanager
def by_process(model: LoadedModel, axis: AssistantAxis) -> Iterator[Any]:
    with served(TransformersEngine(model, axis, own_thread=True)) as url:
        yield RemoteEngine(url)


def lend(duration: Callable[..., float]) -> Callable[..., Any]:
    """As ZeroGPU's decorator: what goes in and what comes out is pickled, and closing stops the work after the next result."""

    def decorate(task: Callable[..., Any]) -> Callable[..., Any]:
        def lent(*given: Any) -> Iterator[Any]:
            assert 0 < duration(*given) <= 120
            work = task(*pickle.loads(pickle.dumps(given)))
            try:
                for item in work:
                    yield pickle.loads(pickle.dumps(item))
            finally:
                work.close()

        return lent

    return decorate


@contextmanager
def by_lent_gpu(model: LoadedModel, axis: AssistantAxis) -> Iterator[Any]:
    yield ZeroGpuEngine(model, axis, lend)


@contextmanager
def by_vllm(model: LoadedModel, axis: AssistantAxis, **options: Any) -> Iterator[Any]:
    from demo.engine.vllm.engine import VllmEngine
    from demo.engine.vllm.options import VllmOptions
    from demo.models.loading import read_facts

    chosen = VllmOptions(rows=32, kv_bytes=2**29, **options)
    engine = VllmEngine(read_facts(DEFAULT_MODEL, dtype="float32"), axis, chosen)
    try:
        yield engine
    finally:
        engine.core.shut_down()


@contextmanager
def by_vllm_tensor_parallel(model: LoadedModel, axis: AssistantAxis) -> Iterator[Any]:
    """Each layer's matrices spread over three processes, for the model's nine attention heads do not divide by two."""
    with by_vllm(model, axis, tensor_parallel=3) as engine:
        yield engine


@contextmanager
def by_vllm_pipeline_parallel(model: LoadedModel, axis: AssistantAxis) -> Iterator[Any]:
    """The decoder layers spread over two processes: the cap's band lies in the second, the probe layer too."""
    with by_vllm(model, axis, pipeline_parallel=2) as engine:
        yield engine


ENGINES: dict[str, Callable[[LoadedModel, AssistantAxis], Any]] = {
    "transformers": by_transformers,
    "modules": by_modules,
    "process": by_process,
    "zerogpu": by_lent_gpu,
    "vllm": by_vllm,
    "vllm-tensor-parallel": by_vllm_tensor_parallel,
    "vllm-pipeline-parallel": by_vllm_pipeline_parallel,
}


# Those that start three processes and two, and those of which a person's test run sees enough by others.
_SLOW = ("vllm-tensor-parallel", "vllm-pipeline-parallel", "modules", "process", "zerogpu")


def engine_parameters() -> list[Any]:
    def marks(name: str) -> list[Any]:
        absent = (
            [pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed here")] if "vllm" in name else []
        )
        return [*absent, *([pytest.mark.slow] if name in _SLOW else [])]

    return [pytest.param(name, marks=marks(name)) for name in ENGINES]
