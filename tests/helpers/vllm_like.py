"""A small model and worker built like vLLM's, without vLLM.

Decoder layers return two summands, a norm adds them, and one long tensor holds all requests'
tokens. The model shows what the hooks do in vLLM; its axis is random and says nothing about
personas.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from demo.axis.axis import AssistantAxis
from demo.axis.files import axis_to_bytes
from demo.engine.vllm.client import Step
from demo.engine.vllm.recorder import Recorder, SequencePlan
from demo.engine.vllm.worker import AxisWorker
from tests.helpers.axes import random_axis, with_components

LAYERS, HIDDEN, PROBE, BAND = 6, 48, 3, (2, 4)

VOCABULARY = 997


def tiny_axis() -> AssistantAxis:
    return with_components(random_axis(LAYERS, HIDDEN, PROBE, BAND))


class FusedNorm(nn.Module):
    """Adds the two summands, normalises the sum and returns both."""

    def forward(self, hidden: Tensor, residual: Tensor | None = None) -> Any:
        total = hidden if residual is None else hidden + residual
        normed = total / total.pow(2).mean(-1, keepdim=True).sqrt()
        return normed if residual is None else (normed, total)


class Layer(nn.Module):
    def __init__(self, adds_itself: bool) -> None:
        super().__init__()
        self.norm, self.mlp, self.adds_itself = FusedNorm(), nn.Linear(HIDDEN, HIDDEN), adds_itself

    def forward(self, positions: Tensor, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        total = hidden if residual is None else hidden + residual
        out = torch.tanh(self.mlp(self.norm(total)))
        return (out + total, total) if self.adds_itself else (out, total)


class Model(nn.Module):
    def __init__(self, adds_itself: bool = False, unhooked: int | None = None) -> None:
        """Build the model; it has the same weights each time.

        Args:
            adds_itself: The layers return the whole stream and a part of it once more, as some of
                vLLM's layers do.
            unhooked: The number of a layer whose hooks do not run, as in a CUDA graph.
        """
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCABULARY, HIDDEN)
        self.layers = nn.ModuleList(Layer(adds_itself) for _ in range(LAYERS))
        self.norm = FusedNorm()
        self.adds_itself, self.unhooked = adds_itself, unhooked

    @torch.no_grad()
    def forward(self, ids: Tensor) -> Tensor:
        hidden, residual = self.embed(ids % VOCABULARY), None
        for index, layer in enumerate(self.layers):
            run = layer.forward if index == self.unhooked else layer
            hidden, residual = run(ids, hidden, None if self.adds_itself else residual)
        if self.adds_itself:
            return self.norm(hidden)
        normed, _ = self.norm(hidden, residual)
        return normed


@dataclass
class Runner:
    """The part of vLLM's model runner that the worker reads."""

    model: nn.Module
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def run(self, batch: Sequence[tuple[SequencePlan, int, Sequence[int]]], padding: int = 0) -> Tensor:
        """One forward pass.

        Args:
            batch: For each request its plan, the position of its first token, and the tokens.
            padding: How many tokens to add at the end that belong to no request.
        """
        width = max((start + len(ids) for _, start, ids in batch), default=0)
        table = np.zeros((len(batch), width), np.int64)
        for row, (_, start, ids) in enumerate(batch):
            table[row, start : start + len(ids)] = ids
        self.query_start_loc = SimpleNamespace(np=np.cumsum([0, *(len(ids) for _, _, ids in batch)]))
        self.input_batch = SimpleNamespace(
            req_ids=[plan.id for plan, _, _ in batch],
            num_computed_tokens_cpu=np.array([start for _, start, _ in batch]),
            token_ids_cpu=table,
        )
        self.requests = {
            plan.id: SimpleNamespace(sampling_params=SimpleNamespace(extra_args=plan.to_args()))
            for plan, _, _ in batch
        }
        flat = [token for _, _, ids in batch for token in ids] + [0] * padding
        return self.model(torch.tensor(flat))


class Worker(AxisWorker):
    """A worker with the hooks installed."""

    def __init__(
        self, model: Model | None = None, special: Sequence[int] = (), recorder: type[Recorder] = Recorder
    ) -> None:
        self.model_runner = Runner(model or Model())
        self.axis_recorder_class = recorder
        tensors, manifest = axis_to_bytes(tiny_axis())
        # An owner on another machine, so that the worker does not watch a process here.
        self.axis_install(tensors, manifest, special, ("elsewhere", 1))

    def axis_allocate_stage_buffers(self) -> None:
        """Nothing to allocate: there is one pipeline stage."""


@dataclass
class FakeClient:
    """Stands in for `VllmClient` in the self-test, with workers in this process."""

    workers: list[Any]
    facts: Any
    axis: AssistantAxis

    async def steps(
        self, ids: list[int], plan: SequencePlan, tokens: int, read_cache: bool = True
    ) -> AsyncIterator[Step]:
        for worker in self.workers:
            worker.model_runner.run([(plan, 0, ids)])
        yield Step([0], 0)

    async def call(self, method: str) -> list[Any]:
        return [getattr(worker, method)() for worker in self.workers]
