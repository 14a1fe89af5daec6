"""python -m demo.extraction.judge_agreement: compare the role adherence score with hand labels.

The command prints how well both agree and chooses the score's threshold. The labels are in
assets/role_adherence_labels.json. Each rollout has two, from two readers who saw neither the score
nor each other's labels: 0, the reply could be the default Assistant's; 1, some of the role shows in
voice, situation or content; 2, the reply is wholly in the role. A rollout counts as role-play when
its labels add up to 2 or more. The threshold is chosen on every other rollout and tested on the
rest.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo.engine.protocol import Sampling
from demo.extraction.judge import JUDGED, LikelihoodJudge
from demo.extraction.plan import PRESETS, make_plan
from demo.extraction.rollouts import RolloutGenerator
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import load_model
from demo.utils.cli import command
from demo.utils.json_files import read_object
from demo.utils.paths import ASSETS
from demo.utils.statistics import auc, cohen_kappa

LABELS = ASSETS / "role_adherence_labels.json"


@command
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.extraction.judge_agreement", description=__doc__)
    parser.add_argument("--write", action="store_true", help="store the threshold beside the labels")
    parser.add_argument(
        "--sample", type=int, metavar="N", help="only write N new rollouts, to be labelled by hand"
    )
    parser.add_argument("--out", type=Path, default=LABELS, help="file for --sample")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="model for --sample")
    parser.add_argument("--json", type=Path, help="also write the figures as JSON")
    options = parser.parse_args(arguments)
    if options.sample:
        _write(options.out, {"format": 1, "rollouts": sample(options.model, options.sample)})
        return
    file = read_object(LABELS, "restore it from the repository")
    figures = agreement(file["rollouts"])
    for name, value in figures.items():
        print(f"{name:28} {value:g}")
    if options.write:
        _write(LABELS, file | {"threshold": figures["threshold"]})
    if options.json:
        _write(options.json, figures)


def agreement(rollouts: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Compare scores with hand labels.

    Returns:
        The share of rollouts that count as role-play by hand, the readers' kappa and the AUC, over
        all rollouts; the threshold, chosen on one half of them; and accuracy, Cohen's kappa,
        precision and recall on the other half.
    """
    choosing, testing = rollouts[::2], rollouts[1::2]
    # To three digits, so that the stored number is the tested one.
    threshold = round(best_threshold(choosing), 3)
    predicted = [one["score"] >= threshold for one in testing]
    actual = [is_role_play(one) for one in testing]
    hits = sum(guess and truth for guess, truth in zip(predicted, actual, strict=True))
    played, ignored = _scores_by_label(rollouts)
    return {
        "labelled": len(rollouts),
        "role-play by hand": len(played) / len(rollouts),
        "threshold": threshold,
        "tested on": len(testing),
        "agreement": sum(guess == truth for guess, truth in zip(predicted, actual, strict=True))
        / len(testing),
        "kappa": cohen_kappa(predicted, actual),
        "kappa between readers": cohen_kappa(
            *([one["labels"][reader] >= 1 for one in rollouts] for reader in (0, 1))
        ),
        "precision": hits / max(1, sum(predicted)),
        "recall": hits / max(1, sum(actual)),
        "auc": auc(played, ignored),
    }


def best_threshold(rollouts: Sequence[dict[str, Any]]) -> float:
    """The cut, midway between neighbouring scores, with the highest balanced accuracy.

    Balanced accuracy gives both classes the same weight, whatever their sizes.
    """
    scores = sorted(one["score"] for one in rollouts)
    cuts = [(low + high) / 2 for low, high in itertools.pairwise(scores)]
    played, ignored = _scores_by_label(rollouts)

    def accuracy(cut: float) -> float:
        return sum(s >= cut for s in played) / len(played) + sum(s < cut for s in ignored) / len(ignored)

    return max(cuts, key=accuracy)


def is_role_play(rollout: dict[str, Any]) -> bool:
    """Whether the hand labels count the rollout as role-play."""
    return sum(rollout["labels"]) >= 2


def _scores_by_label(rollouts: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """The scores of role-play and of the other rollouts, by hand label."""
    played = [one["score"] for one in rollouts if is_role_play(one)]
    return played, [one["score"] for one in rollouts if not is_role_play(one)]


def sample(spec: str, count: int, seed: int = 0, batch: int = 50) -> list[dict[str, Any]]:
    """Generate and score a random sample of the standard preset's rollouts, with empty labels."""
    model = load_model(spec)
    plan = make_plan(model.slug.split("-")[0], PRESETS["standard"])
    roles = [rollout for rollout in plan.rollouts if rollout.is_role]
    chosen = random.Random(seed).sample(roles, count)
    judge, generator = LikelihoodJudge(model, threshold=0.0), RolloutGenerator(model)
    records = []
    for start in range(0, count, batch):
        replies = generator.generate(chosen[start : start + batch], Sampling(0.7, 0.9, JUDGED, 0, 1.0))
        for reply, score in zip(replies, judge.scores(replies), strict=True):
            if reply.tokens:
                records.append(
                    {
                        "role": reply.rollout.group,
                        "system": reply.rollout.system,
                        "question": reply.rollout.text,
                        "reply": reply.text,
                        "score": round(score, 4),
                        "labels": [],
                    }
                )
    return records


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
