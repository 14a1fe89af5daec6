"""Is anything lost? Questions with exact scoring, answered greedily without and with the cap, and the perplexity of
ordinary text under both.

The questions in assets/evidence are our own; sets that people know are read from a local path (`read_set`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from demo.axis import AssistantAxis
from demo.capping import AxisHooks
from demo.engine.protocol import Cap, Message, Sampling
from demo.errors import UserError
from demo.evidence.answers import Ask
from demo.evidence.checks import CHECKS, holds
from demo.extraction.reading import Text, read_texts
from demo.extraction.sweep import is_right
from demo.jsonfile import read_object
from demo.models import LoadedModel
from demo.spans import render_chat

ASSETS = Path(__file__).resolve().parent.parent.parent / "assets" / "evidence"
_RESTORE = "restore it from the repository"
_LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Item:
    """A question. One of: answers, any of which in the reply makes it right, as whole words; checks, all of which must
    hold; number, the last number of the reply; letter, the first letter the reply settles on. tokens: longest reply."""

    id: str
    kind: str
    prompt: str
    answers: tuple[str, ...] = ()
    checks: tuple[dict[str, Any], ...] = ()
    number: str = ""
    letter: str = ""
    tokens: int = 48

    def ask(self) -> Ask:
        message = Message(role="user", content=self.prompt)
        return Ask((message,), Sampling(temperature=0.0, max_new_tokens=self.tokens))

    def right(self, reply: str) -> bool:
        if self.answers:
            return is_right(reply, self.answers)
        if self.checks:
            return all(holds(reply, check) for check in self.checks)
        if self.number:
            found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", reply)
            return bool(found) and float(found[-1].replace(",", "")) == float(self.number)
        match = re.search(r"answer is:?\s*\(?([A-J])\b", reply) or re.search(r"\b([A-J])\b", reply)
        return match is not None and match[1] == self.letter


def own_items() -> list[Item]:
    """The questions of the repository."""
    return [
        Item(
            entry["id"],
            entry["kind"],
            entry["prompt"],
            tuple(entry.get("answers", ())),
            tuple(entry.get("checks", ())),
            tokens=48 if "checks" in entry else 32,
        )
        for entry in read_object(ASSETS / "capability.json", _RESTORE)["items"]
    ]


def read_set(name: str, path: Path) -> list[Item]:
    """IFEval, MMLU-Pro or GSM8k in its usual file format (JSON lines, a JSON list, or parquet where pandas can read it).

    Raises UserError with one sentence when the file is not what `name` promises.
    """
    readers = {"ifeval": _ifeval, "mmlu-pro": _mmlu_pro, "gsm8k": _gsm8k}
    if name not in readers:
        raise UserError(f"There is no set {name!r}; choose one of {', '.join(readers)}.")
    try:
        items = [readers[name](number, row) for number, row in enumerate(_rows(path))]
    except (KeyError, TypeError, ValueError, IndexError, OSError, ImportError) as error:
        raise UserError(
            f"{path} cannot be read as {name} ({error!r}); give the file as it is published."
        ) from error
    known = [item for item in items if item is not None]
    if not known:
        raise UserError(f"{path} holds no {name} item that can be scored; give the file as it is published.")
    return known


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        import pandas

        return pandas.read_parquet(path).to_dict("records")
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        return json.loads(text)
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _ifeval(number: int, row: dict[str, Any]) -> Item | None:
    """None for an item with an instruction that cannot be checked here."""
    names, arguments = list(row["instruction_id_list"]), list(row["kwargs"])
    if not set(names) <= set(CHECKS):
        return None
    checks = tuple(
        {"id": name, **{key: value for key, value in given.items() if value is not None}}
        for name, given in zip(names, arguments, strict=True)
    )
    return Item(f"ifeval-{row.get('key', number)}", "ifeval", row["prompt"], checks=checks, tokens=256)


def _mmlu_pro(number: int, row: dict[str, Any]) -> Item:
    options = "\n".join(
        f"{letter}. {text}" for letter, text in zip(_LETTERS, list(row["options"]), strict=False)
    )
    prompt = f"{row['question']}\n{options}\nAnswer with the letter alone."
    return Item(
        f"mmlu-pro-{row.get('question_id', number)}", "mmlu-pro", prompt, letter=row["answer"], tokens=16
    )


def _gsm8k(number: int, row: dict[str, Any]) -> Item:
    answer = row["answer"].split("####")[1].strip().replace(",", "")
    float(answer)  # ValueError where the file is another one
    return Item(f"gsm8k-{number}", "gsm8k", row["question"], number=answer, tokens=256)


@torch.inference_mode()
def perplexity(model: LoadedModel, axis: AssistantAxis, cap: Cap | None, every: int = 1) -> float:
    """Of the repository's ordinary texts, one in `every`, each read as the reply to a request for it, under `cap`."""
    total, count = 0.0, 0
    for entry in read_object(ASSETS / "texts.json", _RESTORE)["texts"][::every]:
        log_p = _read(model, axis, cap, entry["prompt"], entry["text"])
        total, count = total + sum(log_p), count + len(log_p)
    return math.exp(-total / count)


def _read(model: LoadedModel, axis: AssistantAxis, cap: Cap | None, prompt: str, text: str) -> list[float]:
    messages: Sequence[Message] = (
        Message(role="user", content=prompt),
        Message(role="assistant", content=text),
    )
    chat = render_chat(model.tokenizer, messages, reply_next=False)
    reply = [index for index, owner in enumerate(chat.owner) if owner == max(chat.owner)]
    first, last = reply[0], reply[-1] + 1
    floors = dict(zip(cap.layers, torch.tensor(cap.floors)[:, None], strict=True)) if cap else {}
    hooks = AxisHooks(model.layers, axis.unit.to(model.device), axis.probe_layer, floors)
    hooks.exempt = torch.tensor([[owner < 0 for owner in chat.owner[:last]]])
    with hooks.installed():
        read = read_texts(model, [Text(chat.ids[:first], chat.ids[first:last])])
    return read[0].log_p.tolist()
