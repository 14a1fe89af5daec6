"""Faults injected into a running engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from demo.engine.forward.forward_pass import Chunk, ChunkReading
from demo.engine.kv_cache import SequenceCache
from demo.engine.transformers_engine import TransformersEngine

Run = Callable[[Sequence[Chunk], SequenceCache], tuple[Tensor, list[ChunkReading]]]


@dataclass
class ReplacedForward:
    """A forward pass given by a function. See `forward_pass.ForwardPass`."""

    run: Run
    name: str = "replaced by a test"


@contextmanager
def forward_replaced(engine: TransformersEngine, run: Run) -> Iterator[None]:
    """Within the block, the engine's forward pass is `run`."""
    batch = engine.scheduler.batch
    real, batch.forward = batch.forward, ReplacedForward(run)
    try:
        yield
    finally:
        batch.forward = real
