"""python -m tests.trust: run what is said about trust, and write down what was tried and what held, in docs/trust.md.

Tests hand in what they tried with `record`; outside this command that goes nowhere.
"""

from __future__ import annotations

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
FILES = ("tests/test_fuzz.py", "tests/test_faults.py")


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
            file.write(json.dumps({"group": group, "what": what, "cases": cases, "held": how}) + "\n")


def lines(entries: list[dict[str, Any]]) -> Iterator[str]:
    yield "# What was tried"
    yield ""
    yield (
        "Made by `python -m tests.trust`, which runs the tests that speak of trust and writes down what each tried; a line is here only if "
        "it held."
    )
    for group in dict.fromkeys(entry["group"] for entry in entries):
        own = [entry for entry in entries if entry["group"] == group]
        yield ""
        yield f"## {group[0].upper()}{group[1:]}: {sum(entry['cases'] for entry in own):,} cases"
        yield ""
        yield "| what | cases | what held |"
        yield "|---|---|---|"
        for entry in own:
            yield f"| {entry['what']} | {entry['cases']:,} | {entry['held']} |"


def main() -> int:
    target = ROOT / ".trust.jsonl"
    target.unlink(missing_ok=True)
    try:
        files = [file for file in FILES if (ROOT / file).is_file()]
        command = [sys.executable, "-m", "pytest", "-m", "slow or not slow", *files]
        status = subprocess.run(
            command, cwd=ROOT, env={**os.environ, _TARGET: str(target)}, check=False
        ).returncode
        if status:
            return status
        entries = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    finally:
        target.unlink(missing_ok=True)
    FIGURES.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    DOCUMENT.write_text("\n".join(lines(entries)) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
