"""Whether an axis still tells role-play from the default Assistant late in a chat.

The rollouts of an extraction answer a first message, but people read the chart in later turns. In scripted
talks the model answers TURNS messages in a row, on one side under role prompts and on the other under the
default ones. Both sides are asked the same, and have their own replies before them. The messages are the
held-out questions, which lean to neither side and were not used for the axis.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event as CancelFlag
from typing import Any

from demo.axis.axis import AssistantAxis
from demo.axis.gates import GATES, LATE_TURNS, gate
from demo.engine.protocol import Sampling
from demo.extraction.plan import DEFAULT, Plan, Rollout
from demo.extraction.rollouts import RolloutGenerator
from demo.extraction.sweep import low_roles
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from demo.utils.progress import ProgressLine
from demo.utils.statistics import auc

TURNS = LATE_TURNS[1]

# Replies are short, as many tokens at most, so that the talks add little to the time of an extraction.
REPLY_TOKENS = 24


@dataclass(frozen=True)
class LateTurns:
    """Projections of the replies in scripted talks, in axis units at the probe layer.

    Attributes:
        default, role: turn -> one projection per talk, of its reply; empty replies are left out. Turns at
            which the talks no longer fitted the context window are missing.
        talks: number of talks on either side.
    """

    default: list[list[float]]
    role: list[list[float]]
    talks: int

    def separation(self, first: int, last: int) -> float:
        """P(a default reply lies above a role-played one) in these turns, from 1 on; NaN without replies."""
        sides = (
            [one for turn in side[first - 1 : last] for one in turn] for side in (self.default, self.role)
        )
        return auc(*sides)

    def entry(self) -> dict[str, Any]:
        """The manifest's entry: the talks, and what they gave turn by turn."""
        turns = range(1, len(self.default) + 1)
        return {
            "talks": self.talks,
            "auc": [_rounded(self.separation(turn, turn)) for turn in turns],
            "default": [_rounded(_mean(turn)) for turn in self.default],
            "role": [_rounded(_mean(turn)) for turn in self.role],
        }


def measure_late_turns(
    model: LoadedModel,
    axis: AssistantAxis,
    plan: Plan,
    sampling: Sampling,
    path: Path | None = None,
    watch: Callable[[int, int], None] | None = None,
    cancel: CancelFlag | None = None,
) -> LateTurns:
    """Hold the talks of `plan` with the model, all of them at once.

    Args:
        sampling: of the rollouts; the replies are cut off earlier.
        path: the file for the result, from which a later run takes it; None for no file.
        watch: called with the number of turns that are finished, and of all of them.
        cancel: setting it stops the talks within one step.

    Raises:
        Stopped: they were cancelled. They begin again in the next run.
    """
    if path is not None and path.is_file():
        return LateTurns(**json.loads(path.read_text()))
    sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, REPLY_TOKENS))
    # The same engine for all turns, because it keeps the chats.
    generate = RolloutGenerator(model, cancel, keep=True).generate
    talks, found = scripted(plan, axis), LateTurns([], [], plan.late_talks)
    probe, progress = axis.probe_layer, ProgressLine("late turns")
    for turn in range(TURNS):
        progress.update(turn / TURNS, f"({turn} of {TURNS})")
        if watch:
            watch(turn, TURNS)
        asked = [next_question(talk, plan, turn) for talk in talks]
        try:
            replies = generate(asked, sampling)
        except UserError:  # the talks no longer fit the context window
            break
        for group, side in ((True, found.role), (False, found.default)):
            own = [one.mean[probe] for one in replies if one.tokens and one.rollout.is_role == group]
            side.append([axis.to_units(float(mean @ axis.unit[probe]), probe) for mean in own])
        talks = [
            # Some templates refuse an empty message.
            replace(one, history=(*one.history, (one.text, reply.text or "...")))
            for one, reply in zip(asked, replies, strict=True)
        ]
    progress.update(1.0, f"({len(found.role)} turns)")
    if path is not None:
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(found)))
        temporary.replace(path)
    return found


def scripted(plan: Plan, axis: AssistantAxis) -> list[Rollout]:
    """The talks before their first message: for each number a role's and one of the default side.

    Both have the same sample, which selects the messages and the random numbers. The roles are those that
    count in the lower half of the axis, evenly spread: the gate asks whether what lies low in the first turn
    still does so later, and a role close to the Assistant would not show it.
    """
    low = low_roles(axis)
    talks: list[Rollout] = []
    for number in range(plan.late_talks):
        role = low[number * len(low) // plan.late_talks]
        prompts = plan.instructions[role]
        for group, prompt in (
            (role, prompts[number % len(prompts)]),
            (DEFAULT, plan.default_prompts[number % len(plan.default_prompts)]),
        ):
            history = plan.openings.get(group, ())
            talks.append(Rollout(len(talks), group, "held_out", 0, 0, number, prompt, "", history))
    return talks


def next_question(talk: Rollout, plan: Plan, turn: int) -> Rollout:
    """The talk with the message of `turn`, from 0 on.

    A talk asks TURNS questions in a row; the next one goes on behind it, and every round of all questions
    begins one further on, so that each question comes up in every turn.
    """
    asked = plan.questions["held_out"]
    rounds = talk.sample * TURNS // len(asked)
    return replace(talk, question=turn, text=asked[(talk.sample * TURNS + turn + rounds) % len(asked)])


def with_late_turns(axis: AssistantAxis, found: LateTurns) -> AssistantAxis:
    """The same axis with the gate, among its gates in their usual order."""
    measured = gate("late_turns", found.separation(*LATE_TURNS))
    gates = axis.manifest["gates"] | {"late_turns": measured}
    ordered = {name: gates[name] for name in GATES if name in gates}
    return replace(axis, manifest=axis.manifest | {"late_turns": found.entry(), "gates": ordered})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _rounded(value: float) -> float | None:
    return round(value, 4) if value == value else None
