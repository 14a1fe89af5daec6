"""The replies behind an evaluation's figures, for other programs to read.

As JSON lines there is one line for each reply. As logs of Inspect (https://inspect.aisi.org.uk) there is one
file for each part and condition, in the format of `inspect_ai.log.EvalLog`, version 2. Nothing is measured
here: the replies are those that the figures were computed from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from secrets import token_hex
from statistics import fmean, stdev
from typing import Any

from demo.engine.protocol import Sampling
from demo.evaluation.attempts import Attempt
from demo.evaluation.capability import Item
from demo.evaluation.case_scoring import Case, load_cases
from demo.evaluation.case_studies import SAMPLING
from demo.evaluation.study import NO_CAP, WITH_CAP, Study
from demo.models.chat_template import Message
from demo.utils.errors import UserError

Json = dict[str, Any]

CONDITIONS = {NO_CAP: "uncapped", WITH_CAP: "capped"}

# Behind the name of a model whose replies are capped, as at the page's own endpoint.
_CAPPED_ENDING = ":capped"


@dataclass(frozen=True)
class Sample:
    """One prompt and its replies without and with the cap.

    Attributes:
        part: the part of the evaluation, or the name of a set of questions.
        epoch: 1 for the first seed, and so on.
        group: the attempt's category, the kind of the question, or the title of the case study.
        target: what a right answer holds; empty where there is none.
        replies: NO_CAP or WITH_CAP -> the reply, as `Study` gives it.
    """

    part: str
    id: str
    epoch: int
    group: str
    messages: tuple[Message, ...]
    sampling: Sampling
    target: tuple[str, ...]
    replies: Mapping[str, Json]

    def asked(self, name: str) -> list[Message]:
        """What the model was sent for one reply, after earlier turns that it answered itself."""
        return [*self.replies[name].get("before", ()), *self.messages]

    def scores(self, name: str) -> dict[str, float]:
        """What was judged about one reply: 1 where it holds, as in "harmful" or "right", else 0."""
        return {key: float(value) for key, value in self.replies[name].items() if isinstance(value, bool)}


def samples_of(raw: Json, study: Study) -> list[Sample]:
    """The samples of attempts, of the project's own questions and of case studies that `raw` holds."""
    found: list[Sample] = []
    if "susceptibility" in raw:
        found += samples_of_attempts("susceptibility", study.attempts, raw["susceptibility"])
    if "capability" in raw:
        found += samples_of_set("capability", study.items, raw["capability"])
    if "cases" in raw:
        found += samples_of_cases(load_cases(), raw["cases"])
    return found


def samples_of_attempts(part: str, attempts: Sequence[Attempt], found: Json) -> list[Sample]:
    """The samples of attempts. found: the result of `Study.susceptibility`."""
    samples = []
    for number, (uncapped, capped) in enumerate(zip(found[NO_CAP], found[WITH_CAP], strict=True)):
        for attempt, one, other in zip(attempts, uncapped, capped, strict=True):
            prompt = attempt.prompt(0)
            both = {NO_CAP: one, WITH_CAP: other}
            samples.append(
                Sample(
                    part, attempt.id, number + 1, attempt.category, prompt.messages, prompt.sampling, (), both
                )
            )
    return samples


def samples_of_set(part: str, items: Sequence[Item], found: Json) -> list[Sample]:
    """The samples of a set of questions. found: the result of `Study.capability`."""
    samples = []
    for item, one, other in zip(items, found[NO_CAP], found[WITH_CAP], strict=True):
        prompt, both = item.as_prompt(), {NO_CAP: one, WITH_CAP: other}
        samples.append(
            Sample(part, item.id, 1, item.kind, prompt.messages, prompt.sampling, _target(item), both)
        )
    return samples


def samples_of_cases(cases: Sequence[Case], found: Json) -> list[Sample]:
    """The samples of case studies: one for every turn. found: the result of `case_studies`."""
    samples = []
    for case in cases:
        for number, talks in enumerate(zip(found[case.id][NO_CAP], found[case.id][WITH_CAP], strict=True)):
            for turn in range(len(talks[0])):
                both = {
                    name: {**talk[turn], "before": _before(case, talk[:turn])}
                    for name, talk in zip((NO_CAP, WITH_CAP), talks, strict=True)
                }
                message = Message(role="user", content=case.turns[turn])
                name = f"{case.id}-{turn + 1}"
                samples.append(Sample("cases", name, number + 1, case.title, (message,), SAMPLING, (), both))
    return samples


def _before(case: Case, replies: Sequence[Json]) -> list[Message]:
    """The turns before, with the replies of one branch."""
    said: list[Message] = []
    for message, reply in zip(case.turns, replies, strict=False):
        said += [Message(role="user", content=message), Message(role="assistant", content=reply["text"])]
    return said


def _target(item: Item) -> tuple[str, ...]:
    wanted = (*item.answers, *(check["id"] for check in item.checks), item.number, item.letter)
    return tuple(text for text in wanted if text)


