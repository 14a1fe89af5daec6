"""Plain transcripts: how a chat is put to a pretrained model, whose files know no turns.

The transcript is an interview. Its first lines say who is asked: the system prompt, or a heading of its own
where there is none. Each message is one line after that, behind a label that is the same for every character,
so that two speakers differ only in what the first lines say of them. Labels belong to no message, and no
average is taken over them. A reply ends with its line: the model never writes the next label into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from demo.models.template_text import PerTokenizer
from demo.utils.errors import UserError

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedTokenizerBase

# "an interview with {who}" heads a transcript.
HEADING = "The following is an interview with {who}."

ASSISTANT = "an AI assistant"

# A message is put on one line, so that nothing in it can look like the next speaker's.
_TRANSCRIPT = (
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}"
    "{% set messages = messages[1:] %}{% else %}" + HEADING.format(who=ASSISTANT) + "{% endif %}"
    "{{ '\\n\\n' }}"
    "{% for message in messages %}{{ 'Q: ' if message['role'] == 'user' else 'A: ' }}"
    "{{ message['content'].strip().splitlines() | join(' ') }}{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}A:{% endif %}"
)
# For tokenizers that put a token for the beginning before every text, as the model knows it from training.
_AFTER_BEGINNING = "{{ bos_token }}" + _TRANSCRIPT

# How the names of tokens write a line break: as it is, as byte-level tokenizers do, and as a byte.
_WRITTEN_BREAKS = ("\n", "\u010a", "<0x0A>")


def give_transcript(tokenizer: PreTrainedTokenizerBase, spec: str) -> None:
    """Make plain transcripts the tokenizer's chat template, in place of the one it has, if any.

    Args:
        tokenizer: Of the model called `spec`.
        spec: For the error message.

    Raises:
        UserError: The tokenizer writes no line breaks, so a reply would have no end.
    """
    beginning = tokenizer("A").input_ids[:1] == [tokenizer.bos_token_id]
    tokenizer.chat_template = _AFTER_BEGINNING if beginning else _TRANSCRIPT
    if not line_breaks(tokenizer):
        raise UserError(
            f"The tokenizer of {spec} has no line breaks, with which a reply in a plain transcript ends: "
            "choose another model, or leave out --base."
        )


def is_transcript(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer renders chats as plain transcripts."""
    return tokenizer.chat_template in (_TRANSCRIPT, _AFTER_BEGINNING)


def _find_line_breaks(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    candidates = [
        token
        for name, token in tokenizer.get_vocab().items()
        if any(written in name for written in _WRITTEN_BREAKS)
    ]
    texts = tokenizer.batch_decode([[token] for token in candidates])
    return frozenset(token for token, text in zip(candidates, texts, strict=True) if "\n" in text)


line_breaks = PerTokenizer(_find_line_breaks)
"""Ids of all tokens whose text has a line break, alone or after other characters."""
