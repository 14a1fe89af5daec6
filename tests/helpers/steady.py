"""An engine that generates at a steady rate, so that a test measures the page and not the model."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping

from demo.conversation.settings import CAPPED
from demo.engine.protocol import Load, PromptEvent, Token, TokenEvent

WORDS = (
    "the", "sea", "is", "wide", "and", "blue", "and", "I", "would", "sail", "it", "with", "you", "tonight",
    ",", "my", "friend", ".", "Storms", "come", "and", "go",
)  # fmt: skip


class SteadyEngine:
    """Generates `rate` tokens per second in every branch; the cap corrects every third capped token."""

    def __init__(self, rate: float, thoughts: Mapping[str, int] | None = None) -> None:
        """thoughts: number of tokens of reasoning by branch, before answers to requests that ask for it."""
        self.pause, self._thoughts = 1 / rate, thoughts or {}

    def stream(self, requests, cancel=None):
        rng = random.Random(0)
        for request in requests:
            yield PromptEvent(request.branch, 10, 0, 0.25)
        limit = requests[0].sampling.max_new_tokens
        for number in range(limit):
            time.sleep(self.pause)
            for request in requests:
                capped = request.branch.endswith(f"/{CAPPED}") and number % 3 == 0
                reasons = number < self._thoughts.get(request.branch.rpartition("/")[2], 0)
                reasons = reasons and request.thinking
                yield self._token(rng, request.branch, number, capped, number + 1 == limit, reasons)

    def _token(
        self, rng: random.Random, branch: str, number: int, capped: bool, last: bool, reasons: bool
    ) -> TokenEvent:
        before = rng.gauss(-0.4 if reasons else 0.2, 0.4)
        corrections = [abs(rng.gauss(0, 0.2)) if capped else 0.0 for _ in range(8)]
        return TokenEvent(
            branch,
            number,
            Token(
                f" {rng.choice(WORDS)}",
                before,
                before + sum(corrections) / 8,
                tuple(corrections),
                False,
                (before, rng.gauss(0, 1), 0.0),
                rng.random(),
                reasoning=reasons,
            ),
            10 + number,
            "length" if last else None,
        )

    def read(self, request, cancel=None):
        return iter(())

    @property
    def load(self) -> Load:
        return Load(2, 0, 0, 2**30)

    def forget(self, branches) -> None: ...
