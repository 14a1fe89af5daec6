"""python -m demo.evaluation.models: the axes of several models side by side, as docs/axes.md has them.

It reads axis.json and evaluation.json of every axis folder that it is given, or of all that come with the
program, and measures nothing anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from demo.axis.gates import GATES, UPPER_BOUNDS, measured_gates
from demo.conversation.settings import UNCAPPED
from demo.evaluation import NAME
from demo.evaluation.drift import REREAD, SHARE
from demo.evaluation.wording import fall_of, points, share, units
from demo.extraction.archetypes import HELPERS, SPIRITUAL, Standing, shares_below, standing
from demo.extraction.controls import RankCorrelation, compare, published_order
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.markdown import markdown_table
from demo.utils.paths import AXES, ROOT

PAGE = ROOT / "docs" / "axes.md"
COMMAND = "python -m demo.evaluation.models --write"

PUBLISHED = "Qwen3-32B, published"

_FIRST = "attempts, persona in the system"  # a group of demo.evaluation.beginnings

_NOT_MEASURED = "not measured"

# Title, part of evaluation.json, and how the part's figures are written.
Row = tuple[str, str, Callable[[dict[str, Any]], str]]


@dataclass(frozen=True)
class Measured:
    """An axis folder: what its files say.

    Attributes:
        evaluation: the content of evaluation.json; None without one.
    """

    name: str
    manifest: dict[str, Any]
    evaluation: dict[str, Any] | None

    @property
    def order(self) -> dict[str, float]:
        """Role -> projection, axis units."""
        return {role["name"]: role["projection"] for role in self.manifest.get("roles", [])}


@command
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.evaluation.models", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="axis folders (default: all in axes/)")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    folders = options.folders or sorted(path.parent for path in AXES.glob("*/axis.json"))
    text = "\n".join(page([measured(folder) for folder in folders])) + "\n"
    if options.write:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text)


def measured(folder: Path) -> Measured:
    """The figures of an axis folder. Raises UserError when it is none."""
    manifest = read_object(folder / "axis.json", "give an axis folder")
    if not {"gates", "roles"} <= manifest.keys():
        raise UserError(f"{folder} holds an axis without gates and roles; give one that was extracted.")
    path = folder / NAME
    return Measured(folder.name, manifest, read_object(path, "evaluate again") if path.is_file() else None)


def page(axes: Sequence[Measured]) -> Iterator[str]:
    """The page, line by line."""
    yield from (
        "# Axes of several models",
        "",
        f"Written by `{COMMAND}` from the files in `axes/`. What the gates mean is in "
        "[extraction.md](extraction.md).",
        "",
        "## The axes",
        "",
    )
    yield from markdown_table(
        ("axis", "number format", "role prompts", "roles", "probe layer", "cap", "gates passed", "missed"),
        [_axis_row(one) for one in axes],
    )
    for one in axes:
        for note in one.manifest.get("notes", []):
            yield from ("", f"*{one.name}*: {note}")
    yield from ("", "Figures of the gates:", "")
    names = [name for name in GATES if any(name in one.manifest["gates"] for one in axes)]
    yield from markdown_table(
        ("gate", "wanted", *(one.name for one in axes)), [_gate_row(n, axes) for n in names]
    )
    yield from _orders(axes)
    yield from _archetypes({one.name: one.order for one in axes} | {PUBLISHED: published_order()})
    evaluated = [one for one in axes if one.evaluation is not None]
    if evaluated:
        yield from _evaluations(evaluated)


def _axis_row(one: Measured) -> tuple[str, ...]:
    manifest = one.manifest
    passed = {name: ok for name, (_, ok) in measured_gates(manifest).items()}
    first, last = manifest["cap"]["layers"]
    return (
        one.name,
        manifest["model"].get("dtype", ""),
        manifest.get("role_prompts", "plain"),
        f"{sum(bool(role.get('counts')) for role in manifest['roles'])} of {len(manifest['roles'])}",
        f"{manifest['probe_layer']} of {manifest['model']['layers']}",
        f"{first}–{last}, {manifest['cap']['floor']}{_condition(manifest['cap'])}",
        f"{sum(passed.values())} of {len(passed)}",
        ", ".join(f"`{name}`" for name, ok in passed.items() if not ok) or "none",
    )


def _condition(cap: dict[str, Any]) -> str:
    return f", below {units(cap['only_below'])}" if "only_below" in cap else ""


def _gate_row(name: str, axes: Sequence[Measured]) -> tuple[str, ...]:
    values = [one.manifest["gates"].get(name, {}).get("value") for one in axes]
    wanted = f"at {'most' if name in UPPER_BOUNDS else 'least'} {GATES[name]:g}"
    return (f"`{name}`", wanted, *("–" if value is None else f"{value:.2f}" for value in values))


def _orders(axes: Sequence[Measured]) -> Iterator[str]:
    yield from (
        "",
        "## Do they order the roles alike?",
        "",
        "Spearman's rank correlation of the roles' projections, over all rollouts of a role, with its 95% "
        "bootstrap interval over the roles that both have.",
        "",
    )
    published = published_order()
    rows = []
    for number, one in enumerate(axes):
        found = compare(one.manifest["roles"], published)
        others = [
            "" if n <= number else _with_interval(compare(one.manifest["roles"], other.order))
            for n, other in enumerate(axes)
        ][1:]
        rows.append((one.name, *others, _with_interval(found)))
    yield from markdown_table(("", *(one.name for one in axes[1:]), PUBLISHED), rows)


def _with_interval(found: RankCorrelation | None) -> str:
    return "–" if found is None else f"{found.rho:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _archetypes(orders: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield from (
        "",
        "## Where helping and spiritual roles lie",
        "",
        "The paper steers pretrained models: toward the Assistant they write more often of people with "
        "helpful occupations, and less often of religious and spiritual ones. For these roles the table "
        "gives the share of an axis's other roles that lie below: 0% for the lowest of all, 100% for the "
        "highest. The difference of the two groups has its 95% bootstrap interval over their roles.",
        "",
    )
    shares = [shares_below(order) for order in orders.values()]
    found = [standing(order) for order in orders.values()]
    yield from markdown_table(
        ("", *orders),
        [
            *((name, *(share(own[name]) if name in own else "–" for own in shares)) for name in HELPERS),
            ("*these, on average*", *("–" if one is None else share(one.helpers) for one in found)),
            *((name, *(share(own[name]) if name in own else "–" for own in shares)) for name in SPIRITUAL),
            ("*these, on average*", *("–" if one is None else share(one.spiritual) for one in found)),
            ("*difference, points*", *("–" if one is None else _difference(one) for one in found)),
        ],
    )


def _difference(found: Standing) -> str:
    return f"{points(found.difference)} [{points(found.low)}, {points(found.high)}]"


def _evaluations(axes: Sequence[Measured]) -> Iterator[str]:
    """What the cap does, by axis."""
    yield from (
        "",
        "## What the cap does",
        "",
        "In scripted attempts to draw the model into a harmful persona; with the 95% interval of the "
        "relative fall. Capability: questions answered correctly. Last turn: the mean projection at the end "
        "of scripted talks, of the uncapped words and of the capped ones, as the unsteered model reads both. "
        "The threshold is that of a conditional cap, a low percentile of where replies to the extraction's "
        "questions begin: it can tell attempts from questions where the first share is low and the second "
        "high.",
        "",
    )
    rows: list[Row] = [
        *CAP_ROWS,
        ("questions that begin below the threshold", "beginnings", lambda found: _below(found, "questions")),
        ("attempts that do, persona in the system prompt", "beginnings", lambda found: _below(found, _FIRST)),
        ("share of the shift on the axis", "drift", _share_on_axis),
    ]
    found = [(one.name, one.evaluation) for one in axes if one.evaluation is not None]
    domains = dict.fromkeys(title for _, own in found for title in own.get("drift", ()))
    rows += [(f"{title}: last turn", "drift", partial(_last_turn, title=title)) for title in domains]
    yield from evaluations_table(found, rows)


def evaluations_table(found: Sequence[tuple[str, dict[str, Any]]], rows: Sequence[Row]) -> Iterator[str]:
    """A Markdown table of evaluations side by side.

    Args:
        found: the title of each column, and the content of its evaluation.json.
    """
    yield from markdown_table(
        ("", *(name for name, _ in found)),
        [
            (title, *(cell(own[part]) if part in own else _NOT_MEASURED for _, own in found))
            for title, part, cell in rows
        ],
    )


def _kind(own: dict[str, Any], kind: str) -> str:
    found, number = own["groups"]["all"][kind], own["seeds"]
    return f"{share(found['uncapped'])} → {share(found['capped'])}; fall: {fall_of(found, number)}"


def _capability(found: dict[str, Any]) -> str:
    difference = found["difference"]
    change = f"{points(difference['value'])} [{points(difference['low'])}, {points(difference['high'])}]"
    return f"{share(found['uncapped'])} → {share(found['capped'])}; {change} points"


def _perplexity(found: dict[str, Any]) -> str:
    return f"{found['perplexity']['ratio']:.2f} times"


# What the cap does to attempts, and what it costs.
CAP_ROWS: list[Row] = [
    ("replies in character", "susceptibility", partial(_kind, kind="in character")),
    ("harmful replies", "susceptibility", partial(_kind, kind="harmful")),
    ("capability", "capability", _capability),
    ("perplexity of ordinary text", "capability", _perplexity),
    ("plain answers word for word the same", "capability", lambda found: share(found["verbatim"])),
]


def _below(found: dict[str, Any], group: str) -> str:
    """The replies on which a cap that acts only below the usual threshold would act."""
    return share(found["groups"][group]["below"])


def _last_turn(found: dict[str, Any], title: str) -> str:
    if title not in found:
        return _NOT_MEASURED
    return " → ".join(units(found[title][branch]["mean"][-1]) for branch in (UNCAPPED, REREAD))


def _share_on_axis(found: dict[str, Any]) -> str:
    shares = [domain[SHARE]["mean"] for domain in found.values() if domain.get(SHARE)]
    return share(sum(shares) / len(shares)) if shares else _NOT_MEASURED


if __name__ == "__main__":
    raise SystemExit(main())
