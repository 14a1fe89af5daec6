"""Choose which layers to cap, and at which floor, by trying settings on replies.

Every setting answers the same requests: role prompts with questions new to the axis, and plain
questions with known answers. The chosen setting moves the role replies furthest toward the
Assistant, as the unsteered model reads them, among the settings that keep the language natural, the
plain answers right, and most of these word for word.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event as CancelFlag
from typing import Any, NamedTuple

from demo.axis.axis import FLOOR_NAMES, AssistantAxis
from demo.axis.gates import LEAST_VERBATIM, passes
from demo.engine.protocol import Cap, Request, Sampling, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.extraction.plan import Plan, head_of
from demo.extraction.reading import Reader
from demo.extraction.rollouts import PROMPT_CHUNK, ReadText, Stopped, Text
from demo.models.chat_template import Message, render_chat
from demo.models.loading import LoadedModel
from demo.utils.progress import ProgressLine
from demo.utils.resource_usage import give_memory_back

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


class Setting(NamedTuple):
    """A setting of the cap: its first and last layer, the name of its floor, and `Cap.only_below`."""

    layers: tuple[int, int] | None = None
    floor: str | None = None
    only_below: float | None = None


NO_CAP = Setting()


class Sweep:
    """Tries settings and stores the results, so that an interrupted sweep resumes.

    Settings that do not depend on each other's results answer together, which takes fewer forward passes.
    """

    def __init__(
        self,
        model: LoadedModel,
        axis: AssistantAxis,
        plan: Plan,
        path: Path,
        seed: int,
        batch: int,
        tried: Callable[[int, int], None] | None = None,
        cancel: CancelFlag | None = None,
    ) -> None:
        """Prepare the requests.

        Args:
            path: The file for the results.
            batch: Number of replies that are generated together.
            tried: Called with the number of settings that were tried, and of all of them.
            cancel: Setting it stops the sweep within one step.
        """
        self._engine = TransformersEngine(
            model, axis, kv_budget=None, keep=False, chunk=PROMPT_CHUNK, reproducible=True
        )
        self._model, self._axis, self._reader = model, axis, Reader(model, recurring=True)
        self._questions = sweep_questions(plan, axis)
        self._at_once = max(1, batch // len(self._questions))
        self._limit, self._seed = min(plan.max_new_tokens, 64), seed
        self._path = path
        self._done: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}
        self._progress, self._tried = ProgressLine("cap settings"), tried
        self._cancel = cancel or CancelFlag()

    def run(self, bands: Sequence[tuple[int, int]]) -> list[Trial]:
        """Try no cap, every band at FIRST_FLOOR, then every other floor at the best band.

        Raises:
            Stopped: The sweep was cancelled.
        """
        total = len(bands) + len(FLOOR_NAMES)
        trials = self._trials([NO_CAP, *(Setting(band, FIRST_FLOOR) for band in bands)], 0, total)
        best = choose(trials, self._axis.probe_layer).layers
        floors = [Setting(best, floor) for floor in FLOOR_NAMES if floor != FIRST_FLOOR]
        trials += self._trials(floors, len(trials), total)
        self._progress.update(1.0, f"({len(trials)} settings)")
        return trials

    def try_own(self) -> tuple[Trial, Trial]:
        """Try no cap, and the axis's own."""
        axis = self._axis
        own = Setting(axis.cap_band, axis.cap_floor, axis.cap_only_below)
        uncapped, capped = self._trials([NO_CAP, own], 0, 2)
        self._progress.update(1.0, "(2 settings)")
        return uncapped, capped

    def _trials(self, settings: Sequence[Setting], before: int, total: int) -> list[Trial]:
        """Try settings, as many at once as fit the batch. `before` of `total` settings were tried earlier."""
        for start in range(0, len(settings), self._at_once):
            # Always the same settings together, also when resuming: the bits of a reply can depend on how
            # many others are generated with it.
            together = settings[start : start + self._at_once]
            if not all(_key(setting) in self._done for setting in together):
                done = before + start
                self._progress.update(done / total, f"({done} of {total})")
                if self._tried:
                    self._tried(done, total)
                self._done |= self._measure_all(together)
                temporary = self._path.with_suffix(".tmp")
                temporary.write_text(json.dumps(self._done))
                temporary.replace(self._path)
                give_memory_back()
        return [_trial(self._done[_key(setting)]) for setting in settings]

    def _measure_all(self, settings: Sequence[Setting]) -> dict[str, dict[str, Any]]:
        """The results of the settings as JSON, each as `_measure` gives it."""
        replies = self._answer(settings)
        read, count = self._read(replies), len(self._questions)
        found: dict[str, dict[str, Any]] = {}
        known = self._done.get(_key(NO_CAP))
        uncapped = None if known is None else known["plain"]
        for index, setting in enumerate(settings):
            own = slice(index * count, (index + 1) * count)
            found[_key(setting)] = measured = self._measure(setting, replies[own], read[own], uncapped)
            uncapped = uncapped or measured["plain"]  # the first setting is the one without a cap
        return found

    def _measure(
        self,
        setting: Setting,
        replies: Sequence[_Answer],
        read: Sequence[ReadText],
        uncapped: Sequence[tuple[str, bool]] | None,
    ) -> dict[str, Any]:
        """The trial as JSON. "plain" holds the text of each plain answer and its correctness.

        Args:
            replies, read: In the order of the questions.
            uncapped: "plain" without a cap; None when this is that trial.
        """
        probe = self._axis.probe_layer
        role = [index for index, question in enumerate(self._questions) if not question.answers]
        plain = [index for index, question in enumerate(self._questions) if question.answers]
        standing = [float(read[i].mean @ self._axis.unit[probe]) for i in role]  # type: ignore[operator]
        answers = [(replies[i].text, is_right(replies[i].text, self._questions[i].answers)) for i in plain]
        uncapped = answers if uncapped is None else uncapped
        still = [right for (_, right), (_, before) in zip(answers, uncapped, strict=True) if before]
        verbatim = [text == before for (text, _), (before, _) in zip(answers, uncapped, strict=True)]
        log_p = sum(float(part.log_p.sum()) for part in read)
        trial = Trial(
            setting.layers,
            setting.floor,
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
        prompts = [render_chat(tokenizer, question.messages).ids for question in self._questions]
        texts = [
            Text(prompts[number % len(prompts)], reply.ids or (tokenizer.eos_token_id,))
            for number, reply in enumerate(replies)
        ]
        return self._reader.read(texts, self._axis.probe_layer)

    def _answer(self, settings: Sequence[Setting]) -> list[_Answer]:
        """Answer every request under every setting in one batch, setting by setting.

        Plain questions are answered greedily, role prompts with the page's sampling.
        """
        page = Sampling(max_new_tokens=self._limit, seed=self._seed)
        greedy = replace(page, temperature=0.0)
        asked = itertools.product([self._cap(setting) for setting in settings], self._questions)
        requests = [
            Request(str(number), question.messages, greedy if question.answers else page, cap)
            for number, (cap, question) in enumerate(asked)
        ]
        answers = [_Answer() for _ in requests]
        for event in self._engine.stream(requests, self._cancel):
            if isinstance(event, TokenEvent):
                answers[int(event.branch)].add(event)
        if self._cancel.is_set():
            raise Stopped
        return answers

    def _cap(self, setting: Setting) -> Cap | None:
        if setting.layers is None or setting.floor is None:
            return None
        first, last = setting.layers
        band = range(first, last + 1)
        floors = self._axis.floor(setting.floor)[list(band)].tolist()
        return Cap(tuple(band), tuple(floors), only_below=setting.only_below)


def _key(setting: Setting) -> str:
    """The name of a setting's result in the file."""
    condition = "" if setting.only_below is None else f"/{setting.only_below}"
    return f"{setting.layers}/{setting.floor}{condition}"


def _trial(measured: dict[str, Any]) -> Trial:
    stored = {name: value for name, value in measured.items() if name != "plain"}
    band = stored.pop("layers")
    return Trial(layers=None if band is None else (band[0], band[1]), **stored)


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
    low = low_roles(axis)
    count = min(plan.sweep_questions, len(plan.plain))
    asked = plan.questions["held_out"]
    questions = []
    for number in range(count):
        role = low[number * len(low) // count]
        prompts = plan.instructions[role]
        messages: tuple[Message, ...] = (
            *head_of(prompts[number % len(prompts)], plan.openings.get(role, ())),
            {"role": "user", "content": asked[number % len(asked)]},
        )
        questions.append(Question(messages, ()))
    plain = [Question(({"role": "user", "content": text},), answers) for text, answers in plan.plain[:count]]
    return questions + plain


def low_roles(axis: AssistantAxis) -> list[str]:
    """The roles that count in the lower half of the axis, the lowest first."""
    counting = [role["name"] for role in axis.manifest["roles"] if role["counts"]]
    return counting[: max(1, len(counting) // 2)]


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


def choose(trials: Sequence[Trial], probe: int) -> Trial:
    """The qualifying trial with the highest standing, of those whose band covers the probe layer if any do.

    A cap elsewhere acts as well, but the chart of the probe layer does not show how. If none qualifies, the
    one that keeps most plain answers correct.

    Args:
        trials: The first is the one without a cap.
        probe: The probe layer.
    """
    uncapped, capped = trials[0], trials[1:]
    qualifying = [trial for trial in capped if trial.qualifies(uncapped)]
    visible = [trial for trial in qualifying if trial.layers and trial.layers[0] <= probe <= trial.layers[1]]
    if qualifying:
        return max(visible or qualifying, key=lambda trial: trial.standing)
    return max(capped, key=lambda trial: (trial.same, -trial.perplexity))
