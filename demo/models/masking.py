"""Finds messages in a rendered chat: the chat is rendered again with masks in place of their characters."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

from demo.models.template_text import common_length

Render = Callable[[Sequence[str]], str]

# Masks: the private-use characters of planes 15 and 16, in order. Longer chats use them again from the start.
_PLANE = 0xFFFE
_COUNT = 2 * _PLANE
_MASKED = re.compile("[\U000f0000-\U0010fffd]+")

# Masks of whitespace at edges: templates trim them as they trim spaces and newlines.
_BLANKS = "\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_BLANK_RUN = re.compile(f"[{_BLANKS}]+")
_PLAIN_SPACE = " \t\n\r\v\f"
_EDGES = re.compile(r"\A\s+|\s+\Z")
_SPACES = re.compile(f"[{_PLAIN_SPACE}]+")

_SHORTEST_LINE = 4  # characters; shorter lines occur anywhere


class Piece(NamedTuple):
    """A message's content or reasoning.

    Attributes:
        message: Index of the message.
        reasoning: Whether this is its reasoning.
        spoken: Whether the assistant wrote it.
        text: What it says.
    """

    message: int
    reasoning: bool
    spoken: bool
    text: str


class Place(NamedTuple):
    """A part of a piece in the rendered text.

    Attributes:
        start: First character in the rendered text.
        end: Character after the last.
        piece: Index of the piece.
        offset: The piece's character at `start`; None where the template rewrote the text.
    """

    start: int
    end: int
    piece: int
    offset: int | None


@dataclass(frozen=True, slots=True)
class _Attempt:
    """Which characters are left as they are, so that the template treats the masked text as the true text.

    Attributes:
        constants: In whose pieces the template's own constants are left.
        spaces: In whose pieces whitespace at edges is left.
        everywhere: Whether all other whitespace is left as well.
    """

    constants: Literal["nobody", "assistant", "everybody"] = "nobody"
    spaces: Literal["nobody", "assistant", "everybody"] = "nobody"
    everywhere: bool = False


_ATTEMPTS = (
    _Attempt(),
    _Attempt("assistant"),
    _Attempt("assistant", "assistant"),
    _Attempt(spaces="everybody", everywhere=True),
    _Attempt("everybody"),
    _Attempt("everybody", "everybody"),
    _Attempt("everybody", "everybody", everywhere=True),
)


class _Segment(NamedTuple):
    """Consecutive characters `first`, `first` + 1, … of all pieces' text, from `start` to `end`."""

    start: int
    end: int
    first: int

    @property
    def last(self) -> int:
        return self.first + self.end - self.start


def locate(
    text: str, pieces: Sequence[Piece], render: Render, constants: Sequence[str], source: str
) -> list[Place]:
    """Where each character of the pieces stands in `text`, in the order of `text`.

    A masked rendering shows what the template does only if it becomes `text` when the masks are replaced by
    what they stand for. Attempts with fewer masks follow until one does. A template that rewrites text passes
    none; its pieces are then found by the template's own text around them, or line by line.

    Args:
        text: The rendered chat.
        pieces: What the messages say.
        render: Renders the chat with other texts in place of the pieces'.
        constants: Strings that the template may look for in messages.
        source: The template, whose characters are not used as masks.
    """
    tried: dict[str, str] = {}  # mask -> rendering
    found = _by_masks(text, pieces, render, constants, source, tried)
    if found is None:
        found = _with_twins_alike(text, pieces, render, constants, source)
    starts = _starts(pieces)
    for mask, masked in tried.items():
        if found is None:
            found = _between_literals(text, masked, _by_piece(_segments(masked, mask, starts), starts))
    return _line_by_line(text, pieces) if found is None else found


def _starts(pieces: Sequence[Piece]) -> list[int]:
    return [0, *accumulate(len(piece.text) for piece in pieces)]


