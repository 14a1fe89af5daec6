"""Questions with exact scoring, which tell what capping costs.

They are answered greedily, with and without the cap. Those in assets/evaluation are the project's own;
published sets (IFEval, MMLU-Pro, GSM8K) are read from a local file with `read_set`. Instructions such as "use
no commas" are checked by the functions in CHECKS, under IFEval's names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.engine.protocol import Sampling
from demo.evaluation.answers import Prompt
from demo.extraction.sweep import is_right
from demo.models.chat_template import Message
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.paths import EVALUATION_ASSETS

_REMEDY = "restore it from the repository"

_LETTERS = "ABCDEFGHIJ"

_TOKENS = 16  # of an own item whose kind has no other number in the file: a sentence that holds the answer


@dataclass(frozen=True)
class Item:
    """A question with exactly one of `answers`, `checks`, `number` and `letter`.

    Attributes:
        answers: A reply is correct if it holds any of these as whole words.
        options: If given, a reply is correct if the first of these that it holds is one of `answers`. A
            question that names its options is answered so: a reply that echoes all of them is no answer.
        checks: A reply is correct if it passes all of these, see `holds`.
        number: A reply is correct if this is its last number.
        letter: A reply is correct if this is the letter it chooses.
        tokens: Maximum length of the reply.
    """

    id: str
    kind: str
    prompt: str
    answers: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    checks: tuple[dict[str, Any], ...] = ()
    number: str = ""
    letter: str = ""
    tokens: int = 48

    def as_prompt(self) -> Prompt:
        message = Message(role="user", content=self.prompt)
        return Prompt((message,), Sampling(temperature=0.0, max_new_tokens=self.tokens))

    def is_right(self, reply: str) -> bool:
        if self.options:
            return _first_named(reply, self.options) in self.answers
        if self.answers:
            return is_right(reply, self.answers)
        if self.checks:
            return all(holds(reply, check) for check in self.checks)
        if self.number:
            found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", reply)
            return bool(found) and float(found[-1].replace(",", "")) == float(self.number)
        match = re.search(r"answer is:?\s*\(?([A-J])\b", reply) or re.search(r"\b([A-J])\b", reply)
        return match is not None and match[1] == self.letter


def _first_named(reply: str, options: Sequence[str]) -> str | None:
    """The option that stands first in the reply, as whole words; of two at one place the longer one."""
    found = {
        option: match.start()
        for option in options
        if (match := re.search(rf"(?<!\w){re.escape(option)}(?!\w)", reply, re.IGNORECASE))
    }
    return min(found, key=lambda option: (found[option], -len(option)), default=None)


def own_items() -> list[Item]:
    """The project's own questions."""
    content = read_object(EVALUATION_ASSETS / "capability.json", _REMEDY)
    return [
        Item(
            entry["id"],
            entry["kind"],
            entry["prompt"],
            answers=tuple(entry.get("answers", ())),
            options=tuple(entry.get("options", ())),
            checks=tuple(entry.get("checks", ())),
            letter=entry.get("letter", ""),
            tokens=content["tokens"].get(entry["kind"], _TOKENS),
        )
        for entry in content["items"]
    ]


def read_set(name: str, path: Path) -> list[Item]:
    """Read IFEval, MMLU-Pro or GSM8K in its published file format.

    That is JSON lines, a JSON list, or parquet where pandas can read it. Items that cannot be
    scored are left out.

    Raises:
        UserError: The name is unknown or the file is not what it promises.
    """
    readers = {"ifeval": _ifeval, "mmlu-pro": _mmlu_pro, "gsm8k": _gsm8k}
    if name not in readers:
        raise UserError(f"There is no set {name!r}; choose one of {', '.join(readers)}.")
    try:
        items = [readers[name](number, record) for number, record in enumerate(_records(path))]
    except (KeyError, TypeError, ValueError, IndexError, OSError, ImportError) as error:
        raise UserError(
            f"{path} cannot be read as {name} ({error!r}); give the file as it is published."
        ) from error
    known = [item for item in items if item is not None]
    if not known:
        raise UserError(f"{path} holds no {name} item that can be scored; give the file as it is published.")
    return known


