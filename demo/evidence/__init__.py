"""Does capping work on a model, and what does it cost? Measurements over many prompts, seeds and directions."""

COMMAND = "python -m demo.evidence"
NAME = "evidence.json"  # the figures, beside the axis
