"""How CI judges pip-audit's findings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import audit


def packages(*fixes: list[str]) -> list[dict[str, Any]]:
    """One package with a vulnerability per list of fixing versions, and an unknown package."""
    vulnerabilities = [{"id": f"VULN-{n}", "fix_versions": versions} for n, versions in enumerate(fixes)]
    return [
        {"name": "a", "version": "1", "vulns": vulnerabilities},
        {"name": "b", "version": "2", "skip_reason": "not found"},
    ]


@pytest.mark.parametrize(
    ("output", "status", "printed"),
    [
        (json.dumps({"dependencies": packages()}), 0, "1 packages looked up, 1 that"),
        (json.dumps({"dependencies": packages(["1.1", "2.0"])}), 1, "a 1: VULN-0, fixed in 1.1, 2.0"),
        (json.dumps({"dependencies": packages([])}), 0, "a 1: VULN-0, not fixed yet"),
        (json.dumps({"dependencies": packages()[1:]}), 0, "NOT AUDITED"),
        ("", 0, "NOT AUDITED: the database could not be read.\nno route"),
    ],
)
def test_only_a_vulnerability_that_an_update_fixes_fails(capsys, output, status, printed):
    assert audit.main(lambda: (output, "no route")) == status
    assert printed in capsys.readouterr().out
