"""python -m tests.trust [FILE …]: run what is said about trust, and write down what was tried and what held, in docs/trust.md.

Tests hand in what they tried with `held`, or are marked `trust(what, how, group)`; outside this command that goes nowhere. The soak's
figures come from docs/soak.json (python -m demo.bench.soak --json docs/soak.json); --render writes the document from what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT, FIGURES = ROOT / "docs" / "trust.md", ROOT / "docs" / "trust.json"
_TARGET = "PERSONA_DRIFT_TRUST"  # a file to which each test appends a line
SOAK = ROOT / "docs" / "soak.json"
_COUNTED = {
    "files": "open files",
    "temp_files": "temp files",
    "rows": "replies at once",
    "waiting": "replies waiting",
}
FILES = tuple(
    f"tests/test_{name}.py"
    for name in [
        "fuzz",
        "faults",
        "default_model",
        "extraction_kill",
        "comes_back",
        "arrival",
        "limits",
        "guard",
        "password",
        "privacy",
        "visitors",
        "cut_off",
        "space",
        "axis_import_untrusted",
    ]
)


def record(watch: Any) -> None:
    """A loader was tried. Called when nothing has failed."""
    held(
        watch.name,
        watch.cases,
        f"{watch.accepted} accepted, {watch.refused} refused in one sentence; slowest {watch.slowest_s:.2f} s",
        group="hostile input",
    )


def held(what: str, cases: int, how: str, group: str) -> None:
    """Something was tried so many times, and held."""
    target = os.environ.get(_TARGET)
    if target:
        with open(target, "a", encoding="utf-8") as file:
            where = os.environ["PYTEST_CURRENT_TEST"].partition("::")[0]
            entry = {"file": where, "group": group, "what": what, "cases": cases, "held": how}
            file.write(json.dumps(entry) + "\n")


def lines(entries: list[dict[str, Any]]) -> Iterator[str]:
    yield "# What was tried"
    yield ""
    yield (
        "Made by `python -m tests.trust`, which runs the tests that speak of trust and writes down what each tried; a line is here only if "
        "it held."
    )
    entries = merged(entries)
    for group in dict.fromkeys(entry["group"] for entry in entries):
        own = [entry for entry in entries if entry["group"] == group]
        yield ""
        yield f"## {group[0].upper()}{group[1:]}: {sum(entry['cases'] for entry in own):,} cases"
        yield ""
        yield "| what | cases | what held |"
        yield "|---|---|---|"
        for entry in own:
            yield f"| {entry['what']} | {entry['cases']:,} | {entry['held']} |"


def merged(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same thing tried in several ways is one line."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for entry in entries:
        key = entry["group"], entry["what"], entry["held"]
        found[key] = {**entry, "cases": entry["cases"] + found.get(key, {"cases": 0})["cases"]}
    return list(found.values())


def soaked(figures: dict[str, Any]) -> Iterator[str]:
    """The soak's figures as a table."""
    yield ""
    yield f"## Soak: {figures['minutes']:g} minutes, {figures['visitors at once']} visitors on {figures['places']} places"
    yield ""
    yield "| what | figure |"
    yield "|---|---|"
    visits = ", ".join(f"{count} {name}" for name, count in sorted(figures["visits"].items()))
    yield f"| visits | {sum(figures['visits'].values()):,}: {visits} |"
    for name in ("turns answered", "bad requests refused", "errors", "replies at once, median"):
        yield f"| {name} | {figures[name]:,g} |"
    memory = [f"{mib:,}" for mib in figures["memory by tenths of the run"]]
    yield f"| memory, MiB, by tenths of the run | {', '.join(memory)} |"
    before, after, most = figures["before"], figures["after"], figures["most"]
    for name in ("threads", "files", "sockets", "temp_files", "rows", "waiting"):
        told = f"{before[name]} before, {most[name]} at most, {after[name]} after"
        yield f"| {_COUNTED.get(name, name)} | {told} |"
    yield f"| left behind | {', '.join(figures['left behind']) or 'nothing'} |"


def document() -> str:
    """What docs/trust.md says, from the figures beside it."""
    text = list(lines(json.loads(FIGURES.read_text(encoding="utf-8"))))
    if SOAK.is_file():
        text += soaked(json.loads(SOAK.read_text(encoding="utf-8")))
    return "\n".join(text) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.trust", description=__doc__)
    parser.add_argument(
        "files", nargs="*", help="test again only these, and keep what the others told (default: all)"
    )
    parser.add_argument("--render", action="store_true", help="test nothing, write the document")
    options = parser.parse_args()
    if not options.render:
        files = options.files or list(FILES)
        target = ROOT / ".trust.jsonl"
        target.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-m", "slow or not slow", *files]
        try:
            tested = subprocess.run(command, cwd=ROOT, env={**os.environ, _TARGET: str(target)}, check=False)
            if tested.returncode:
                return tested.returncode
            fresh = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
        finally:
            target.unlink(missing_ok=True)
        known = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else []
        others = set(FILES).difference(files)
        entries = fresh + [entry for entry in known if entry.get("file") in others]
        entries.sort(key=lambda entry: FILES.index(entry["file"]))
        FIGURES.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    DOCUMENT.write_text(document(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