def _by_masks(
    text: str,
    pieces: Sequence[Piece],
    render: Render,
    constants: Sequence[str],
    source: str,
    tried: dict[str, str],
) -> list[Place] | None:
    """The places by the first attempt whose rendering becomes `text`; `tried` receives the renderings."""
    contents, starts = "".join(piece.text for piece in pieces), _starts(pieces)
    sought = [constant for constant in constants if constant in contents]
    for attempt in _ATTEMPTS:
        mask = _mask(pieces, attempt, sought, source)
        if mask in tried:
            continue
        try:
            masked = render([mask[start:end] for start, end in pairwise(starts)])
        except Exception:  # a template can raise errors of any kind at text that it does not expect
            continue
        tried[mask] = masked
        segments = _segments(masked, mask, starts)
        if _unmasked(masked, segments, contents) == text:
            if attempt != _ATTEMPTS[0]:
                segments = _filled(text, segments, contents, mask, set(starts))
            return _with_constants(text, _by_piece(segments, starts), pieces, mask, starts)
    return None


def _with_twins_alike(
    text: str, pieces: Sequence[Piece], render: Render, constants: Sequence[str], source: str
) -> list[Place] | None:
    """Give pieces with the same text the same masks, for templates that compare messages with each other."""
    twins: dict[str, list[int]] = {}
    for number, piece in enumerate(pieces):
        twins.setdefault(piece.text, []).append(number)
    if len(twins) == len(pieces):
        return None
    alone = [pieces[numbers[0]] for numbers in twins.values()]

    def render_twins(texts: Sequence[str]) -> str:
        masked = dict(zip(twins, texts, strict=True))
        return render([masked[piece.text] for piece in pieces])

    found = _by_masks(text, alone, render_twins, constants, source, {})
    return None if found is None else _apart(found, list(twins.values()))


def _apart(places: Sequence[Place], twins: Sequence[Sequence[int]]) -> list[Place]:
    """Assign the places of texts to the pieces with that text, in order."""
    seen: dict[int, tuple[int, int]] = {}  # text -> how often it began, and the offset after its last place
    apart = []
    for place in places:
        times, after = seen.get(place.piece, (0, -1))
        offset = place.offset or 0
        if offset < after or after < 0:
            times += 1
        seen[place.piece] = times, offset + place.end - place.start
        numbers = twins[place.piece]
        apart.append(place._replace(piece=numbers[min(times, len(numbers)) - 1]))
    return apart


@cache
def _masks() -> str:
    planes = (range(start, start + _PLANE) for start in (0xF0000, 0x100000))
    return "".join(chr(code) for plane in planes for code in plane)


