"""Chat templates: messages as a prompt's token ids, and which token belongs to which message's content."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from jinja2 import TemplateError

from demo.utils.errors import UserError

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import GenerationConfig, PreTrainedTokenizerBase

# Thinking is switched off where a template has that switch (Qwen3), as in the paper.
_TEMPLATE_KWARGS: dict[str, Any] = {"enable_thinking": False}


class Message(TypedDict):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """A chat as tokens.

    Attributes:
        ids: Token ids, ending with the header of the next reply if that was asked for.
        owner: For each token, the index of the message whose content it belongs to; -1 for template text and
            special tokens.
    """

    ids: list[int]
    owner: list[int]


def render_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, reply_next: bool = True
) -> RenderedChat:
    """Render `messages` with the model's chat template and assign each token to a message's content.

    Args:
        tokenizer: The model's tokenizer, which holds the template.
        messages: The chat.
        reply_next: Whether the header of the assistant's next reply follows.

    Raises:
        UserError: The template refuses the messages, or rewrites their text.
    """
    text = _render(tokenizer, messages, reply_next)
    spans = content_spans(tokenizer, messages, text, reply_next)
    ids, offsets = _encode(tokenizer, text, spans)
    special = set(tokenizer.all_special_ids)
    owner = [
        -1 if token in special else _owner_of(start, end, spans)
        for token, (start, end) in zip(ids, offsets, strict=True)
    ]
    return RenderedChat(ids, owner)


def content_spans(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], text: str, reply_next: bool
) -> list[tuple[int, int]]:
    """Character span of each message's content in the rendered `text`; (0, 0) for dropped content.

    The chat is rendered again with a marker in place of each content, to find where the contents are.
    """
    # No template contains a private-use character, and the number distinguishes the messages.
    markers = [f"\ue000{index}\ue000" for index in range(len(messages))]
    marked: list[Message] = [
        {"role": message["role"], "content": marker}
        for message, marker in zip(messages, markers, strict=True)
    ]
    skeleton = _render(tokenizer, marked, reply_next)
    spans, cursor, seen = [], 0, 0
    for message, marker in zip(messages, markers, strict=True):
        at = skeleton.find(marker, seen)
        if at < 0:
            spans.append((0, 0))
            continue
        cursor += at - seen  # the template's own text before this content is the same in both renderings
        seen = at + len(marker)
        length = _content_length(text, cursor, message["content"])
        spans.append((cursor, cursor + length))
        cursor += length
    return spans


def stop_tokens(settings: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Token ids that end a reply: the tokenizer's and those in the model's generation settings."""
    named = settings.eos_token_id if settings else None
    listed = named if isinstance(named, list) else [named]
    return frozenset(token for token in (*listed, tokenizer.eos_token_id) if token is not None)


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], reply_next: bool) -> str:
    reason: Exception | None = None
    for form in (list(messages), _system_in_user_turn(messages)):
        try:
            rendered = tokenizer.apply_chat_template(
                [{"role": message["role"], "content": message["content"]} for message in form],
                tokenize=False,
                add_generation_prompt=reply_next,
                **_TEMPLATE_KWARGS,
            )
            return str(rendered)
        except (TemplateError, ValueError) as error:
            reason = error
    raise UserError(
        f"The model's chat template refused these messages ({reason}); start a new chat."
    ) from reason


def _system_in_user_turn(messages: Sequence[Message]) -> list[Message]:
    """The chat with its system message at the beginning of the first user message, as in the paper.

    For templates that raise an error for the system role, such as Gemma 2's.
    """
    if len(messages) < 2 or messages[0]["role"] != "system":
        return list(messages)
    system, first, *rest = messages
    return [{"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def _content_length(text: str, cursor: int, content: str) -> int:
    """Characters that `content` takes up in `text` from `cursor` on; templates may trim it."""
    for form in (content, content.strip(), content.lstrip(), content.rstrip()):
        if text.startswith(form, cursor):
            return len(form)
    raise UserError(
        "This model's chat template rewrites message text, so a message's tokens cannot be identified; "
        "use another model."
    )


def _encode(
    tokenizer: PreTrainedTokenizerBase, text: str, spans: Sequence[tuple[int, int]]
) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids and their character offsets in `text`.

    The name of a control token inside a message's content is encoded as text, so that a message cannot
    pretend to be another turn.
    """
    names = tuple(tokenizer.added_tokens_encoder)
    if not any(name in text[first:last] for first, last in spans for name in names):
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(encoded["input_ids"]), list(encoded["offset_mapping"])
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    edges = sorted({0, len(text), *(edge for span in spans for edge in span)})
    for first, last in itertools.pairwise(edges):
        encoded = tokenizer(
            text[first:last],
            add_special_tokens=False,
            return_offsets_mapping=True,
            split_special_tokens=(first, last) in spans,
        )
        ids += encoded["input_ids"]
        offsets += [(start + first, end + first) for start, end in encoded["offset_mapping"]]
    return ids, offsets


def _owner_of(start: int, end: int, spans: list[tuple[int, int]]) -> int:
    for index, (first, last) in enumerate(spans):
        if start < last and end > first:
            return index
    return -1
