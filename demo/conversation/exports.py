"""Export of a session for spreadsheets: one row per message of the user and per token of a reply."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from demo.axis.zones import zone_of
from demo.conversation.path import PathLength, has_place, path_lengths
from demo.conversation.session_file import Recording
from demo.conversation.settings import ALL_BRANCHES, CAPPED, STEERED, TurnSettings
from demo.conversation.turns import Reply, Turn
from demo.engine.protocol import Alternative, Token
from demo.plots.marks import PlotMarks

_TOKEN = (
    "turn",
    "branch",
    "sample",
    "token",
    "text",
    "special",
    "projection_before",
    "projection_after",
    "projection_plain",
    "correction",
    "second_correction",
    "probability",
    "alternatives",
    "alternatives_without_cap",
    "milliseconds",
    "span",
    "zone",
    "start",
    "step",
    "step_along_axis",
    "path_length",
)
_SETTINGS = (
    "cap",
    "floor_name",
    "floor",
    "first_capped_layer",
    "last_capped_layer",
    "only_below",
    "second_cap",
    "second_cap_side",
    "steer_layer",
    "steer_alpha",
    "steer_direction",
    "acts_on",
    "seed",
    "attempt",
    "temperature",
    "top_p",
    "repetition_penalty",
    "max_new_tokens",
    "soft_limit",
    "thinking",
    "dtype",
)
COLUMNS = (*_TOKEN, *_SETTINGS)
# Spreadsheets take UTF-8 for another encoding unless a file begins with this.
_BYTE_ORDER_MARK = "\ufeff"
# The wide forms count as well: a spreadsheet in an East Asian language takes them for the plain ones.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def tokens_csv(recording: Recording) -> str:
    """The session as CSV. The columns are described in docs/session-file.md.

    Every row of a token has the settings of its own reply, whatever has been chosen since.
    """
    file = io.StringIO()
    file.write(_BYTE_ORDER_MARK)
    writer = csv.writer(file)
    columns = (*COLUMNS, *(_along(name) for name in _directions(recording)))
    writer.writerow([_inert(column) for column in columns])
    paths = {branch: path_lengths(recording.turns, branch) for branch in ALL_BRANCHES}
    for number, turn in enumerate(recording.turns, 1):
        path = {branch: lengths[number - 1] for branch, lengths in paths.items()}
        for row in _rows(number, turn, recording.system_prompt, recording.marks, path):
            writer.writerow([_inert(row.get(column)) for column in columns])
    return file.getvalue()


def _directions(recording: Recording) -> list[str]:
    """The directions that any turn was read along, in order of appearance."""
    return list(
        dict.fromkeys(name for turn in recording.turns if turn.settings for name in turn.settings.along)
    )


def _along(name: str) -> str:
    """The column of the projections along a direction."""
    return f"along {name}"


def _rows(
    number: int, turn: Turn, system_prompt: str, marks: PlotMarks, path: Mapping[str, PathLength | None]
) -> Iterator[dict[str, Any]]:
    """The rows of one turn, from 1, each with the columns that it fills. path: by branch, up to this turn."""
    prompt = system_prompt if turn.settings is None else turn.settings.system_prompt
    if prompt.strip():
        yield {"turn": number, "branch": "system", "text": prompt}
    for branch, own in turn.settings.own if turn.settings else ():
        if own.system_prompt is not None:
            yield {"turn": number, "branch": f"system {branch}", "text": own.system_prompt}
    yield {"turn": number, "branch": "user", "text": turn.user}
    for branch in ALL_BRANCHES:
        reply = turn.replies.get(branch)
        for sample, one in enumerate([reply, *reply.samples] if reply else []):
            zone = zone_of(marks.zones, one.mean, marks.assistant)
            head = {"turn": number, "branch": branch, "sample": sample, "zone": zone, "start": one.start}
            head |= _path(one, None if sample else path[branch])
            settings = {} if turn.settings is None else _settings(turn.settings, branch, sample)
            names = [_along(name) for name in turn.settings.along] if turn.settings else []
            for place, token in enumerate(one.tokens, 1):
                along = dict(zip(names, token.along, strict=False))
                yield {**head, "token": place, **_cells(token), **settings, **along}


def _path(reply: Reply, path: PathLength | None) -> dict[str, Any]:
    """The columns of a reply's step; path: its branch's up to this turn, None for a further sample."""
    step, placed = reply.step, has_place(reply)
    return {
        "step": step and step.length,
        "step_along_axis": step and step.along,
        "path_length": path.length if path and placed else None,
    }


def _cells(token: Token) -> dict[str, Any]:
    """The columns of one token, from its text on."""
    return {
        "text": token.text,
        "special": int(token.special),
        "projection_before": token.before,
        "projection_after": token.after,
        "projection_plain": token.plain,
        "correction": token.correction,
        "second_correction": token.also,
        "probability": token.probability,
        "alternatives": _alternatives(token.alternatives),
        "alternatives_without_cap": _alternatives(token.plain_alternatives),
        "milliseconds": token.at,
        "span": "reasoning" if token.reasoning else "answer",
    }


def _alternatives(alternatives: Sequence[Alternative]) -> str | None:
    """Texts and probabilities as JSON, because one cell holds them all."""
    pairs = [[one.text, round(one.probability, 4)] for one in alternatives]
    return json.dumps(pairs, ensure_ascii=False) if pairs else None


def _settings(settings: TurnSettings, branch: str, sample: int) -> dict[str, Any]:
    """The columns of the settings that had an effect on one reply."""
    cap, own = settings.cap_in(branch), dict(settings.own).get(branch)
    steer = settings.steer if branch == STEERED else None
    cells: dict[str, Any] = {"cap": "off" if cap is None else "on", "dtype": settings.dtype}
    if cap is not None:
        marks = settings.marks
        cells |= {"first_capped_layer": cap.layers[0], "last_capped_layer": cap.layers[-1]}
        if own is not None and own.cap is not None:
            cells["floor_name"] = own.floor_name
        else:
            cells |= {"floor_name": marks and marks.floor_name, "floor": marks and marks.floor}
    if steer is not None:
        cells |= {"steer_layer": steer.layer, "steer_alpha": steer.alpha}
        cells |= {"steer_direction": steer.direction or "axis"}
    also = settings.also if branch == CAPPED else None
    cells["only_below"] = next((one.only_below for one in (cap, also) if one is not None), None)
    if also is not None:
        cells |= {"second_cap": also.direction, "second_cap_side": "at most" if also.downward else "at least"}
    if cap is not None or also is not None or steer is not None:
        cells["acts_on"] = {"both": "answer and reasoning"}.get(settings.span, settings.span)
    if settings.read:
        return cells
    sampling = settings.sampling_in(branch)
    return cells | {
        "seed": settings.seed_of(sample),
        "attempt": settings.attempt,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "repetition_penalty": sampling.repetition_penalty,
        "max_new_tokens": sampling.max_new_tokens,
        "soft_limit": sampling.soft_limit,
        "thinking": int(settings.thinking),
    }


def _inert(value: object) -> object:
    """The value, or a text with an apostrophe in front where a spreadsheet would take it for a formula."""
    begins = isinstance(value, str) and value.lstrip("\n").startswith(_FORMULA)
    return f"'{value}" if begins else value
