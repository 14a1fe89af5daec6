"""Build the folder that a Hugging Face Space runs, ready to push to the Space's git.

Usage: python -m demo.space DIR
       python -m demo.space --requirements

The first lines of README.md tell the site what to run. requirements.txt lists what to install and must follow
pyproject.toml; the second command writes it.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.paths import ROOT

# Hugging Face sets this environment variable on a Space, where the page runs behind the site's proxy.
ON_SPACE = "SPACE_ID"

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

MOST_BYTES = 10 * 2**20  # a larger file needs Git LFS on the site

_EXCLUDED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "node_modules")


def requirements() -> str:
    """The content that requirements.txt must have. Needs Python 3.11."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    head = "# Made from pyproject.toml by python -m demo.space --requirements, for Hugging Face Spaces."
    return "\n".join([head, *project["dependencies"]]) + "\n"


def build(folder: Path) -> list[Path]:
    """Copy everything that a Space needs into `folder`.

    Returns:
        The copied files.

    Raises:
        UserError: The folder is not empty, requirements.txt is outdated, or a file is too large for the site.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty; name a new folder.")
    if REQUIREMENTS.read_text(encoding="utf-8") != requirements():
        raise UserError(
            "requirements.txt does not match pyproject.toml; run python -m demo.space --requirements."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=_EXCLUDED)
        else:
            shutil.copy2(ROOT / part, folder / part)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in files:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(
                f"{path} has more than {MOST_BYTES // 2**20} MiB, which a Space's git accepts only through "
                "Git LFS; make it smaller."
            )
    return files


def on_zerogpu() -> bool:
    """Whether the program runs on ZeroGPU hardware, where a Space borrows a GPU for each call."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


@command
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m demo.space", description="Build the folder that a Hugging Face Space runs."
    )
    parser.add_argument("folder", type=Path, nargs="?", help="a new folder")
    parser.add_argument(
        "--requirements", action="store_true", help="write requirements.txt from pyproject.toml"
    )
    options = parser.parse_args(arguments)
    if options.requirements:
        REQUIREMENTS.write_text(requirements(), encoding="utf-8")
    if options.folder is not None:
        files = build(options.folder)
        size = sum(path.stat().st_size for path in files) / 2**20
        print(f"{len(files)} files, {size:.1f} MiB, in {options.folder}")


if __name__ == "__main__":
    raise SystemExit(main())
