"""Measure whether capping works on a model, and what it costs.

The measurements cover many prompts, seeds and settings of the cap, and control directions.
"""

from demo.utils.paths import ROOT

COMMAND = "python -m demo.evaluation"
NAME = "evaluation.json"  # the file with the figures, beside the axis
PAGE = ROOT / "docs" / "evaluation.md"
