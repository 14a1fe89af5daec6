"""How large an extraction is. Everything else about it is the same at every size."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """Numbers of an extraction; None takes all there are.

    roles: how many of the 275, spread evenly over the list; instructions: how many of a role's, in the file's order: what
    it is, how it speaks, what it wants, a scene, its past. Small models answer the last two with a story whoever tells it,
    which drowns the role, so only large extractions use them. questions: extraction questions, shared by both sides;
    role_rollouts: rollouts a role; default_samples: times every default prompt answers every question; held_out: held-out
    rollouts a role; max_new_tokens: length of a rollout; sweep_questions: plain questions, and as many role rollouts,
    a setting of the cap is tried on.
    """

    roles: int | None
    instructions: int | None
    questions: int | None
    role_rollouts: int
    default_samples: int
    held_out: int
    max_new_tokens: int
    sweep_questions: int


PRESETS = {
    "quick": Preset(
        roles=90, instructions=2, questions=24, role_rollouts=4, default_samples=2, held_out=1, max_new_tokens=32, sweep_questions=12
    ),
    "standard": Preset(
        roles=None, instructions=2, questions=72, role_rollouts=8, default_samples=2, held_out=2, max_new_tokens=64, sweep_questions=40
    ),
    # The paper's scale: 1,200 rollouts a role, 512 tokens each (arXiv 2601.10387, section 2).
    "full": Preset(
        roles=None, instructions=None, questions=None, role_rollouts=1200, default_samples=4, held_out=12, max_new_tokens=512,
        sweep_questions=40,
    ),
}  # fmt: skip
