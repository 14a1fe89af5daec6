"""Run the measurements of an evaluation.

Every part is a method of `Study` and resumes from the result cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from demo.axis.axis import FLOOR_NAMES, AssistantAxis
from demo.conversation.settings import make_cap
from demo.engine.protocol import Cap, Sampling, Steer
from demo.engine.transformers_engine import TransformersEngine
from demo.evaluation.answers import Answer, Change, Prompt, ResultCache, answer, batches
from demo.evaluation.attempts import Attempt, load_attempts, one_per_persona
from demo.evaluation.capability import Item, own_items, own_texts, perplexity
from demo.evaluation.directions import Chat, axis_along, first_component, random_direction
from demo.evaluation.drift import TOKENS as TALK_TOKENS
from demo.evaluation.drift import load_domains, measure_talks
from demo.evaluation.scoring import Scorer
from demo.evaluation.steering import as_direction, identity_prompts, settings
from demo.extraction.sweep import candidate_bands
from demo.models.chat_template import Message
from demo.models.loading import LoadedModel
from demo.utils.json_files import read_object
from demo.utils.paths import ASSETS

PARTS = ("sweep", "susceptibility", "capability", "drift", "controls", "steering")

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
        turns: Turns per talk.
        directions: Number of random control directions.
        defaults: Number of default replies that give a control direction its floors.
        bands: Every how many bands of the sweep one is tried.
        steered: Every how many prompts one is answered under each strength of steering.
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
    steered: int = 3


QUICK = Size(
    seeds=1,
    attempts=49,
    every=7,
    every_item=19,
    talks=2,
    turns=3,
    directions=1,
    defaults=12,
    bands=4,
    steered=12,
)


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
    ) -> None:
        """scorer None: replies are generated but not scored."""
        self.model, self.axis, self.size, self.seed = model, axis, size, seed
        self.attempts: list[Attempt] = load_attempts()[:: size.attempts]
        self.items: list[Item] = own_items()[:: size.every_item]
        self.scorer = scorer
        self._texts = own_texts()[:: size.every]
        self._cache = cache
        self._engine = TransformersEngine(model, axis)

    @property
    def cap(self) -> Cap:
        return make_cap(self.axis, *self.axis.cap_band, self.axis.cap_floor)

    @property
    def cap_name(self) -> str:
        first, last = self.axis.cap_band
        return f"{first}-{last} {self.axis.cap_floor}"

    def work(self, parts: Sequence[str]) -> float:
        """The most tokens that the parts can generate. Generating takes most of the time."""
        settings = len(self._bands()) * len(FLOOR_NAMES) + 1
        subset = _tokens([a.prompt(0) for a in self.subset(SWEEP_PERSONAS)])
        subset += _tokens([item.as_prompt() for item in self.items[::SUBSET]])
        costs = {
            "sweep": settings * subset,
            "susceptibility": 2 * self.size.seeds * _tokens([a.prompt(0) for a in self.attempts]),
            "capability": 2 * _tokens([item.as_prompt() for item in self.items]),
            "drift": 4 * self.size.talks * self.size.turns * 2 * TALK_TOKENS,
            "controls": (self.size.directions + 2) * subset,
            "steering": self._steering_work(),
        }
        return sum(costs[part] for part in parts)

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
            replies = self._answer_attempts(f"{key}/{self.cap_name}", self._engine, tried, caps, number)
            for name in caps:
                found[name].append(replies[name])
        return found

    def _answer_attempts(
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
        for index, batch in enumerate(batches(prompts, len(caps))):
            tried = ordered[start : start + len(batch)]
            start += len(batch)

            def measure(batch: Sequence[Prompt] = batch) -> dict[str, Any]:
                answers = answer(engine, batch, caps)
                return {name: [_as_json(one) for one in answers[name]] for name in caps}

            stored = self._cache.get(f"{key}/{number}/{index}", len(caps) * _tokens(batch), measure)
            for name in caps:
                replies = self._scored(f"{key}/{number}/{index}/{name}", tried, stored[name])
                found[name] |= {one.id: reply for one, reply in zip(tried, replies, strict=True)}
        return {name: [found[name][attempt.id] for attempt in attempts] for name in caps}

    def _scored(
        self, key: str, attempts: Sequence[Attempt], replies: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """The replies with their scores, and with each kind that the scorer counts them as."""
        scorer = self.scorer
        if scorer is None:
            return replies
        texts = [reply["text"] for reply in replies]
        scores = self._cache.get(f"{key}/{scorer.key}", 0, lambda: scorer.scores(attempts, texts))
        return [
            {**reply, "score": round(score, 4)}
            | {kind: score >= threshold for kind, threshold in scorer.thresholds.items()}
            for reply, score in zip(replies, scores, strict=True)
        ]

    # --- capability

    def capability(self, items: Sequence[Item] | None = None, key: str = "capability") -> dict[str, Any]:
        """Answer items without and with the cap.

        Args:
            items: None for the project's own, which come with the perplexity of ordinary text.

        Returns:
            NO_CAP or WITH_CAP -> each item's answer and whether it is correct, in order;
            "perplexity none" and "perplexity cap" -> perplexity.
        """
        caps = {NO_CAP: None, WITH_CAP: self.cap}
        key = f"{key}/{self.cap_name}"
        found: dict[str, Any] = dict(self._answer_items(key, self._engine, items or self.items, caps))
        if items is None:
            for name, cap in caps.items():
                found[f"perplexity {name}"] = self._perplexity(key, self.axis, name, cap)
        return found

    def _answer_items(
        self, key: str, engine: TransformersEngine, items: Sequence[Item], caps: Mapping[str, Change]
    ) -> dict[str, list[dict[str, Any]]]:
        """The answer to every item under every cap, and whether it is correct."""
        prompts = [item.as_prompt() for item in items]
        texts = {name: list[str]() for name in caps}
        for index, batch in enumerate(batches(prompts, len(caps))):

            def measure(batch: Sequence[Prompt] = batch) -> dict[str, list[str]]:
                answers = answer(engine, batch, caps)
                return {name: [one.text for one in answers[name]] for name in caps}

            stored = self._cache.get(f"{key}/answers/{index}", len(caps) * _tokens(batch), measure)
            for name in caps:
                texts[name] += stored[name]
        return {
            name: [
                {"right": item.is_right(text), "text": text}
                for item, text in zip(items, texts[name], strict=True)
            ]
            for name in caps
        }

    def _perplexity(self, key: str, axis: AssistantAxis, name: str, cap: Change) -> float:
        return self._cache.get(
            f"{key}/perplexity/{name}", 0, lambda: perplexity(self.model, axis, cap, self._texts)
        )

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
                return measure_talks(self._engine, self.cap, scripts, self.seed, lambda turn: None)

            found[domain.title] = self._cache.get(f"drift/{self.cap_name}/{domain.id}", work, measure)
        return found

    # --- control directions

    def controls(self) -> dict[str, dict[str, Any]]:
        """Name of a direction -> a subset's attempts and items, and perplexity, under its cap."""
        replies = self._default_replies()
        directions = {"axis, floors made here": self.axis.direction, **self._other_directions()}
        attempts, items = self.subset(CONTROL_PERSONAS), self.items[::SUBSET]
        found = {}
        for name, direction in directions.items():
            other = axis_along(self.model, self.axis, direction, replies)
            cap = make_cap(other, *other.cap_band, other.cap_floor)
            engine = TransformersEngine(self.model, other, kv_budget=None, keep=False)
            key = f"controls/{self.cap_name}/{name}"
            found[name] = self._subset(key, engine, attempts, items, cap) | {
                "perplexity": self._perplexity(key, other, WITH_CAP, cap)
            }
        return found

    def _other_directions(self) -> dict[str, Tensor]:
        """Name -> [L, D]: random directions and the roles' first component, of the axis's length."""
        found = {
            f"random {number + 1}": random_direction(self.axis, self.seed + number)
            for number in range(self.size.directions)
        }
        component = first_component(self.axis)
        return found if component is None else found | {"PC1 of the roles": component}

    def _default_replies(self) -> list[Chat]:
        """Chats with the default Assistant: uncapped replies to the extraction's questions."""
        entries = read_object(ASSETS / "questions.json", "restore it from the repository")["questions"]
        texts = [entry if isinstance(entry, str) else entry["text"] for entry in entries]
        prompts = [
            Prompt(
                (Message(role="user", content=text),), Sampling(max_new_tokens=48, seed=self.seed + number)
            )
            for number, text in enumerate(texts[: self.size.defaults])
        ]
        chats: list[Chat] = []
        for index, batch in enumerate(batches(prompts, 1)):

            def measure(batch: Sequence[Prompt] = batch) -> list[str]:
                return [one.text for one in answer(self._engine, batch, {NO_CAP: None})[NO_CAP]]

            replies = self._cache.get(f"controls/default replies/{index}", 0, measure)
            chats += [
                (*prompt.messages, Message(role="assistant", content=text))
                for prompt, text in zip(batch, replies, strict=True)
                if text.strip()
            ]
        return chats

    # --- steering

    def steering(self) -> dict[str, Any]:
        """Steering at every strength and along every direction, and the cap, on the same prompts.

        Returns:
            "directions" -> their names, besides the axis; "found" -> for each `Setting.name`, and WITH_CAP, the
            replies to "attempts" and to the "identity" prompts, and the "perplexity" of ordinary text.
        """
        vectors, layer = self._other_directions(), self.axis.probe_layer
        others = {name: as_direction(name, vector, self.axis) for name, vector in vectors.items()}
        engine = TransformersEngine(self.model, self.axis, kv_budget=None, keep=False, directions=others)
        attempts, prompts = self._steered_prompts()
        found: dict[str, Any] = {}
        for setting in settings(tuple(vectors)):
            axis = self.axis
            if setting.direction in vectors:
                axis = replace(axis, direction=vectors[setting.direction])
            found[setting.name] = self._steered(engine, setting.name, setting.steer(layer), axis)
        found[WITH_CAP] = self._steered(engine, f"{WITH_CAP} {self.cap_name}", self.cap, self.axis)
        return {"directions": list(vectors), "found": found}

    def _steered(
        self, engine: TransformersEngine, name: str, change: Change, along: AssistantAxis
    ) -> dict[str, Any]:
        """The replies under one setting, and the perplexity. along: the axis with the direction's vectors."""
        attempts, prompts = self._steered_prompts()
        key = f"steering/{name}"
        replies = []
        for index, batch in enumerate(batches(prompts, 1)):

            def measure(batch: Sequence[Prompt] = batch) -> list[str]:
                return [one.text for one in answer(engine, batch, {name: change})[name]]

            replies += self._cache.get(f"{key}/identity/{index}", _tokens(batch), measure)
        unnamed = (
            None if change is None else replace(change, direction="") if isinstance(change, Steer) else change
        )
        return {
            "attempts": self._answer_attempts(key, engine, attempts, {WITH_CAP: change}, 0)[WITH_CAP],
            "identity": replies,
            "perplexity": self._perplexity(key, along, WITH_CAP, unnamed),
        }

    def _steered_prompts(self) -> tuple[list[Attempt], list[Prompt]]:
        """Attempts on which the cap was not chosen, and questions about who the model is."""
        step = self.size.steered
        return self.subset(REPORTED_PERSONAS)[::step], identity_prompts(self.axis, self.seed)[
            :: max(1, step // 3)
        ]

    def _steering_work(self) -> float:
        attempts, prompts = self._steered_prompts()
        work = _tokens([attempt.prompt(0) for attempt in attempts]) + _tokens(prompts)
        return (len(settings(tuple(self._other_directions()))) + 1) * work

    # --- sweep

    def sweep(self) -> list[dict[str, Any]]:
        """No cap, then every band at every floor: a subset's attempts and items, and perplexity."""
        attempts, items = self.subset(SWEEP_PERSONAS), self.items[::SUBSET]
        settings: list[tuple[tuple[int, int] | None, str | None]] = [(None, None)]
        settings += [(band, floor) for band in self._bands() for floor in FLOOR_NAMES]
        found = []
        for band, floor in settings:
            cap = None if band is None or floor is None else make_cap(self.axis, *band, floor)
            key = f"sweep/{band}/{floor}"
            found.append(
                {"layers": band, "floor": floor}
                | self._subset(key, self._engine, attempts, items, cap)
                | {"perplexity": self._perplexity(key, self.axis, WITH_CAP, cap)}
            )
        return found

    def _subset(
        self,
        key: str,
        engine: TransformersEngine,
        attempts: Sequence[Attempt],
        items: Sequence[Item],
        cap: Cap | None,
    ) -> dict[str, Any]:
        """The replies to attempts and items under one cap."""
        caps = {WITH_CAP: cap}
        return {
            "attempts": self._answer_attempts(key, engine, attempts, caps, 0)[WITH_CAP],
            "items": self._answer_items(f"{key}/items", engine, items, caps)[WITH_CAP],
        }

    def _bands(self) -> list[tuple[int, int]]:
        """The wide candidate bands, a quarter of the depth; as many as the size allows."""
        wide = [
            band for band in candidate_bands(self.axis.layers) if band[1] - band[0] + 1 > self.axis.layers / 6
        ]
        return wide[:: self.size.bands]

    def subset(self, personas: Sequence[int]) -> list[Attempt]:
        """The attempts with which many caps are compared: one at each persona with these numbers.

        All attempts at them would take five times as long for every cap. One at each keeps all categories,
        which differ more than the attempts at one persona do.
        """
        return one_per_persona([attempt for attempt in self.attempts if attempt.persona in personas])


def _tokens(prompts: Sequence[Prompt]) -> int:
    return sum(prompt.most_tokens for prompt in prompts)


def _as_json(one: Answer) -> dict[str, Any]:
    projection = None if one.projection is None else round(one.projection, 4)
    before = {"before": list(one.before)} if one.before else {}
    return {"text": one.text, "acted": one.acted, "tokens": len(one.ids), "standing": projection} | before
