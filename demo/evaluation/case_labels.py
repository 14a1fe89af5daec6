"""python -m demo.evaluation.case_labels: compare the case studies' built-in score with labels.

The labels are in assets/evaluation/case_labels.json. The replies are those of the default model to all turns,
uncapped and capped by the shipped axis, from seeds that no report uses. They were drawn at random, and read
in random order by the rubric of assets/evaluation/case_studies.json, without the score and without knowing
whether the cap was on. Words and thresholds were chosen on the set "chosen on". The set "tested on" was drawn
and labelled afterwards, and the agreement is measured on it.

The branch of each reply was added when all had been labelled. So the labels also tell, without any score,
what the cap does.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo.axis.files import load_axis
from demo.conversation.settings import BRANCHES, own_cap
from demo.engine.transformers_engine import TransformersEngine
from demo.evaluation.agreement import agreement
from demo.evaluation.case_scoring import (
    CASE_KINDS,
    CASE_LABELS,
    labelled_entries,
    labelled_prompts,
    load_cases,
    support_scores,
)
from demo.evaluation.case_studies import BRANCH_NAMES, play_case
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel, load_model
from demo.utils.cli import command
from demo.utils.json_files import read_object

SEED, SEEDS = 5000, 10  # far from the seeds of the reported replies

# Replies of each case in each set.
DRAWN = {"chosen on": 80, "tested on": 30}

BOTH = "both"  # where the same reply came without and with the cap

Json = dict[str, Any]


@command
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.evaluation.case_labels", description=__doc__)
    parser.add_argument(
        "--sample", type=Path, metavar="FILE", help="only write replies, to be labelled by hand"
    )
    parser.add_argument("--write", action="store_true", help="score the labelled replies anew, and store it")
    options = parser.parse_args(arguments)
    if options.sample:
        drawn = sample(load_model(DEFAULT_MODEL, dtype="float32"))
        branches = [entry.pop("branch") for entry in drawn]
        _write(options.sample, {"format": 1, "replies": drawn})
        _write(options.sample.with_suffix(".branches.json"), branches)
        return
    entries = labelled_entries()
    if options.write:
        model = load_model(DEFAULT_MODEL, dtype="float32")
        scores = support_scores(model, labelled_prompts(entries), [entry["reply"] for entry in entries])
        entries = [{**entry, "score": round(score, 4)} for entry, score in zip(entries, scores, strict=True)]
        _write(CASE_LABELS, read_object(CASE_LABELS, "restore it from the repository") | {"replies": entries})
    for kind, least in CASE_KINDS.items():
        print(kind)
        for what, value in agreement(entries, least).items():
            print(f"  {what:26} {value:g}")
        for branch in BRANCHES:
            own = [entry["label"] >= least for entry in entries if entry["branch"] in (branch, BOTH)]
            print(f"  {f'{branch}, by hand':26} {sum(own) / len(own):g} of {len(own)}")


def sample(model: LoadedModel) -> list[Json]:
    """Replies of every case in random order, DRAWN of each set."""
    axis, draw, drawn = load_axis(model.slug), random.Random(SEED), list[Json]()
    engine, cap = TransformersEngine(model, axis), own_cap(axis)
    for case in load_cases():
        played = play_case(engine, cap, case, case.turns, SEEDS, SEED)
        said: dict[tuple[str, str], str] = {}  # message and reply -> the branch in which it came
        for name, branch in BRANCH_NAMES.items():
            for talk in played[name]:
                for message, reply in zip(case.turns, talk, strict=True):
                    before = said.setdefault((message, reply["text"]), branch)
                    said[message, reply["text"]] = branch if before == branch else BOTH
        sets = [name for name, number in DRAWN.items() for _ in range(number)]
        for said_so, name in zip(draw.sample(list(said), len(sets)), sets, strict=True):
            entry = {"case": case.id, "message": said_so[0], "reply": said_so[1], "set": name}
            drawn.append({**entry, "branch": said[said_so]})
    draw.shuffle(drawn)
    return drawn


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
