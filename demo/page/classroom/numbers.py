"""The numbers of a class: what the board and the results hold of each turn. No text of a student is here."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

from demo.axis.zones import ZONE_NAMES, zone_of, zones_json
from demo.conversation.json_values import items, maybe, whole
from demo.conversation.settings import CAPPED, UNCAPPED
from demo.conversation.turns import Turn, rounded, same_words
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError

NAME, VERSION = "persona-drift-class", 1

MOST_TURNS = 40  # of one conversation
MOST_ROWS = 600  # of a class; beyond it the oldest conversations are left out
LARGEST_MEAN = 1e6  # no genuine projection is farther from 0, in axis units
_LARGEST_NUMBER = 10**9  # of students, conversations, seeds and tokens

# What a spreadsheet cannot take for a formula.
SCENARIO_ID = re.compile(r"([a-z0-9][a-z0-9-]{0,59})?")

Guess = Literal["right", "wrong"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One turn of one student.

    Attributes:
        uncapped, capped: mean projections of the two replies, axis units; None where nothing was read.
        uncapped_zone, capped_zone: their zones; None where the axis has none.
        acted: tokens of the capped reply on which the cap acted.
        same: whether both replies are the same words.
        guess: whether the student knew which reply was capped; None where nobody guessed.
        scenario, cap, seed: how it was answered.
    """

    uncapped: float | None
    capped: float | None
    uncapped_zone: str | None = None
    capped_zone: str | None = None
    acted: int = 0
    same: bool = False
    guess: Guess | None = None
    scenario: str = ""
    cap: bool = True
    seed: int = 0

    @property
    def lift(self) -> float | None:
        """How much higher the capped reply's mean is, axis units; None where either is not known."""
        if self.uncapped is None or self.capped is None:
            return None
        return round(self.capped - self.uncapped, 4)

    def as_json(self) -> dict[str, Any]:
        """The fields by name, and the lift."""
        return {name: getattr(self, name) for name in _FIELDS} | {"lift": self.lift}


_FIELDS = tuple(one.name for one in fields(Pair))


def pair_of(turn: Turn, marks: PlotMarks, guess: Guess | None = None, scenario: str = "") -> Pair:
    """The numbers of a turn with both replies. marks: with the zones of the axis."""
    uncapped, capped = turn.replies[UNCAPPED], turn.replies[CAPPED]
    settings = turn.settings
    return Pair(
        rounded(uncapped.mean),
        rounded(capped.mean),
        zone_of(marks.zones, uncapped.mean, marks.assistant),
        zone_of(marks.zones, capped.mean, marks.assistant),
        capped.fired,
        same_words(turn),
        guess,
        scenario,
        settings is not None and settings.cap is not None,
        0 if settings is None else settings.sampling.seed,
    )


@dataclass
class Row:
    """One conversation of one student. Its numbers no longer change.

    Attributes:
        student, chat: their numbers, each from 1.
        owner: a digest of the student's token, by which a tab finds its row after a restart.
    """

    student: int
    chat: int
    owner: str
    pairs: list[Pair] = field(default_factory=list)

    @cached_property
    def as_json(self) -> dict[str, Any]:
        """The fields by name; the board asks for them with every change of the class."""
        pairs = [pair.as_json() for pair in self.pairs]
        return {"student": self.student, "chat": self.chat, "owner": self.owner, "pairs": pairs}


def rows_from(data: object) -> list[Row]:
    """The inverse of `Row.as_json` for a list of rows; `data` may be anything.

    Raises:
        UserError: it is not a list of rows.
    """
    try:
        found = [_row(one) for one in items(data)]
        if len(found) > MOST_ROWS or len({(row.student, row.chat) for row in found}) < len(found):
            raise ValueError("too many rows")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError("The class that this tab has stored is damaged; open a new one.") from error
    return found


def _row(data: dict[str, Any]) -> Row:
    student, chat, owner = whole(data["student"]), whole(data["chat"]), data["owner"]
    pairs = [_pair(one) for one in items(data["pairs"])]
    if not 1 <= min(student, chat) <= max(student, chat) <= _LARGEST_NUMBER or len(pairs) > MOST_TURNS:
        raise ValueError("a row that no class has")
    if not isinstance(owner, str) or len(owner) != 64:
        raise ValueError("an owner that no row has")
    return Row(student, chat, owner, pairs)


def _pair(data: dict[str, Any]) -> Pair:
    scenario, guess = data.get("scenario", ""), data.get("guess")
    zones = data.get("uncapped_zone"), data.get("capped_zone")
    if any(zone not in (*ZONE_NAMES, "own", None) for zone in zones) or guess not in ("right", "wrong", None):
        raise ValueError("a zone or a guess that no turn has")
    if not isinstance(scenario, str) or not SCENARIO_ID.fullmatch(scenario):
        raise ValueError("a scenario that no turn has")
    means = maybe(data["uncapped"]), maybe(data["capped"])
    if any(mean is not None and abs(mean) > LARGEST_MEAN for mean in means):
        raise ValueError("a mean that no reply has")
    acted, seed = whole(data.get("acted", 0)), whole(data.get("seed", 0))
    if not 0 <= min(acted, seed) <= max(acted, seed) <= _LARGEST_NUMBER:
        raise ValueError("a seed or a count that no turn has")
    same, cap = data.get("same") is True, data.get("cap") is True
    return Pair(*means, *zones, acted, same, guess, scenario, cap, seed)


# --- results

COLUMNS = ("student", "conversation", "turn", *_FIELDS, "lift")


def results_csv(rows: Sequence[Row]) -> str:
    """One line per student and turn, means in axis units."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        head = {"student": row.student, "conversation": row.chat}
        for number, pair in enumerate(row.pairs, 1):
            flags = {"same": int(pair.same), "cap": int(pair.cap)}
            writer.writerow(head | {"turn": number} | pair.as_json() | flags)
    return file.getvalue()


def results_json(rows: Sequence[Row], model: str, marks: PlotMarks, date: str) -> str:
    """The class as a file like a session, without any text and without what would identify a tab.

    Args:
        date: the day, YYYY-MM-DD.
    """
    found = {
        "format": NAME,
        "version": VERSION,
        "model": model,
        "date": date,
        "probe_layer": marks.probe_layer,
        "floor": rounded(marks.floor),
        "zones": None if marks.zones is None else zones_json(marks.zones),
        "conversations": [
            {"student": row.student, "conversation": row.chat, "turns": [p.as_json() for p in row.pairs]}
            for row in rows
        ],
    }
    return json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