def _records(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        import pandas  # slow to import, and needed only for this format

        return pandas.read_parquet(path).to_dict("records")
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        return json.loads(text)
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _ifeval(number: int, record: dict[str, Any]) -> Item | None:
    """None for an item with an instruction that CHECKS does not know."""
    names, arguments = list(record["instruction_id_list"]), list(record["kwargs"])
    if not set(names) <= set(CHECKS):
        return None
    checks = tuple(
        {"id": name, **{key: value for key, value in given.items() if value is not None}}
        for name, given in zip(names, arguments, strict=True)
    )
    return Item(f"ifeval-{record.get('key', number)}", "ifeval", record["prompt"], checks=checks, tokens=256)


def _mmlu_pro(number: int, record: dict[str, Any]) -> Item:
    options = "\n".join(
        f"{letter}. {text}" for letter, text in zip(_LETTERS, list(record["options"]), strict=False)
    )
    prompt = f"{record['question']}\n{options}\nAnswer with the letter alone."
    identity = f"mmlu-pro-{record.get('question_id', number)}"
    return Item(identity, "mmlu-pro", prompt, letter=record["answer"], tokens=16)


def _gsm8k(number: int, record: dict[str, Any]) -> Item:
    answer = record["answer"].split("####")[1].strip().replace(",", "")
    float(answer)  # raises ValueError if the file is another one
    return Item(f"gsm8k-{number}", "gsm8k", record["question"], number=answer, tokens=256)


Check = Callable[..., bool]


def holds(reply: str, check: dict[str, Any]) -> bool:
    """Whether the reply follows an instruction. An empty reply follows none.

    Args:
        check: {"id": a name in CHECKS, argument: value, ...}.
    """
    arguments = {key: value for key, value in check.items() if key != "id" and value is not None}
    return bool(reply.strip()) and CHECKS[check["id"]](reply, **arguments)


def _compare(found: int, relation: str, wanted: int) -> bool:
    return found < wanted if relation == "less than" else found >= wanted


def _count(reply: str, word: str) -> int:
    return len(re.findall(rf"\b{re.escape(word)}\b", reply, re.IGNORECASE))


def _words(reply: str) -> list[str]:
    return re.findall(r"\w+(?:['’-]\w+)*", reply)


def _sentences(reply: str) -> list[str]:
    return [part for part in re.split(r"[.!?]+(?:\s|$)", reply) if part.strip()]


def _paragraphs(reply: str, divider: str = r"\*\*\*") -> list[str]:
    return [part for part in re.split(divider, reply) if part.strip()]


def _is_json(reply: str) -> bool:
    try:
        json.loads(re.sub(r"^```(?:json)?|```$", "", reply.strip(), flags=re.IGNORECASE).strip())
    except ValueError:
        return False
    return True


def _first_word_of_paragraph(reply: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = _paragraphs(reply, r"\n\s*\n")
    if len(parts) != num_paragraphs or nth_paragraph > num_paragraphs:
        return False
    words = _words(parts[nth_paragraph - 1])
    return bool(words) and words[0].lower() == first_word.lower()


def _two_answers(reply: str) -> bool:
    parts = [part.strip() for part in reply.split("******")]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


CHECKS: dict[str, Check] = {
    "change_case:english_lowercase": lambda reply: reply == reply.lower(),
    "change_case:english_capital": lambda reply: reply == reply.upper(),
    "change_case:capital_word_frequency": lambda reply, capital_relation, capital_frequency: _compare(
        sum(word.isupper() for word in _words(reply)), capital_relation, capital_frequency
    ),
    "punctuation:no_comma": lambda reply: "," not in reply,
    "startend:quotation": lambda reply: (
        len(reply.strip()) > 1 and reply.strip()[0] == reply.strip()[-1] == '"'
    ),
    "startend:end_checker": lambda reply, end_phrase: (
        reply.strip().strip('"').lower().endswith(end_phrase.strip().lower())
    ),
    "length_constraints:number_words": lambda reply, relation, num_words: _compare(
        len(_words(reply)), relation, num_words
    ),
    "length_constraints:number_sentences": lambda reply, relation, num_sentences: _compare(
        len(_sentences(reply)), relation, num_sentences
    ),
    "length_constraints:number_paragraphs": lambda reply, num_paragraphs: (
        len(_paragraphs(reply)) == num_paragraphs
    ),
    "length_constraints:nth_paragraph_first_word": _first_word_of_paragraph,
    "keywords:existence": lambda reply, keywords: all(_count(reply, word) for word in keywords),
    "keywords:forbidden_words": lambda reply, forbidden_words: (
        not any(_count(reply, word) for word in forbidden_words)
    ),
    "keywords:frequency": lambda reply, relation, keyword, frequency: _compare(
        _count(reply, keyword), relation, frequency
    ),
    "keywords:letter_frequency": lambda reply, letter, let_relation, let_frequency: _compare(
        reply.lower().count(letter.lower()), let_relation, let_frequency
    ),
    "detectable_format:number_bullet_lists": lambda reply, num_bullets: (
        len(re.findall(r"^\s*(?:\*(?!\*)|-)\s*\S", reply, re.MULTILINE)) == num_bullets
    ),
    "detectable_format:number_highlighted_sections": lambda reply, num_highlights: (
        len(re.findall(r"\*\*[^\n*]+\*\*|\*[^\n*]+\*", reply)) >= num_highlights
    ),
    "detectable_format:title": lambda reply: re.search(r"<<[^\n<>]+>>", reply) is not None,
    "detectable_format:json_format": _is_json,
    "detectable_format:multiple_sections": lambda reply, section_spliter, num_sections: (
        len(re.findall(rf"\b{re.escape(section_spliter.strip())}\s+\w+", reply)) >= num_sections
    ),
    "detectable_format:constrained_response": lambda reply: any(
        f"My answer is {word}." in reply for word in ("yes", "no", "maybe")
    ),
    "detectable_content:number_placeholders": lambda reply, num_placeholders: (
        len(re.findall(r"\[[^\[\]\n]+\]", reply)) >= num_placeholders
    ),
    "detectable_content:postscript": lambda reply, postscript_marker: (
        re.search(rf"(?:^|\n)\s*{re.escape(postscript_marker)}", reply, re.IGNORECASE) is not None
    ),
    "combination:repeat_prompt": lambda reply, prompt_to_repeat: (
        reply.strip().lower().startswith(prompt_to_repeat.strip().lower())
    ),
    "combination:two_responses": _two_answers,
}
