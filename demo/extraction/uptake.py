"""Did the model take up its role? Replies in which it did not must not count as role-play.

Words that the role's prompt brought in are far likelier under it than under no system prompt, and the same model that wrote
them can tell, with no second model and no API. score = mean over the reply's MARKED most telling tokens of log p(token |
role's prompt) - log p(token | default prompt), in nats. A role shows in a few words: over all tokens the same score agrees
less with hand labels. The threshold and its agreement with the labels in assets/uptake_labels.json come from
`python -m demo.extraction.agreement`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from demo.extraction.plan import ASSETS
from demo.extraction.reading import Text, read_texts
from demo.extraction.rollouts import Reply
from demo.jsonfile import read_object
from demo.models import LoadedModel
from demo.spans import render_chat

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
        self.threshold = uptake_threshold() if threshold is None else threshold

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
            uptake_score(reply.log_p[:JUDGED], next(default).log_p.tolist())
            if reply.tokens
            else -float("inf")
            for reply in replies
        ]


def uptake_score(own: Sequence[float], default: Sequence[float]) -> float:
    """Mean of the MARKED largest differences of two sequences of log probabilities, one value a token; -inf for none."""
    differences = sorted((a - b for a, b in zip(own, default, strict=True)), reverse=True)[:MARKED]
    return sum(differences) / len(differences) if differences else -float("inf")


class NoJudge:
    """Takes every reply for role-play."""

    name = "none"
    threshold = 0.0

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        return [1.0 if reply.tokens else -float("inf") for reply in replies]


def uptake_threshold() -> float:
    """Score from which a reply counts as role-play, as chosen on the hand-labelled rollouts."""
    file = read_object(ASSETS / "uptake_labels.json", "restore it from the repository")
    return float(file["threshold"])
