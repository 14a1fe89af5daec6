"""What is mixed into each of vLLM's worker processes: hooks on its decoder layers, and calls by name from the engine.

vLLM adds this class to its own worker (`worker_extension_cls`), so `self` is that worker; every name starts with `axis_` to stay
clear of vLLM's. The engine calls `axis_install` once and `axis_drain` after each step (`collective_rpc`).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Any

import psutil
import torch
from torch import Tensor, nn

from demo.axis.files import axis_from_bytes
from demo.engine.vllm.recorder import Record, Recorder, SampledToken, Segment, SequencePlan, drawn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LAYER_LISTS = ("layers", "h")

_LOOK = 2.0  # seconds

_FINAL_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f")


class AxisWorker:
    """Installed by name: `demo.engine.vllm.worker.AxisWorker`."""

    if TYPE_CHECKING:
        model_runner: Any

    def axis_install(
        self, tensors: bytes, manifest: str, special: Sequence[int], owner: tuple[str, int]
    ) -> None:
        """Hook the decoder layers that this worker holds. owner: host and process that this engine serves."""
        watch_owner(*owner)
        runner = self.model_runner
        axis = axis_from_bytes(tensors, json.loads(manifest), "the axis that the engine sent")
        self.axis_recorder = recorder = Recorder(axis, frozenset(special), runner.device)
        trunk, layers = find_trunk(runner.model, axis.layers)
        _make_room_between_stages(runner)
        layout = _Layout(runner)
        runner.model.register_forward_pre_hook(lambda *_: recorder.begin(layout.segments()))
        runner.model.register_forward_hook(lambda *_: recorder.finish())
        for index, layer in layers.items():
            layer.register_forward_hook(_layer_hook(recorder, index))
        self.axis_watching = _watch(recorder, trunk, layers)

    def axis_drain(self) -> tuple[list[Record], list[SampledToken]]:
        """What was seen and what was drawn (request, step, token, probability) since the last time."""
        return self.axis_recorder.drain(), drawn.take()

    def axis_end_self_test(self) -> list[float]:
        """The check is over: no more is watched than capping and reading need. Returns how far the final norm's input was from the
        residual stream as the hooks understand it, relative, per pass; nothing on a worker without the last decoder layer."""
        self.axis_watching.stop()
        return self.axis_watching.errors


def watch_owner(host: str, pid: int) -> None:
    """End this engine when whoever started it is gone, however it went: vLLM's processes would stay, and all their memory with them.
    On another machine than the owner's there is nothing to look at; those processes end with the first machine's."""
    if host != socket.gethostname():
        return
    owner = psutil.Process(pid)

    def look() -> None:
        while owner.is_running() and owner.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_LOOK)
        os.kill(os.getppid(), signal.SIGKILL)
        os._exit(1)

    Thread(target=look, name="owner", daemon=True).start()


@dataclass
class _Watch:
    """What is looked at beside the hooks proper, while the cap is checked."""

    handles: list[Any] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    def stop(self) -> None:
        for handle in self.handles:
            handle.remove()


def _watch(recorder: Recorder, trunk: nn.Module, layers: dict[int, nn.Module]) -> _Watch:
    """Read what every decoder layer is given by the one before it, and compare what the final norm gets with the last one's
    residual stream."""
    watch = _Watch()
    stream: list[Tensor] = []

    def entry(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            # Two-dimensional floats of the stream's width: the one tensor, or the two summands.
            width = recorder.axis.direction.shape[1]
            given = [
                one
                for one in (*args, *kwargs.values())
                if isinstance(one, Tensor)
                and one.is_floating_point()
                and one.ndim == 2
                and one.shape[1] == width
            ]
            if recorder.tokens:
                recorder.note(f"entry.{index}", index, torch.stack(given).sum(0)[: recorder.tokens])

        return hook

    def keep(module: nn.Module, args: object, output: object) -> None:
        stream[:] = [residual(output).clone()]  # a copy: the norm works in place

    def compare(module: nn.Module, args: object, output: Any) -> None:
        got = (output[0] if isinstance(output, tuple) else output).float()
        watch.errors.append(float((module.forward(stream[0]).float() - got).norm() / got.norm()))

    for index, layer in layers.items():
        if index - 1 in layers:
            watch.handles.append(layer.register_forward_pre_hook(entry(index - 1), with_kwargs=True))
    norm = next((getattr(trunk, name) for name in _FINAL_NORMS if hasattr(trunk, name)), None)
    last = layers.get(recorder.axis.layers - 1)
    if isinstance(norm, nn.Module) and last is not None:
        watch.handles += [last.register_forward_hook(keep), norm.register_forward_hook(compare)]
    return watch


def find_trunk(model: nn.Module, count: int) -> tuple[nn.Module, dict[int, nn.Module]]:
    """The module that holds the decoder layers, and those of them that live in this process, by number.

    Raises RuntimeError when there is no list of `count` layers: nothing may run without its cap.
    """
    for module in model.modules():
        for name in _LAYER_LISTS:
            layers = getattr(module, name, None)
            if isinstance(layers, nn.ModuleList) and len(layers) == count:
                # The layers of other pipeline stages are stand-ins that pass everything through.
                here = {n: layer for n, layer in enumerate(layers) if any(True for _ in layer.parameters())}
                return module, here
    raise RuntimeError(f"{type(model).__name__} has no list of {count} decoder layers")


def residual(output: object) -> Tensor:
    """The residual stream [N, D] after a decoder layer. Most of vLLM's layers give two summands: the next norm adds them."""
    if isinstance(output, tuple) and len(output) > 1 and output[1] is not None:
        return output[0] + output[1]
    first = output[0] if isinstance(output, tuple) else output
    assert isinstance(first, Tensor)
    return first


