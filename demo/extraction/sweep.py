"""Which layers to cap, and at which floor: tried on replies, not chosen by habit.

Every setting answers the same requests: role prompts with questions the axis never saw, and plain questions with known
answers. Objective: carry the role replies as far toward the Assistant as possible, as the unsteered model reads them,
among the settings that keep their language natural, the plain answers right, and most of these word for word.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from demo.axis.axis import FLOOR_NAMES, AssistantAxis
from demo.axis.gates import LEAST_VERBATIM, passes
from demo.engine.protocol import Cap, Request, Sampling, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.extraction.plan import Plan
from demo.extraction.rollouts import Text, read_texts
from demo.models.chat_template import Message, render_chat
from demo.models.loading import LoadedModel
from demo.utils.progress import ProgressLine

FIRST_FLOOR = "p25"


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting of the cap and what it did. layers: first and last, None for no cap; standing: mean projection of the
    role replies, axis units at the probe layer, read by the unsteered model; perplexity: of all replies under their own
    prompts by the unsteered model; right: plain questions answered rightly; same: of those right without a cap, the share
    still right; verbatim: share of plain answers word for word those without a cap; acted: share of reply tokens at which
    the cap acted, role replies and plain ones."""

    layers: tuple[int, int] | None
    floor: str | None
    standing: float
    perplexity: float
    right: int
    same: float
    verbatim: float
    acted_role: float
    acted_plain: float

    def fluency(self, uncapped: Trial) -> float:
        """Perplexity over that without a cap; 1 is no change."""
        return self.perplexity / uncapped.perplexity

    def qualifies(self, uncapped: Trial) -> bool:
        unchanged = self.verbatim >= LEAST_VERBATIM
        return unchanged and passes("fluency", self.fluency(uncapped)) and passes("sameness", self.same)


@dataclass(frozen=True, slots=True)
class Question:
    """One request of the sweep. answers: any of these in the reply makes it right; empty for role prompts."""

    messages: tuple[Message, ...]
    answers: tuple[str, ...]


class Sweep:
    """Tries settings one by one, keeping each result on disk."""

    def __init__(self, model: LoadedModel, axis: AssistantAxis, plan: Plan, path: Path, seed: int) -> None:
        self._engine = TransformersEngine(model, axis, kv_budget=None, keep=False)
        self._model, self._axis = model, axis
        self._questions = sweep_questions(plan, axis)
        self._limit, self._seed = min(plan.max_new_tokens, 64), seed
        self._path = path
        self._done: dict[str, dict[str, Any]] = (
            json.loads(self._path.read_text()) if self._path.is_file() else {}
        )

    def run(self, bands: Sequence[tuple[int, int]]) -> list[Trial]:
        """No cap, every band at FIRST_FLOOR, then every other floor at the best of them."""
        progress, total = ProgressLine("cap settings"), len(bands) + len(FLOOR_NAMES)
        trials = [self._trial(None, None)]
        for band in bands:
            progress.update(len(trials) / total, f"({len(trials)} of {total})")
            trials.append(self._trial(band, FIRST_FLOOR))
        best = choose(trials).layers
        for floor in FLOOR_NAMES:
            if floor != FIRST_FLOOR:
                progress.update(len(trials) / total, f"({len(trials)} of {total})")
                trials.append(self._trial(best, floor))
        progress.update(1.0, f"({len(trials)} settings)")
        return trials

    def _trial(self, layers: tuple[int, int] | None, floor: str | None) -> Trial:
        key = f"{layers}/{floor}"
        if key not in self._done:
            self._done[key] = self._measure(layers, floor)
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(json.dumps(self._done))
            temporary.replace(self._path)
        stored = dict(self._done[key])
        stored.pop("plain")
        band = stored.pop("layers")
        return Trial(layers=None if band is None else (band[0], band[1]), **stored)

    def _measure(self, layers: tuple[int, int] | None, floor: str | None) -> dict[str, Any]:
        replies = self._answer(layers, floor)
        tokenizer = self._model.tokenizer
        texts = [
            Text(render_chat(tokenizer, question.messages).ids, reply.ids or (tokenizer.eos_token_id,))
            for question, reply in zip(self._questions, replies, strict=True)
        ]
        read = read_texts(self._model, texts, self._axis.probe_layer)
        probe = self._axis.probe_layer
        role = [index for index, question in enumerate(self._questions) if not question.answers]
        plain = [index for index, question in enumerate(self._questions) if question.answers]
        standing = [float(read[i].mean @ self._axis.unit[probe]) for i in role]  # type: ignore[operator]
        right = [is_right(replies[i].text, self._questions[i].answers) for i in plain]
        before = self._done.get(
            "None/None", {"plain": [(replies[i].text, right[n]) for n, i in enumerate(plain)]}
        )
        were = [bool(was) for _, was in before["plain"]]
        still = [now for now, was in zip(right, were, strict=True) if was]
        log_p = sum(float(part.log_p.sum()) for part in read)
        trial = Trial(
            layers,
            floor,
            standing=self._axis.to_units(sum(standing) / len(standing), probe),
            perplexity=math.exp(-log_p / sum(len(part.log_p) for part in read)),
            right=sum(right),
            same=sum(still) / len(still) if still else 1.0,
            verbatim=sum(replies[i].text == text for i, (text, _) in zip(plain, before["plain"], strict=True))
            / len(plain),
            acted_role=sum(replies[i].acted for i in role) / sum(len(replies[i].ids) or 1 for i in role),
            acted_plain=sum(replies[i].acted for i in plain) / sum(len(replies[i].ids) or 1 for i in plain),
        )
        return asdict(trial) | {"plain": [(replies[i].text, right[n]) for n, i in enumerate(plain)]}

    def _answer(self, layers: tuple[int, int] | None, floor: str | None) -> list[_Answer]:
        """Reply to every request in one batch, as the page does: plain questions greedily, roles with its sampling."""
        cap = None
        if layers is not None and floor is not None:
            band = tuple(range(layers[0], layers[1] + 1))
            cap = Cap(band, tuple(self._axis.floor(floor)[list(band)].tolist()))
        page = Sampling(max_new_tokens=self._limit, seed=self._seed)
        requests = [
            Request(
                f"{number}",
                question.messages,
                replace(page, temperature=0.0) if question.answers else page,
                cap,
            )
            for number, question in enumerate(self._questions)
        ]
        answers = [_Answer() for _ in requests]
        for event in self._engine.stream(requests):
            if isinstance(event, TokenEvent):
                answers[int(event.branch)].take(event)
        return answers


