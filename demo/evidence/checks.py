"""Instructions whose keeping a program can check, named as in IFEval (Zhou et al. 2023, arXiv 2311.07911).

Each check takes a reply and the instruction's own arguments. An instruction that is not listed here is not scored: the
item that holds it is left out and counted, never passed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

Check = Callable[..., bool]


def holds(reply: str, check: dict[str, Any]) -> bool:
    """Whether `reply` keeps the instruction {"id": name, argument: value, ...}. KeyError for an unknown name."""
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