def _mask(pieces: Sequence[Piece], attempt: _Attempt, constants: Sequence[str], source: str) -> str:
    """The masked text of all pieces, one character for each."""
    total = sum(len(piece.text) for piece in pieces)
    masks = (_masks() * (total // _COUNT + 1))[:total]
    blanks = "".join(blank for blank in _BLANKS if blank not in source) or _BLANKS
    masked, start = [], 0
    for piece in pieces:
        own = masks[start : start + len(piece.text)]
        kept = _occurrences(piece.text, constants) if _includes(attempt.constants, piece) else []
        plain = _includes(attempt.spaces, piece)
        edges = [0, *(edge for span in kept for edge in span), len(own)]
        for number, (first, last) in enumerate(pairwise(edges)):
            if number % 2:  # a constant
                masked.append(piece.text[first:last])
            else:
                part, place = piece.text[first:last], start + first
                masked.append(_mask_part(part, own[first:last], place, blanks, plain, attempt.everywhere))
        start += len(own)
    return "".join(masked)


def _includes(whose: str, piece: Piece) -> bool:
    return whose == "everybody" or (whose == "assistant" and piece.spoken)


def _occurrences(text: str, constants: Sequence[str]) -> list[tuple[int, int]]:
    """Spans of the constants in `text`, in order; those that touch are joined."""
    found = sorted(match.span() for one in constants for match in re.finditer(re.escape(one), text))
    joined: list[tuple[int, int]] = []
    for start, end in found:
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _mask_part(part: str, own: str, place: int, blanks: str, plain: bool, everywhere: bool) -> str:
    """Mask `part`, which starts at character `place` of all pieces' text; `own` are its masks."""
    if not part or not (part[0].isspace() or part[-1].isspace() or everywhere):
        return own
    spaces = (_SPACES if everywhere else _EDGES).finditer(part)
    masked, cursor = [], 0
    for match in spaces:
        start, end = match.span()
        masked.append(own[cursor:start])
        masked += [
            part[at] if plain and part[at] in _PLAIN_SPACE else blanks[(place + at) % len(blanks)]
            for at in range(start, end)
        ]
        cursor = end
    return "".join([*masked, own[cursor:]])


def _segments(masked: str, mask: str, starts: Sequence[int]) -> list[_Segment]:
    """The masks in a rendering, as consecutive characters of all pieces' text."""
    segments: list[_Segment] = []
    expected = 0
    for run in _MASKED.finditer(masked):
        start, end = run.span()
        while start < end:
            first = _index(masked[start], expected, len(mask))
            length = _common(masked[start:end], mask[first : first + end - start])
            if length == 0:  # a private-use character of the template
                start += 1
                continue
            segments.append(_Segment(start, start + length, first))
            start += length
            expected = segments[-1].last
    return _with_blanks(masked, mask, segments, starts)


def _index(character: str, expected: int, total: int) -> int:
    """The character of all pieces' text with this mask that is closest to the expected one."""
    code = ord(character)
    index = code - 0xF0000 if code < 0x100000 else code - 0x100000 + _PLANE
    turns = round((expected - index) / _COUNT)
    last = max(0, (total - 1 - index) // _COUNT)
    return index + min(max(turns, 0), last) * _COUNT


def _common(one: str, other: str) -> int:
    return len(one) if one == other else common_length(one, other)


def _with_blanks(
    masked: str, mask: str, segments: Sequence[_Segment], starts: Sequence[int]
) -> list[_Segment]:
    """Add masks of whitespace: beside the characters that they stood beside, or as a piece of whitespace."""
    # All-whitespace pieces that have not been met yet.
    pending = [span for span in pairwise(starts) if mask[slice(*span)] and not mask[slice(*span)].strip()]
    if not pending and not _BLANK_RUN.search(mask):
        return list(segments)
    by_start = {segment.start: segment for segment in segments}
    by_end = {segment.end: segment for segment in segments}
    added: list[_Segment] = []
    for run in _BLANK_RUN.finditer(masked):
        start, end = run.span()
        if before := by_end.get(start):
            length = _common(masked[start:end], mask[before.last : before.last + end - start])
            added.append(_Segment(start, start + length, before.last))
            start += length
        after = by_start.get(end)
        if after and start < end:
            wanted = mask[max(0, after.first - (end - start)) : after.first]
            length = _common(masked[start:end][::-1], wanted[::-1])
            added.append(_Segment(end - length, end, after.first - length))
            end -= length
        for span in list(pending):
            if start < end and masked.startswith(mask[slice(*span)], start, end):
                length = span[1] - span[0]
                added.append(_Segment(start, start + length, span[0]))
                start += length
                pending.remove(span)
    return sorted([*segments, *(segment for segment in added if segment.start < segment.end)])


def _unmasked(masked: str, segments: Sequence[_Segment], contents: str) -> str:
    said, cursor = [], 0
    for segment in segments:
        said += [masked[cursor : segment.start], contents[segment.first : segment.last]]
        cursor = segment.end
    return "".join([*said, masked[cursor:]])


def _filled(
    text: str, segments: Sequence[_Segment], contents: str, mask: str, starts: set[int]
) -> list[_Segment]:
    """Add characters that were left unmasked: between masked ones, and constants beside masked ones."""
    filled = list(segments)
    ends = [_Segment(0, 0, 0), *segments, _Segment(len(text), len(text), len(contents))]
    for before, after in pairwise(ends):
        room = text[before.end : after.start]
        left = contents[before.last : after.first]
        if left and room == left == mask[before.last : after.first]:
            filled.append(_Segment(before.end, after.start, before.last))
            continue
        # After `before` and before `after`, as far as characters were left unmasked.
        last, first = before.last, after.first
        while last not in starts and mask[last] == contents[last]:
            last += 1
        while first not in starts and mask[first - 1] == contents[first - 1]:
            first -= 1
        inside = before.last not in starts and after.first not in starts
        if inside and first <= before.last <= after.first:  # whitespace was changed inside a piece
            filled += _in_order(text, before.end, after.start, contents, before.last, after.first)
            continue
        # Where the piece goes on beyond the constant, the template cut it, and writes its own text there.
        if before.last < last in starts and room.startswith(contents[before.last : last]):
            filled.append(_Segment(before.end, before.end + last - before.last, before.last))
        if after.first > first in starts and room.endswith(contents[first : after.first]):
            filled.append(_Segment(after.start - after.first + first, after.start, first))
    return sorted(segment for segment in filled if segment.start < segment.end)


def _in_order(text: str, start: int, end: int, contents: str, first: int, last: int) -> Iterator[_Segment]:
    """The words of `contents[first:last]` that stand in this order in `text[start:end]`."""
    for word in re.finditer(r"\S+", contents[first:last]):
        at = text.find(word[0], start, end)
        if at >= 0:
            start = at + len(word[0])
            yield _Segment(at, start, first + word.start())


def _by_piece(segments: Sequence[_Segment], starts: Sequence[int]) -> list[Place]:
    """Cut the segments at the edges of the pieces."""
    places = []
    for segment in segments:
        first = segment.first
        while first < segment.last:
            piece = bisect_right(starts, first) - 1
            last = min(starts[piece + 1], segment.last)
            at = segment.start + first - segment.first
            places.append(Place(at, at + last - first, piece, first - starts[piece]))
            first = last
    return places


def _with_constants(
    text: str, places: list[Place], pieces: Sequence[Piece], mask: str, starts: Sequence[int]
) -> list[Place]:
    """Add pieces that were left unmasked as a whole, because they consist of the template's constants.

    They are sought between the pieces before and after them.
    """
    met = {place.piece for place in places}
    for number, piece in enumerate(pieces):
        said = piece.text.strip()
        if number in met or not said or said not in mask[starts[number] : starts[number + 1]]:
            continue
        first = max((place.end for place in places if place.piece < number), default=0)
        last = min((place.start for place in places if place.piece > number), default=len(text))
        at = text.find(said, first, last)
        if at >= 0:
            place = Place(at, at + len(said), number, piece.text.index(said))
            places = sorted([*places, place])
    return places


def _between_literals(text: str, masked: str, places: Sequence[Place]) -> list[Place] | None:
    """Find rewritten pieces by the template's own text around them, which both renderings share.

    Returns:
        The places, or None if the template writes other text around masked pieces.
    """
    runs: list[tuple[int, int, int]] = []  # start and end in the masked text, piece
    for place in places:
        if runs and runs[-1][2] == place.piece and runs[-1][1] == place.start:
            runs[-1] = runs[-1][0], place.end, place.piece
        else:
            runs.append((place.start, place.end, place.piece))
    if not runs or not text.startswith(masked[: runs[0][0]]):
        return None
    found, cursor = [], runs[0][0]
    for number, (start, end, piece) in enumerate(runs):
        if number + 1 < len(runs):
            literal = masked[end : runs[number + 1][0]]
            stop = _nearest(text, literal, cursor, cursor + end - start)
        else:
            literal = masked[end:]
            stop = len(text) - len(literal) if text.endswith(literal) else -1
        if stop < cursor:
            return None
        found.append(Place(cursor, stop, piece, None))
        cursor = stop + len(literal)
    return [place for place in found if place.start < place.end]


def _nearest(text: str, literal: str, earliest: int, expected: int) -> int:
    """The occurrence of `literal` nearest to `expected`, from `earliest` on; -1 if there is none."""
    after = text.find(literal, expected)
    before = text.rfind(literal, earliest, expected + len(literal))
    if after < 0 or (before >= 0 and expected - before <= after - expected):
        return before
    return after


def _line_by_line(text: str, pieces: Sequence[Piece]) -> list[Place]:
    """Find the pieces, or else their lines, in order."""
    places, cursor = [], 0
    for number, piece in enumerate(pieces):
        for line, offset in _lines(text, piece.text, cursor):
            at = text.find(line, cursor)
            if at >= 0:
                cursor = at + len(line)
                places.append(Place(at, cursor, number, offset))
    return places


def _lines(text: str, said: str, cursor: int) -> Iterator[tuple[str, int]]:
    whole = said.strip()
    if whole and text.find(whole, cursor) >= 0:
        yield whole, said.index(whole)
        return
    offset = 0
    for line in said.splitlines(keepends=True):
        if len(line.strip()) >= _SHORTEST_LINE:
            yield line.strip(), offset + len(line) - len(line.lstrip())
        offset += len(line)
