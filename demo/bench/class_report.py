"""python -m demo.bench.class_report CLASS GROWTH --write: the figures of classes in docs/class.md.

Takes what `python -m demo.bench.class_load --json` has stored of one long class, and of classes of more and
more students. It adds, on paper, how many students a GPU would carry, from the measured steps in
docs/cuda-graphs.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from demo.bench.report import write_json
from demo.utils.cli import command
from demo.utils.markdown import markdown_table, replaced
from demo.utils.paths import ROOT

DOCUMENT, FIGURES, GPU_STEPS = (
    ROOT / "docs" / name for name in ("class.md", "class.json", "cuda-graphs.json")
)
BLOCK, COMMAND = "figures", "python -m demo.bench.class_report CLASS GROWTH --write"
COLUMNS = (
    "cores",
    "students",
    "minutes",
    "turns",
    "all at once: first token s, p95",
    "first token s, median",
    "first token s, p95",
    "reply s, median",
    "board update s, p95",
    "errors",
)
_MEMORY = ("memory settled MiB", "memory most after MiB", "memory at the end MiB")


def table(classes: Sequence[dict[str, Any]], columns: Sequence[str] = COLUMNS) -> Iterator[str]:
    """The lines of a table with one class in each row."""
    shown = [name for name in columns if name in classes[0]]
    yield from markdown_table(shown, [[_cell(one[name]) for name in shown] for one in classes])


def _cell(value: object) -> str:
    return "all" if value is None else str(value)


def carried(classes: Sequence[dict[str, Any]], most_s: float) -> Iterator[str]:
    """One sentence for each number of cores: how many students waited less than `most_s` at p95."""
    for cores in dict.fromkeys(one["cores"] for one in classes):
        own = [one for one in classes if one["cores"] == cores]
        good = [one["students"] for one in own if one["first token s, p95"] <= most_s]
        slow = [one["students"] for one in own if one["first token s, p95"] > most_s]
        name = "1 core carries" if cores == 1 else f"{cores or 'All'} cores carry"
        found = f"{max(good)} students" if good else f"fewer than {min(slow)} students"
        limit = f", and not {min(slow)}" if good and slow else ""
        most = "" if slow else f" or more: {max(good)} were the most that was tried"
        yield f"- {name} {found}{limit}{most}."


def on_paper(gpu: dict[str, Any], thinking_s: float, tokens: float) -> list[list[str]]:
    """How many students a GPU carries without anybody's waiting for a place in the batch.

    While w pairs are answered, one step takes s(w) seconds, and a reply of n tokens n · s(w). A student
    thinks for t seconds between turns, so on average a share n · s(w) / (t + n · s(w)) of the students is
    being answered. w pairs are reached by w · (t + n · s(w)) / (n · s(w)) students.

    Args:
        gpu: the figures of `python -m demo.bench.cuda_graphs`.
        thinking_s: t, seconds.
        tokens: n, of the longer reply of a turn.

    Returns:
        Rows of: model, pairs, milliseconds of a step, tokens per second of each reply, students.
    """
    rows = []
    for name, shape in gpu["shapes"].items():
        sequences, times = max(shape["steps"].items(), key=lambda item: int(item[0]))
        step_ms = times["graphs, capped"] + times["sampling"]
        reply_s = tokens * step_ms / 1000
        pairs = int(sequences) // 2
        students = int(pairs * (thinking_s + reply_s) / reply_s)
        rows.append([name, str(pairs), f"{step_ms:.1f}", f"{1000 / step_ms:.0f}", str(students)])
    return rows


def statements(figures: dict[str, Any], gpu: dict[str, Any]) -> Iterator[str]:
    """What docs/class.md says. figures: as docs/class.json holds them."""
    about, long, growth = figures["about"], figures["class"], figures["growth"]
    most_s, tokens = about["most_first_token_s"], growth[-1]["tokens of the longer reply, mean"]
    low, high = about["thinking_s"]
    yield (
        f"Measured on {about['cpu']}, with {about['model']}. The students' programs ran on "
        f"the same machine. Each student thinks for {low:g} to {high:g} seconds between turns, and begins a "
        f"new conversation after {about['turns_of_a_chat']} turns. The longer reply of a turn had "
        f"{tokens:g} tokens on average. *All at once* is the first message of each student; all are sent "
        f"within {low:g} seconds. The other columns leave these out."
    )
    yield ""
    yield from table(long, (*COLUMNS, *_MEMORY))
    yield ""
    yield f"More and more students, until the first token takes more than {most_s:g} s at p95:"
    yield ""
    yield from table(growth)
    yield ""
    yield from carried(growth, most_s)
    yield ""
    yield (
        "Students who wait longer for their replies send fewer messages, so read the time of a reply beside "
        "that of the first token. Each row is one short class, and rows vary from run to run."
    )
    yield ""
    yield (
        f"On paper, with a GPU ({gpu['about']['gpu']}): computed from the steps in "
        "[cuda-graphs.md](cuda-graphs.md), for students who think as long and get replies of that length. "
        "With so many students all places of the batch are taken on average. The time of prompts and of the "
        "network is left out."
    )
    yield ""
    yield from markdown_table(
        ("model", "pairs at once", "step, ms", "tokens/s of each reply", "students"),
        on_paper(gpu, (low + high) / 2, tokens),
    )


def filled(document: str, figures: dict[str, Any], gpu: dict[str, Any]) -> str:
    """The document with these figures."""
    return replaced(document, BLOCK, COMMAND, "\n".join(statements(figures, gpu)))


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Print what the document says of the figures, and write it if asked."""
    parser = argparse.ArgumentParser(prog="python -m demo.bench.class_report", description=__doc__)
    parser.add_argument("long", type=Path, help="figures of one long class")
    parser.add_argument("growth", type=Path, help="figures of classes of more and more students")
    parser.add_argument(
        "--write", action="store_true", help="write docs/class.json, and its part of class.md"
    )
    options = parser.parse_args(arguments)
    long, growth = (json.loads(path.read_text(encoding="utf-8")) for path in (options.long, options.growth))
    figures = {"about": growth["about"], "class": long["classes"], "growth": growth["classes"]}
    gpu = json.loads(GPU_STEPS.read_text(encoding="utf-8"))
    print("\n".join(statements(figures, gpu)))
    if options.write:
        write_json(FIGURES, figures)
        document = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(filled(document, figures, gpu), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
