"""The forward pass for models whose layers keep more than plain keys and values, with the model's own cache.

Recurrent and convolutional layers (Mamba, Gated DeltaNet, short convolutions) keep a state that summarises
all tokens so far. It cannot be cut back, so it is copied wherever a reply may later branch off. Every
sequence has a cache object of its own. Sequences that decode together are merged into one batch where the
cache allows it, padded on the left as `generate` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionCacheLayerMixin,
    LinearAttentionLayer,
)

from demo.engine.forward.forward_pass import Chunk, ChunkReading, Probe
from demo.engine.kv_cache import SavedState, SequenceCache
from demo.models.loading import LoadedModel

# Where a model's output carries its cache, newest name first.
_CACHE_NAMES = ("cache", "past_key_values", "cache_params", "state")

# The kinds of layer cache that sequences of different lengths can share. Their tensors are either states
# [batch, ...] or keys and values [batch, heads, tokens, head_dim].
_MERGEABLE = (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    DummyLayer,
)


class _Parts(Protocol):
    """The attributes of transformers' layer caches that hold tensors."""

    keys: Tensor | None
    values: Tensor | None
    conv_states: dict[int, Tensor | None]
    recurrent_states: dict[int, Tensor | None]
    cumulative_length: int
    sliding_window: int


@dataclass(slots=True)
class OwnState:
    """One sequence's cache object, batch 1, and how many tokens it has seen. See `kv_cache.SavedState`."""

    cache: Any
    tokens: int
    can_be_cut: bool = False

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in _tensors(self.cache))


@dataclass(slots=True)
class _Batch:
    """The merged cache of several slots. lengths: tokens of each, padding left out."""

    slots: tuple[int, ...]
    cache: Any
    lengths: list[int]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in _tensors(self.cache))


class OwnCaches:
    """The states of the running sequences. See `kv_cache.SequenceCache`."""

    can_be_cut = False

    def __init__(self) -> None:
        self.slots = self.columns = 0
        self._states: dict[int, OwnState] = {}
        self._batch: _Batch | None = None

    @property
    def nbytes(self) -> int:
        held = sum(state.nbytes for state in list(self._states.values()))
        return held + (self._batch.nbytes if self._batch else 0)

    def reserve(self, slots: int, columns: int) -> None:
        """See `SequenceCache`. Memory is taken as the sequences grow."""
        self.slots, self.columns = max(self.slots, slots), max(self.columns, columns)

    def fit(self, slots: int, columns: int) -> None:
        """See `SequenceCache`."""
        self.slots, self.columns = slots, columns
        if slots == 0:
            self._batch = None
        self._split()
        self._states = {slot: state for slot, state in self._states.items() if slot < slots}

    def clear(self, slot: int) -> None:
        """See `SequenceCache`."""
        self._split()
        self._states.pop(slot, None)

    @torch.inference_mode()
    def load(self, slot: int, state: SavedState, tokens: int) -> None:
        """See `SequenceCache`."""
        assert isinstance(state, OwnState) and state.tokens == tokens
        self._split()
        self._states[slot] = OwnState(_cloned(state.cache), tokens)

    @torch.inference_mode()
    def copy(self, source: int, target: int, tokens: int) -> None:
        """See `SequenceCache`."""
        self._split()
        state = self._states[source]  # whatever it has seen: after an error that may be more than `tokens`
        self._states[target] = OwnState(_cloned(state.cache), state.tokens)

    @torch.inference_mode()
    def saved(self, slot: int, tokens: int) -> OwnState:
        """See `SequenceCache`."""
        self._split()
        state = self._states[slot]
        assert state.tokens == tokens
        return OwnState(_cloned(state.cache), tokens)

    def one(self, slot: int) -> OwnState:
        """The state of one slot, to be run on."""
        self._split()
        return self._states.setdefault(slot, OwnState(None, 0))

    def together(self, slots: tuple[int, ...]) -> _Batch:
        """The merged state of several slots, to be run on."""
        if self._batch is None or self._batch.slots != slots:
            self._split()
            states = [self._states.pop(slot) for slot in slots]
            lengths = [state.tokens for state in states]
            self._batch = _Batch(slots, _merged([state.cache for state in states], lengths), lengths)
        return self._batch

    def _split(self) -> None:
        """Give the slots of the batch their own states again."""
        if self._batch is not None:
            batch, self._batch = self._batch, None
            for index, (slot, length) in enumerate(zip(batch.slots, batch.lengths, strict=True)):
                own = _taken(batch.cache, index, length, max(batch.lengths))
                self._states[slot] = OwnState(own, length)


