"""The replies of one model under caps and steering: attempts, questions, ordinary text, and scripted talks.

Everything resumes from the result cache. `demo.evaluation.comparisons` compares many settings with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from demo.axis.axis import AssistantAxis
from demo.conversation.settings import make_cap
from demo.engine.protocol import Cap
from demo.engine.transformers_engine import TransformersEngine
from demo.evaluation.answers import Answer, Change, Prompt, ResultCache, answer, batches
from demo.evaluation.attempts import Attempt, load_attempts, one_per_persona
from demo.evaluation.beginnings import beginnings, figures, groups, usual_threshold
from demo.evaluation.capability import Item, own_items
from demo.evaluation.drift import TOKENS as TALK_TOKENS
from demo.evaluation.drift import load_domains, measure_talks
from demo.evaluation.perplexity import own_texts, perplexity
from demo.evaluation.scoring import Scorer
from demo.models.loading import LoadedModel

# Numbers of the personas on which the sweep chooses the cap, and of the others, on which its effect is
# reported apart. The control directions are compared on a part of the latter.
SWEEP_PERSONAS, REPORTED_PERSONAS, CONTROL_PERSONAS = (0, 1), (2, 3, 4), (2, 3)

SUBSET = 11  # the sweep and the control directions use every eleventh item

NO_CAP, WITH_CAP = "none", "cap"  # keys of the results


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        seeds: Seeds of each attempt.
        attempts: Every how many attempts one is used. A number that has no factor in common with the 25
            attempts of a category keeps all places and personas.
        every: Every how many texts one is used.
        every_item: Every how many items one is used.
        talks: Scripted conversations per domain.
        turns: The most turns of a talk or a case study.
        directions: Number of random control directions.
        defaults: Number of default replies that give a control direction its floors.
        bands: Every how many bands of the sweep one is tried.
        steered: Every how many attempts one is answered under each strength of steering.
        asked: Every how many questions about itself the model is asked there.
        cases: Seeds of each case study.
    """

    seeds: int = 1
    attempts: int = 1
    every: int = 1
    every_item: int = 1
    talks: int = 20
    turns: int = 8
    directions: int = 3
    defaults: int = 60
    bands: int = 1
    steered: int = 6
    asked: int = 2
    cases: int = 20


QUICK = Size(
    seeds=1,
    attempts=101,
    every=14,
    every_item=37,
    talks=1,
    turns=2,
    directions=1,
    defaults=6,
    bands=10,
    steered=24,
    asked=22,
    cases=1,
)


# For models that take several times as long as the default one.
SMALL = Size(attempts=7, every_item=7, talks=6, defaults=24, bands=2, steered=3, asked=4, cases=6)


@dataclass(frozen=True, slots=True)
class CapSetting:
    """A cap as the sweep tries it.

    Attributes:
        layers: the first and the last.
        floor: the name of a floor of the axis.
        only_below: as in `Cap`, axis units.
    """

    layers: tuple[int, int]
    floor: str
    only_below: float | None = None

    @property
    def name(self) -> str:
        """Names it in results and reports."""
        return setting_name(self.layers, self.floor, self.only_below)

    def cap(self, axis: AssistantAxis) -> Cap:
        """The cap. Raises UserError where the axis lacks the layers or the floor."""
        return make_cap(axis, *self.layers, self.floor, self.only_below)


def setting_name(layers: Sequence[int], floor: str, only_below: float | None) -> str:
    """Names a setting of the cap."""
    condition = "" if only_below is None else f" below {only_below:+g}"
    return f"{layers[0]}-{layers[1]} {floor}{condition}"


