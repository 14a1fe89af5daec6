"""Decide whether a reply adheres to its role.

Replies that ignore the role must not count as role-play. The default judge needs no second model
and no API. Words that the role's prompt brought into a reply are far more likely under that prompt
than under no system prompt, and the model that wrote them can measure this itself. The score is the
mean, over the MARKED tokens of the reply with the largest difference, of

    log p(token | role's prompt) - log p(token | no system prompt), in nats.

A role shows in a few words: the mean over all tokens agrees less well with hand labels. The
threshold is stored with the labels in assets/role_adherence_labels.json. The command
`python -m demo.extraction.judge_agreement` chooses it and measures how well the score agrees with
the labels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import httpx

from demo.extraction.reading import Reader
from demo.extraction.rollouts import Reply, Text
from demo.models.chat_template import render_chat
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.paths import ASSETS

MARKED = 5

# Only the first tokens of a reply are judged, as many as the labelled replies had: the largest
# differences of a longer reply are larger.
JUDGED = 40

_EMPTY = -float("inf")  # the score of a reply without tokens


class Judge(Protocol):
    """Scores role adherence.

    Attributes:
        name: The judge's name in the manifest.
        threshold: A reply counts as role-play when its score is at least this.
    """

    name: str
    threshold: float

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        """One score per reply, higher for more of the role. An empty reply scores -inf."""
        ...


class LikelihoodJudge:
    """Scores replies by how much likelier their words are under the role's prompt, in nats."""

    name = "likelihood"

    def __init__(self, model: LoadedModel, threshold: float | None = None) -> None:
        """threshold None: the stored one."""
        self._model = model
        self._reader = Reader(model, recurring=True)
        self.threshold = role_adherence_threshold() if threshold is None else threshold

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        texts = [
            Text(
                render_chat(self._model.tokenizer, [{"role": "user", "content": reply.rollout.text}]).ids,
                reply.tokens[:JUDGED],
            )
            for reply in replies
            if reply.tokens
        ]
        default = iter(self._reader.read(texts))
        return [
            role_adherence_score(reply.log_p[:JUDGED], next(default).log_p.tolist())
            if reply.tokens
            else _EMPTY
            for reply in replies
        ]


def role_adherence_score(own: Sequence[float], default: Sequence[float]) -> float:
    """The mean of the MARKED largest differences between two sequences of log probabilities.

    Args:
        own: One value per token of the reply, under the role's prompt.
        default: The same tokens under no system prompt.

    Returns:
        The score in nats, -inf for a reply without tokens.
    """
    differences = sorted((a - b for a, b in zip(own, default, strict=True)), reverse=True)[:MARKED]
    return sum(differences) / len(differences) if differences else _EMPTY


def role_adherence_threshold() -> float:
    """The score from which a reply counts as role-play, chosen on hand-labelled rollouts."""
    file = read_object(ASSETS / "role_adherence_labels.json", "restore it from the repository")
    return float(file["threshold"])


class NoJudge:
    """Counts every reply that is not empty as role-play."""

    name = "none"
    threshold = 0.0

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        return [1.0 if reply.tokens else _EMPTY for reply in replies]


# The paper's four degrees (arXiv 2601.10387, section 2), in our own words.
_RUBRIC = (
    "A language model was told to take on a role and then asked a question. Rate how far its reply "
    "takes on the role, with one digit: 0 = it refuses; 1 = it answers as an AI assistant would, "
    "without the role; 2 = some of the role shows; 3 = it is wholly in the role. Answer with the digit "
    "alone."
)

_CONCURRENT_REQUESTS = 8

_TRIES = 3


class RemoteJudge:
    """Asks an OpenAI-compatible endpoint for a score from 0 to 3 by a rubric.

    Scores of 2 and 3, the paper's "somewhat" and "fully", count as role-play. The API key, if any,
    is read from OPENAI_API_KEY.
    """

    threshold = 2.0

    def __init__(self, url: str, model: str, rubric: str = _RUBRIC) -> None:
        self.name = f"external: {model}"
        self._rubric = rubric
        self._url, self._model = url.rstrip("/") + "/chat/completions", model
        key = os.environ.get("OPENAI_API_KEY")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        return self.rate([_described(reply) for reply in replies])

    def rate(self, contents: Sequence[str | None]) -> list[float]:
        """The digit for each content to be judged; -inf for None, which stands for an empty reply.

        Raises:
            UserError: The endpoint cannot be reached or its answer holds no digit.
        """
        with (
            httpx.Client(headers=self._headers, timeout=60) as client,
            ThreadPoolExecutor(_CONCURRENT_REQUESTS) as pool,
        ):
            return list(pool.map(lambda content: self._rate(client, content), contents))

    def _rate(self, client: httpx.Client, content: str | None) -> float:
        if content is None:
            return _EMPTY
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
                f"The judge at {self._url} answered {answer[:60]!r} instead of a digit from 0 to 3; "
                "finished work is saved, so run the command again with another --judge-model."
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
            f"The judge at {self._url} gave no usable answer ({problem!r}); finished work is saved, "
            "so run the command again when the endpoint can be reached."
        ) from problem


def _described(reply: Reply) -> str | None:
    """What the remote judge is shown; None for an empty reply."""
    if not reply.tokens:
        return None
    rollout = reply.rollout
    return (
        f"Role: {rollout.group.replace('_', ' ')}\nInstruction: {rollout.system}\n"
        f"Question: {rollout.text}\nReply: {reply.text}"
    )