class OwnCacheForward:
    """The forward pass with the model's own cache. See `forward_pass.ForwardPass`."""

    def __init__(self, model: LoadedModel, probe: Probe, merge: bool = True, continues: bool = True) -> None:
        """Prepare the pass.

        Args:
            merge: whether sequences that decode together share one batch.
            continues: whether the model can read several tokens after a state. Some recurrent layers begin
                anew then, and need one token at a time.
        """
        self._model, self._probe, self._merge, self._continues = model, probe, merge, continues
        accepted = signature(model.model.forward).parameters
        self._accepts_all = any(one.kind is one.VAR_KEYWORD for one in accepted.values())
        self._accepted = set(accepted)
        how = "in one batch" if merge else "one after the other"
        self.name = f"the model's own cache, sequences {how}"

    def new_cache(self) -> OwnCaches:
        """See `forward_pass.ForwardPass`."""
        return OwnCaches()

    def with_probe(self, probe: Probe) -> OwnCacheForward:
        """See `forward_pass.ForwardPass`."""
        return OwnCacheForward(self._model, probe, self._merge, self._continues)

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk], cache: SequenceCache) -> tuple[Tensor, list[ChunkReading]]:
        """See `forward_pass.ForwardPass`."""
        caches = cast("OwnCaches", cache)
        single = [chunk for chunk in chunks if len(chunk.ids) == 1 and chunk.start > 0]
        together = single if self._merge and len(single) > 1 else []
        results: dict[int, tuple[Tensor, ChunkReading]] = {}
        if together:
            for chunk, logits, reading in zip(together, *self._run_batch(together, caches), strict=True):
                results[id(chunk)] = logits, reading
        for chunk in chunks:
            if id(chunk) not in results:
                results[id(chunk)] = self._run_one(chunk, caches)
        wanted = [results[id(chunk)][0] for chunk in chunks if chunk.last]
        size = self._model.model.config.get_text_config().vocab_size
        return (
            torch.stack(wanted) if wanted else torch.empty((0, size)),
            [results[id(chunk)][1] for chunk in chunks],
        )

    def _run_one(self, chunk: Chunk, caches: OwnCaches) -> tuple[Tensor, ChunkReading]:
        """Run a chunk alone, token by token where the model needs that."""
        pieces = [chunk] if self._continues or chunk.start == 0 else _single_tokens(chunk)
        state = caches.one(chunk.slot)
        assert state.tokens == chunk.start
        readings = []
        for piece in pieces:
            positions = torch.arange(piece.start, piece.end)[None]
            mask = torch.ones((1, piece.end), dtype=torch.long)
            logits, found, state.cache = self._call([piece], state.cache, mask, positions)
            state.tokens = piece.end
            readings += found
        before = [projection for reading in readings for projection in reading.before]
        return logits[0], replace(readings[-1], before=before)

    def _run_batch(self, chunks: Sequence[Chunk], caches: OwnCaches) -> tuple[Tensor, list[ChunkReading]]:
        """Run one token of every chunk at once."""
        batch = caches.together(tuple(chunk.slot for chunk in chunks))
        assert batch.lengths == [chunk.start for chunk in chunks]
        lengths = torch.tensor(batch.lengths)
        columns = torch.arange(int(lengths.max()) + 1)
        # Rows are padded on the left, so a row's own tokens and the new one are the last columns.
        mask = (columns >= len(columns) - 1 - lengths[:, None]).long()
        logits, readings, batch.cache = self._call(chunks, batch.cache, mask, lengths[:, None])
        batch.lengths = [length + 1 for length in batch.lengths]
        return logits, readings

    def _call(
        self, chunks: Sequence[Chunk], cache: Any, mask: Tensor, positions: Tensor
    ) -> tuple[Tensor, list[ChunkReading], Any]:
        """Run the model.

        Args:
            mask: [B, tokens so far and new], 0 for padding.
            positions: [B, new tokens].

        Returns:
            Logits [B, V] after the last token, the readings, and the cache.
        """
        model: Any = self._model.model
        device = self._model.device
        hooks = self._probe.hooks(chunks, [1] * len(chunks), [chunk.exempt for chunk in chunks])
        given: dict[str, Any] = {
            self._model.cache_argument: cache,
            "attention_mask": mask.to(device),
            "position_ids": positions.to(device),
            "use_cache": True,
            "is_first_iteration": cache is None,
        }
        ids = torch.tensor([list(chunk.ids) for chunk in chunks], device=device)
        prepared = dict(model.prepare_inputs_for_generation(ids, **given))
        prepared.pop("is_first_iteration", None)
        if "logits_to_keep" in self._accepted:
            prepared["logits_to_keep"] = 1
        if not self._accepts_all:
            prepared = {name: value for name, value in prepared.items() if name in self._accepted}
        with hooks.installed():
            output = model(**prepared)
        found = next((getattr(output, n) for n in _CACHE_NAMES if getattr(output, n, None) is not None), None)
        if found is None:
            raise TypeError("the model returns no cache")
        return output.logits[:, -1], self._probe.readings(hooks, chunks), found


