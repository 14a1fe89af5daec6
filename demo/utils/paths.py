"""Where the files that ship with the program are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ASSETS = ROOT / "assets"
EVALUATION_ASSETS = ASSETS / "evaluation"
AXES = ROOT / "axes"  # one folder per shipped axis

if not ASSETS.is_dir():
    raise ImportError("The program needs its checkout: run `pip install -e .` there, with -e.")