class Study:
    """The measurements on one model and axis."""

    def __init__(
        self,
        model: LoadedModel,
        axis: AssistantAxis,
        size: Size,
        seed: int,
        cache: ResultCache,
        scorer: Scorer | None = None,
        case_scorer: Scorer | None = None,
    ) -> None:
        """Measure `model` with `axis`.

        Args:
            seed: the first one; every reply has its own.
            cache: keeps what is measured.
            scorer: scores replies to attempts. None: they are generated but not scored.
            case_scorer: the same for the case studies (`demo.evaluation.case_studies`).
        """
        self.model, self.axis, self.size, self.seed = model, axis, size, seed
        self.attempts: list[Attempt] = load_attempts()[:: size.attempts]
        self.items: list[Item] = own_items()[:: size.every_item]
        self.scorer, self.case_scorer = scorer, case_scorer
        self._texts = own_texts()[:: size.every]
        self.cache = cache
        self.engine = TransformersEngine(model, axis)

    @property
    def cap(self) -> Cap:
        return self.setting.cap(self.axis)

    @property
    def setting(self) -> CapSetting:
        """The axis's own."""
        axis = self.axis
        return CapSetting(axis.cap_band, axis.cap_floor, axis.cap_only_below)

    @property
    def cap_name(self) -> str:
        return self.setting.name

    # --- persona susceptibility

    def susceptibility(
        self, attempts: Sequence[Attempt] | None = None, key: str = "susceptibility"
    ) -> dict[str, list[list[dict[str, Any]]]]:
        """NO_CAP or WITH_CAP -> per seed the replies to all attempts, in their order.

        Args:
            attempts: None for the project's own.
        """
        caps = {NO_CAP: None, WITH_CAP: self.cap}
        found: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in caps}
        for number in range(self.size.seeds):
            tried = self.attempts if attempts is None else attempts
            replies = self.answer_attempts(f"{key}/{self.cap_name}", self.engine, tried, caps, number)
            for name in caps:
                found[name].append(replies[name])
        return found

    def answer_attempts(
        self,
        key: str,
        engine: TransformersEngine,
        attempts: Sequence[Attempt],
        caps: Mapping[str, Change],
        number: int,
    ) -> dict[str, list[dict[str, Any]]]:
        """The replies to every attempt under every cap, with their scores.

        Seeds differ from attempt to attempt and are the same for all caps.

        Args:
            number: Number of the round, from which the seeds follow.
        """
        order = {attempt.id: place for place, attempt in enumerate(self.attempts)}
        seeds = {
            attempt.id: self.seed + 10_000 * number + order.get(attempt.id, place)
            for place, attempt in enumerate(attempts)
        }
        # Attempts with as many turns are answered together, so that every pass of a batch is full.
        ordered = sorted(attempts, key=lambda attempt: len(attempt.lead))
        prompts = [attempt.prompt(seeds[attempt.id]) for attempt in ordered]
        found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in caps}
        start = 0
        for index, batch in enumerate(batches(prompts, caps.values())):
            tried = ordered[start : start + len(batch)]
            start += len(batch)

            def measure(batch: Sequence[Prompt] = batch) -> dict[str, Any]:
                answers = answer(engine, batch, caps)
                return {name: [_as_json(one) for one in answers[name]] for name in caps}

            stored = self.cache.get(f"{key}/{number}/{index}", len(caps) * tokens_of(batch), measure)
            scored = self._scored(f"{key}/{number}/{index}", tried, stored)
            for name in caps:
                found[name] |= {one.id: reply for one, reply in zip(tried, scored[name], strict=True)}
        return {name: [found[name][attempt.id] for attempt in attempts] for name in caps}

    def _scored(
        self, key: str, attempts: Sequence[Attempt], replies: dict[str, list[dict[str, Any]]]
    ) -> dict[str, list[dict[str, Any]]]:
        """The replies with their scores, and with each kind that the scorer counts them as.

        The replies under all caps are scored together, because replies to one question are read after one
        copy of it.
        """
        scorer = self.scorer
        if scorer is None:
            return replies
        texts = [reply["text"] for own in replies.values() for reply in own]
        asked, count = [*attempts] * len(replies), len(attempts)
        scores = self.cache.get(f"{key}/{scorer.key}", 0, lambda: scorer.scores(asked, texts))
        return {
            name: [
                {**reply, "score": round(score, 4)}
                | {kind: score >= threshold for kind, threshold in scorer.thresholds.items()}
                for reply, score in zip(own, scores[place * count : (place + 1) * count], strict=True)
            ]
            for place, (name, own) in enumerate(replies.items())
        }

    # --- capability

    def capability(self, items: Sequence[Item] | None = None, key: str = "capability") -> dict[str, Any]:
        """Answer items without and with the cap.

        Args:
            items: None for the project's own, which come with the perplexity of ordinary text.

        Returns:
            NO_CAP or WITH_CAP -> each item's answer, whether it is correct, and whether the cap acted on it,
            in order;
            "perplexity none" and "perplexity cap" -> perplexity.
        """
        caps = {NO_CAP: None, WITH_CAP: self.cap}
        key = f"{key}/{self.cap_name}"
        found: dict[str, Any] = dict(self.answer_items(key, self.engine, items or self.items, caps))
        if items is None:
            for name, cap in caps.items():
                found[f"perplexity {name}"] = self.perplexity(key, self.engine, name, cap)
        return found

    def answer_items(
        self, key: str, engine: TransformersEngine, items: Sequence[Item], caps: Mapping[str, Change]
    ) -> dict[str, list[dict[str, Any]]]:
        """The answer to every item under every cap, whether it is right, and whether the cap acted on it."""
        prompts = [item.as_prompt() for item in items]
        found = {name: list[dict[str, Any]]() for name in caps}
        for index, batch in enumerate(batches(prompts, caps.values())):

            def measure(batch: Sequence[Prompt] = batch) -> dict[str, list[dict[str, Any]]]:
                answers = answer(engine, batch, caps)
                return {
                    name: [{"text": one.text, "acted": one.acted > 0} for one in answers[name]]
                    for name in caps
                }

            stored = self.cache.get(f"{key}/answers/{index}", len(caps) * tokens_of(batch), measure)
            for name in caps:
                found[name] += stored[name]
        return {
            name: [
                {"right": item.is_right(reply["text"])} | reply
                for item, reply in zip(items, found[name], strict=True)
            ]
            for name in caps
        }

    def texts(
        self, key: str, engine: TransformersEngine, prompts: Sequence[Prompt], change: Change
    ) -> list[str]:
        """The replies to prompts, without scores."""
        found: list[str] = []
        for index, batch in enumerate(batches(prompts, [change])):

            def measure(batch: Sequence[Prompt] = batch) -> list[str]:
                return [one.text for one in answer(engine, batch, {"": change})[""]]

            found += self.cache.get(f"{key}/{index}", tokens_of(batch), measure)
        return found

    def perplexity(self, key: str, engine: TransformersEngine, name: str, change: Change) -> float:
        """The perplexity of ordinary text under a cap or steering."""
        return self.cache.get(f"{key}/perplexity/{name}", 0, lambda: perplexity(engine, change, self._texts))

    # --- drift

    def drift(self) -> dict[str, Any]:
        """Title of the domain -> projections per talk and turn, see `measure_talks`."""
        found = {}
        for domain in load_domains():
            scripts = [
                replace(s, turns=s.turns[: self.size.turns]) for s in domain.scripts[: self.size.talks]
            ]
            work = len(scripts) * self.size.turns * 2 * TALK_TOKENS

            def measure(scripts: Sequence[Any] = scripts) -> dict[str, Any]:
                return measure_talks(self.engine, self.cap, scripts, self.seed, lambda turn: None)

            found[domain.title] = self.cache.get(f"drift/{self.cap_name}/{domain.id}", work, measure)
        return found

    # --- where replies begin

    def beginnings(self) -> dict[str, Any]:
        """Where replies begin, by the kind of their prompt, and the threshold; see `beginnings.figures`."""
        threshold = self.usual_threshold if self.axis.cap_only_below is None else self.axis.cap_only_below
        # As many questions at every size: one token each takes little time.
        asked = [item.as_prompt().messages for item in own_items()[:: 4 * SUBSET]]
        prompts = groups(asked, self.subset(REPORTED_PERSONAS))

        def measure() -> dict[str, list[float]]:
            return {name: beginnings(self.engine, own) for name, own in prompts.items()}

        return figures(self.cache.get("beginnings", 0, measure), threshold)

    @property
    def usual_threshold(self) -> float:
        """See `beginnings.usual_threshold`."""
        found: float = self.cache.get("usual threshold", 0, lambda: usual_threshold(self.engine))
        return found

    # --- for many settings

    def subset(self, personas: Sequence[int]) -> list[Attempt]:
        """The attempts with which many caps are compared: one at each persona with these numbers.

        All attempts at them would take five times as long for every cap. One at each keeps all categories,
        which differ more than the attempts at one persona do.
        """
        return one_per_persona([attempt for attempt in self.attempts if attempt.persona in personas])


def tokens_of(prompts: Sequence[Prompt]) -> int:
    return sum(prompt.most_tokens for prompt in prompts)


def _as_json(one: Answer) -> dict[str, Any]:
    projection = None if one.projection is None else round(one.projection, 4)
    before = {"before": list(one.before)} if one.before else {}
    return {"text": one.text, "acted": one.acted, "tokens": len(one.ids), "standing": projection} | before
