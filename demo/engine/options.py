"""The flags for model, axis and engine, which the page and the engine process share."""

from __future__ import annotations

import argparse
import atexit
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any, Protocol

from demo.engine.protocol import Engine
from demo.models.default import DEFAULT_MODEL
from demo.models.default_download import Progress
from demo.models.loading import LoadedModel, Thinking, load_model
from demo.models.names import AUTO, HUB, Named
from demo.space import on_zerogpu
from demo.utils.errors import UserError

if TYPE_CHECKING:  # they import torch, which takes seconds, and mistakes in the flags are reported at once
    from demo.axis.axis import AssistantAxis
    from demo.axis.directions import Direction, Directions
    from demo.axis.store import Home

    # Makes the axis of a model, so that it is found afterwards. Gets the one that it has, None for none.
    MakeAxis = Callable[[LoadedModel, Home | None], object]

# The environment variable that holds the key of an engine process.
KEY_VARIABLE = "PERSONA_DRIFT_ENGINE_KEY"


class NamedModel(Named, Protocol):
    """What a page shows of a model."""

    @property
    def device(self) -> object: ...
    @property
    def dtype_name(self) -> str: ...
    @property
    def dtype_reason(self) -> str: ...
    @property
    def thinking(self) -> Thinking: ...
    @property
    def template(self) -> str:
        """A digest of the chat template."""
        ...


