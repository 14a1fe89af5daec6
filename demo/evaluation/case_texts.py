"""The conversations of the case studies that are there to be read: which ones, and how they are laid out."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from demo.conversation.settings import BRANCHES, CAPPED, UNCAPPED
from demo.evaluation.study import NO_CAP, WITH_CAP

TEXTS = "evaluation-cases.md"

LARGEST, MIDDLE, SMALLEST = "largest fall", "the middle", "smallest fall"

Json = dict[str, Any]


def talks_to_read(found: Json, turns: Sequence[str], first: int, apart: int, kind: str) -> list[Json]:
    """The conversation whose seed is in the middle by its fall, and those with the largest and the smallest.

    The fall is that of the share of replies of `kind`; where it is equal, that of the mean score.

    Args:
        found: NO_CAP or WITH_CAP -> per seed the replies to all turns.
        turns: what the user says.
        first: the first seed.
        apart: from one seed to the next.
    """
    order = sorted(range(len(found[NO_CAP])), key=lambda number: _fall(found, number, kind), reverse=True)
    places = {MIDDLE: order[(len(order) - 1) // 2], LARGEST: order[0], SMALLEST: order[-1]}
    return [
        {
            "place": place,
            "seed": first + apart * number,
            "turns": [
                {"user": user, UNCAPPED: _kept(one), CAPPED: _kept(other)}
                # A short run has fewer replies than the script has turns.
                for user, one, other in zip(
                    turns, found[NO_CAP][number], found[WITH_CAP][number], strict=False
                )
            ],
        }
        for place, number in places.items()
    ]


def _fall(found: Json, number: int, kind: str) -> tuple[float, float]:
    one, other = found[NO_CAP][number], found[WITH_CAP][number]
    falls = (fmean(a[name] - b[name] for a, b in zip(one, other, strict=True)) for name in (kind, "score"))
    share, score = falls
    return round(share, 6), score


def _kept(reply: Json) -> Json:
    """What the figures keep of a reply. Its kinds are what is true or false of it."""
    kinds = [name for name, value in reply.items() if value is True]
    return {"text": reply["text"], "standing": reply["standing"], "kinds": kinds}


def texts(figures: Json) -> Iterator[str]:
    """The lines of evaluation-cases.md.

    Args:
        figures: those of the whole report.
    """
    found, about = figures["cases"], figures["about"]
    yield "# Case studies: the texts"
    yield ""
    yield (
        f"Model {about['model']}, cap at layers {about['cap']}, {about['dtype']}. Of the {found['seeds']} "
        "seeds of each case three are shown: the one in the middle by how far the share of replies that "
        "support the harm falls with the cap, then those with the largest and with the smallest fall. Both "
        "columns answer the same messages, each with its own history. After a reply: its mean projection in "
        "axis units (0 = average role, 1 = default Assistant; with the cap, after the clamp), and what it "
        "was scored as, if anything. A score can be wrong: [the report](evaluation.md) says how often it "
        "agrees with labels."
    )
    for case in found["cases"].values():
        yield from ("", f"## {case['title']}", "", f"The harm: {case['harm']}.")
        for talk in case["talks"]:
            yield from ("", f"### {talk['place'].capitalize()}: seed {talk['seed']}")
            for number, turn in enumerate(talk["turns"], 1):
                yield from ("", f"**{number}. User:** {_inert(turn['user'])}", "")
                yield "| without the cap | with the cap |"
                yield "|---|---|"
                yield "| " + " | ".join(_cell(turn[branch]) for branch in BRANCHES) + " |"


def _cell(reply: Json) -> str:
    standing = "–" if reply["standing"] is None else f"{reply['standing']:+.2f}".replace("-", "−")
    kinds = f"; **{reply['kinds'][-1]}**" if reply["kinds"] else ""
    return f"{_inert(reply['text'])} *({standing}{kinds})*"


def _inert(text: str) -> str:
    """A model's text in a cell of a Markdown table: shown as it is, on one line."""
    line = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{sign}" if sign in "\\`*_[]|~#" else sign for sign in line)
