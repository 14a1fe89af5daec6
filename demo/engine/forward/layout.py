"""Where the tokens of a fused pass lie in the cache: what goes where, and what is attended to at once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from demo.engine.forward.forward_pass import Chunk
from demo.engine.kv_cache import KVCache, rounded_up, visible_columns
from demo.engine.shelved_cache import ShelvedCache

# torch sums attention over fewer queries than this in another order. The last tokens of a prompt would get
# other bits than the same tokens in the middle of a chunk, so short chunks are padded to this length.
_LEAST_QUERIES = 8

# One more call of attention takes about as long as so many columns of a slot.
_CALL_COLUMNS = 512


@dataclass(frozen=True, slots=True)
class Write:
    """The tokens of a pass whose keys and values go to one shelf.

    Attributes:
        shelf: see `ShelvedCache`.
        tokens: their indices in the pass, [N]; None for all.
        rows, columns: [N], where they go.
    """

    shelf: KVCache
    tokens: Tensor | None
    rows: Tensor
    columns: Tensor


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring rows of a shelf, of similar length. Their sampled tokens are attended to at once.

    Attributes:
        shelf: see `ShelvedCache`.
        rows: which ones.
        columns: so many columns are attended to.
        mask: [rows, 1, 1, columns], to be added to the scores; see `visible_columns`.
        tokens: the indices in the pass of the rows' tokens; any index for a row that does not decode.
        decoding: the rows that decode, counted from the first of these rows.
        wanted: the indices in the pass of their tokens.
    """

    shelf: KVCache
    rows: slice
    columns: int
    mask: Tensor
    tokens: slice | Tensor
    decoding: slice | Tensor
    wanted: slice | Tensor


@dataclass(frozen=True, slots=True)
class Prompt:
    """A chunk of a prompt: its place, its tokens' indices in the pass, and its mask [tokens, columns].

    The mask is added to the scores.
    """

    shelf: KVCache
    row: int
    tokens: slice
    mask: Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the N tokens of a pass belong. The pass holds its chunks in order.

    Attributes:
        positions: [N], of every token in its sequence.
        spans: of the sampled tokens.
        prompts: chunks of prompts.
    """

    positions: Tensor
    writes: list[Write]
    spans: list[Span]
    prompts: list[Prompt]

    @property
    def is_one_span(self) -> bool:
        """Whether the pass holds the tokens of one span, in order, and nothing else."""
        tokens = self.spans[0].tokens if len(self.spans) == 1 and not self.prompts else None
        return isinstance(tokens, slice) and tokens == slice(0, len(self.positions))


def layout_of(chunks: Sequence[Chunk], cache: ShelvedCache, dtype: torch.dtype) -> Layout:
    """The layout of a pass. Its slots must be open.

    Args:
        dtype: of the model, and so of the masks.
    """
    firsts = itertools.accumulate((len(chunk.ids) for chunk in chunks), initial=0)
    indexed = list(zip(chunks, firsts, strict=False))
    prompts = []
    sampled: dict[int, dict[int, tuple[int, int]]] = {}  # shelf -> row -> index in the pass, length
    for chunk, first in indexed:
        columns, row = cache.place(chunk.slot)
        if chunk.prompt:
            own = slice(first, first + len(chunk.ids))
            mask = _added(_causal_mask(chunk), dtype)
            prompts.append(Prompt(cache.shelves[columns], row, own, mask))
        else:
            sampled.setdefault(columns, {})[row] = first, chunk.end
    spans = [
        span for columns, rows in sampled.items() for span in _spans(cache.shelves[columns], rows, dtype)
    ]
    positions = torch.tensor([position for chunk in chunks for position in range(chunk.start, chunk.end)])
    return Layout(positions, _writes(chunks, cache, positions), spans, prompts)


def _writes(chunks: Sequence[Chunk], cache: ShelvedCache, positions: Tensor) -> list[Write]:
    """What goes to each shelf."""
    places = [place for chunk in chunks for place in [cache.place(chunk.slot)] * len(chunk.ids)]
    found = []
    for columns in dict.fromkeys(columns for columns, _ in places):
        tokens = [index for index, (own, _) in enumerate(places) if own == columns]
        rows = torch.tensor([places[index][1] for index in tokens])
        chosen = None if len(tokens) == len(places) else torch.tensor(tokens)
        own = positions if chosen is None else positions[chosen]
        found.append(Write(cache.shelves[columns], chosen, rows, own))
    return found


def _spans(shelf: KVCache, rows: Mapping[int, tuple[int, int]], dtype: torch.dtype) -> list[Span]:
    """The spans of a shelf's sampled tokens: row -> index in the pass, and length of the sequence."""
    begin = min(rows)
    lengths = [rows[row][1] if row in rows else 0 for row in range(begin, max(rows) + 1)]
    found = []
    for first, end, columns in divided(lengths, begin):
        decoding = [row - first for row in range(first, end) if row in rows]
        if decoding:
            tokens = [rows[row][0] if row in rows else 0 for row in range(first, end)]
            wanted = [tokens[row] for row in decoding]
            mask = visible_columns(lengths[first - begin : end - begin], end - first, columns)
            parts = map(_indices, (tokens, decoding, wanted))
            found.append(Span(shelf, slice(first, end), columns, _added(mask, dtype), *parts))
    return found


def _indices(numbers: Sequence[int]) -> slice | Tensor:
    """An index for these places, a slice where they follow each other."""
    first, end = numbers[0], numbers[0] + len(numbers)
    return slice(first, end) if list(numbers) == list(range(first, end)) else torch.tensor(numbers)


def divided(lengths: Sequence[int], begin: int = 0) -> list[tuple[int, int, int]]:
    """The rows from `begin` on, divided so that few short ones are padded to the length of a long one.

    Whoever has a long chat would otherwise make every step of the others as slow as that chat's.

    Args:
        lengths: tokens in each row.

    Returns:
        First row, the row after the last one, and the padded length of each part.
    """
    columns = [rounded_up(max(length, 1)) for length in lengths]
    firsts, widest = [begin], columns[:1]
    for row, own in enumerate(columns[1:], start=begin + 1):
        count, most = row - firsts[-1], max(widest[-1], own)
        if (count + 1) * most > count * widest[-1] + own + _CALL_COLUMNS:
            firsts.append(row)
            widest.append(own)
        else:
            widest[-1] = most
    return list(zip(firsts, [*firsts[1:], begin + len(lengths)], widest, strict=True))


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a mask is true, else -inf.

    torch makes the same of a mask of truth values, but anew at every decoder layer.
    """
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, float("-inf"))


def _causal_mask(chunk: Chunk) -> Tensor:
    """[tokens, columns] bool: each token attends to those before it and to itself.

    A very short chunk is padded with copies of its last token.
    """
    columns = torch.arange(rounded_up(chunk.end))
    positions = torch.arange(chunk.start, max(chunk.end, chunk.start + _LEAST_QUERIES))
    return columns[None, :] <= positions.clamp(max=chunk.end - 1)[:, None]
