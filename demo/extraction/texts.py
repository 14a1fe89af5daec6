"""The replies that an axis was made from, which the model reads again: they are kept in rollouts.jsonl."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from demo.axis.axis import AssistantAxis
from demo.extraction.plan import DEFAULT, Exchanges, Plan, Rollout, head_of
from demo.extraction.reading import Reader
from demo.extraction.rollouts import Reply, Text
from demo.extraction.vectors import ALL, HALVES, KEPT, Judged, State, Vectors
from demo.models.chat_template import Message, render_chat
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from demo.utils.progress import ProgressLine
from demo.utils.resource_usage import give_memory_back

ROLLOUTS = "rollouts.jsonl"

SAME_AXIS = 0.99  # least cosine of an axis from the replies, read again, with the stored one

_BATCH = 64  # replies that are read at once

Record = Mapping[str, Any]  # one line of rollouts.jsonl


def read_records(folder: Path, split: str | None = "extract") -> list[Record]:
    """The lines of an axis folder's rollouts.jsonl, in order; none where there is no such file.

    Args:
        split: of the questions; None for all lines. The axis was made from the split "extract".

    Raises:
        UserError: the file is malformed.
    """
    path = folder / ROLLOUTS
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
        wanted = [record for record in records if split in (None, record["split"])]
        for record in wanted:
            for key in ("group", "system", "question", "reply"):
                if not isinstance(record[key], str):
                    raise TypeError(f"{key} is no text")
            if not isinstance(record["tokens"], int):
                raise TypeError("tokens is no number")
            history_of(record)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{path} holds no rollouts ({error}); extract the axis again.") from error
    return wanted


def history_of(record: Record) -> Exchanges:
    """The chat before the question in a line of rollouts.jsonl. Raises TypeError or ValueError."""
    found = tuple((asked, answered) for asked, answered in record.get("history", ()))
    if not all(isinstance(text, str) for exchange in found for text in exchange):
        raise TypeError("history is no text")
    return found


def check_histories(manifest: Mapping[str, Any], records: Sequence[Record]) -> None:
    """Check that the replies can be read again after what they were generated after. Raises UserError.

    Earlier versions left the first exchange out of rollouts.jsonl.
    """
    if manifest.get("role_prompts") == "example" and not all(record.get("history") for record in records):
        raise UserError(
            "The replies in rollouts.jsonl followed a first exchange that is not in the file, so they cannot "
            "be read again; extract the axis again."
        )


def read_again(
    model: LoadedModel, axis: AssistantAxis, records: Sequence[Record], layers: Sequence[int]
) -> tuple[State, Plan, Vectors]:
    """The state of an extraction from its replies, which the model reads again, at K layers.

    Args:
        records: the rollouts that the axis was made from. Those that do not count are not read.
        layers: the probe layer among them.

    Returns:
        A state whose tensors are [K, D]; the plan that its records refer to, with the same halves as the
        extraction's; and the role vectors, [K, D].

    Raises:
        UserError: the replies do not give the axis.
    """
    check_histories(axis.manifest, records)
    verdicts = ALL if axis.manifest.get("uptake", {}).get("keep_all") else KEPT
    state, plan = _state_from(model, records, layers, verdicts)
    standardised = axis.manifest.get("variant") == "standardised"
    vectors = Vectors(state, plan, verdicts, state.variance(verdicts) if standardised else None)
    _check_same(axis, vectors, layers.index(axis.probe_layer))
    return state, plan, vectors


def _state_from(
    model: LoadedModel, records: Sequence[Record], layers: Sequence[int], verdicts: Sequence[str]
) -> tuple[State, Plan]:
    rollouts, reader, state = rollouts_of(records), Reader(model), State()
    progress = ProgressLine("reading replies")
    counted = [
        (rollout, record)
        for rollout, record in zip(rollouts, records, strict=True)
        if not rollout.is_role or record.get("kept", True) or tuple(verdicts) == ALL
    ]
    for start in range(0, len(counted), _BATCH):
        progress.update(start / len(counted))
        part = counted[start : start + _BATCH]
        texts = [text_of(model, record) for _, record in part]
        means = iter(reader.means([text for text in texts if text.reply], layers))
        for (rollout, record), text in zip(part, texts, strict=True):
            mean = next(means) if text.reply else torch.zeros(len(layers), model.hidden_size)
            reply = Reply(rollout, record["reply"], tuple(text.reply), mean, ())
            state.add(Judged(reply, record.get("uptake"), bool(record.get("kept", True))), limit=0)
        give_memory_back()
    progress.update(1.0)
    roles = tuple(dict.fromkeys(rollout.group for rollout in rollouts if rollout.is_role))
    questions = tuple(dict.fromkeys(rollout.text for rollout in rollouts))
    return state, Plan(tuple(rollouts), roles, {}, {"extract": questions}, (), (), 0, 0)


def _check_same(axis: AssistantAxis, vectors: Vectors, place: int) -> None:
    """Check that the replies give the stored axis at its probe layer. Raises UserError."""
    roles = [entry["name"] for entry in axis.manifest["roles"] if entry.get("counts")]
    missing = [role for role in roles if not vectors.kept(role)]
    cosine = -1.0
    if roles and not missing:
        direction = vectors.cast(roles).direction[place]
        cosine = float(torch.cosine_similarity(direction, axis.direction[axis.probe_layer], dim=0))
    if cosine < SAME_AXIS:
        raise UserError(
            f"The replies in {ROLLOUTS}, read by this model, do not give the axis beside them "
            f"(cosine {cosine:.2f}); give --model and --dtype of the extraction, or extract the axis again."
        )
    print(f"the axis from the replies, read again, and the stored one: cosine {cosine:.4f}")


def text_of(model: LoadedModel, record: Record) -> Text:
    """The reply of a record in tokens, after the prompt that it answers.

    They are the tokens that the model generated, as far as its tokenizer gives them back. Some chat templates
    write a finished reply otherwise: without its reasoning, which may be all of a short reply, or stripped.
    """
    question: Message = {"role": "user", "content": record["question"]}
    messages = [*head_of(record["system"], history_of(record)), question]
    reply = model.tokenizer(record["reply"], add_special_tokens=False)["input_ids"]
    return Text(render_chat(model.tokenizer, messages).ids, reply)


def rollouts_of(records: Iterable[Record]) -> list[Rollout]:
    """The rollouts of an extraction by its records, renumbered."""
    questions: dict[str, int] = {}
    roles: dict[str, int] = {}
    turns: Counter[str] = Counter()
    samples: Counter[tuple[str, str, str]] = Counter()
    found = []
    for index, record in enumerate(records):
        group, system, text = record["group"], record["system"], record["question"]
        number = questions.setdefault(text, len(questions))
        sample, turn = samples[group, system, text], turns[group]
        # As `plan.make_plan` assigns the halves.
        half = sample if group == DEFAULT else roles.setdefault(group, len(roles)) // 2 + turn
        history = history_of(record)
        found.append(
            Rollout(index, group, "extract", number, half % len(HALVES), sample, system, text, history)
        )
        samples[group, system, text] += 1
        turns[group] += 1
    return found
