"""Token ids of a rendered chat, in which the names of control tokens inside messages stay text."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from demo.models.template_text import PerTokenizer

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")

# Characters that stand around other names: private use, and rare letters for tokenizers that drop those.
_RARE = (range(0xE100, 0xF800), range(0xA000, 0xA48C))


@dataclass(frozen=True, slots=True)
class ControlTokens:
    """The control tokens of a tokenizer.

    Attributes:
        names: Token id -> name. Whitespace, single characters and bytes are not control tokens.
        unknown: Id of the token for unknown text, or None.
        bounded: Names that are tokens only where no letter or digit touches them.
        loose: Ids of tokens that are found in normalised text, such as in lower case.
        hidden: Ids that are never a message's: those of control tokens and all special ones but `unknown`.
        renamed: Copies of the tokenizer that know the control tokens by other names; see `_renamed_copy`.
    """

    names: dict[int, str]
    unknown: int | None
    bounded: frozenset[str]
    loose: frozenset[int]
    hidden: frozenset[int]
    renamed: dict[str, Tokenizer | None] = field(default_factory=dict)


def _find_control_tokens(tokenizer: PreTrainedTokenizerBase) -> ControlTokens:
    added = {
        token: entry
        for token, entry in tokenizer.added_tokens_decoder.items()
        if len(entry.content.strip()) > 1 and not _BYTE.fullmatch(entry.content)
    }
    return ControlTokens(
        names={token: entry.content for token, entry in added.items()},
        unknown=tokenizer.unk_token_id,
        bounded=frozenset(entry.content for entry in added.values() if entry.single_word),
        loose=frozenset(token for token, entry in added.items() if entry.normalized),
        hidden=(special_tokens(tokenizer) | added.keys()) - {tokenizer.unk_token_id},
    )


control_tokens = PerTokenizer(_find_control_tokens)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of all tokens that the tokenizer calls special: they are no text, and are left out of replies."""
    added = tokenizer.added_tokens_decoder
    return frozenset(tokenizer.all_special_ids) | {token for token, entry in added.items() if entry.special}


