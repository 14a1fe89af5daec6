"""How long an extraction will take on this machine, from a few rollouts that are timed before it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from threading import Event as CancelFlag

from demo.axis.axis import FLOOR_NAMES
from demo.extraction.judge import JUDGED, Judge
from demo.extraction.late_turns import REPLY_TOKENS, TURNS
from demo.extraction.plan import Plan
from demo.extraction.rollouts import Reply, RolloutGenerator
from demo.extraction.run import Settings, batches_of
from demo.extraction.sweep import candidate_bands
from demo.extraction.zones import most_read
from demo.models.loading import LoadedModel

# Rollouts that are timed: how many at once, and how many tokens of each.
_FEW, _MANY = 8, 32
_SHORT, _LONGER = 2, 10


@dataclass(frozen=True, slots=True)
class Pace:
    """What the parts of an extraction take, in seconds.

    Attributes:
        prompt: reading the prompt of one rollout.
        step: one more token of a batch, however many rollouts it has.
        row: one more token of one rollout.
        judged: judging one token of a reply.
    """

    prompt: float
    step: float
    row: float
    judged: float

    def seconds(self, plan: Plan, settings: Settings, layers: int) -> float:
        """The time for a whole extraction of this plan.

        Args:
            layers: number of the model's decoder layers.
        """
        batches = batches_of(plan.rollouts, settings.batch)
        rollouts = sum(self._batch(len(batch), plan.max_new_tokens) for batch in batches)
        judged = sum(rollout.is_role for rollout in plan.rollouts) * min(plan.max_new_tokens, JUDGED)
        replies = 2 * plan.sweep_questions * (len(candidate_bands(layers)) + len(FLOOR_NAMES))
        sweep = replies / settings.batch * self._batch(settings.batch, plan.max_new_tokens)
        # The replies that the zones are measured on are read once more, each after its own prompt.
        again = most_read(plan)
        read = (replies + again) * plan.max_new_tokens
        talks = TURNS * self._batch(2 * plan.late_talks, min(plan.max_new_tokens, REPLY_TOKENS))
        return rollouts + talks + sweep + again * self.prompt + (judged + read) * self.judged

    def _batch(self, rows: int, tokens: int) -> float:
        return rows * self.prompt + tokens * (self.step + rows * self.row)


def measure_pace(
    model: LoadedModel, plan: Plan, settings: Settings, judge: Judge, cancel: CancelFlag | None = None
) -> Pace:
    """Time a few rollouts of `plan`, few and many at once, short and longer.

    Raises:
        Stopped: it was cancelled.
    """
    generate = RolloutGenerator(model, cancel).generate
    roles = [rollout for rollout in plan.rollouts if rollout.is_role]

    def timed(rows: int, tokens: int) -> tuple[float, list[Reply]]:
        started = time.perf_counter()
        replies = generate(roles[:rows], replace(settings.sampling(plan), max_new_tokens=tokens))
        return time.perf_counter() - started, replies

    timed(_FEW, _SHORT)  # the first pass of all takes longer
    steps = _LONGER - _SHORT
    few = (timed(_FEW, _LONGER)[0] - timed(_FEW, _SHORT)[0]) / steps
    short, _ = timed(_MANY, _SHORT)
    longer, replies = timed(_MANY, _LONGER)
    many = (longer - short) / steps
    row = max(0.0, (many - few) / (_MANY - _FEW))
    started = time.perf_counter()
    judge.scores(replies)
    judged = (time.perf_counter() - started) / max(1, sum(len(reply.tokens) for reply in replies))
    prompt = max(0.0, short - _SHORT * many) / _MANY
    return Pace(prompt, max(0.0, many - _MANY * row), row, judged)
