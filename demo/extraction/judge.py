"""Did the model take up its role? Replies in which it did not must not count as role-play.

Words that the role's prompt brought in are far likelier under it than under no system prompt, and the same model that wrote
them can tell, with no second model and no API. score = mean over the reply's MARKED most telling tokens of log p(token |
role's prompt) - log p(token | default prompt), in nats. A role shows in a few words: over all tokens the same score agrees
less with hand labels. The threshold and its agreement with the labels in assets/role_adherence_labels.json come from
`python -m demo.extraction.judge_agreement`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import httpx

from demo.extraction.rollouts import Reply, Text, read_texts
from demo.models.chat_template import render_chat
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.paths import ASSETS

MARKED = 5

# A longer reply's most telling tokens tell more, so all are judged on as many tokens as the labelled ones had.
JUDGED = 40


class Judge(Protocol):
    """Scores role-play; a reply counts when its score reaches `threshold`. name: for the manifest."""

    name: str
    threshold: float

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        """One score per reply, higher for more of the role. Empty replies score -inf."""
        ...


class LikelihoodJudge:
    """How much likelier the reply's most telling tokens are under its role's prompt than under none, nats, by `model`."""

    name = "likelihood"

    def __init__(self, model: LoadedModel, threshold: float | None = None) -> None:
        self._model = model
        self.threshold = role_adherence_threshold() if threshold is None else threshold

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        full = [reply for reply in replies if reply.tokens]
        texts = [
            Text(
                render_chat(self._model.tokenizer, [{"role": "user", "content": reply.rollout.text}]).ids,
                reply.tokens[:JUDGED],
            )
            for reply in full
        ]
        default = iter(read_texts(self._model, texts))
        return [
            role_adherence_score(reply.log_p[:JUDGED], next(default).log_p.tolist())
            if reply.tokens
            else -float("inf")
            for reply in replies
        ]


def role_adherence_score(own: Sequence[float], default: Sequence[float]) -> float:
    """Mean of the MARKED largest differences of two sequences of log probabilities, one value a token; -inf for none."""
    differences = sorted((a - b for a, b in zip(own, default, strict=True)), reverse=True)[:MARKED]
    return sum(differences) / len(differences) if differences else -float("inf")


class NoJudge:
    """Takes every reply for role-play."""

    name = "none"
    threshold = 0.0

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        return [1.0 if reply.tokens else -float("inf") for reply in replies]


def role_adherence_threshold() -> float:
    """Score from which a reply counts as role-play, as chosen on the hand-labelled rollouts."""
    file = read_object(ASSETS / "role_adherence_labels.json", "restore it from the repository")
    return float(file["threshold"])


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
