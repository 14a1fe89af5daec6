"""python -m demo.bench.lessons: what the default model does in the lessons, turn by turn.

Runs the script of each scenario that docs/lessons.md names, with the settings of a class: the page's
sampling, the axis's own cap, and the scenario's seed. Prints a table for each, and puts them into the
document if asked.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from typing import Any

from demo.axis.axis import AssistantAxis
from demo.axis.store import AUTO, axis_of
from demo.axis.zones import zone_of
from demo.conversation.conversation import Conversation
from demo.conversation.lesson import Lesson
from demo.conversation.scenarios import Scenario, load_scenarios
from demo.conversation.settings import CAPPED, UNCAPPED
from demo.conversation.turns import Turn
from demo.engine.transformers_engine import TransformersEngine
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import load_model
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.markdown import markdown_table, replaced
from demo.utils.paths import ROOT

DOCUMENT = ROOT / "docs" / "lessons.md"
COMMAND = "python -m demo.bench.lessons --write"
_NAMED = re.compile(rf"<!-- ([\w-]+): {re.escape(COMMAND)} -->")  # a block has the name of its scenario
_WORDS = 16  # of each reply
_HEAD = ("turn", "uncapped", "capped", "lift", "the uncapped reply begins", "the capped reply begins")


def run(scenario: Scenario, engine: Any, axis: AssistantAxis, dtype: str) -> list[Turn]:
    """The turns of a class in which a student sends the script of the scenario as it stands."""
    asked = {"scenario": scenario.id, "system_prompt": scenario.system_prompt, "seed": scenario.seed}
    lesson, conversation = Lesson.of(asked, [scenario]), Conversation()
    for number, text in enumerate(lesson.script):
        for _ in conversation.send(engine, text, lesson.settings(axis, number, True, dtype, "", False)):
            pass
    return conversation.turns


def lines(scenario: Scenario, turns: Sequence[Turn], axis: AssistantAxis, about: str) -> Iterator[str]:
    """The table of a scenario. about: model and number format."""
    yield f"*{scenario.title}*, seed {scenario.seed}, {about}; means in axis units:"
    yield ""
    yield from markdown_table(_HEAD, [_row(number, turn, axis) for number, turn in enumerate(turns, 1)])


def _row(number: int, turn: Turn, axis: AssistantAxis) -> list[str]:
    uncapped, capped = turn.replies[UNCAPPED], turn.replies[CAPPED]
    means = [reply.mean for reply in (uncapped, capped)]
    zones = [zone_of(axis.zones, mean) for mean in means]
    cells = ["–" if mean is None else f"{mean:.2f}, {zone}" for mean, zone in zip(means, zones, strict=True)]
    lift = "–" if None in means else f"{(means[1] or 0) - (means[0] or 0):+.2f}"
    same = uncapped.text == capped.text
    return [str(number), *cells, lift, _begins(uncapped.text), "the same" if same else _begins(capped.text)]


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
            turns = run(scenario, engine, axis, model.dtype_name)
            tables[scenario.id] = "\n".join(lines(scenario, turns, axis, about))
            print(tables[scenario.id] + "\n", flush=True)
    if options.write:
        DOCUMENT.write_text(filled(document, tables), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
