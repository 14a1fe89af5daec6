"""Hooks on the decoder layers in vLLM's workers, and the methods that the engine calls there by name.

vLLM adds `AxisWorker` to its own worker class (`worker_extension_cls`), so `self` is vLLM's worker.
Every attribute starts with `axis_` to avoid clashes with vLLM's. The engine calls `axis_install`
once and `axis_drain` after each step (`collective_rpc`).
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
from demo.engine.vllm.recorder import Record, Recorder, SampledToken, Segment, SequencePlan, sampled_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Attribute names that vLLM's models use.
_LAYER_LISTS = ("layers", "h")
_FINAL_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f")

_OWNER_POLL = 2.0  # seconds


class AxisWorker:
    """Mixed into vLLM's worker by name: `demo.engine.vllm.worker.AxisWorker`."""

    if TYPE_CHECKING:
        model_runner: Any

    axis_recorder_class: type[Recorder] = Recorder  # tests substitute faulty ones

    def axis_install(
        self, tensors: bytes, manifest: str, special: Sequence[int], owner: tuple[str, int]
    ) -> None:
        """Hook the decoder layers that this worker holds.

        Args:
            tensors: The axis, as `axis_to_bytes` gives it.
            manifest: The axis's manifest, as JSON.
            special: Ids of the special tokens.
            owner: Host name and id of the process that started this engine.
        """
        exit_with_owner(*owner)
        runner = self.model_runner
        axis = axis_from_bytes(tensors, json.loads(manifest), "the axis that the engine sent")
        self.axis_recorder = recorder = self.axis_recorder_class(axis, frozenset(special), runner.device)
        trunk, layers = find_trunk(runner.model, axis.layers)
        self.axis_allocate_stage_buffers()
        layout = _BatchLayout(runner)
        runner.model.register_forward_pre_hook(lambda *_: recorder.begin(layout.segments()))
        runner.model.register_forward_hook(lambda *_: recorder.finish())
        for index, layer in layers.items():
            layer.register_forward_hook(layer_hook(recorder, index))
        self.axis_self_test = _install_self_test(recorder, trunk, layers)

    def axis_drain(self) -> tuple[list[Record], list[SampledToken]]:
        """What was recorded and which tokens were sampled since the last call."""
        return self.axis_recorder.drain(), sampled_tokens.drain()

    def axis_end_self_test(self) -> list[float]:
        """End the self-test: remove the hooks that only it needs.

        Returns, for each forward pass, the relative difference between the final norm's real output
        and its output for the residual stream as the hooks understand it. Empty on a worker without
        the last decoder layer.
        """
        self.axis_self_test.remove()
        return self.axis_self_test.errors

    def axis_allocate_stage_buffers(self) -> None:
        """Allocate the buffers into which a later pipeline stage receives.

        vLLM allocates them in its trial run, but it skips that run on a CPU without compilation.
        """
        from vllm.distributed import get_pp_group

        runner = self.model_runner
        if not get_pp_group().is_first_rank and getattr(runner, "intermediate_tensors", None) is None:
            runner.intermediate_tensors = runner.model.make_empty_intermediate_tensors(
                batch_size=runner.max_num_tokens, dtype=runner.dtype, device=runner.device
            )


def exit_with_owner(host: str, pid: int) -> None:
    """End this engine once the process that started it has ended, for whatever reason.

    vLLM's processes would otherwise stay and keep their memory. A worker on another machine than
    the owner's cannot see the owner; it ends when the processes on the owner's machine do.
    """
    if host != socket.gethostname():
        return
    owner = psutil.Process(pid)

    def wait() -> None:
        while owner.is_running() and owner.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_OWNER_POLL)
        os.kill(os.getppid(), signal.SIGKILL)
        os._exit(1)

    Thread(target=wait, name="owner", daemon=True).start()


def find_trunk(model: nn.Module, count: int) -> tuple[nn.Module, dict[int, nn.Module]]:
    """The module that holds the decoder layers, and by number those layers that live in this process.

    Raises:
        RuntimeError: The model has no list of `count` layers. Nothing may run without its cap.
    """
    for module in model.modules():
        for name in _LAYER_LISTS:
            layers = getattr(module, name, None)
            if isinstance(layers, nn.ModuleList) and len(layers) == count:
                # The layers of other pipeline stages are placeholders without parameters.
                here = {n: layer for n, layer in enumerate(layers) if any(True for _ in layer.parameters())}
                return module, here
    raise RuntimeError(f"{type(model).__name__} has no list of {count} decoder layers")