class _Answer:
    """What one request got. acted: content tokens at which any capped layer was lifted."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.text = ""
        self.acted = 0

    def take(self, event: TokenEvent) -> None:
        self.text += event.text
        if event.token_id is not None and not event.is_special:
            self.ids.append(event.token_id)
            self.acted += any(correction > 0 for correction in event.corrections)


def sweep_questions(plan: Plan, axis: AssistantAxis) -> list[Question]:
    """Role requests over held-out questions, from the lower half of the roles on the axis, and plain questions."""
    low = [role["name"] for role in axis.manifest["roles"] if role["counts"]]
    low = low[: max(1, len(low) // 2)]
    count = min(plan.sweep_questions, len(plan.plain))
    asked = plan.questions["held_out"]
    questions = []
    for number in range(count):
        system = plan.instructions[low[number * len(low) // count]]
        questions.append(
            Question(
                (
                    {"role": "system", "content": system[number % len(system)]},
                    {"role": "user", "content": asked[number % len(asked)]},
                ),
                (),
            )
        )
    plain = [Question(({"role": "user", "content": text},), answers) for text, answers in plan.plain[:count]]
    return questions + plain


def is_right(reply: str, answers: Sequence[str]) -> bool:
    """Whether a plain question's reply holds one of its accepted answers as whole words."""
    words = " " + "".join(c if c.isalnum() else " " for c in reply.lower()) + " "
    words = " ".join(words.split())
    return any(f" {' '.join(answer.lower().split())} " in f" {words} " for answer in answers)


def candidate_bands(layers: int) -> list[tuple[int, int]]:
    """Bands to try, first and last layer: the paper's widths, about an eighth and a quarter of the depth (section 5),
    from two fifths of the depth on."""
    found = set()
    for width in (1 / 8, 1 / 4):
        for start in (0.4, 0.5, 0.6, 0.7):
            first = min(round(start * layers), layers - 1)
            last = min(max(first, round((start + width) * layers) - 1), layers - 1)
            found.add((first, last))
    return sorted(found)


def choose(trials: Sequence[Trial]) -> Trial:
    """The capped trial with the highest standing among those that qualify; where none does, the least harmful one."""
    uncapped, capped = trials[0], trials[1:]
    fit = [trial for trial in capped if trial.qualifies(uncapped)]
    if fit:
        return max(fit, key=lambda trial: trial.standing)
    return max(capped, key=lambda trial: (trial.same, -trial.perplexity))
