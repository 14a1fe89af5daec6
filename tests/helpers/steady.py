"""An engine that speaks at a steady rate, so that a test sees the page and not the model."""

from __future__ import annotations

import random
import time

from demo.conversation.settings import CAPPED
from demo.engine.protocol import Load, PromptEvent, TokenEvent

WORDS = [
    "the",
    "sea",
    "is",
    "wide",
    "and",
    "blue",
    "and",
    "I",
    "would",
    "sail",
    "it",
    "with",
    "you",
    "tonight",
    ",",
    "my",
    "friend",
    ".",
    "Storms",
    "come",
    "and",
    "go",
]


class SteadyEngine:
    """Speaks `rate` tokens a second in every row, up to the limit; the cap acts on a third of the capped ones."""

    def __init__(self, rate: float) -> None:
        self.pause = 1 / rate

    def stream(self, requests, cancel=None):
        chance = random.Random(0)
        for request in requests:
            yield PromptEvent(request.branch, 10, 0, 0.25)
        for number in range(requests[0].sampling.max_new_tokens):
            time.sleep(self.pause)
            for request in requests:
                before = chance.gauss(0.2, 0.4)
                lifts = [0.0] * 8
                if request.branch.endswith(f"/{CAPPED}") and number % 3 == 0:
                    lifts = [abs(chance.gauss(0, 0.2)) for _ in lifts]
                last = number + 1 == requests[0].sampling.max_new_tokens
                place = (before, chance.gauss(0, 1), 0.0)
                yield TokenEvent(request.branch, number, f" {chance.choice(WORDS)}", before, before + sum(lifts) / 8, tuple(lifts),
                                 10 + number, False, "length" if last else None, place, chance.random())  # fmt: skip

    def read(self, request, cancel=None):
        return iter(())

    @property
    def load(self) -> Load:
        return Load(2, 0, 0, 2**30)

    def forget(self, branches) -> None: ...
