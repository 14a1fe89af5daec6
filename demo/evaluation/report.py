"""Write the evaluation report beside the axis: evaluation.json, evaluation.md and pictures.

Every number in the report is computed from the figures, so `report` gives the same text for a
stored evaluation.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from demo.evaluation import NAME, sections
from demo.evaluation.agreement import KINDS, agreement
from demo.evaluation.case_texts import TEXTS, texts
from demo.evaluation.pictures import write_pictures
from demo.evaluation.scoring import LABELS
from demo.evaluation.study import QUICK, SMALL
from demo.utils.json_files import read_object
from demo.utils.markdown import markdown_table


def write_report(out: Path, figures: dict[str, Any], also: Path | None = None) -> list[Path]:
    """Write figures, report, pictures and the texts of the case studies into `out`.

    Args:
        also: Another file for the figures.

    Returns:
        The files that were written.
    """
    out.mkdir(parents=True, exist_ok=True)
    figures = {**figures, "agreement": scorer_agreement()}
    text = json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    written = [out / NAME, out / "evaluation.md"]
    written[0].write_text(text, encoding="utf-8")
    pictures = write_pictures(out, figures)
    written[1].write_text("\n".join(report(figures, pictures)) + "\n", encoding="utf-8")
    if "cases" in figures:
        written.append(out / TEXTS)
        written[-1].write_text("\n".join(texts(figures)) + "\n", encoding="utf-8")
    if also is not None:
        also.write_text(text, encoding="utf-8")
        written.append(also)
    return written + [out / name for name in pictures]


def scorer_agreement() -> dict[str, Any]:
    """Kind -> how well the built-in score agrees with the hand labels, see `agreement`."""
    replies = read_object(LABELS, "restore it from the repository")["replies"]
    return {
        kind: {name: round(value, 4) for name, value in agreement(replies, least).items()}
        for kind, least in KINDS.items()
    }


def report(figures: dict[str, Any], pictures: dict[str, str]) -> Iterator[str]:
    """The lines of evaluation.md.

    Args:
        pictures: File name -> alternative text.
    """
    about = figures["about"]
    yield f"# Does capping work on {about['model']}, and what does it cost?"
    yield ""
    yield (
        f"Cap: layers {about['cap']}; probe layer {about['probe_layer']}; {about['dtype']}; first seed "
        f"{about['seed']}. Created by `{about['command']}{_SIZES.get(about['size']['attempts'], '')}`; the "
        f"figures are in [{NAME}]({NAME})."
    )
    missing = [part for part in _SECTIONS if part not in figures]
    if missing:
        yield ""
        yield f"Not measured: {', '.join(missing)}."
    for part, section in _SECTIONS.items():
        if part in figures:
            yield ""
            yield from section(figures[part], figures)
            yield from (
                f"\n![{text}]({name})" for name, text in pictures.items() if name in _PICTURES.get(part, ())
            )
    for name, found in figures.get("brought", {}).items():
        yield ""
        yield from sections.brought(name, found)
    for name, found in figures.get("sets", {}).items():
        yield ""
        yield f"## {name}"
        yield ""
        yield from markdown_table(("", *sections.ITEM_HEAD), [sections.capability_row(name, found)])


# Every how many attempts one was used -> the flag of the command.
_SIZES = {SMALL.attempts: " --small", QUICK.attempts: " --quick"}

_SECTIONS: dict[str, Callable[[Any, dict[str, Any]], Iterator[str]]] = {
    "susceptibility": sections.susceptibility,
    "capability": sections.capability,
    "drift": sections.drift,
    "cases": sections.cases,
    "beginnings": sections.beginnings,
    "sweep": sections.sweep,
    "controls": sections.controls,
    "steering": sections.steering,
}


_PICTURES = {
    "susceptibility": ("evaluation-categories.svg",),
    "drift": ("evaluation-drift.svg",),
    "sweep": ("evaluation-sweep.svg",),
    "steering": ("evaluation-steering.svg",),
}