def encode(
    tokenizer: PreTrainedTokenizerBase, text: str, spans: Sequence[Span]
) -> tuple[list[int], list[Span]]:
    """Token ids of `text` and their character spans in it.

    They are the tokenizer's own, unless a message names a control token: then that name is encoded as text,
    so that no message can pretend to be another turn, and all other tokens stay the same.

    Args:
        tokenizer: A fast tokenizer.
        text: The rendered chat.
        spans: Where messages' text is, in order, without overlaps.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = list(encoded["input_ids"]), list(encoded["offset_mapping"])
    control = control_tokens(tokenizer)
    named = [
        (start, end)
        for token, (start, end) in zip(ids, offsets, strict=True)
        if token in control.names and _is_named(control, token, text[start:end])
    ]
    spoofed = [span for span in named if _touches(_core(text, span), spans)]
    if not spoofed:
        return ids, offsets
    marker = _unused_mark(tokenizer, text)
    if marker not in control.renamed:
        control.renamed[marker] = _renamed_copy(tokenizer, control.names, marker)
    copy = control.renamed[marker]
    if copy is None:
        return _encode_apart(tokenizer, text, spoofed)
    return _encode_renamed(copy, control, marker, text, spans)


def _is_named(control: ControlTokens, token: int, piece: str) -> bool:
    """Whether the token was read from its own name, and not from unknown text."""
    name, written = control.names[token], piece.strip()
    return written == name.strip() or (token in control.loose and token != control.unknown)


def _core(text: str, span: Span) -> Span:
    """The span without the whitespace that some control tokens take in on either side."""
    piece = text[slice(*span)]
    start = span[0] + len(piece) - len(piece.lstrip())
    return start, start + len(piece.strip())


def _touches(span: Span, spans: Sequence[Span]) -> bool:
    following = bisect_right(spans, span[0], key=lambda one: one[1])
    return following < len(spans) and spans[following][0] < span[1]


def _encode_renamed(
    copy: Tokenizer, control: ControlTokens, marker: str, text: str, spans: Sequence[Span]
) -> tuple[list[int], list[Span]]:
    """Rename the control tokens that the template wrote, and encode with the renamed copy."""
    pieces, edges, cursor, length = [], [(0, 0)], 0, 0
    for start, end, token in _written_by_template(control, text, spans):
        name = _renamed(marker, token)
        pieces += [text[cursor:start], name]
        length += start - cursor
        # Inside a name there are no tokens, so both of its ends are enough to map offsets back.
        edges += [(length, start), (length + len(name), end)]
        cursor, length = end, length + len(name)
    encoded = copy.encode("".join([*pieces, text[cursor:]]), add_special_tokens=False)
    places = [place for place, _ in edges]

    def back(place: int) -> int:
        there, here = edges[bisect_right(places, place) - 1]
        return here + place - there

    return list(encoded.ids), [(back(start), back(end)) for start, end in encoded.offsets]


def _written_by_template(
    control: ControlTokens, text: str, spans: Sequence[Span]
) -> Iterator[tuple[int, int, int]]:
    """Start, end and id of each control token outside of messages, in order."""
    ids = {name: token for token, name in control.names.items()}
    present = sorted((name for name in ids if name in text), key=len, reverse=True)
    if not present:
        return
    pattern = re.compile("|".join(map(re.escape, present)))
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        for match in pattern.finditer(text, first, last):
            start, end = match.span()
            around = text[max(0, start - 1) : start] + text[end : end + 1]
            if match[0] in control.bounded and re.search(r"\w", around):
                continue
            yield start, end, ids[match[0]]


def _renamed(marker: str, token: int) -> str:
    return f"{marker}{token}{marker}"


def _unused_mark(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """A character that is not in `text`, and that the tokenizer's normaliser leaves alone."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    for codes in _RARE:
        mark = chr(next(code for code in codes if chr(code) not in text))
        if normalizer is None or mark in normalizer.normalize_str(f"a{mark}a"):
            return mark
    return mark


def _renamed_copy(
    tokenizer: PreTrainedTokenizerBase, names: Mapping[int, str], marker: str
) -> Tokenizer | None:
    """A copy of the tokenizer in which the control tokens have other names, so that their own are text.

    Returns:
        The copy, or None if the tokenizer cannot be copied.
    """
    renamed = {name: _renamed(marker, token) for token, name in names.items()}
    try:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        content["truncation"] = content["padding"] = None
        for entry in content["added_tokens"]:
            entry["content"] = renamed.get(entry["content"], entry["content"])
        _rename_vocabulary(content["model"], renamed)
        copy = Tokenizer.from_str(json.dumps(content))
    except Exception:  # parts written in Python cannot be copied; tokenizers raises plain exceptions
        return None
    same = all(copy.token_to_id(renamed[name]) == token for token, name in names.items())
    return copy if same else None


def _rename_vocabulary(model: dict[str, Any], renamed: Mapping[str, str]) -> None:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {renamed.get(piece, piece): token for piece, token in vocabulary.items()}
    else:  # Unigram: pieces with their scores, by id
        model["vocab"] = [[renamed.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token"):
        model["unk_token"] = renamed.get(model["unk_token"], model["unk_token"])
    if "merges" in model:  # no merge of letters may spell a control token
        pairs = [(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if not {*pair, "".join(pair)} & renamed.keys()]


def _encode_apart(
    tokenizer: PreTrainedTokenizerBase, text: str, spoofed: Sequence[Span]
) -> tuple[list[int], list[Span]]:
    """Encode the names in messages one character at a time, for tokenizers that cannot be copied."""
    edges = sorted({0, len(text), *(place for start, end in spoofed for place in range(start, end + 1))})
    ids: list[int] = []
    offsets: list[Span] = []
    for first, last in pairwise(edges):
        encoded = tokenizer(text[first:last], add_special_tokens=False, return_offsets_mapping=True)
        ids += encoded["input_ids"]
        offsets += [(start + first, end + first) for start, end in encoded["offset_mapping"]]
    return ids, offsets
