"""What an extraction says to a pretrained model, in whose transcripts every speaker is interviewed.

A pretrained model obeys no instruction, so the prompts say in the third person who is asked. A role's own
instruction follows. See `demo.models.transcript` for the form of the whole chat.
"""

from __future__ import annotations

from demo.models.transcript import ASSISTANT, HEADING

# Who is asked on the default side, beside the heading that a transcript without a system prompt has.
_DEFAULTS = (
    "a large language model",
    "{model_name}, an AI assistant",
    "a helpful AI assistant",
    "an AI system that answers questions",
)

# The same words for every speaker, so that introductions differ in nothing but the character.
_INTRODUCTION = "I am {who}. I answer every question as {who} would."


def default_headings(model_name: str) -> tuple[str, ...]:
    """The system prompts of the default side; "" leaves the heading to the transcript."""
    return "", *(HEADING.format(who=who.replace("{model_name}", model_name)) for who in _DEFAULTS)


def role_heading(role: str, instruction: str) -> str:
    """The system prompt that introduces a role."""
    return f"{HEADING.format(who=_with_article(role))} {instruction}"


def neutral_heading(prompt: str) -> str:
    """The system prompt of a control: the Assistant is asked, under an instruction without a persona."""
    return f"{HEADING.format(who=ASSISTANT)} {prompt}"


def introduction(role: str | None) -> str:
    """A speaker's answer to who it is; None for the default side."""
    return _INTRODUCTION.format(who=ASSISTANT if role is None else _with_article(role))


def _with_article(role: str) -> str:
    name = role.replace("_", " ")
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
