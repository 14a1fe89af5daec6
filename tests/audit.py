"""python -m tests.audit: look for known vulnerabilities in the installed packages, with pip-audit.

Fails for a vulnerability that a newer version fixes. One that no version fixes yet is printed but
does not fail, since no change here could help. If the public database cannot be reached, that is
printed and nothing fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

COMMAND = (
    sys.executable,
    "-m",
    "pip_audit",
    "--format",
    "json",
    "--progress-spinner",
    "off",
    "--skip-editable",
)


@dataclass
class Findings:
    """pip-audit's findings, sorted.

    Attributes:
        fixed: Vulnerabilities that a newer version fixes.
        unfixed: Vulnerabilities that no version fixes yet.
        known: Number of packages that were looked up.
        unknown: Number of packages that the database does not know.
    """

    fixed: list[str] = field(default_factory=list)
    unfixed: list[str] = field(default_factory=list)
    known: int = 0
    unknown: int = 0


def sort_findings(packages: Iterable[dict[str, Any]]) -> Findings:
    """Sort the `dependencies` of pip-audit's report."""
    found = Findings()
    for package in packages:
        if "skip_reason" in package:
            found.unknown += 1
            continue
        found.known += 1
        for vulnerability in package["vulns"]:
            line = f"{package['name']} {package['version']}: {vulnerability['id']}"
            if vulnerability["fix_versions"]:
                found.fixed.append(f"{line}, fixed in {', '.join(vulnerability['fix_versions'])}")
            else:
                found.unfixed.append(f"{line}, not fixed yet")
    return found


def run_pip_audit() -> tuple[str, str]:
    """The output and the error output of pip-audit."""
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
    return done.stdout, done.stderr


def main(run: Callable[[], tuple[str, str]] = run_pip_audit) -> int:
    """Print the findings; status 1 if a newer version fixes one of them."""
    output, errors = run()
    try:
        packages = json.loads(output)["dependencies"]
    except ValueError:
        print(f"NOT AUDITED: the database could not be read.\n{errors.strip()[-500:]}")
        return 0
    found = sort_findings(packages)
    print(
        f"{found.known} packages looked up, {found.unknown} that the database does not know",
        *found.fixed,
        *found.unfixed,
        sep="\n",
    )
    if not found.known:
        print("NOT AUDITED: the database could not be reached.")
    return 1 if found.fixed else 0


if __name__ == "__main__":
    raise SystemExit(main())
