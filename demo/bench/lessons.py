"""python -m demo.bench.lessons: what the default model does in the lessons, turn by turn.

Runs the script of each scenario that docs/lessons.md names for a few students, with the settings of a class:
the page's sampling, the axis's own cap, and the seeds of each student. Prints a table for each scenario, and
puts them into the document if asked.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from demo.axis.axis import AssistantAxis
from demo.axis.store import axis_of
from demo.axis.zones import ASSISTANT, zone_of
from demo.conversation.conversation import Conversation
from demo.conversation.lesson import Lesson
from demo.conversation.scenarios import Scenario, load_scenarios
from demo.conversation.settings import CAPPED, UNCAPPED
from demo.conversation.turns import Turn, same_words
from demo.engine.transformers_engine import TransformersEngine
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import load_model
from demo.models.names import AUTO
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.markdown import markdown_table, replaced
from demo.utils.paths import ROOT

DOCUMENT = ROOT / "docs" / "lessons.md"
COMMAND = "python -m demo.bench.lessons --write"
_NAMED = re.compile(rf"<!-- ([\w-]+): {re.escape(COMMAND)} -->")  # a block has the name of its scenario
_WORDS = 16  # of each reply
STUDENTS = 8
_HEAD = (
    "turn",
    "uncapped",
    "capped",
    "both the same",
    "the first student's uncapped reply begins",
    "the capped one begins",
)


def run(
    scenario: Scenario, engine: Any, axis: AssistantAxis, dtype: str, students: int = STUDENTS
) -> list[list[Turn]]:
    """The turns of each student of a class in which all send the script of the scenario as it stands."""
    asked = {"scenario": scenario.id, "system_prompt": scenario.system_prompt, "seed": scenario.seed}
    lesson = Lesson.of(asked, [scenario])

    def talk(student: int) -> list[Turn]:
        conversation = Conversation()
        for number, text in enumerate(lesson.script):
            settings = lesson.settings(axis, student, number, engine.conditional_caps, dtype, "", False)
            for _ in conversation.send(engine, text, settings):
                pass
        return conversation.turns

    with ThreadPoolExecutor(students) as pool:  # the engine answers them together
        return list(pool.map(talk, range(1, students + 1)))


def lines(
    scenario: Scenario, talks: Sequence[Sequence[Turn]], axis: AssistantAxis, about: str
) -> Iterator[str]:
    """The table of a scenario. talks: the turns of each student. about: model and number format."""
    yield (
        f"*{scenario.title}*, seed {scenario.seed}, {len(talks)} students with seeds of their own, {about}. "
        "Means in axis units: the median, the lowest to the highest, and in brackets how many lie outside "
        "the Assistant's zone."
    )
    yield ""
    by_turn = [list(turns) for turns in zip(*talks, strict=True)]
    yield from markdown_table(_HEAD, [_row(number, turns, axis) for number, turns in enumerate(by_turn, 1)])


def _row(number: int, turns: Sequence[Turn], axis: AssistantAxis) -> list[str]:
    """One turn of all students."""
    cells = [
        _spread([mean for turn in turns if (mean := turn.replies[branch].mean) is not None], axis)
        for branch in (UNCAPPED, CAPPED)
    ]
    same = sum(same_words(turn) for turn in turns)
    first = turns[0].replies
    own = "the same" if same_words(turns[0]) else _begins(first[CAPPED].text)
    return [str(number), *cells, f"{same} of {len(turns)}", _begins(first[UNCAPPED].text), own]


def _spread(means: Sequence[float], axis: AssistantAxis) -> str:
    if not means:
        return "–"
    outside = sum(zone_of(axis.zones, mean) != ASSISTANT for mean in means)
    told = "" if axis.zones is None else f" [{outside} of {len(means)}]"
    return f"{statistics.median(means):.2f}, {min(means):.2f} to {max(means):.2f}{told}"


def _begins(text: str) -> str:
    words = text.split()
    more = "…" if len(words) > _WORDS else ""
    return " ".join(words[:_WORDS]).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*") + more


def named_in(document: str) -> list[str]:
    """The ids of the scenarios of which a document has tables."""
    return _NAMED.findall(document)


def filled(document: str, tables: dict[str, str]) -> str:
    """The document with the tables in their places. Raises UserError for a scenario that there is none of."""
    for name in named_in(document):
        if name not in tables:
            raise UserError(f"{DOCUMENT} names the scenario {name!r}, and there is none of that name.")
        document = replaced(document, name, COMMAND, tables[name])
    return document


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and put them into the document if asked."""
    parser = argparse.ArgumentParser(prog="python -m demo.bench.lessons", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/lessons.md")
    parser.add_argument("--dtype", default="auto", help="number format of the weights (default: the page's)")
    options = parser.parse_args(arguments)
    model = load_model(DEFAULT_MODEL, dtype=options.dtype)
    axis, _ = axis_of(AUTO, model)
    engine = TransformersEngine(model, axis)
    document = DOCUMENT.read_text(encoding="utf-8")
    named = named_in(document)
    about = f"{model.slug} in {model.dtype_name}"
    tables: dict[str, str] = {}
    for scenario in load_scenarios(dtype=model.dtype_name):
        if scenario.id in named:
            talks = run(scenario, engine, axis, model.dtype_name)
            tables[scenario.id] = "\n".join(lines(scenario, talks, axis, about))
            print(tables[scenario.id] + "\n", flush=True)
    if options.write:
        DOCUMENT.write_text(filled(document, tables), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
