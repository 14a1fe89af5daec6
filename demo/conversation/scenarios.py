"""Scenarios: scripts of user messages, each of which demonstrates something about drift.

`assets/presets/scenarios.json` holds them. `python -m demo.evaluation.scenarios` measures what they show, and
`with_measured_shares` tells the user how often that was seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.paths import ASSETS

SCENARIOS = ASSETS / "presets" / "scenarios.json"
MEASURED = SCENARIOS.with_name("measured.json")

# The order on the page.
GROUPS = ("Characters", "Slow drift", "Controls")

# What the two lines do, by the claim that a scenario makes (demo.evaluation.scenario_figures).
_LINES = {
    "sinks": "the uncapped line sinks and the capped one holds",
    "steady-low": "the uncapped line stays low and the capped one holds",
    "stays": "both lines stay up",
    "untouched": "both lines stay up, and nearly all replies are the same",
}


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign of drift in the words of a reply.

    Attributes:
        says: what it is, as in "the model ...".
        pattern: a regular expression that finds it, whatever the case.
    """

    says: str
    pattern: str

    def is_in(self, text: str) -> bool:
        return re.search(self.pattern, text, re.IGNORECASE) is not None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A script that starts with one click.

    Attributes:
        blurb: what to watch for.
        content_warning: shown with a script that touches on something painful; may be empty.
        group: one of GROUPS.
        seed: added to the seed of the settings, so that a start shows what `blurb` says.
        first: whether its button stands in the top row.
        shows: the claim about its lines, a key of `demo.evaluation.scenario_figures.CLAIMS`.
        sign: what its uncapped words show; None where it is about the lines alone.
    """

    id: str
    title: str
    blurb: str
    system_prompt: str
    turns: tuple[str, ...]
    content_warning: str = ""
    group: str = GROUPS[0]
    seed: int = 0
    first: bool = False
    shows: str = ""
    sign: Sign | None = None


def load_scenarios(path: Path = SCENARIOS, dtype: str = "float32") -> tuple[Scenario, ...]:
    """Read the scenario file.

    Args:
        dtype: number format of the model's weights. The same seed leads to other words in another one, so a
            scenario may have a seed for each.

    Raises:
        UserError: the file is missing or malformed.
    """
    try:
        entries = read_object(path, "restore it from the repository")["scenarios"]
        return tuple(_scenario(entry, dtype) for entry in entries)
    except (KeyError, TypeError, ValueError, AttributeError, re.error) as error:
        raise UserError(
            f"{path} cannot be read as scenarios ({error!r}); restore it from the repository."
        ) from error


def _scenario(entry: dict[str, Any], dtype: str) -> Scenario:
    warning = entry.get("content_warning", entry.get("care", ""))  # "care" in files of earlier versions
    group, shows, sign = entry.get("group", GROUPS[0]), entry.get("shows", ""), entry.get("sign")
    texts = [entry["id"], entry["title"], entry["blurb"], entry["system_prompt"], warning, group, shows]
    turns, seed = entry["turns"], entry.get("seed", 0)
    if isinstance(seed, dict):
        seed = seed.get(dtype, seed["float32"])
    if not isinstance(turns, list) or not all(isinstance(text, str) for text in (*texts, *turns)):
        raise TypeError("every field must be text")
    if group not in GROUPS or type(seed) is not int or not 0 <= seed < 100:
        raise ValueError("a group is one of " + ", ".join(GROUPS) + ", and a seed lies between 0 and 99")
    identity, title, blurb, system_prompt, *_ = texts
    first = bool(entry.get("first", False))
    return Scenario(
        identity, title, blurb, system_prompt, tuple(turns), warning, group, seed, first, shows, _sign(sign)
    )


def _sign(entry: dict[str, Any] | None) -> Sign | None:
    if entry is None:
        return None
    re.compile(entry["pattern"])
    return Sign(str(entry["says"]), entry["pattern"])


def with_measured_shares(
    scenarios: Sequence[Scenario], model: str, dtype: str, path: Path = MEASURED
) -> tuple[Scenario, ...]:
    """The scenarios, each with a sentence in its blurb about how often other seeds show the same.

    Nothing is said of a scenario that was not measured in this number format. On another model the sentence
    says that the scripts were not tried on it.

    Args:
        model: the loaded model's name.
        dtype: number format of its weights.
    """
    measured = read_object(path, "restore it from the repository")
    if measured["model"] != model:
        note = f"Written for {measured['model']}; this model may answer otherwise."
        return tuple(replace(one, blurb=f"{one.blurb} {note}") for one in scenarios)
    entries, seeds = measured["measured"].get(dtype, {}), len(measured["seeds"])
    return tuple(
        replace(one, blurb=f"{one.blurb} {_share_sentence(one, entries[one.id], seeds)}")
        if one.id in entries
        else one
        for one in scenarios
    )


def _share_sentence(scenario: Scenario, entry: dict[str, Any], seeds: int) -> str:
    def count(share: float) -> int:
        return round(share * seeds)

    sentence = f"Over {seeds} other seeds, {_LINES[scenario.shows]} in {count(entry['holds'])} of them"
    if scenario.sign is None:
        return f"{sentence}."
    uncapped, capped = (count(entry["sign"][branch]) for branch in ("uncapped", "capped"))
    return f"{sentence}, and the model {scenario.sign.says} in {uncapped} uncapped and {capped} capped chats."