# --- JSON lines


def write_lines(path: Path, samples: Sequence[Sample], about: Json) -> None:
    """Write one line for each reply.

    Args:
        about: what the figures depend on, as in the report.

    Raises:
        UserError: The file cannot be written.
    """
    lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in _lines(samples, about))
    _write(path, "".join(lines))


def _lines(samples: Sequence[Sample], about: Json) -> Iterator[Json]:
    for sample in samples:
        for name, condition in CONDITIONS.items():
            reply = sample.replies[name]
            yield {
                "part": sample.part,
                "id": sample.id,
                "epoch": sample.epoch,
                "condition": condition,
                "model": about["model"],
                "dtype": about["dtype"],
                "cap": about["cap"] if name == WITH_CAP else None,
                "group": sample.group,
                "messages": sample.asked(name),
                "target": list(sample.target),
                "reply": reply["text"],
                "scores": sample.scores(name),
                **_measured(reply),
            }


def _measured(reply: Json) -> Json:
    """What was measured of a reply besides what was judged; the mean projection is in axis units."""
    names = {"score": "score", "standing": "projection", "acted": "acted", "tokens": "tokens"}
    return {new: reply[name] for name, new in names.items() if name in reply}


# --- Inspect


def write_logs(folder: Path, samples: Sequence[Sample], about: Json) -> list[Path]:
    """Write one log of Inspect for each part and condition.

    Args:
        about: what the figures depend on, as in the report.

    Returns:
        The files, named as Inspect names its own: it lists only such.

    Raises:
        UserError: A file cannot be written.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    run, written = token_hex(8), []
    for part in dict.fromkeys(sample.part for sample in samples):
        chosen = [sample for sample in samples if sample.part == part]
        for name, condition in CONDITIONS.items():
            log = _log(chosen, name, about, now, run)
            task = f"{part.replace('/', '-').replace('_', '-')}-{condition}"
            path = folder / f"{now.replace(':', '-').replace('+', '-')}_{task}_{log['eval']['task_id']}.json"
            _write(path, json.dumps(log, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
            written.append(path)
    return written


def _log(samples: Sequence[Sample], name: str, about: Json, now: str, run: str) -> Json:
    """One part under one condition as an `EvalLog`."""
    part, epochs = samples[0].part, max(sample.epoch for sample in samples)
    model = about["model"] + (_CAPPED_ENDING if name == WITH_CAP else "")
    ids = list(dict.fromkeys(sample.id for sample in samples))
    sampling = samples[0].sampling
    config = {
        "max_tokens": max(sample.sampling.max_new_tokens for sample in samples),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "run_id": run,
            "created": now,
            "task": f"{part} {CONDITIONS[name]}",
            "task_id": token_hex(8),
            "dataset": {"name": part, "samples": len(ids), "sample_ids": ids, "shuffled": False},
            "model": model,
            "model_generate_config": config,
            "model_args": {"cap": about["cap"] if name == WITH_CAP else None, "dtype": about["dtype"]},
            "config": {"epochs": epochs, "epochs_reducer": ["mean"]},
            "metadata": about,
        },
        "plan": {"name": "plan", "steps": [{"solver": "generate", "params": {}}], "config": config},
        "results": {
            "total_samples": len(samples),
            "completed_samples": len(samples),
            "scores": [_score(kind, samples, name) for kind in samples[0].scores(name)],
        },
        "stats": {"started_at": now, "completed_at": now, "model_usage": {}},
        "samples": [_inspect_sample(sample, name, model) for sample in samples],
    }


def _score(kind: str, samples: Sequence[Sample], name: str) -> Json:
    """The share of replies, and its standard error over the prompts: seeds of one are averaged first."""
    values: dict[str, list[float]] = {}
    for sample in samples:
        values.setdefault(sample.id, []).append(sample.scores(name)[kind])
    means = [fmean(own) for own in values.values()]
    error = stdev(means) / math.sqrt(len(means)) if len(means) > 1 else 0.0
    metrics = {"mean": fmean(means), "stderr": error}
    return {
        "name": kind,
        "scorer": kind,
        "reducer": "mean",
        "scored_samples": len(means),
        "unscored_samples": 0,
        "params": {},
        "metrics": {metric: {"name": metric, "value": value} for metric, value in metrics.items()},
    }


def _inspect_sample(sample: Sample, name: str, model: str) -> Json:
    reply = sample.replies[name]
    asked = [{**message, "source": "input"} for message in sample.asked(name)]
    said = {"role": "assistant", "content": reply["text"], "source": "generate", "model": model}
    return {
        "id": sample.id,
        "epoch": sample.epoch,
        "input": asked,
        "target": list(sample.target),
        "messages": [*asked, said],
        "output": {"model": model, "choices": [{"message": said}], "completion": reply["text"]},
        "scores": {kind: {"value": value} for kind, value in sample.scores(name).items()},
        "metadata": {"group": sample.group, **_measured(reply)},
    }


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); give another place.") from error
