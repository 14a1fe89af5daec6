"""A model and a worker put together as vLLM's are, small and without vLLM: decoder layers that give two summands, a norm that adds
them, all requests' tokens in one long tensor. It shows what the hooks do there and claims nothing about personas.
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
from demo.engine.vllm.recorder import SequencePlan
from demo.engine.vllm.worker import AxisWorker
from tests.helpers.axes import random_axis, with_components

LAYERS, HIDDEN, PROBE, BAND = 6, 48, 3, (2, 4)


def tiny_axis() -> AssistantAxis:
    return with_components(random_axis(LAYERS, HIDDEN, PROBE, BAND))


class FusedNorm(nn.Module):
    """Adds the two summands, normalises the sum, gives both."""

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
        # Some of vLLM's layers give the whole stream first, and a part of it once more.
        return (out + total, total) if self.adds_itself else (out, total)


class Model(nn.Module):
    def __init__(self, adds_itself: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(997, HIDDEN)
        self.layers = nn.ModuleList(Layer(adds_itself) for _ in range(LAYERS))
        self.norm = FusedNorm()
        self.adds_itself = adds_itself

    @torch.no_grad()
    def forward(self, ids: Tensor) -> Tensor:
        hidden, residual = self.embed(ids % 997), None
        for layer in self.layers:
            hidden, residual = layer(ids, hidden, None if self.adds_itself else residual)
        if self.adds_itself:
            return self.norm(hidden)
        normed, _ = self.norm(hidden, residual)
        return normed


@dataclass
class Runner:
    """As much of vLLM's model runner as the worker looks at."""

    model: nn.Module
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def run(self, rows: Sequence[tuple[SequencePlan, int, Sequence[int]]], padding: int = 0) -> Tensor:
        """One forward pass over some tokens of each request, from a position on; padding: rows that nobody asked for."""
        bounds = np.cumsum([0, *(len(ids) for _, _, ids in rows)])
        width = max((start + len(ids) for _, start, ids in rows), default=0)
        table = np.zeros((len(rows), width), np.int64)
        for row, (_, start, ids) in enumerate(rows):
            table[row, start : start + len(ids)] = ids
        self.query_start_loc = SimpleNamespace(np=bounds)
        self.input_batch = SimpleNamespace(
            req_ids=[plan.id for plan, _, _ in rows],
            num_computed_tokens_cpu=np.array([start for _, start, _ in rows]),
            token_ids_cpu=table,
        )
        params = {
            p.id: SimpleNamespace(sampling_params=SimpleNamespace(extra_args=p.to_args())) for p, _, _ in rows
        }
        self.requests = params
        flat = [token for _, _, ids in rows for token in ids] + [0] * padding
        return self.model(torch.tensor(flat))


class Worker(AxisWorker):
    """A worker of ours, hooked."""

    def __init__(self, model: nn.Module, axis: AssistantAxis, special: Sequence[int] = ()) -> None:
        self.model_runner = Runner(model)
        tensors, manifest = axis_to_bytes(axis)
        self.axis_install(tensors, manifest, special, ("elsewhere", 1))


@dataclass
class FakeCore:
    """What the check of the cap talks to, with workers in this process."""

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
