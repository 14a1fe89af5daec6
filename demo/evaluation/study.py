"""What is measured, and on how much: one method a part, each resumable through the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from demo.axis.axis import FLOOR_NAMES, AssistantAxis
from demo.conversation.settings import make_cap
from demo.engine.protocol import Cap, Sampling
from demo.engine.transformers_engine import TransformersEngine
from demo.evaluation.answers import Answer, Ask, Ledger, answer, chunks
from demo.evaluation.attempts import Attempt, load_attempts
from demo.evaluation.capability import Item, own_items, perplexity
from demo.evaluation.directions import Chat, along, first_component, random_direction
from demo.evaluation.drift import TOKENS as TALK_TOKENS
from demo.evaluation.drift import load_domains, measure_talks
from demo.evaluation.scoring import Scorer
from demo.extraction.sweep import candidate_bands
from demo.models.chat_template import Message
from demo.models.loading import LoadedModel
from demo.utils.json_files import read_object
from demo.utils.paths import ASSETS

PARTS = ("sweep", "susceptibility", "capability", "drift", "controls")

# Personas that the sweep chooses the cap on, those the controls are tried on; the headline is given with and without the first.
SWEEP_PERSONAS, CONTROL_PERSONAS = (0, 1), (2, 3)

SUBSET = 4  # one item in so many, for both

NONE, CAPPED = "none", "cap"


@dataclass(frozen=True)
class Size:
    """seeds of each attempt; every: of attempts and items, one in so many is used; talks a domain and turns a talk; random
    directions; default replies that give a control direction its floors; bands of the sweep, one in so many."""

    seeds: int = 2
    every: int = 1
    talks: int = 20
    turns: int = 8
    directions: int = 3
    defaults: int = 60
    bands: int = 1


QUICK = Size(seeds=1, every=7, talks=2, turns=3, directions=1, defaults=12, bands=4)


class Study:
    """Runs the parts on one model and axis."""

    def __init__(
        self,
        model: LoadedModel,
        axis: AssistantAxis,
        size: Size,
        seed: int,
        ledger: Ledger,
        scorer: Scorer | None = None,
    ) -> None:
        """scorer None: replies are gathered and not judged."""
        self.model, self.axis, self.size, self.seed = model, axis, size, seed
        self.attempts: list[Attempt] = load_attempts()[:: size.every]
        self.items: list[Item] = own_items()[:: size.every]
        self.scorer = scorer
        self._ledger = ledger
        self._engine = TransformersEngine(model, axis)

    @property
    def cap(self) -> Cap:
        return make_cap(self.axis, *self.axis.cap_band, self.axis.cap_floor)

    @property
    def cap_name(self) -> str:
        first, last = self.axis.cap_band
        return f"{first}-{last} {self.axis.cap_floor}"

    def work(self, parts: Sequence[str]) -> float:
        """Tokens to be written in all, which is what takes the time."""
        sweep = len(self._bands()) * len(FLOOR_NAMES) + 1
        tried, asked = self._chosen(SWEEP_PERSONAS), self.items[::SUBSET]
        subset = _tokens([a.ask(0) for a in tried]) + _tokens([i.ask() for i in asked])
        costs = {
            "sweep": sweep * subset,
            "susceptibility": 2 * self.size.seeds * _tokens([a.ask(0) for a in self.attempts]),
            "capability": 2 * _tokens([i.ask() for i in self.items]),
            "drift": 4 * self.size.talks * self.size.turns * 2 * TALK_TOKENS,
            "controls": (self.size.directions + 2) * subset,
        }
        return sum(costs[part] for part in parts)

    # --- persona susceptibility

    def susceptibility(self) -> dict[str, list[list[dict[str, Any]]]]:
        """Per setting and seed: what each attempt got, in the order of `attempts`."""
        caps = {NONE: None, CAPPED: self.cap}
        found: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in caps}
        for number in range(self.size.seeds):
            part = self._attempt(f"susceptibility/{self.cap_name}", self._engine, self.attempts, caps, number)
            for name in caps:
                found[name].append(part[name])
        return found

    def _attempt(
        self,
        key: str,
        engine: TransformersEngine,
        attempts: Sequence[Attempt],
        caps: Mapping[str, Cap | None],
        number: int,
    ) -> dict[str, list[dict[str, Any]]]:
        """Every attempt under every cap; seeds differ from attempt to attempt and are the same for all caps."""
        order = {attempt.id: place for place, attempt in enumerate(self.attempts)}
        asks = [a.ask(self.seed + 10_000 * number + order[a.id]) for a in attempts]
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in caps}
        start = 0
        for index, part in enumerate(chunks(asks, len(caps))):
            tried = attempts[start : start + len(part)]
            start += len(part)

            def measure(part: Sequence[Ask] = part) -> dict[str, Any]:
                answers = answer(engine, part, caps)
                return {name: [_kept(one) for one in answers[name]] for name in caps}

            stored = self._ledger.get(f"{key}/{number}/{index}", len(caps) * _tokens(part), measure)
            for name in caps:
                found[name] += self._scored(f"{key}/{number}/{index}/{name}", tried, stored[name])
        return found

    def _scored(
        self, key: str, tried: Sequence[Attempt], replies: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """The replies with what the scorer says of them."""
        scorer = self.scorer
        if scorer is None:
            return replies
        texts = [reply["text"] for reply in replies]
        scores = self._ledger.get(f"{key}/{scorer.name}", 0, lambda: scorer.scores(tried, texts))
        return [
            {**reply, "score": round(score, 4)}
            | {kind: score >= cut for kind, cut in scorer.thresholds.items()}
            for reply, score in zip(replies, scores, strict=True)
        ]

    # --- capability

    def capability(self, items: Sequence[Item] | None = None, key: str = "capability") -> dict[str, Any]:
        """Per setting: each item's answer and whether it is right, in order; perplexity of ordinary text for our own items."""
        caps = {NONE: None, CAPPED: self.cap}
        key = f"{key}/{self.cap_name}"
        found: dict[str, Any] = dict(self._ask(key, self._engine, items or self.items, caps))
        if items is None:
            for name, cap in caps.items():
                found[f"perplexity {name}"] = self._perplexity(key, self.axis, name, cap)
        return found

    def _ask(
        self, key: str, engine: TransformersEngine, items: Sequence[Item], caps: Mapping[str, Cap | None]
    ) -> dict[str, list[dict[str, Any]]]:
        """Every item under every cap: the answer's text, and whether it is right."""
        asks, found = [item.ask() for item in items], {name: list[str]() for name in caps}
        for index, part in enumerate(chunks(asks, len(caps))):

            def measure(part: Sequence[Ask] = part) -> dict[str, list[str]]:
                answers = answer(engine, part, caps)
                return {name: [one.text for one in answers[name]] for name in caps}

            stored = self._ledger.get(f"{key}/answers/{index}", len(caps) * _tokens(part), measure)
            for name in caps:
                found[name] += stored[name]
        return {
            name: [
                {"right": item.right(text), "text": text}
                for item, text in zip(items, found[name], strict=True)
            ]
            for name in caps
        }

    def _perplexity(self, key: str, axis: AssistantAxis, name: str, cap: Cap | None) -> float:
        return self._ledger.get(
            f"{key}/perplexity/{name}", 0, lambda: perplexity(self.model, axis, cap, self.size.every)
        )

    # --- drift

    def drift(self) -> dict[str, Any]:
        """Per domain: projections per talk and turn."""
        rows = {}
        for domain in load_domains():
            scripts = [
                replace(s, turns=s.turns[: self.size.turns]) for s in domain.scripts[: self.size.talks]
            ]
            work = len(scripts) * self.size.turns * 2 * TALK_TOKENS

            def measure(scripts: Sequence[Any] = scripts) -> dict[str, Any]:
                return measure_talks(self._engine, self.cap, scripts, self.seed, lambda turn: None)

            rows[domain.title] = self._ledger.get(f"drift/{self.cap_name}/{domain.id}", work, measure)
        return rows

    # --- control directions

    def controls(self) -> dict[str, dict[str, Any]]:
        """The cap along other directions: per direction, attempts and items of a subset, and perplexity."""
        replies = self._default_replies()
        directions = {"axis, floors made here": self.axis.direction}
        for number in range(self.size.directions):
            directions[f"random {number + 1}"] = random_direction(self.axis, self.seed + number)
        component = first_component(self.axis)
        if component is not None:
            directions["PC1 of the roles"] = component
        tried, asked = self._chosen(CONTROL_PERSONAS), self.items[::SUBSET]
        found = {}
        for name, direction in directions.items():
            other = along(self.model, self.axis, direction, replies)
            caps: dict[str, Cap | None] = {CAPPED: make_cap(other, *other.cap_band, other.cap_floor)}
            engine = TransformersEngine(self.model, other, kv_budget=None, keep=False)
            found[name] = {
                "attempts": self._attempt(f"controls/{self.cap_name}/{name}", engine, tried, caps, 0)[CAPPED],
                "items": self._ask(f"controls/{self.cap_name}/{name}/items", engine, asked, caps)[CAPPED],
                "perplexity": self._perplexity(
                    f"controls/{self.cap_name}/{name}", other, CAPPED, caps[CAPPED]
                ),
            }
        return found

    def _default_replies(self) -> list[Chat]:
        """Finished chats of the default Assistant: plain replies to the extraction's questions."""
        asked = read_object(ASSETS / "questions.json", "restore it from the repository")["questions"]
        texts = [question if isinstance(question, str) else question["text"] for question in asked]
        asks = [
            Ask((Message(role="user", content=text),), Sampling(max_new_tokens=48, seed=self.seed + number))
            for number, text in enumerate(texts[: self.size.defaults])
        ]
        chats: list[Chat] = []
        for index, part in enumerate(chunks(asks, 1)):

            def measure(part: Sequence[Ask] = part) -> list[str]:
                return [one.text for one in answer(self._engine, part, {NONE: None})[NONE]]

            said = self._ledger.get(f"controls/default replies/{index}", 0, measure)
            chats += [
                (*ask.messages, Message(role="assistant", content=text))
                for ask, text in zip(part, said, strict=True)
                if text.strip()
            ]
        return chats

    # --- sweep

    def sweep(self) -> list[dict[str, Any]]:
        """Every band at every floor, and no cap first: attempts and items of a subset, and perplexity."""
        tried, asked = self._chosen(SWEEP_PERSONAS), self.items[::SUBSET]
        settings: list[tuple[tuple[int, int] | None, str | None]] = [(None, None)]
        settings += [(band, floor) for band in self._bands() for floor in FLOOR_NAMES]
        found = []
        for band, floor in settings:
            cap = None if band is None or floor is None else make_cap(self.axis, *band, floor)
            key = f"sweep/{band}/{floor}"
            found.append(
                {
                    "layers": band,
                    "floor": floor,
                    "attempts": self._attempt(key, self._engine, tried, {CAPPED: cap}, 0)[CAPPED],
                    "items": self._ask(f"{key}/items", self._engine, asked, {CAPPED: cap})[CAPPED],
                    "perplexity": self._perplexity(key, self.axis, CAPPED, cap),
                }
            )
        return found

    def _bands(self) -> list[tuple[int, int]]:
        """Of the paper's wider kind, a quarter of the depth, one in so many."""
        wide = [
            band for band in candidate_bands(self.axis.layers) if band[1] - band[0] + 1 > self.axis.layers / 6
        ]
        return wide[:: self.size.bands]

    def _chosen(self, personas: Sequence[int]) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.persona in personas]


def _tokens(asks: Sequence[Ask]) -> int:
    return sum(ask.sampling.max_new_tokens for ask in asks)


def _kept(one: Answer) -> dict[str, Any]:
    standing = None if one.standing is None else round(one.standing, 4)
    return {"text": one.text, "acted": one.acted, "tokens": len(one.ids), "standing": standing}
