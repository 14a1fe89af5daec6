"""Draw the extraction report's pictures as SVG files. The same measurements give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from demo.axis.gates import MOST_PERPLEXITY, axis_words
from demo.extraction.axis import Built

# Okabe-Ito colours, which colour-blind readers can distinguish.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#767676"

_LABELLED = 6  # roles labelled at either end
_NAMED = 8  # traits that are named at either end of the axis, and of the component


def write_plots(folder: Path, built: Built) -> dict[str, str]:
    """Write the pictures into `folder`.

    Returns:
        File name -> alternative text, in the order of the report.
    """
    words = axis_words(built.axis.manifest)
    pictures = {
        "roles.svg": (_roles, (8.5, 2.8), f"Roles on the axis, the {words.default} at 1"),
        "layers.svg": (_layers, (8.5, 3.2), "Measurements per decoder layer"),
        "variance.svg": (_variance, (8.5, 2.6), "Variance of the role vectors by component"),
        "sweep.svg": (_sweep, (8.5, 3.2), "Settings of the cap: role replies against perplexity"),
    }
    texts = {}
    for name, (draw, size, text) in pictures.items():
        if name == "sweep.svg" and not built.trials:
            continue
        _write(folder / name, size, draw, built)
        texts[name] = text
    return texts


def write_trait_map(path: Path, traits: Sequence[tuple[str, float, float]]) -> None:
    """Write the map of the traits: name, shift on the axis, and place on a component beside it."""
    _write(path, (8.5, 5.5), _traits, traits)


def _write(path: Path, size: tuple[float, float], draw: Callable[[Any, Any], None], content: Any) -> None:
    import matplotlib  # slow to import, and needed only here
    from matplotlib.figure import Figure  # pyplot would take the place of a notebook's own settings

    style: dict[Any, Any] = {
        "svg.hashsalt": "assistant-axis",  # without it the ids in the file differ from run to run
        "svg.fonttype": "path",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots(), content)
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def _traits(axes: Any, traits: Sequence[tuple[str, float, float]]) -> None:
    """A dot per trait. Those at either end of the axis, and of the component, have their names."""
    by_shift, by_height = (sorted(traits, key=lambda trait: trait[place]) for place in (1, 2))
    named = {one[0] for order in (by_shift, by_height) for one in (*order[:_NAMED], *order[-_NAMED:])}
    colours = [_BLUE if trait[0] in named else _GREY for trait in traits]
    axes.scatter([x for _, x, _ in traits], [y for *_, y in traits], s=9, c=colours, alpha=0.6, linewidths=0)
    for name, x, y in traits:
        if name in named:
            axes.annotate(name, (x, y), (3, 2), textcoords="offset points", fontsize=7)
    axes.axvline(0, color=_GREY, linewidth=0.8, linestyle="--")
    axes.set_xlabel("shift of the projection from a trait's opposite to the trait, axis units")
    axes.set_ylabel("first component beside the axis, axis units")


def _roles(axes: Any, built: Built) -> None:
    """A strip of dots, one per role, with the extreme roles labelled."""
    roles = built.axis.manifest["roles"]
    heights = [(index * 7 % 11 - 5) / 16 for index in range(len(roles))]
    colours = [_BLUE if role["counts"] else _GREY for role in roles]
    axes.scatter([role["projection"] for role in roles], heights, s=9, c=colours, alpha=0.6, linewidths=0)
    axes.axvline(1, color=_GREEN, linewidth=1.5)
    axes.text(1, 0.62, axis_words(built.axis.manifest).default, color=_GREEN, ha="center")
    low = range(min(_LABELLED, len(roles)))
    high = range(max(len(low), len(roles) - _LABELLED), len(roles))
    for places, side in ((low, "left"), (high, "right")):
        for step, place in enumerate(places):
            axes.annotate(
                roles[place]["name"].replace("_", " "),
                (roles[place]["projection"], heights[place]),
                (roles[place]["projection"], -0.5 - 0.13 * step),
                fontsize=7,
                ha=side,
                arrowprops={"arrowstyle": "-", "color": _GREY, "linewidth": 0.4},
            )
    axes.set_ylim(-1.25, 0.75)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("projection at the probe layer, axis units (0 = average role)")


def _layers(axes: Any, built: Built) -> None:
    table, axis = built.table, built.axis
    lines: Sequence[tuple[str, Any, str, str]] = (
        ("AUC, held out", table.auc, _BLUE, "-"),
        ("split-half cosine", table.split_half, _ORANGE, "--"),
        ("|cos(axis, PC1)|", table.cos_pc1.abs(), _GREEN, "-."),
        ("the same, PC1 of both halves", table.cos_common.abs(), _GREY, ":"),
    )
    for label, values, colour, style in lines:
        axes.plot(range(axis.layers), values.tolist(), style, color=colour, label=label)
    first, last = axis.cap_band
    axes.axvspan(first - 0.5, last + 0.5, color=_BLUE, alpha=0.1, label="capped layers")
    axes.axvline(axis.probe_layer, color="black", linewidth=0.8, label="probe layer")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("decoder layer")
    axes.legend(fontsize=7, loc="lower right", ncols=2)


def _variance(axes: Any, built: Built) -> None:
    shares = built.axis.manifest["pca"]["explained_variance"]
    numbers = range(1, len(shares) + 1)
    axes.bar(numbers, shares, color=_BLUE)
    total, sums = 0.0, []
    for share in shares:
        total += share
        sums.append(total)
    axes.plot(numbers, sums, "o-", color=_ORANGE, markersize=3, label="cumulative")
    axes.set_xticks(list(numbers))
    axes.set_ylim(0, 1)
    axes.set_xlabel("principal component of the role vectors")
    axes.set_ylabel("share of variance")
    axes.legend(fontsize=7)


def _sweep(axes: Any, built: Built) -> None:
    uncapped, capped = built.trials[0], built.trials[1:]
    for number, trial in enumerate(capped):
        chosen = list(trial.layers or ()) == built.axis.manifest["cap"]["layers"] and (
            trial.floor == built.axis.cap_floor
        )
        colour = _ORANGE if chosen else (_BLUE if trial.qualifies(uncapped) else _GREY)
        x, y = trial.fluency(uncapped), trial.standing
        axes.scatter([x], [y], s=60 if chosen else 25, color=colour, marker="*" if chosen else "o")
        first, last = trial.layers or (0, 0)
        axes.annotate(
            f"{first}-{last} {trial.floor}",
            (x, y),
            (4, 3 if number % 2 else -8),
            textcoords="offset points",
            fontsize=7,
        )
    axes.axhline(uncapped.standing, color=_GREY, linewidth=0.8, linestyle="--", label="without a cap")
    axes.axvline(MOST_PERPLEXITY, color=_GREY, linewidth=0.8, linestyle=":", label="fluency limit")
    axes.set_xlabel("perplexity over that without a cap")
    axes.set_ylabel("role replies, axis units")
    axes.legend(fontsize=7)
