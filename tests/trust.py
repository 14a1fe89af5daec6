"""python -m tests.trust [FILE ...]: run the tests of docs/trust.md and write it.

These tests are about hostile input, faults and hosting. Each reports what it tested with `held`, or
is marked `trust(what, how, group)`; outside this command the report goes nowhere. The figures of
the soak test come from docs/soak.json (python -m demo.bench.soak --json docs/soak.json). `--render`
runs no test and writes the document from docs/trust.json as it is.
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

from demo.bench.report import write_json
from demo.utils.markdown import markdown_table

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT, FIGURES = ROOT / "docs" / "trust.md", ROOT / "docs" / "trust.json"
SOAK = ROOT / "docs" / "soak.json"
FILES = (
    "tests/unit/test_fuzz.py",
    "tests/engine/test_faults.py",
    "tests/unit/test_default_model.py",
    "tests/extraction/test_resume.py",
    "tests/browser/test_persistence.py",
    "tests/browser/test_arrival.py",
    "tests/hosting/test_rate_limit.py",
    "tests/hosting/test_middleware.py",
    "tests/hosting/test_password.py",
    "tests/hosting/test_privacy.py",
    "tests/hosting/test_class.py",
    "tests/browser/test_class.py",
    "tests/browser/test_visitors.py",
    "tests/hosting/test_offline.py",
    "tests/hosting/test_space.py",
    "tests/unit/test_axis_import_untrusted.py",
)

_TARGET = "PERSONA_DRIFT_TRUST"  # names a file to which each test appends a line
_SOAK_NAMES = {
    "files": "open files",
    "temp_files": "temporary files",
    "rows": "replies running",
    "waiting": "replies waiting",
}


def held(what: str, cases: int, how: str, group: str) -> None:
    """Report that something was tested and held.

    Args:
        what: What was tested.
        cases: How many times, or in how many variants.
        how: The result.
        group: The section of the document.
    """
    target = os.environ.get(_TARGET)
    if target:
        with open(target, "a", encoding="utf-8") as file:
            test_file = os.environ["PYTEST_CURRENT_TEST"].partition("::")[0]
            entry = {"file": test_file, "group": group, "what": what, "cases": cases, "held": how}
            file.write(json.dumps(entry) + "\n")


def document() -> str:
    """The text of docs/trust.md, from the figures beside it."""
    lines = list(_test_lines(json.loads(FIGURES.read_text(encoding="utf-8"))))
    if SOAK.is_file():
        lines += _soak_lines(json.loads(SOAK.read_text(encoding="utf-8")))
    return "\n".join(lines) + "\n"


def _test_lines(entries: list[dict[str, Any]]) -> Iterator[str]:
    yield "# Trust: what was tested"
    yield ""
    yield (
        "Made by `python -m tests.trust`, which runs the tests on hostile input, faults and hosting and "
        "records what each of them tested. A line is here only if its test passed."
    )
    entries = _merged(entries)
    for group in dict.fromkeys(entry["group"] for entry in entries):
        own = [entry for entry in entries if entry["group"] == group]
        yield ""
        yield f"## {group[0].upper()}{group[1:]}: {sum(entry['cases'] for entry in own):,} cases"
        yield ""
        yield from markdown_table(
            ("tested", "cases", "result"),
            [(entry["what"], f"{entry['cases']:,}", entry["held"]) for entry in own],
        )


def _merged(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry, with the sum of the cases, for all entries that say the same."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for entry in entries:
        key = entry["group"], entry["what"], entry["held"]
        found[key] = {**entry, "cases": entry["cases"] + found.get(key, {"cases": 0})["cases"]}
    return list(found.values())


def _soak_lines(figures: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield (
        f"## Soak test: {figures['minutes']:g} minutes, {figures['visitors at once']} visitors at once, "
        f"room for {figures['places']} pairs"
    )
    yield ""
    yield from markdown_table(("what", "figure"), _soak_rows(figures))


def _soak_rows(figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    visits = ", ".join(f"{count} {name}" for name, count in sorted(figures["visits"].items()))
    yield "visits", f"{sum(figures['visits'].values()):,}: {visits}"
    for name in ("turns answered", "bad requests refused", "errors", "replies at once, median"):
        yield name, f"{figures[name]:,g}"
    memory = [f"{mib:,}" for mib in figures["memory by tenths of the run"]]
    yield "memory, MiB, by tenths of the run", ", ".join(memory)
    before, after, most = figures["before"], figures["after"], figures["most"]
    for name in ("threads", "files", "sockets", "temp_files", "rows", "waiting"):
        counts = f"{before[name]} before, {most[name]} at most, {after[name]} after"
        yield _SOAK_NAMES.get(name, name), counts
    yield "left behind", ", ".join(figures["left behind"]) or "nothing"


def _run_tests(files: list[str]) -> list[dict[str, Any]] | int:
    """What the tests in these files report, or pytest's exit status if one failed."""
    target = ROOT / ".trust.jsonl"
    target.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-m", "slow or not slow", *files]
    try:
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, _TARGET: str(target)}, check=False)
        if done.returncode:
            return done.returncode
        return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    finally:
        target.unlink(missing_ok=True)


def main() -> int:
    """Run the tests and write the figures and the document."""
    parser = argparse.ArgumentParser(prog="python -m tests.trust", description=__doc__)
    parser.add_argument(
        "files", nargs="*", help="run only these and keep what the others reported (default: all)"
    )
    parser.add_argument("--render", action="store_true", help="run no test, only write the document")
    options = parser.parse_args()
    if not options.render:
        files = options.files or list(FILES)
        fresh = _run_tests(files)
        if isinstance(fresh, int):
            return fresh
        known = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else []
        others = set(FILES).difference(files)
        entries = fresh + [entry for entry in known if entry.get("file") in others]
        entries.sort(key=lambda entry: FILES.index(entry["file"]))
        write_json(FIGURES, entries)
    DOCUMENT.write_text(document(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
