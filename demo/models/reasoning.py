"""How a model marks the reasoning in its replies, learnt from its chat template."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demo.models.control_tokens import control_tokens
from demo.models.template_text import (
    PROBES,
    PerTokenizer,
    Wanted,
    common_length,
    render_text,
    template_source,
)

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedTokenizerBase

_USER, _REASONING, _ANSWER = PROBES

_TAG = re.compile(r"[<\[◁][^<>\[\]◁▷\s]+[>\]▷]")
_CLOSING_TAG = re.compile(r"([<\[◁])/((?:\w+:)?think(?:ing)?)([>\]▷])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    """How a model's replies mark reasoning.

    Attributes:
        opening: Text before the reasoning, with the names of control tokens, without whitespace at its edges.
        closing: Text between the reasoning and the answer, likewise.
        switch: Whether the template can switch reasoning on and off.
    """

    opening: str
    closing: str
    switch: bool


def leaves_open(marks: ReasoningFormat | None, header: str) -> bool:
    """Whether the header of a reply opens reasoning without closing it."""
    if marks is None or marks.opening not in header:
        return False
    return marks.closing not in header[header.rindex(marks.opening) + len(marks.opening) :]


def _find_format(tokenizer: PreTrainedTokenizerBase) -> ReasoningFormat | None:
    marks = _rendered_marks(tokenizer) or _named_marks(tokenizer)
    return ReasoningFormat(*marks, switch=_has_switch(tokenizer)) if marks else None


_format = PerTokenizer(_find_format)


def reasoning_format(tokenizer: PreTrainedTokenizerBase) -> ReasoningFormat | None:
    """How the model's replies mark reasoning; None if neither template nor tokens know of any.

    The marks are what the template writes around the reasoning of a reply. If it never does, they are a pair
    of tags whose name is "think", in the template or among the added tokens.
    """
    return _format(tokenizer)


def _rendered_marks(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str] | None:
    user, answer = {"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}
    thought = {**answer, "reasoning": _REASONING}
    shown = _probe(tokenizer, [user, thought], reply_next=False)
    pattern = f"{_USER}(.*){_REASONING}(.*?){_ANSWER}"
    around = re.search(pattern, shown, re.DOTALL)
    if not around:
        return None
    before, closing = around[1], around[2].strip()
    header = len(before)
    for other in (
        _probe(tokenizer, [user, answer, user], reply_next=False),  # an earlier reply without reasoning
        _probe(tokenizer, [user], reply_next=True),
    ):
        if _USER in other:
            start = other.split(_USER, 1)[1].split(_ANSWER, 1)[0]
            header = min(header, common_length(before, start))
    for tag in _tags(tokenizer, before):  # two different tags may begin alike
        if tag.start() < header < tag.end():
            header = tag.start()
    opening = before[header:].strip()
    return (opening, closing) if opening and closing else None


def _tags(tokenizer: PreTrainedTokenizerBase, text: str) -> Iterator[re.Match[str]]:
    yield from _TAG.finditer(text)
    for name in control_tokens(tokenizer).names.values():
        yield from re.finditer(re.escape(name), text)


def _named_marks(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str] | None:
    source = template_source(tokenizer)
    for text in (*source.literals, *control_tokens(tokenizer).names.values()):
        tag = _CLOSING_TAG.search(text)
        if tag:
            return f"{tag[1]}{tag[2]}{tag[3]}", tag[0]
    return None


def _has_switch(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the prompt of a reply depends on whether the model is to reason."""
    user = {"role": "user", "content": _USER}
    chats = ([user], [{"role": "system", "content": _ANSWER}, user])
    return any(
        _probe(tokenizer, chat, reply_next=True, thinking=True)
        != _probe(tokenizer, chat, reply_next=True, thinking=False)
        for chat in chats
    )


def _probe(
    tokenizer: PreTrainedTokenizerBase, chat: list[Any], reply_next: bool, thinking: bool = True
) -> str:
    try:
        return render_text(tokenizer, chat, Wanted(reply_next, thinking))
    except Exception:  # a template can raise errors of any kind
        return ""
