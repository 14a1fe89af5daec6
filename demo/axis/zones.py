"""The zones of an axis: where a reply's mean counts as role-played, as unclear, and as the Assistant's.

Two cut points part them. They and the shares of replies on either side are measured on held-out replies
(`demo/extraction/zones.py`) and kept under "zones" in axis.json. This one classification is used wherever
a mean is put into words or drawn as a band.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ROLE_PLAYED, UNCLEAR, ASSISTANT = "role-played", "unclear", "Assistant"
ZONE_NAMES = (ROLE_PLAYED, UNCLEAR, ASSISTANT)
OWN = "own"  # the upper zone of an axis that is not shown under the Assistant's name

UNMEASURED = (
    "Where a reply counts as role-played and where as the Assistant's was not measured for this axis, so the "
    "page gives the number alone."
)

_MOST = 1e6  # no genuine cut point is farther from 0, in axis units
_MOST_COUNTED = 10**9  # nobody measures on more replies, tokens or roles


@dataclass(frozen=True, slots=True)
class Told:
    """What the cut points make of the held-out replies of one kind.

    Attributes:
        replies: how many there were.
        role_played, assistant: the shares in those two zones; the rest is unclear.
    """

    replies: int
    role_played: float
    assistant: float

    @property
    def unclear(self) -> float:
        """The share that gets no verdict."""
        return max(0.0, 1 - self.role_played - self.assistant)


@dataclass(frozen=True, slots=True)
class Zones:
    """Two cut points on the mean of a reply without a cap, in axis units at the probe layer.

    Attributes:
        low: a mean below it is role-played.
        high: a mean above it is the Assistant's; at least `low`.
        default, role: what the cut points make of default and of role-played replies that were held out.

    Raises:
        ValueError: the numbers are no two cut points, or no shares.
    """

    low: float
    high: float
    default: Told
    role: Told

    def __post_init__(self) -> None:
        if not -_MOST < self.low <= self.high < _MOST:
            raise ValueError(f"cut points {self.low} and {self.high}")
        for told in (self.default, self.role):
            shares = (told.role_played, told.assistant, told.role_played + told.assistant)
            counted = 1 <= told.replies <= _MOST_COUNTED
            if not counted or not all(-1e-9 <= share <= 1 + 1e-9 for share in shares):
                raise ValueError(f"shares {told.role_played} and {told.assistant} of {told.replies}")

    def name_of(self, mean: float, assistant: bool = True) -> str:
        """The zone of a reply's mean in axis units.

        Args:
            assistant: whether the axis is shown under the Assistant's name.
        """
        if mean < self.low:
            return ROLE_PLAYED
        return upper_zone(assistant) if mean > self.high else UNCLEAR

    def measured(self, assistant: bool = True) -> str:
        """In one sentence, what the zones make of held-out replies. assistant: as for `name_of`."""
        default, role, upper = self.default, self.role, upper_zone(assistant)
        return (
            f"Of {role.replies} held-out role-played replies, {role.role_played:.0%} read as {ROLE_PLAYED} "
            f"and {role.assistant:.0%} as {upper}; of {default.replies} default ones, "
            f"{default.assistant:.0%} read as {upper} and {default.role_played:.0%} as {ROLE_PLAYED}; "
            f"the rest are {UNCLEAR}."
        )


def upper_zone(assistant: bool) -> str:
    """The name of the upper zone. assistant: whether the axis is shown under the Assistant's name."""
    return ASSISTANT if assistant else OWN


def zone_of(zones: Zones | None, mean: float | None, assistant: bool = True) -> str | None:
    """The zone of a reply's mean; None without zones, or for a reply without a mean.

    Args:
        assistant: whether the axis is shown under the Assistant's name.
    """
    return None if zones is None or mean is None else zones.name_of(round(mean, 4), assistant)


def zones_json(zones: Zones) -> dict[str, Any]:
    """The zones as they are written into files."""
    return asdict(zones)


def zones_from_json(data: object) -> Zones | None:
    """The inverse of `zones_json`, which ignores further keys; None for no zones.

    Raises:
        KeyError, TypeError, ValueError: `data` is something else. It may come from anywhere.
    """
    if data is None:
        return None
    if not isinstance(data, dict):
        raise TypeError("zones that are no object")
    return Zones(_number(data["low"]), _number(data["high"]), _told(data["default"]), _told(data["role"]))


