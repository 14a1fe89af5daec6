"""Draw the evaluation report's pictures as SVG files. The same figures give the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.evaluation.steering import AXIS
from demo.evaluation.study import setting_name

# The page's colours, which colour-blind readers can distinguish. Dashes and markers differ too.
_UNCAPPED, _CAPPED, _PLAIN, _GREY = "#b84a00", "#0067a8", "#5b9bc9", "#767676"

_MOST_SLANTED = 20  # with more categories their names stand upright, or they would overlap

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "evaluation",  # without it the ids in the file differ from run to run
    "svg.fonttype": "path",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def write_pictures(folder: Path, figures: dict[str, Any]) -> dict[str, str]:
    """Draw the parts that `figures` holds into `folder`.

    Returns:
        File name -> alternative text.
    """
    import matplotlib  # slow to import, and needed only here
    from matplotlib.figure import Figure  # pyplot would take the place of a notebook's own settings

    texts = {}
    for name, picture in _PICTURES.items():
        if picture.part not in figures:
            continue
        with matplotlib.rc_context(_STYLE):
            figure = Figure(figsize=picture.size, layout="constrained")
            axes = figure.subplots(1, picture.columns, sharey=True)
            picture.draw(axes, figures[picture.part])
            figure.savefig(folder / name, metadata={"Date": None, "Creator": None})
        texts[name] = picture.text
    return texts


def _drift(axes: Any, domains: dict[str, Any]) -> None:
    looks = {  # colour, dash, marker
        "uncapped": (_UNCAPPED, "--", "o"),
        "capped": (_CAPPED, "-", "D"),
        "capped, read plainly": (_PLAIN, ":", "s"),
    }
    for panel, (title, branches) in zip(axes, domains.items(), strict=False):
        for branch, (colour, dash, marker) in looks.items():
            own = branches[branch]
            turns = range(1, len(own["mean"]) + 1)
            panel.plot(turns, own["mean"], dash, color=colour, marker=marker, markersize=3, label=branch)
            if branch != "capped, read plainly":
                panel.fill_between(turns, own["low"], own["high"], color=colour, alpha=0.13, linewidth=0)
        panel.axhline(0, color=_GREY, linewidth=0.6)
        panel.axhline(1, color=_GREY, linewidth=0.6)
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("turn")
    axes[0].set_ylabel("projection (axis units)")
    axes[0].legend(frameon=False, fontsize=7)


def _categories(axes: Any, found: dict[str, Any]) -> None:
    rows = sorted(found["categories"].items(), key=lambda row: -row[1]["in character"]["uncapped"])
    for place, (_, kinds) in enumerate(rows):
        low, high = kinds["in character"]["capped"], kinds["in character"]["uncapped"]
        axes.plot([place, place], [low, high], color=_GREY, linewidth=1)
        axes.plot(place, high, "o", color=_UNCAPPED, label="uncapped" if place == 0 else None)
        axes.plot(place, low, "D", color=_CAPPED, label="capped" if place == 0 else None)
    names = [name for name, _ in rows]
    if len(names) <= _MOST_SLANTED:
        axes.set_xticks(range(len(rows)), names, rotation=30, ha="right")
    else:
        axes.set_xticks(range(len(rows)), names, rotation=90, fontsize=7)
    axes.set_ylabel("share in character")
    axes.set_ylim(0, 1)
    axes.legend(frameon=False)


def _sweep(axes: Any, settings: list[dict[str, Any]]) -> None:
    plain, capped = settings[0], settings[1:]
    axes.plot(plain["in character"], plain["right"], "o", color=_UNCAPPED)
    axes.annotate(
        "no cap", (plain["in character"], plain["right"]), (5, -10), textcoords="offset points", fontsize=7
    )
    for own in capped:
        look = {"color": _CAPPED, "fillstyle": "full" if own["affordable"] else "none"}
        axes.plot(own["in character"], own["right"], "D", markersize=6 if own["front"] else 4, **look)
        name = setting_name(own["layers"], own["floor"], own.get("only_below")).replace("-", "–", 1)
        axes.annotate(
            name, (own["in character"], own["right"]), (4, 3), textcoords="offset points", fontsize=6
        )
    front = sorted((own for own in capped if own["front"]), key=lambda own: own["in character"])
    axes.plot(
        [own["in character"] for own in front], [own["right"] for own in front], color=_CAPPED, linewidth=0.8
    )
    axes.set_xlabel("share of replies in character (lower is better)")
    axes.set_ylabel("share of questions answered correctly")


def _steering(axes: Any, found: dict[str, Any]) -> None:
    """The axis in colour, all other directions in grey, and the cap as a level."""
    for panel, measure in zip(axes, ("in character", "harmful", "human past"), strict=True):
        others = [name for name in found["directions"] if name != AXIS]
        for name in (*others, AXIS):
            curve = found["directions"][name]
            strengths, shares = [point["alpha"] for point in curve], [point[measure] for point in curve]
            if name == AXIS:
                panel.plot(strengths, shares, "o-", color=_CAPPED, markersize=3, label=AXIS)
            else:
                label = "other directions" if name == others[0] else None
                panel.plot(strengths, shares, ".:", color=_GREY, linewidth=0.9, markersize=3, label=label)
        panel.axhline(found["cap"][measure], color=_UNCAPPED, linestyle="--", linewidth=1, label="the cap")
        panel.set_title(f"replies {measure}" if measure != "human past" else "a human past", fontsize=9)
        panel.set_xlabel("α (axis units)")
    axes[0].set_ylabel("share of replies")
    axes[0].legend(frameon=False, fontsize=7)


@dataclass(frozen=True)
class _Picture:
    """A picture of the report.

    Attributes:
        part: The part of the figures that it shows.
        columns: Number of panels.
        size: Width and height in inches.
        text: Alternative text.
    """

    part: str
    draw: Callable[[Any, Any], None]
    columns: int
    size: tuple[float, float]
    text: str


_PICTURES = {
    "evaluation-drift.svg": _Picture(
        "drift", _drift, 4, (9.5, 2.7), "Projection turn by turn in four domains"
    ),
    "evaluation-categories.svg": _Picture(
        "susceptibility", _categories, 1, (8.5, 3.2), "Replies in character by category of harm"
    ),
    "evaluation-steering.svg": _Picture(
        "steering",
        _steering,
        3,
        (8.5, 2.7),
        "Steering along the axis and other directions, at every strength",
    ),
    "evaluation-sweep.svg": _Picture(
        "sweep", _sweep, 1, (7.0, 3.6), "Every setting of the cap: gain against cost"
    ),
}
