"""What a run has measured so far, line by line on disk, so that a killed run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo.progress import ProgressLine


class Ledger:
    """Results by key. The first line says what they depend on: results of other settings are not used again."""

    def __init__(self, path: Path | None, fingerprint: dict[str, Any], label: str = "evidence") -> None:
        """path None: nothing is kept."""
        self._path, self._done = path, dict[str, Any]()
        self._progress, self._planned, self._spent = ProgressLine(label), 0.0, 0.0
        if path is None:
            return
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        records = [record for line in lines if (record := _parsed(line)) is not None]
        if records and records[0] == {"fingerprint": fingerprint}:
            self._done = {record["key"]: record["value"] for record in records[1:]}
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [{"fingerprint": fingerprint}, *({"key": k, "value": v} for k, v in self._done.items())]
        path.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")

    def plan(self, work: float) -> None:
        """Announce work to come, in any unit that goes with its time."""
        self._planned += work

    def get(self, key: str, work: float, measure: Callable[[], Any]) -> Any:
        """The result under `key`: of an earlier run, or measured now and kept. work: its share of what was planned."""
        fresh = key not in self._done
        if fresh:
            value = json.loads(json.dumps(measure()))  # as a later run will read it
            self._done[key] = value
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "value": value}) + "\n")
        self._spent += work
        if fresh and self._planned:
            self._progress.update(min(1.0, self._spent / self._planned), f"({key})")
        return self._done[key]


def _parsed(line: str) -> dict[str, Any] | None:
    """A line; None for one that a kill cut short."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