class ServedEngine(Engine, Protocol):
    """An engine together with its model and axis."""

    @property
    def model(self) -> NamedModel: ...
    @property
    def axis(self) -> AssistantAxis: ...
    @property
    def directions(self) -> Mapping[str, Direction]:
        """Further directions by name, along which requests may read, cap and steer."""
        ...

    @property
    def reads_plain(self) -> bool:
        """Whether `Request.plain` has an effect."""
        ...

    @property
    def conditional_caps(self) -> bool:
        """Whether a cap may act only on replies that begin below a threshold (`Cap.only_below`)."""
        ...


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags for model, axis and engine."""
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="model name, local folder, GGUF file or hub id (default: %(default)s)",
    )
    parser.add_argument(
        "--base",
        action="store_true",
        help="the model is a pretrained one: put chats to it as plain transcripts, whatever template it has",
    )
    parser.add_argument(
        "--axis",
        default=AUTO,
        help="axis folder, name of a shipped axis, or a published axis: .pt file, folder or hf:// "
        "(default: %(default)s, the model's own, of those that come with the program or were made here; "
        "hub: also of those that others have published)",
    )
    parser.add_argument(
        "--engine",
        default="transformers",
        help="transformers, vllm, zerogpu, or the address of an engine process "
        "(default: %(default)s; on a ZeroGPU Space, zerogpu)",
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps; vLLM chooses by itself"
    )
    parser.add_argument(
        "--dtype",
        default="auto",
        help="auto, float32, bfloat16, float16, or int8: weights of 8 bits on a CPU, which answers one "
        "conversation faster and shifts its readings slightly (docs/speed.md)",
    )
    parser.add_argument(
        "--kv-budget",
        type=float,
        default=2.0,
        help="GiB of KV cache for all conversations together; on GPUs vLLM uses --gpu-memory instead "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--pairs",
        type=int,
        default=64,
        help="side-by-side replies that run at once; further visitors wait their turn (default: %(default)s)",
    )
    parser.add_argument("--trust-remote-code", action="store_true", help="let a hub model run its own code")
    _add_vllm_options(parser)


def _add_vllm_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with --engine vllm")
    group.add_argument(
        "--tensor-parallel", type=int, default=1, metavar="N", help="spread each layer over N devices"
    )
    group.add_argument(
        "--pipeline-parallel", type=int, default=1, metavar="N", help="spread the layers over N stages"
    )
    group.add_argument(
        "--gpu-memory", type=float, default=0.9, metavar="SHARE", help="of each GPU (default: %(default)s)"
    )
    group.add_argument(
        "--max-model-len", type=int, metavar="TOKENS", help="context window (default: the model's)"
    )
    group.add_argument(
        "--quantization", help="as vLLM names it: fp8, awq, gptq, … (default: what the checkpoint says)"
    )
    group.add_argument(
        "--executor", choices=("mp", "ray"), help="ray for several machines (default: vLLM's choice)"
    )
    group.add_argument(
        "--vllm",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other argument of vLLM, its value as JSON",
    )


def load_engine(
    options: argparse.Namespace, progress: Progress, make_axis: MakeAxis | None = None
) -> tuple[ServedEngine, list[str]]:
    """Load the engine that the flags ask for.

    Args:
        make_axis: makes the axis of a model that has none, or a better one; None to refuse such a model.

    Returns:
        The engine, and notes for the user about it and its axis.

    Raises:
        UserError: A flag is out of range, or the model, the axis or the engine cannot be loaded.
    """
    if not 1 <= options.pairs <= 4096:
        raise UserError(f"--pairs must lie between 1 and 4096, not {options.pairs}.")
    if not 0 < options.kv_budget <= 10_000:
        raise UserError(f"--kv-budget must be above 0 and at most 10000 GiB, not {options.kv_budget}.")
    if options.engine.startswith(("http://", "https://")):
        return _connect(options)
    if options.engine == "vllm":
        return _load_vllm(options, progress)
    if options.engine == "zerogpu" or (options.engine == "transformers" and on_zerogpu()):
        return _load_zerogpu(options, progress, make_axis)
    if options.engine == "transformers":
        return _load_transformers(options, progress, make_axis)
    raise UserError(
        f"There is no engine {options.engine!r}: choose transformers, vllm, zerogpu or an address "
        "such as http://127.0.0.1:8100."
    )


def _load_model_and_axis(
    options: argparse.Namespace, progress: Progress, make_axis: MakeAxis | None
) -> tuple[LoadedModel, AssistantAxis, list[str]]:
    from demo.axis.store import axis_of, home_of

    model = load_model(
        options.model,
        device=options.device,
        dtype=options.dtype,
        trust_remote_code=options.trust_remote_code,
        progress=progress,
        base=options.base,
    )
    if make_axis is not None and (not options.axis or options.axis in (AUTO, HUB)):
        make_axis(model, home_of(options.axis, model))
    axis, note = axis_of(options.axis, model)
    return model, axis, [*filter(None, [note]), *axis.check_model(model)]


def _load_transformers(
    options: argparse.Namespace, progress: Progress, make_axis: MakeAxis | None
) -> tuple[ServedEngine, list[str]]:
    model, axis, notes = _load_model_and_axis(options, progress, make_axis)
    from demo.engine.transformers_engine import TransformersEngine

    engine = TransformersEngine(
        model,
        axis,
        kv_budget=int(options.kv_budget * 1024**3),
        sequences=2 * options.pairs,
        own_thread=True,
        directions=_directions_beside(options, model, axis, notes),
    )
    return engine, notes


def _directions_beside(
    options: argparse.Namespace, model: LoadedModel, axis: AssistantAxis, notes: list[str]
) -> Directions:
    """The further directions of the axis. Where their file is malformed, a note says so."""
    from demo.axis.directions import all_directions
    from demo.axis.store import home_of

    home = home_of(options.axis, model)
    try:
        return all_directions(axis, None if home is None else home.folder)
    except UserError as error:  # the axis itself is sound
        notes.append(f"Without further directions: {error}")
        return all_directions(axis, None)


def _load_zerogpu(
    options: argparse.Namespace, progress: Progress, make_axis: MakeAxis | None
) -> tuple[ServedEngine, list[str]]:
    try:
        import spaces
    except ImportError as error:
        raise UserError(
            "--engine zerogpu needs the package spaces, which every ZeroGPU Space has: pip install spaces."
        ) from error
    model, axis, notes = _load_model_and_axis(options, progress, make_axis)
    from demo.engine.zerogpu import ZeroGpuEngine

    directions = _directions_beside(options, model, axis, notes)
    engine = ZeroGpuEngine(model, axis, spaces.GPU, int(options.kv_budget * 1024**3), directions)
    return engine, ["on ZeroGPU", *notes]


def _load_vllm(options: argparse.Namespace, progress: Progress) -> tuple[ServedEngine, list[str]]:
    from demo.axis.store import axis_of
    from demo.engine.vllm.engine import VllmEngine
    from demo.engine.vllm.options import VllmOptions
    from demo.models.loading import read_facts

    chosen = VllmOptions(
        tensor_parallel=options.tensor_parallel,
        pipeline_parallel=options.pipeline_parallel,
        memory_fraction=options.gpu_memory,
        context=options.max_model_len,
        quantization=options.quantization,
        rows=2 * options.pairs,
        kv_bytes=int(options.kv_budget * 1024**3),
        executor=options.executor,
        more=_vllm_arguments(options.vllm),
    )
    facts = read_facts(
        options.model,
        dtype=options.dtype,
        trust_remote_code=options.trust_remote_code,
        progress=progress,
        base=options.base,
    )
    axis, note = axis_of(options.axis, facts)
    notes = [*filter(None, [note]), *axis.check_model(facts)]
    progress(f"starting vLLM with {facts.spec}; this takes a while", None)
    return VllmEngine(facts, axis.unconditional(), chosen), ["served by vLLM", *notes]


def _connect(options: argparse.Namespace) -> tuple[ServedEngine, list[str]]:
    from demo.engine.remote.client import RemoteEngine

    if (options.axis or AUTO) != AUTO or options.model != DEFAULT_MODEL or options.base:
        raise UserError(
            "Model and axis belong to the engine process: "
            "give --model, --base and --axis to python -m demo.engine.remote.server."
        )
    engine = RemoteEngine(options.engine, os.environ.get(KEY_VARIABLE, ""))
    return engine, ["engine in a process of its own", *engine.notes]


def _vllm_arguments(pairs: list[str]) -> dict[str, Any]:
    """Arguments from NAME=VALUE pairs. A value that is not JSON is taken as text."""
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"--vllm takes NAME=VALUE, such as cpu_offload_gb=4, not {pair!r}.")
        try:
            arguments[name] = json.loads(value)
        except ValueError:
            arguments[name] = value
    return arguments


def end_plainly_when_asked() -> None:
    """Make SIGTERM end the program in the normal way, so that engines end the processes they have started.

    The interpreter must not end threads that still compute: it would end them in the middle of C++ code, and
    that aborts the whole process. So the process leaves once everything else has been put in order.
    """
    if current_thread() is not main_thread():  # only the main thread may set a signal handler
        return
    asked: list[int] = []

    def end(number: int, frame: object) -> None:
        asked.append(128 + number)
        sys.exit(asked[0])

    def leave() -> None:
        if asked:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(asked[0])

    atexit.register(leave)  # what is registered first runs last
    signal.signal(signal.SIGTERM, end)
