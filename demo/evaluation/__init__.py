"""Does capping work on a model, and what does it cost? Measurements over many prompts, seeds and directions."""

COMMAND = "python -m demo.evaluation"
NAME = "evaluation.json"  # the figures, beside the axis