def zones_of(manifest: dict[str, Any]) -> Zones | None:
    """The zones of an axis; None where its axis.json has none, or none that make sense."""
    try:
        return zones_from_json(manifest.get("zones"))
    except (KeyError, TypeError, ValueError):
        return None


def reply_evidence(manifest: dict[str, Any], enough: float, assistant: bool = True) -> str:
    """How much one reply tells on this axis, and what more tokens or replies tell, as one paragraph.

    Args:
        enough: from this AUC on default and role-played replies count as told apart.
        assistant: whether the axis is shown under the Assistant's name.
    """
    zones = zones_of(manifest)
    if zones is None:
        return UNMEASURED
    sentences = [f"**What a single reply tells.** {zones.measured(assistant)}"]
    told = (zones.role.role_played + zones.default.assistant) / 2
    if told < 0.5:
        sentences.append("So a single reply can rarely be told.")
    data = manifest["zones"]
    sentences += [
        _tokens(data.get("auc_by_tokens")),
        _replies(data.get("auc_by_replies"), enough),
        _ceiling(data),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _tokens(rows: object) -> str:
    found = _rows(rows, 1)
    if len(found) < 2:
        return ""
    (first, early), (last, late) = ((count, values[0]) for count, values in (found[0], found[-1]))
    near = next(count for count, values in found if values[0] >= late - 0.01)
    gain = f" Little is gained after {_counted(near, 'token')}." if near < last else ""
    return (
        f"Of a default reply and a role-played one, the default one lies higher {early:.0%} of the time by "
        f"the first {_counted(first, 'token', one='')}, and {late:.0%} by the first "
        f"{_counted(last, 'token')}.{gain}"
    )


def _replies(rows: object, enough: float) -> str:
    found = _rows(rows, 3)
    if not found:
        return ""
    several = ", ".join(
        f"{mean:.0%} by the mean of {count} (by one: {one:.0%}; {roles:.0f} roles)"
        for count, (mean, one, roles) in found
    )
    needed = next((count for count, values in found if values[0] >= enough), None)
    end = (
        f"so {needed} replies of a role that the model plays so often are enough to tell it {enough:.0%} of "
        "the time"
        if needed
        else f"so not even {found[-1][0]} replies tell them apart {enough:.0%} of the time"
    )
    return f"Over several replies of the same speaker it is {several}, {end}."


def _ceiling(data: dict[str, Any]) -> str:
    best, own = data.get("ceiling"), data.get("auc")
    if not (_is_share(best) and _is_share(own)):
        return ""
    return (
        f"The axis reaches {own:.0%}; the best linear direction for telling the two apart at this layer, "
        f"tested on roles and prompts that it was not made from, reaches {best:.0%}."
    )


def _counted(count: int, name: str, one: str = "1 ") -> str:
    return f"{one}{name}" if count == 1 else f"{count} {name}s"


def _rows(rows: object, width: int) -> list[tuple[int, list[float]]]:
    """The [count, AUC, ...] rows of an untrusted file; nothing where they are malformed."""
    if not isinstance(rows, list):
        return []
    for row in rows:
        fits = isinstance(row, list) and len(row) == width + 1 and type(row[0]) is int
        if not fits or not all(map(_is_share, row[1:3])) or not all(map(_is_counted, (row[0], *row[3:]))):
            return []
    return [(row[0], row[1:]) for row in rows]


def _is_share(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1  # type: ignore[operator]


def _is_counted(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= _MOST_COUNTED  # type: ignore[operator]


def _number(value: object) -> float:
    # Compared before it is converted, which an integer of hundreds of digits cannot be.
    if type(value) not in (int, float) or not -_MOST < value < _MOST:  # type: ignore[operator]
        raise ValueError("a cut point or a share that is no number")
    return float(value)  # type: ignore[arg-type]


def _told(data: object) -> Told:
    if not isinstance(data, dict) or type(data["replies"]) is not int:
        raise TypeError("counts of replies that are no object")
    return Told(data["replies"], _number(data["role_played"]), _number(data["assistant"]))