@dataclass
class _BatchLayout:
    """Finds out which requests' tokens a forward pass runs.

    A request's plan is decoded once, not in every step.
    """

    runner: Any
    _plans: dict[str, SequencePlan] = field(default_factory=dict)

    def segments(self) -> list[Segment]:
        """The segments in batch order; empty in vLLM's own trial runs.

        Raises:
            RuntimeError: The batch is not laid out as expected. An uncapped reply must not pass for
                a capped one.
        """
        batch = self.runner.input_batch
        requests, bounds = list(batch.req_ids), self.runner.query_start_loc.np
        self._plans = {request: self._plans.get(request) or self._plan(request) for request in requests}
        segments = []
        for index, request in enumerate(requests):
            count, start = int(bounds[index + 1] - bounds[index]), int(batch.num_computed_tokens_cpu[index])
            tokens = batch.token_ids_cpu[index, start : start + count].tolist()
            if count < 1 or len(tokens) != count:
                raise RuntimeError(f"request {request} has {len(tokens)} tokens where {count} were expected")
            segments.append(Segment(self._plans[request], start, tokens))
        return segments

    def _plan(self, request: str) -> SequencePlan:
        params = self.runner.requests[request].sampling_params
        plan = SequencePlan.from_args(params.extra_args if params else None)
        if plan is None:
            raise RuntimeError(f"request {request} has no plan")
        return plan


def layer_hook(recorder: Recorder, index: int) -> Callable[..., object]:
    """The forward hook that reads, steers and clamps the residual stream after decoder layer `index`."""

    def hook(module: nn.Module, args: object, output: object) -> object:
        if not recorder.needs(index):
            return None
        before = residual(output)[: recorder.tokens]
        after = recorder.apply(index, before)
        return None if after is before else with_residual(output, before, after)

    return hook


def residual(output: object) -> Tensor:
    """The residual stream [N, D] after a decoder layer.

    Most of vLLM's layers return two summands, which the next norm adds.
    """
    if isinstance(output, tuple) and len(output) > 1 and output[1] is not None:
        return output[0] + output[1]
    first = output[0] if isinstance(output, tuple) else output
    assert isinstance(first, Tensor)
    return first


def with_residual(output: object, before: Tensor, after: Tensor) -> object:
    """A layer's output with the residual stream of its first N tokens replaced.

    Tokens at which nothing has changed keep both summands bit for bit.

    Args:
        output: What the layer returned: a tensor, or a tuple that starts with one or two summands.
        before: The residual stream [N, D] that `output` holds.
        after: The residual stream [N, D] that it must hold.
    """
    summands = output if isinstance(output, tuple) else (output,)
    tokens, changed = len(before), (after != before).any(-1, keepdim=True)
    first = summands[0].clone()
    first[:tokens] = torch.where(changed, after, first[:tokens])
    if not isinstance(output, tuple):
        return first
    rest = list(summands[1:])
    if rest and rest[0] is not None:
        rest[0] = rest[0].clone()
        rest[0][:tokens] = rest[0][:tokens].masked_fill(changed, 0.0)
    return (first, *rest)


@dataclass
class _SelfTestHooks:
    """Hooks that only the self-test needs.

    Attributes:
        handles: The hooks, to be removed at the end.
        errors: For each forward pass, see `AxisWorker.axis_end_self_test`.
    """

    handles: list[Any] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def _install_self_test(recorder: Recorder, trunk: nn.Module, layers: dict[int, nn.Module]) -> _SelfTestHooks:
    """Record what each decoder layer is given, and check what the final norm is given."""
    test = _SelfTestHooks()
    stream: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: object) -> None:
        stream[:] = [residual(output).clone()]  # a copy: the norm works in place

    def compare(module: nn.Module, args: object, output: Any) -> None:
        actual = (output[0] if isinstance(output, tuple) else output).float()
        test.errors.append(float((module.forward(stream[0]).float() - actual).norm() / actual.norm()))

    for index, layer in layers.items():
        if index - 1 in layers:
            hook = _entry_hook(recorder, index - 1)
            test.handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
    norm = next((getattr(trunk, name) for name in _FINAL_NORMS if hasattr(trunk, name)), None)
    last = layers.get(recorder.axis.layers - 1)
    if isinstance(norm, nn.Module) and last is not None:
        test.handles += [last.register_forward_hook(keep), norm.register_forward_hook(compare)]
    return test


def _entry_hook(recorder: Recorder, index: int) -> Callable[..., None]:
    """A pre-hook for the decoder layer after `index`, which records the residual stream that it is given."""
    width = recorder.axis.direction.shape[1]

    def is_summand(value: object) -> bool:
        # The residual stream arrives as one two-dimensional tensor of floats, or as two summands.
        return (
            isinstance(value, Tensor)
            and value.is_floating_point()
            and value.ndim == 2
            and value.shape[1] == width
        )

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if recorder.tokens:
            summands = [value for value in (*args, *kwargs.values()) if is_summand(value)]
            recorder.note(f"entry.{index}", index, torch.stack(summands).sum(0)[: recorder.tokens])

    return hook
