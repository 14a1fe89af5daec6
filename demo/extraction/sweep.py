"""Choose which layers to cap, and at which floor, by trying settings on replies.

Every setting answers the same requests: role prompts with questions new to the axis, and plain
questions with known answers. The chosen setting moves the role replies furthest toward the
Assistant, as the unsteered model reads them, among the settings that keep the language natural, the
plain answers right, and most of these word for word.
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
from demo.extraction.rollouts import ReadText, Text, read_texts
from demo.models.chat_template import Message, render_chat
from demo.models.loading import LoadedModel
from demo.utils.progress import ProgressLine

FIRST_FLOOR = "p25"  # the floor at which the bands are compared


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting of the cap and its results.

    Attributes:
        layers: First and last capped layer, None without a cap.
        floor: The floor's name, None without a cap.
        standing: Mean projection of the role replies as the unsteered model reads them, in axis
            units at the probe layer.
        perplexity: Perplexity of all replies under their own prompts, by the unsteered model.
        right: Number of plain questions answered correctly.
        same: Of the plain questions answered correctly without a cap, the share still answered
            correctly.
        verbatim: Share of plain answers that equal those without a cap, word for word.
        acted_role: Share of the role replies' tokens at which the cap acted.
        acted_plain: Share of the plain replies' tokens at which the cap acted.
    """

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
        """Perplexity relative to that without a cap; 1 means no change."""
        return self.perplexity / uncapped.perplexity

    def qualifies(self, uncapped: Trial) -> bool:
        """Whether the setting leaves language and plain answers sufficiently unchanged."""
        unchanged = self.verbatim >= LEAST_VERBATIM
        return unchanged and passes("fluency", self.fluency(uncapped)) and passes("sameness", self.same)


@dataclass(frozen=True, slots=True)
class Question:
    """One request of the sweep.

    Attributes:
        answers: A reply is correct if it holds any of these; empty for role prompts.
    """

    messages: tuple[Message, ...]
    answers: tuple[str, ...]


class Sweep:
    """Tries settings one by one and stores each result, so that an interrupted sweep resumes."""

    def __init__(self, model: LoadedModel, axis: AssistantAxis, plan: Plan, path: Path, seed: int) -> None:
        """path: the file for the results."""
        self._engine = TransformersEngine(model, axis, kv_budget=None, keep=False, reproducible=True)
        self._model, self._axis = model, axis
        self._questions = sweep_questions(plan, axis)
        self._limit, self._seed = min(plan.max_new_tokens, 64), seed
        self._path = path
        self._done: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}

    def run(self, bands: Sequence[tuple[int, int]]) -> list[Trial]:
        """Try no cap, every band at FIRST_FLOOR, then every other floor at the best band."""
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
        """The trial as JSON. "plain" holds the text of each plain answer and its correctness."""
        replies = self._answer(layers, floor)
        read, probe = self._read(replies), self._axis.probe_layer
        role = [index for index, question in enumerate(self._questions) if not question.answers]
        plain = [index for index, question in enumerate(self._questions) if question.answers]
        standing = [float(read[i].mean @ self._axis.unit[probe]) for i in role]  # type: ignore[operator]
        answers = [(replies[i].text, is_right(replies[i].text, self._questions[i].answers)) for i in plain]
        uncapped = self._done["None/None"]["plain"] if "None/None" in self._done else answers
        still = [right for (_, right), (_, before) in zip(answers, uncapped, strict=True) if before]
        verbatim = [text == before for (text, _), (before, _) in zip(answers, uncapped, strict=True)]
        log_p = sum(float(part.log_p.sum()) for part in read)
        trial = Trial(
            layers,
            floor,
            standing=self._axis.to_units(sum(standing) / len(standing), probe),
            perplexity=math.exp(-log_p / sum(len(part.log_p) for part in read)),
            right=sum(right for _, right in answers),
            same=sum(still) / len(still) if still else 1.0,
            verbatim=sum(verbatim) / len(plain),
            acted_role=_acted_share([replies[i] for i in role]),
            acted_plain=_acted_share([replies[i] for i in plain]),
        )
        return asdict(trial) | {"plain": answers}

    def _read(self, replies: Sequence[_Answer]) -> list[ReadText]:
        """Read the replies with the unsteered model, an empty one as its end-of-turn token."""
        tokenizer = self._model.tokenizer
        texts = [
            Text(render_chat(tokenizer, question.messages).ids, reply.ids or (tokenizer.eos_token_id,))
            for question, reply in zip(self._questions, replies, strict=True)
        ]
        return read_texts(self._model, texts, self._axis.probe_layer)

    def _answer(self, layers: tuple[int, int] | None, floor: str | None) -> list[_Answer]:
        """Answer every request in one batch.

        Plain questions are answered greedily, role prompts with the page's sampling.
        """
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
                answers[int(event.branch)].add(event)
        return answers


