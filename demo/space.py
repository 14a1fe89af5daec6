"""python -m demo.space DIR: the folder that a Hugging Face Space runs, checked. Push it, or the whole repository, to the Space's git.

The README's first lines tell the site what to run; requirements.txt says what to install and follows pyproject.toml
(python -m demo.space --requirements writes it).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from demo.utils.errors import UserError
from demo.utils.paths import ROOT

PARTS = (
    "app.py",
    "demo",
    "axes",
    "assets",
    "README.md",
    "SECURITY.md",
    "LICENSE",
    "pyproject.toml",
    "requirements.txt",
)

REQUIREMENTS = ROOT / "requirements.txt"

# A larger file would need Git LFS there.
MOST_BYTES = 10 * 2**20

_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def requirements() -> str:
    """What requirements.txt must say. Needs Python 3.11."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    head = "# Made from pyproject.toml by python -m demo.space --requirements, for Hugging Face Spaces."
    return "\n".join([head, *project["dependencies"]]) + "\n"


def build(folder: Path) -> list[Path]:
    """Copy all that a Space needs into `folder`, which must not hold anything yet. Raises UserError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty; name a new folder.")
    if REQUIREMENTS.read_text(encoding="utf-8") != requirements():
        raise UserError(
            "requirements.txt has fallen behind pyproject.toml; run python -m demo.space --requirements."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=_LEFT_OUT)
        else:
            shutil.copy2(ROOT / part, folder / part)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in files:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(
                f"{path} has more than {MOST_BYTES // 2**20} MiB, which a Space's git does not take as it is."
            )
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.space", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="a new folder")
    parser.add_argument("--requirements", action="store_true", help="write requirements.txt anew")
    options = parser.parse_args(arguments)
    try:
        if options.requirements:
            REQUIREMENTS.write_text(requirements(), encoding="utf-8")
        if options.folder is not None:
            files = build(options.folder)
            size = sum(path.stat().st_size for path in files) / 2**20
            print(f"{len(files)} files, {size:.1f} MiB, in {options.folder}")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


# Hugging Face sets it on a Space, where the page stands behind the site's proxy.
ON_SPACE = "SPACE_ID"


def on_zerogpu() -> bool:
    """On a Space to which a GPU is lent call by call."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


if __name__ == "__main__":
    raise SystemExit(main())
