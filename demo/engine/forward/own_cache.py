"""The forward pass for models whose layers keep more than plain keys and values, with the model's own cache.

Recurrent and convolutional layers (Mamba, Gated DeltaNet, short convolutions) keep a state that summarises
all tokens so far. It cannot be cut back, so it is copied wherever a reply may later branch off. Every
sequence has a cache object of its own. Sequences that decode together are merged into one batch where the
cache allows it, padded on the left as `generate` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor

from demo.engine.forward.cache_objects import cache_in, cloned_cache, merged_cache, taken_cache, tensors_of
from demo.engine.forward.forward_pass import Chunk, ChunkReading, Probe, last_positions
from demo.engine.kv_cache import SavedState, SequenceCache
from demo.models.loading import LoadedModel


@dataclass(slots=True)
class OwnState:
    """One sequence's cache object, batch 1, and how many tokens it has seen. See `kv_cache.SavedState`."""

    cache: Any
    tokens: int
    can_be_cut: bool = False

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in tensors_of(self.cache))


@dataclass(slots=True)
class _Batch:
    """The merged cache of several slots. lengths: tokens of each, padding left out."""

    slots: tuple[int, ...]
    cache: Any
    lengths: list[int]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in tensors_of(self.cache))


class OwnCaches:
    """The states of the running sequences. See `kv_cache.SequenceCache`."""

    can_be_cut = False

    def __init__(self) -> None:
        self._states: dict[int, OwnState] = {}
        self._batch: _Batch | None = None

    @property
    def nbytes(self) -> int:
        held = sum(state.nbytes for state in list(self._states.values()))
        return held + (self._batch.nbytes if self._batch else 0)

    def columns_of(self, lengths: Sequence[int]) -> int:
        """See `SequenceCache`. A batch is padded to its longest sequence."""
        return len(lengths) * max(lengths, default=0)

    columns_after = columns_of  # memory is taken as the sequences grow

    def make_room(self, lengths: Sequence[int]) -> None:
        """See `SequenceCache`."""

    def open(self, slot: int, tokens: int) -> None:
        """See `SequenceCache`."""

    def close(self, slot: int) -> None:
        """See `SequenceCache`."""
        self.clear(slot)

    def move(self, source: int, target: int, tokens: int) -> None:
        """See `SequenceCache`."""
        self._split()
        if source in self._states:
            self._states[target] = self._states.pop(source)

    def place(self, slot: int) -> tuple[int, int]:
        """See `SequenceCache`."""
        return 0, slot

    def fit(self, lengths: Sequence[int]) -> None:
        """See `SequenceCache`. The open slots must be the first ones."""
        if not lengths:
            self._batch = None
        self._split()
        self._states = {slot: state for slot, state in self._states.items() if slot < len(lengths)}

    def clear(self, slot: int) -> None:
        """See `SequenceCache`."""
        self._split()
        self._states.pop(slot, None)

    @torch.inference_mode()
    def load(self, slot: int, state: SavedState, tokens: int) -> None:
        """See `SequenceCache`."""
        assert isinstance(state, OwnState) and state.tokens == tokens
        self._split()
        self._states[slot] = OwnState(cloned_cache(state.cache), tokens)

    @torch.inference_mode()
    def copy(self, source: int, target: int, tokens: int) -> None:
        """See `SequenceCache`."""
        self._split()
        state = self._states[source]  # whatever it has seen: after an error that may be more than `tokens`
        self._states[target] = OwnState(cloned_cache(state.cache), state.tokens)

    @torch.inference_mode()
    def saved(self, slot: int, tokens: int) -> OwnState:
        """See `SequenceCache`."""
        self._split()
        state = self._states[slot]
        assert state.tokens == tokens
        return OwnState(cloned_cache(state.cache), tokens)

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
            self._batch = _Batch(slots, merged_cache([state.cache for state in states], lengths), lengths)
        return self._batch

    def _split(self) -> None:
        """Give the slots of the batch their own states again."""
        if self._batch is not None:
            batch, self._batch = self._batch, None
            for index, (slot, length) in enumerate(zip(batch.slots, batch.lengths, strict=True)):
                own = taken_cache(batch.cache, index, length, max(batch.lengths))
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
            width = prepared.get("input_ids", ids).shape[1]
            prepared["logits_to_keep"] = last_positions(width, 1, device)
        if not self._accepts_all:
            prepared = {name: value for name, value in prepared.items() if name in self._accepted}
        with hooks.installed():
            output = model(**prepared)
        found = cache_in(output)
        if found is None:
            raise TypeError("the model returns no cache")
        return output.logits[:, -1], self._probe.readings(hooks, chunks), found


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
