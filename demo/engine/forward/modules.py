"""The forward pass by transformers' own modules, for every architecture and device.

Hooks on the modules read the projections and clamp.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from demo.engine.forward.forward_pass import Chunk, ChunkReading, Probe, last_positions
from demo.engine.kv_cache import KVCache, LayerCache, SequenceCache, rounded_up, visible_columns
from demo.models.loading import LoadedModel


class _Positions:
    """Where the tokens of one call belong.

    Made once for all layers, because each tensor costs a transfer to the GPU.
    """

    def __init__(self, chunks: Sequence[Chunk], columns: int, device: torch.device) -> None:
        self.chunks, self.columns = chunks, columns
        self.slots = torch.tensor([chunk.slot for chunk in chunks], device=device)
        self.starts = torch.tensor([chunk.start for chunk in chunks], device=device)
        in_order = [chunk.slot for chunk in chunks] == list(range(len(chunks)))
        self.own: Any = slice(len(chunks)) if in_order else self.slots


class _SlotsOfLayer(CacheLayerMixin):
    """One layer's slots as a transformers cache, for one call. Each chunk writes to its own slot."""

    is_sliding = False

    def __init__(self, cache: LayerCache, at: _Positions) -> None:
        super().__init__()
        self._cache, self._at, self._first = cache, at, at.chunks[0]
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None: ...

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        cache, at, first = self._cache, self._at, self._first
        cache.allocate_like(key_states[0], value_states[0])
        if len(at.chunks) == 1:
            slot, start, end = first.slot, first.start, first.end
            cache.keys[slot, :, start:end] = key_states[0]
            cache.values[slot, :, start:end] = value_states[0]
            return cache.keys[slot, None, :, :end], cache.values[slot, None, :, :end]
        cache.keys[at.slots, :, at.starts] = key_states[:, :, 0]
        cache.values[at.slots, :, at.starts] = value_states[:, :, 0]
        return cache.keys[at.own, :, : at.columns], cache.values[at.own, :, : at.columns]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._first.start + query_length, 0

    def get_seq_length(self) -> int:
        return self._first.start

    def get_max_length(self) -> int:
        return -1


class ModuleForward:
    """The forward pass by transformers' modules. See `forward_pass.ForwardPass`.

    Chunks of several tokens run one after the other, chunks of one token run together.
    """

    name = "transformers' modules"

    def __init__(self, model: LoadedModel, probe: Probe, cache_layers: int | None = None) -> None:
        """cache_layers: how many layers the model's cache has, where some decoder layers hold several."""
        self._model, self._probe = model, probe
        self._cache_layers = cache_layers or len(model.layers)
        self._masks: _Masks | None = None
        self._keeps_logits = "logits_to_keep" in signature(model.model.forward).parameters

    def new_cache(self) -> KVCache:
        """See `forward_pass.ForwardPass`."""
        return KVCache(self._cache_layers)

    def with_probe(self, probe: Probe) -> ModuleForward:
        """See `forward_pass.ForwardPass`."""
        return ModuleForward(self._model, probe, self._cache_layers)

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk], cache: SequenceCache) -> tuple[Tensor, list[ChunkReading]]:
        """See `forward_pass.ForwardPass`."""
        slots = cast("KVCache", cache)
        batches = [[chunk] for chunk in chunks if len(chunk.ids) > 1]
        single = [chunk for chunk in chunks if len(chunk.ids) == 1]
        results: dict[int, tuple[Tensor, ChunkReading]] = {}
        for batch in [*batches, *([single] if single else [])]:
            logits, readings = self._run_batch(batch, slots)
            for chunk, own_logits, reading in zip(batch, logits, readings, strict=True):
                results[id(chunk)] = (own_logits, reading)
        wanted = [results[id(chunk)][0] for chunk in chunks if chunk.last]
        size = self._model.model.config.get_text_config().vocab_size
        logits = torch.stack(wanted) if wanted else torch.empty((0, size))
        return logits, [results[id(chunk)][1] for chunk in chunks]

    def _run_batch(self, chunks: Sequence[Chunk], cache: KVCache) -> tuple[Tensor, list[ChunkReading]]:
        device = self._model.device
        columns = rounded_up(max(chunk.end for chunk in chunks))
        at = _Positions(chunks, columns, device)
        view = Cache(layers=[_SlotsOfLayer(layer, at) for layer in cache.layers])
        positions = [list(range(chunk.start, chunk.end)) for chunk in chunks]
        hooks = self._probe.hooks(chunks, [1] * len(chunks), [chunk.exempt for chunk in chunks])
        kept = {"logits_to_keep": last_positions(len(chunks[0].ids), 1, device)} if self._keeps_logits else {}
        mask = None
        if len(chunks) > 1:
            self._masks = self._masks or _Masks(self._model)
            mask = self._masks.of(chunks, columns)
        with hooks.installed():
            output = self._model.model(
                input_ids=torch.tensor([list(chunk.ids) for chunk in chunks], device=device),
                attention_mask=mask,
                position_ids=torch.tensor(positions, device=device),
                **{self._model.cache_argument: view},
                use_cache=True,
                **kept,
            )
        return output.logits[:, -1], self._probe.readings(hooks, chunks)


class _Masks:
    """Attention masks for single tokens of many sequences, in the form that the model accepts."""

    def __init__(self, model: LoadedModel) -> None:
        config = model.model.config.get_text_config()
        self._model = model
        self._window = getattr(config, "sliding_window", None)
        types = getattr(config, "layer_types", None)
        self._kinds = sorted(set(types)) if types else []
        if self._kinds and "sliding_attention" not in self._kinds:
            self._window = None
        if getattr(config, "use_sliding_window", True) is False:
            self._window = None
        self._additive = config._attn_implementation == "eager"
        self._by_kind = bool(self._kinds) and _takes_masks_by_kind(model)

    def of(self, chunks: Sequence[Chunk], columns: int) -> Tensor | dict[str, Tensor]:
        """The mask of these chunks, or one mask per kind of layer."""
        full = visible_columns([chunk.end for chunk in chunks], len(chunks), columns)
        near = full
        if self._window is not None:
            starts = torch.tensor([chunk.end - self._window for chunk in chunks])
            near = full & (torch.arange(columns) >= starts[:, None])[:, None, None]
        if self._by_kind:
            return {kind: self._formed(near if kind == "sliding_attention" else full) for kind in self._kinds}
        return self._formed(near)

    def _formed(self, mask: Tensor) -> Tensor:
        """The boolean mask, or the additive one that eager attention needs."""
        mask = mask.to(self._model.device)
        if not self._additive:
            return mask
        dtype = self._model.dtype
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(
            ~mask, torch.finfo(dtype).min
        )


@torch.inference_mode()
def _takes_masks_by_kind(model: LoadedModel) -> bool:
    """Whether the model accepts one mask per kind of layer, found by trying.

    Models with several kinds of layers do, and so do some models with a single kind.
    """
    config = model.model.config.get_text_config()
    mask = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=model.device)
    masks: Any = dict.fromkeys(set(config.layer_types), mask)
    if config._attn_implementation == "eager":
        masks = {kind: torch.zeros((1, 1, 1, 1), dtype=model.dtype, device=model.device) for kind in masks}
    try:
        model.model(
            input_ids=torch.zeros((1, 1), dtype=torch.long, device=model.device), attention_mask=masks
        )
    except (AttributeError, TypeError):
        return False
    return True
