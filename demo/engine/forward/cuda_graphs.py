"""The forward pass for GPUs: a decode step of a whole batch is one CUDA graph.

On a GPU a decode step of transformers' modules is bound by Python, which launches thousands of small
operations. A graph replays all of them at once. It is captured once for each size of a batch. A replay runs
no Python, but `DecodeStep` keeps all that changes in buffers. Prompts run through transformers' modules.

`selection.choose_forward` uses this pass only for models whose logits it reproduces.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from typing import cast

import torch
from torch import Tensor, nn

from demo.engine.forward.blocks import Decoder, decoder_of, is_of_family
from demo.engine.forward.decode_step import DecodeStep, Kernels, StepOutputs
from demo.engine.forward.forward_pass import Chunk, ChunkReading, Probe
from demo.engine.forward.modules import ModuleForward
from demo.engine.forward.products import Product, plain
from demo.engine.kv_cache import KVCache, SequenceCache
from demo.models.loading import LoadedModel

# A batch is filled up to one of these sizes. Each size that occurs costs a capture and the memory of a graph.
BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)

# Rotary embeddings that do not depend on the longest sequence, which a captured step could not look at.
_ROTARY = ("default", "linear", "llama3", "yarn")


class GraphForward:
    """The forward pass of graphs. See `forward_pass.ForwardPass`.

    It belongs to one engine: its buffers hold one step at a time.

    Attributes:
        decoder: the model's weights, which passes for other axes share.
    """

    name = "CUDA graphs"

    def __init__(
        self,
        model: LoadedModel,
        probe: Probe,
        decoder: Decoder | None = None,
        kernels: Kernels | None = None,
        taps: bool = True,
        capture: bool = True,
    ) -> None:
        """Prepare the pass; graphs are captured when they are first needed.

        Args:
            decoder: that of another pass for this model; None to make one.
            kernels: None for those of Triton.
            taps: see `DecodeStep`.
            capture: False to run each step operation by operation.
        """
        self._model, self._kernels, self._taps, self._capture = model, kernels or _triton(), taps, capture
        self.decoder = decoder or decoder_of(model, _Products())
        self._prompts = ModuleForward(model, probe)
        self._step = DecodeStep(self.decoder, probe, self._kernels, BUCKETS[-1], taps)
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, StepOutputs]] = {}
        self._pool = torch.cuda.graph_pool_handle() if capture else None

    def new_cache(self) -> KVCache:
        """See `forward_pass.ForwardPass`."""
        return self._prompts.new_cache()

    def with_probe(self, probe: Probe) -> GraphForward:
        """See `forward_pass.ForwardPass`."""
        return GraphForward(self._model, probe, self.decoder, self._kernels, self._taps, self._capture)

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk], cache: SequenceCache) -> tuple[Tensor, list[ChunkReading]]:
        """See `forward_pass.ForwardPass`."""
        slots, size = cast("KVCache", cache), BUCKETS[-1]
        # The graphs have one direction of each layer in them.
        decoding = [c for c in chunks if not c.prompt and len(c.ids) == 1 and not c.leaves_the_axis]
        captured = set(map(id, decoding))
        prompts = [chunk for chunk in chunks if id(chunk) not in captured]
        results = [(prompts, *self._prompts.run(prompts, slots))] if prompts else []
        for first in range(0, len(decoding), size):
            part = decoding[first : first + size]
            results.append((part, *self._decode(part, slots)))
        return self._in_order(chunks, results)

    def _in_order(
        self, chunks: Sequence[Chunk], results: Sequence[tuple[list[Chunk], Tensor, list[ChunkReading]]]
    ) -> tuple[Tensor, list[ChunkReading]]:
        """The results of the parts of a pass, in the order of its chunks."""
        if len(results) == 1:
            return results[0][1:]
        logits: dict[int, Tensor] = {}
        readings: dict[int, ChunkReading] = {}
        for part, of_part, read in results:
            logits.update(zip((id(chunk) for chunk in part if chunk.last), of_part, strict=True))
            readings.update(zip(map(id, part), read, strict=True))
        wanted = [logits[id(chunk)] for chunk in chunks if chunk.last]
        empty = torch.empty((0, self.decoder.vocabulary))
        return torch.stack(wanted) if wanted else empty, [readings[id(chunk)] for chunk in chunks]

    def _decode(self, chunks: Sequence[Chunk], cache: KVCache) -> tuple[Tensor, list[ChunkReading]]:
        """Run one token of each chunk."""
        rows, device = bucket_of(len(chunks)), self._model.device
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            self._step.fill(chunks, rows, cache)
            outputs = self._replayed(rows) if self._capture else self._step.run(rows)
            # A copy, because the next replay writes to the same memory.
            logits = outputs.logits[: len(chunks)].clone()
            readings = self._step.readings(outputs, chunks)
        if not all(chunk.last for chunk in chunks):
            logits = logits[[row for row, chunk in enumerate(chunks) if chunk.last]]
        return logits, readings

    def _replayed(self, rows: int) -> StepOutputs:
        """The step as a graph."""
        if rows not in self._graphs:
            # A first run outside of the graph compiles kernels and lets the libraries prepare themselves. It
            # writes the same keys and values as the replay that follows.
            self._step.run(rows)
            graph = torch.cuda.CUDAGraph()
            # Other threads may allocate meanwhile. Graphs share a pool, because none runs beside another.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                outputs = self._step.run(rows)
            self._graphs[rows] = graph, outputs
        graph, outputs = self._graphs[rows]
        graph.replay()
        return outputs


class _Products:
    """torch's own products. See `blocks.ProductMaker`."""

    keeps_weights, frees_weights = True, False

    def __call__(self, weight: Tensor, bias: Tensor | None = None) -> Product:
        return plain(weight, bias)


def bucket_of(count: int) -> int:
    """The size of the batch in which `count` sequences run."""
    return next(size for size in BUCKETS if size >= count)


def fits_graphs(model: LoadedModel) -> bool:
    """Whether the model is on a GPU with Triton and made of the blocks that `DecodeStep` computes."""
    return model.device.type == "cuda" and find_spec("triton") is not None and can_be_captured(model)


def can_be_captured(model: LoadedModel) -> bool:
    """Whether `DecodeStep` computes this model, and does the same operations in every step."""
    if not is_of_family(model) or getattr(model.model.model.rotary_emb, "rope_type", None) not in _ROTARY:
        return False
    # Quantised matrices are modules of other types.
    modules = [
        module for layer in model.layers for module in layer.modules() if hasattr(module, "in_features")
    ]
    return all(type(module) is nn.Linear for module in modules)


def _triton() -> Kernels:
    from demo.engine.forward.decode_kernels import (
        TritonKernels,
    )  # needs Triton, which comes with torch for GPUs

    return TritonKernels()
