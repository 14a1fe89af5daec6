"""python -m tests.audit: look the installed packages up in the public list of known holes, with pip-audit.

Fails for a hole that a newer version has closed. One that nobody has closed yet is printed and fails nothing, for no change here could
help; nor does a list that cannot be reached, which is said.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

COMMAND = ("pip-audit", "--format", "json", "--progress-spinner", "off", "--skip-editable")


def judged(packages: Iterable[dict[str, Any]]) -> tuple[list[str], list[str], int, int]:
    """(holes that an update closes, holes that none does, packages looked up, packages the list does not know)."""
    closed, open_, known, unknown = list[str](), list[str](), 0, 0
    for package in packages:
        if "skip_reason" in package:
            unknown += 1
            continue
        known += 1
        for hole in package["vulns"]:
            line = f"{package['name']} {package['version']}: {hole['id']}"
            if hole["fix_versions"]:
                closed.append(f"{line}, closed in {', '.join(hole['fix_versions'])}")
            else:
                open_.append(f"{line}, not closed yet")
    return closed, open_, known, unknown


def main() -> int:
    ran = subprocess.run(
        [sys.executable, "-m", "pip_audit", *COMMAND[1:]], capture_output=True, text=True, check=False
    )
    try:
        packages = json.loads(ran.stdout)["dependencies"]
    except ValueError:
        print(f"NOT AUDITED: the list of known holes could not be read.\n{ran.stderr.strip()[-500:]}")
        return 0
    closed, open_, known, unknown = judged(packages)
    print(
        f"{known} packages looked up, {unknown} that the list could not tell about", *closed, *open_, sep="\n"
    )
    if not known:
        print("NOT AUDITED: the list of known holes could not be reached.")
    return 1 if closed else 0


if __name__ == "__main__":
    raise SystemExit(main())
