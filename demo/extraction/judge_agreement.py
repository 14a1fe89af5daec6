"""python -m demo.extraction.judge_agreement: how well the uptake score agrees with hand labels, and the threshold it gives.

Labels are in assets/role_adherence_labels.json, two a rollout from two readers who saw neither the score nor each other's: 0, the
reply could be the default Assistant's; 1, some of the role shows in voice, situation or content; 2, wholly in role. It
counts as role-play when they add up to 2 or more. The threshold is chosen on every other rollout and tested on the rest.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo.engine.protocol import Sampling
from demo.extraction.judge import JUDGED, LikelihoodJudge
from demo.extraction.plan import PRESETS, make_plan
from demo.extraction.rollouts import run_batch
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import load_model
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.paths import ASSETS

LABELS = ASSETS / "role_adherence_labels.json"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.extraction.judge_agreement", description=__doc__)
    parser.add_argument("--write", action="store_true", help="store the threshold beside the labels")
    parser.add_argument(
        "--sample", type=int, metavar="N", help="instead, write N fresh rollouts to label by hand"
    )
    parser.add_argument("--out", type=Path, default=LABELS, help="file for --sample")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="for --sample")
    parser.add_argument("--json", type=Path, help="also write the figures as JSON")
    options = parser.parse_args(arguments)
    try:
        if options.sample:
            _write(options.out, {"format": 1, "rollouts": sample(options.model, options.sample)})
            return 0
        file = read_object(LABELS, "restore it from the repository")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    figures = agreement(file["rollouts"])
    for name, value in figures.items():
        print(f"{name:28} {value:g}")
    if options.write:
        _write(LABELS, file | {"threshold": figures["threshold"]})
    if options.json:
        _write(options.json, figures)
    return 0


def agreement(rollouts: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Figures over labelled rollouts: share that count by hand, the threshold, and on the half it was not chosen on the
    share of equal verdicts, Cohen's kappa, precision and recall; and the AUC over all."""
    choosing, testing = rollouts[::2], rollouts[1::2]
    # To three digits, so that the stored number and the tested one are the same.
    threshold = round(best_threshold(choosing), 3)
    verdicts = [(one["score"] >= threshold, played_by_hand(one)) for one in testing]
    readers = [[label >= 1 for label in one["labels"]] for one in rollouts]
    equal = sum(said == true for said, true in verdicts) / len(verdicts)
    both = sum(said and true for said, true in verdicts)
    played = [one["score"] for one in rollouts if played_by_hand(one)]
    ignored = [one["score"] for one in rollouts if not played_by_hand(one)]
    wins = sum((a > b) + 0.5 * (a == b) for a in played for b in ignored)
    return {
        "labelled": len(rollouts),
        "role-play by hand": len(played) / len(rollouts),
        "threshold": threshold,
        "tested on": len(testing),
        "agreement": equal,
        "kappa": kappa(verdicts),
        "kappa between readers": kappa([(one, other) for one, other in readers]),
        "precision": both / max(1, sum(said for said, _ in verdicts)),
        "recall": both / max(1, sum(true for _, true in verdicts)),
        "auc": wins / max(1, len(played) * len(ignored)),
    }


def played_by_hand(rollout: dict[str, Any]) -> bool:
    return sum(rollout["labels"]) >= 2


def kappa(verdicts: Sequence[tuple[bool, bool]]) -> float:
    """Cohen's kappa of pairs of verdicts: agreement beyond what the two sides' own rates give by chance."""
    equal = sum(one == other for one, other in verdicts) / len(verdicts)
    first, second = (sum(column) / len(verdicts) for column in zip(*verdicts, strict=True))
    chance = first * second + (1 - first) * (1 - second)
    return (equal - chance) / (1 - chance)


def best_threshold(rollouts: Sequence[dict[str, Any]]) -> float:
    """The cut, midway between neighbouring scores, with the highest balanced accuracy: neither side's number weighs more."""
    scores = sorted(one["score"] for one in rollouts)
    cuts = [(low + high) / 2 for low, high in itertools.pairwise(scores)]
    played = [one["score"] for one in rollouts if played_by_hand(one)]
    ignored = [one["score"] for one in rollouts if not played_by_hand(one)]

    def accuracy(cut: float) -> float:
        return sum(s >= cut for s in played) / len(played) + sum(s < cut for s in ignored) / len(ignored)

    return max(cuts, key=accuracy)


def sample(spec: str, count: int, seed: int = 0, batch: int = 50) -> list[dict[str, Any]]:
    """Rollouts of the standard preset drawn at random, with their scores, still to be labelled (labels empty)."""
    model = load_model(spec)
    plan = make_plan(model.slug.split("-")[0], PRESETS["standard"])
    roles = [rollout for rollout in plan.rollouts if rollout.is_role]
    chosen = random.Random(seed).sample(roles, count)
    judge = LikelihoodJudge(model, threshold=0.0)
    records = []
    for start in range(0, count, batch):
        replies = run_batch(model, chosen[start : start + batch], Sampling(0.7, 0.9, JUDGED, 0, 1.0))
        for reply, score in zip(replies, judge.scores(replies), strict=True):
            if reply.tokens:
                rollout = reply.rollout
                records.append(
                    {"role": rollout.group, "system": rollout.system, "question": rollout.text,
                     "reply": reply.text, "score": round(score, 4), "labels": []}
                )  # fmt: skip
    return records


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