def can_merge(cache: object) -> bool:
    """Whether sequences of different lengths can share this cache."""
    return isinstance(cache, Cache) and all(type(layer) in _MERGEABLE for layer in cache.layers)


def _single_tokens(chunk: Chunk) -> list[Chunk]:
    """The chunk as chunks of one token each."""
    end = len(chunk.ids) - 1
    return [
        replace(
            chunk,
            start=chunk.start + index,
            ids=[token],
            exempt=[chunk.exempt[index]],
            last=chunk.last and index == end,
            rows=chunk.rows[index : index + 1],
        )
        for index, token in enumerate(chunk.ids)
    ]


# --- cache objects


def _tensors(value: Any) -> list[Tensor]:
    """All tensors that a cache object holds."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for one in value.values() for tensor in _tensors(one)]
    if isinstance(value, list | tuple):
        return [tensor for one in value for tensor in _tensors(one)]
    return _tensors(vars(value)) if _is_cache(value) else []


def _cloned(value: Any) -> Any:
    """A copy of a cache object that shares no tensor with it."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return type(value)((key, _cloned(one)) for key, one in value.items())
    if isinstance(value, list | tuple):
        return type(value)(_cloned(one) for one in value)
    if not _is_cache(value):
        return value
    other = copy(value)
    for name, one in vars(value).items():
        setattr(other, name, _cloned(one))
    return other


def _is_cache(value: object) -> bool:
    """Whether a value is a cache or a part of one, rather than a module or a configuration."""
    known = CacheLayerMixin | LinearAttentionCacheLayerMixin | DummyLayer | Cache
    return isinstance(value, known) or "Cache" in type(value).__name__


def _merged(caches: Sequence[Cache], lengths: Sequence[int]) -> Cache:
    """One cache for several sequences, the shorter ones padded on the left."""
    whole = copy(caches[0])
    whole.layers = [
        _merged_layer(layers, lengths) for layers in zip(*(one.layers for one in caches), strict=True)
    ]
    return whole


def _merged_layer(layers: Sequence[Any], lengths: Sequence[int]) -> Any:
    whole = copy(layers[0])
    parts = [cast("_Parts", layer) for layer in layers]
    if isinstance(whole, LinearAttentionCacheLayerMixin):
        for name in ("conv_states", "recurrent_states"):
            states = [getattr(part, name) for part in parts]
            setattr(
                whole,
                name,
                {
                    key: None if one is None else torch.cat([state[key] for state in states])
                    for key, one in states[0].items()
                },
            )
    if isinstance(whole, DynamicLayer) and whole.is_initialized:
        whole.keys, whole.values = (
            _padded_left([getattr(part, name) for part in parts]) for name in ("keys", "values")
        )
        if isinstance(whole, DynamicSlidingWindowLayer):
            whole.cumulative_length = max(lengths)
    return whole


def _padded_left(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors [1, heads, tokens, head_dim] as one [N, heads, most tokens, head_dim]."""
    most = max(tensor.shape[-2] for tensor in tensors)
    return torch.cat([functional.pad(tensor, (0, 0, most - tensor.shape[-2], 0)) for tensor in tensors])


def _taken(cache: Cache, index: int, length: int, longest: int) -> Cache:
    """The cache of one sequence of a merged one, without its padding."""
    own = copy(cache)
    own.layers = [_taken_layer(layer, index, length, longest) for layer in cache.layers]
    return own


def _taken_layer(layer: Any, index: int, length: int, longest: int) -> Any:
    own = copy(layer)
    if isinstance(own, LinearAttentionCacheLayerMixin):
        for name in ("conv_states", "recurrent_states"):
            states = getattr(layer, name)
            setattr(
                own,
                name,
                {k: None if one is None else one[index : index + 1].clone() for k, one in states.items()},
            )
    if isinstance(own, DynamicLayer) and own.is_initialized:
        kept = layer.keys.shape[-2] - (longest - length)
        if isinstance(own, DynamicSlidingWindowLayer):
            kept = min(length, layer.sliding_window - 1)
            own.cumulative_length = length
        first = layer.keys.shape[-2] - kept
        own.keys = layer.keys[index : index + 1, :, first:].clone()
        own.values = layer.values[index : index + 1, :, first:].clone()
    return own
