"""What CI makes of pip-audit's findings."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace

import pytest

from tests import audit


def found(*fixes: list[str]) -> list[dict]:
    holes = [{"id": f"HOLE-{n}", "fix_versions": fix} for n, fix in enumerate(fixes)]
    return [
        {"name": "a", "version": "1", "vulns": holes},
        {"name": "b", "version": "2", "skip_reason": "not found"},
    ]


@pytest.mark.parametrize(
    ("output", "status", "said"),
    [
        (json.dumps({"dependencies": found()}), 0, "1 packages looked up, 1 that"),
        (json.dumps({"dependencies": found(["1.1", "2.0"])}), 1, "a 1: HOLE-0, closed in 1.1, 2.0"),
        (json.dumps({"dependencies": found([])}), 0, "a 1: HOLE-0, not closed yet"),
        (json.dumps({"dependencies": found()[1:]}), 0, "NOT AUDITED"),
        ("", 0, "NOT AUDITED: the list of known holes could not be read.\nno route"),
    ],
)
def test_only_a_hole_that_an_update_closes_fails(monkeypatch, capsys, output, status, said):
    answer = SimpleNamespace(stdout=output, stderr="no route", returncode=1)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert audit.main() == status
    assert said in capsys.readouterr().out