class _Answer:
    """The reply to one request.

    Attributes:
        ids: Content tokens.
        acted: Number of content tokens at which the cap acted at any layer.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.text = ""
        self.acted = 0

    def add(self, event: TokenEvent) -> None:
        self.text += event.token.text
        if event.token_id is not None and not event.token.special:
            self.ids.append(event.token_id)
            self.acted += any(correction > 0 for correction in event.token.corrections)


def _acted_share(replies: Sequence[_Answer]) -> float:
    """Share of the replies' tokens at which the cap acted; an empty reply counts as one token."""
    return sum(reply.acted for reply in replies) / sum(len(reply.ids) or 1 for reply in replies)


def sweep_questions(plan: Plan, axis: AssistantAxis) -> list[Question]:
    """Role prompts with held-out questions, then plain questions.

    The roles are those that count in the lower half of the axis.
    """
    low = [role["name"] for role in axis.manifest["roles"] if role["counts"]]
    low = low[: max(1, len(low) // 2)]
    count = min(plan.sweep_questions, len(plan.plain))
    asked = plan.questions["held_out"]
    questions = []
    for number in range(count):
        prompts = plan.instructions[low[number * len(low) // count]]
        messages: tuple[Message, ...] = (
            {"role": "system", "content": prompts[number % len(prompts)]},
            {"role": "user", "content": asked[number % len(asked)]},
        )
        questions.append(Question(messages, ()))
    plain = [Question(({"role": "user", "content": text},), answers) for text, answers in plan.plain[:count]]
    return questions + plain


def is_right(reply: str, answers: Sequence[str]) -> bool:
    """Whether the reply holds one of the accepted answers as whole words."""
    letters = "".join(c if c.isalnum() else " " for c in reply.lower())
    words = f" {' '.join(letters.split())} "
    return any(f" {' '.join(answer.lower().split())} " in words for answer in answers)


def candidate_bands(layers: int) -> list[tuple[int, int]]:
    """Bands to try, as first and last layer.

    They have the paper's widths, about an eighth and a quarter of the depth (section 5), and begin
    at two fifths of the depth or later.
    """
    found = set()
    for width in (1 / 8, 1 / 4):
        for start in (0.4, 0.5, 0.6, 0.7):
            first = min(round(start * layers), layers - 1)
            last = min(max(first, round((start + width) * layers) - 1), layers - 1)
            found.add((first, last))
    return sorted(found)


def choose(trials: Sequence[Trial]) -> Trial:
    """The qualifying trial with the highest standing.

    If none qualifies, the one that keeps most plain answers correct.

    Args:
        trials: The first is the one without a cap.
    """
    uncapped, capped = trials[0], trials[1:]
    qualifying = [trial for trial in capped if trial.qualifies(uncapped)]
    if qualifying:
        return max(qualifying, key=lambda trial: trial.standing)
    return max(capped, key=lambda trial: (trial.same, -trial.perplexity))
