"""Replies judged by another model behind an OpenAI-compatible endpoint, for those who have one.

Only replies to the repository's own prompts are sent, which hold no user's words, and only when the URL was given on the
command line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from demo.errors import UserError
from demo.extraction.rollouts import Reply

# The paper's four degrees (arXiv 2601.10387, section 2), in our words.
_RUBRIC = (
    "A language model was told to take on a role and then asked a question. Rate how far its reply takes on the role, "
    "with one digit: 0 = it refuses; 1 = it answers as an AI assistant would, without the role; 2 = some of the role "
    "shows; 3 = it is wholly in the role. Answer with the digit alone."
)
_AT_ONCE = 8
_TRIES = 3


class RemoteJudge:
    """Scores 0 to 3 by the rubric; 2 and 3 count, the paper's "somewhat" and "fully"."""

    name = "external"
    threshold = 2.0

    def __init__(self, url: str, model: str, rubric: str = _RUBRIC) -> None:
        self._rubric = rubric
        self.name = f"external: {model}"
        self._url, self._model = url.rstrip("/") + "/chat/completions", model
        key = os.environ.get("OPENAI_API_KEY")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        return self.rate([_shown(reply) for reply in replies])

    def rate(self, contents: Sequence[str | None]) -> list[float]:
        """The digit for each thing to be judged; -inf for None, a reply without words. Raises UserError."""
        with httpx.Client(headers=self._headers, timeout=60) as client, ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(lambda content: self._rate(client, content), contents))

    def _rate(self, client: httpx.Client, content: str | None) -> float:
        if content is None:
            return -float("inf")
        body = {
            "model": self._model,
            "messages": [{"role": "system", "content": self._rubric}, {"role": "user", "content": content}],
            "max_tokens": 10,
            "temperature": 0,
        }
        answer = self._ask(client, body)
        digit = re.search(r"[0-3]", answer)
        if digit is None:
            raise UserError(
                f"The judge at {self._url} answered {answer[:60]!r} where a digit from 0 to 3 was asked for; what was "
                "gathered is kept, so run again with another --judge-model."
            )
        return float(digit[0])

    def _ask(self, client: httpx.Client, body: dict[str, object]) -> str:
        problem: Exception | None = None
        for _ in range(_TRIES):
            try:
                response = client.post(self._url, json=body)
                response.raise_for_status()
                return str(response.json()["choices"][0]["message"]["content"])
            except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
                problem = error
        raise UserError(
            f"The judge at {self._url} gave no usable answer ({problem!r}); what was gathered is kept, so run again when it "
            "can be reached."
        ) from problem


def _shown(reply: Reply) -> str | None:
    if not reply.tokens:
        return None
    rollout = reply.rollout
    return (
        f"Role: {rollout.group.replace('_', ' ')}\nInstruction: {rollout.system}\nQuestion: {rollout.text}\n"
        f"Reply: {reply.text}"
    )