def with_residual(output: object, before: Tensor, after: Tensor) -> object:
    """The same layer output with the residual stream of its first tokens, which was `before` [N, D], replaced by `after`. Tokens of
    which nothing has changed keep both summands as they are, bit for bit."""
    summands = output if isinstance(output, tuple) else (output,)
    tokens, moved = len(before), (after != before).any(-1, keepdim=True)
    first = summands[0].clone()
    first[:tokens] = torch.where(moved, after, first[:tokens])
    if not isinstance(output, tuple):
        return first
    rest = list(summands[1:])
    if rest and rest[0] is not None:
        rest[0] = rest[0].clone()
        rest[0][:tokens] = rest[0][:tokens].masked_fill(moved, 0.0)
    return (first, *rest)


def _layer_hook(recorder: Recorder, index: int) -> Callable[..., object]:
    def hook(module: nn.Module, args: object, output: object) -> object:
        if not recorder.looks_at(index):
            return None
        seen = residual(output)[: recorder.tokens]
        applied = recorder.apply(index, seen)
        return None if applied is seen else with_residual(output, seen, applied)

    return hook


def _make_room_between_stages(runner: Any) -> None:
    """vLLM makes the buffers that a later pipeline stage receives into in its trial run, which it skips on a CPU without compilation."""
    from vllm.distributed import get_pp_group

    if not get_pp_group().is_first_rank and getattr(runner, "intermediate_tensors", None) is None:
        runner.intermediate_tensors = runner.model.make_empty_intermediate_tensors(
            batch_size=runner.max_num_tokens, dtype=runner.dtype, device=runner.device
        )


@dataclass
class _Layout:
    """Whose tokens a forward pass runs. What a request asks for is read once, not in every step of its reply."""

    runner: Any
    _plans: dict[str, SequencePlan] = field(default_factory=dict)

    def segments(self) -> list[Segment]:
        """In the order of the pass; none in vLLM's own trial runs.

        Raises RuntimeError when the layout is not as expected: a reply without its cap would be worse than none.
        """
        batch = self.runner.input_batch
        ids, bounds = list(batch.req_ids), self.runner.query_start_loc.np
        self._plans = {request: self._plans.get(request) or self._plan(request) for request in ids}
        segments = []
        for row, request in enumerate(ids):
            count, start = int(bounds[row + 1] - bounds[row]), int(batch.num_computed_tokens_cpu[row])
            tokens = batch.token_ids_cpu[row, start : start + count].tolist()
            if count < 1 or len(tokens) != count:
                raise RuntimeError(f"request {request} has {len(tokens)} tokens where {count} were expected")
            segments.append(Segment(self._plans[request], start, tokens))
        return segments

    def _plan(self, request: str) -> SequencePlan:
        params = self.runner.requests[request].sampling_params
        plan = SequencePlan.from_args(params.extra_args if params else None)
        if plan is None:
            raise RuntimeError(f"request {request} does not say what is to be done to it")
        return plan
