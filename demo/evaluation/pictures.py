"""The evaluation report's pictures, as SVG files beside it. The same figures give the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

# As on the page: told apart by colour-blind readers, and by dash and mark too.
_UNCAPPED, _CAPPED, _PLAIN, _GREY = "#b84a00", "#0067a8", "#5b9bc9", "#767676"

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "evidence",
    "svg.fonttype": "path",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def write_pictures(folder: Path, figures: dict[str, Any]) -> dict[str, str]:
    """Write the pictures of the parts that are there; return alternative texts by file name."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawings: dict[str, tuple[str, Callable[[Any, Any], None], tuple[int, int], tuple[float, float], str]]
    drawings = {
        "evaluation-drift.svg": ("drift", _drift, (1, 4), (9.5, 2.7), "Projection turn by turn in four domains"),
        "evaluation-categories.svg": (
            "susceptibility", _categories, (1, 1), (8.5, 3.2), "Replies in character by category of harm",
        ),
        "evaluation-sweep.svg": ("sweep", _sweep, (1, 1), (7.0, 3.6), "Every setting of the cap: gain against cost"),
    }  # fmt: skip
    texts = {}
    for name, (part, draw, grid, size, text) in drawings.items():
        if part not in figures:
            continue
        with matplotlib.rc_context(_STYLE):
            figure, axes = pyplot.subplots(*grid, figsize=size, layout="constrained", sharey=True)
            draw(axes, figures[part])
            figure.savefig(folder / name, metadata={"Date": None, "Creator": None})
            pyplot.close(figure)
        texts[name] = text
    return texts


def _drift(axes: Any, domains: dict[str, Any]) -> None:
    looks = {
        "uncapped": (_UNCAPPED, "--", "o"),
        "capped": (_CAPPED, "-", "D"),
        "capped, read plainly": (_PLAIN, ":", "s"),
    }
    for panel, (title, branches) in zip(axes, domains.items(), strict=False):
        for branch, (colour, dash, mark) in looks.items():
            own = branches[branch]
            turns = range(1, len(own["mean"]) + 1)
            panel.plot(turns, own["mean"], dash, color=colour, marker=mark, markersize=3, label=branch)
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
    axes.set_xticks(range(len(rows)), [name for name, _ in rows], rotation=30, ha="right")
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
        name = f"{own['layers'][0]}–{own['layers'][1]} {own['floor']}"
        axes.annotate(
            name, (own["in character"], own["right"]), (4, 3), textcoords="offset points", fontsize=6
        )
    front = sorted((own for own in capped if own["front"]), key=lambda own: own["in character"])
    axes.plot(
        [own["in character"] for own in front], [own["right"] for own in front], color=_CAPPED, linewidth=0.8
    )
    axes.set_xlabel("share of replies in character (lower is better)")
    axes.set_ylabel("questions answered rightly")
