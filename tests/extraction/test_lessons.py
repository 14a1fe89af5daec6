"""The lessons: their exercise runs, and their tables are what the default model does."""

from __future__ import annotations

from typing import Any

import pytest

import demo
from demo.bench.lessons import COMMAND, DOCUMENT, filled, lines, named_in, run
from demo.conversation.lesson import SEEDS_APART
from demo.conversation.scenarios import load_scenarios
from demo.conversation.session_file import dumps
from demo.conversation.settings import CapChoice
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis
from tests.helpers.documents import blocks
from tests.helpers.scripted import ScriptedEngine


def test_the_tables_follow_the_script_of_a_scenario():
    scenario, engine, axis = load_scenarios()[0], ScriptedEngine(), random_axis(4, 16, 2, (1, 2))
    (turns, others) = run(scenario, engine, axis, "float32", students=2)
    table = list(lines(scenario, [turns, others], axis, "a-model in float32"))
    assert [turn.user for turn in turns] == [turn.user for turn in others] == list(scenario.turns)
    seeds = [[turn.settings.sampling.seed for turn in one if turn.settings] for one in (turns, others)]
    assert seeds[0] == [scenario.seed + number for number in range(len(turns))]
    assert seeds[1] == [seed + SEEDS_APART for seed in seeds[0]]
    assert engine.requests[0].messages[0]["content"] == scenario.system_prompt
    assert len(table) == 4 + len(turns) and "| 2 of 2 |" in table[-1] and "| the same |" in table[-1]


def test_the_tables_go_to_their_places_and_a_scenario_that_is_gone_is_named():
    document = DOCUMENT.read_text(encoding="utf-8")
    named = named_in(document)
    assert len(named) == document.count(COMMAND + " -->") == 4
    assert set(named) <= {scenario.id for scenario in load_scenarios()}
    once = filled(document, {name: f"table of {name}" for name in named})
    assert filled(once, {name: f"table of {name}" for name in named}) == once
    assert all(f"\ntable of {name}\n<!-- end of {name} -->" in once for name in named)
    with pytest.raises(UserError, match=named[0]):
        filled(document, {})


@pytest.mark.slow
def test_the_exercise_runs_on_a_saved_conversation(model, monkeypatch, tmp_path, capsys):
    axis = demo.load_axis(model.slug)
    chat = demo.Chat(
        demo.TransformersEngine(model, axis),
        system_prompt="You are a demon.",
        cap=CapChoice.of_axis(axis),
        sampling=demo.Sampling(max_new_tokens=12),
    )
    for text in ("Who are you?", "What do you want?"):
        chat.say(text)
    (tmp_path / "my-class.session.json").write_text(dumps(chat.recording("A class")), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in blocks(DOCUMENT) if block.language == "python")
    names: dict[str, Any] = {}
    exec(block.code, names)  # the code of the document
    assert len(names["points"]) == 4 and capsys.readouterr().out.count("risk") == 4
