"""Chat templates: messages as a prompt's token ids, whose token is whose, and what ends a reply."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from demo.models.control_tokens import control_tokens, encode, special_tokens
from demo.models.masking import Piece, Place, locate
from demo.models.reasoning import ReasoningFormat, leaves_open, reasoning_format
from demo.models.template_text import (
    PROBES,
    PerTokenizer,
    Wanted,
    common_length,
    render_text,
    template_source,
)
from demo.models.transcript import is_transcript, line_breaks
from demo.utils.errors import UserError, first_sentence

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import GenerationConfig, PreTrainedTokenizerBase

__all__ = [
    "LeftOut",
    "Message",
    "ReasoningFormat",
    "RenderedChat",
    "default_system_prompt",
    "listed_ends",
    "reasoning_format",
    "render_chat",
    "special_tokens",
    "stop_tokens",
    "turn_ends",
    "uses_date",
]


class _Said(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


class Message(_Said, total=False):
    """One message of a chat. Only an assistant's has `reasoning`, which `content` does not repeat."""

    reasoning: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Content that the template left out of the prompt.

    Attributes:
        message: Index of the message.
        role: Its role.
        whole: Whether all of its content is missing; otherwise a part is, more than whitespace.
    """

    message: int
    role: str
    whole: bool


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """A chat as tokens.

    Attributes:
        ids: Token ids, ending with the header of the next reply if that was asked for.
        owner: For each token, the index of the message whose content or reasoning it belongs to; -1 for
            template text and control tokens.
        reasoning: For each token, whether it belongs to the reasoning of the assistant's message `owner`.
        stable: Number of leading tokens that do not depend on the header of the next reply; all of them if
            there is none.
        left_out: What the template left out of the messages' content.
        opens_reasoning: Whether the next reply starts inside its reasoning, because the header opened it.
    """

    ids: list[int]
    owner: list[int]
    reasoning: list[bool]
    stable: int
    left_out: tuple[LeftOut, ...]
    opens_reasoning: bool


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    reply_next: bool = True,
    thinking: bool = False,
    date: str | None = None,
) -> RenderedChat:
    """Render `messages` with the model's chat template and assign each token to a message.

    What the template writes decides: messages are found wherever it puts them, whole, cut or repeated, and
    what it leaves out is reported. The ids are those of the rendered text. Only the names of control tokens
    inside messages are encoded as text, so that a message cannot pretend to be another turn.

    Args:
        tokenizer: The model's tokenizer, which holds the template.
        messages: The chat.
        reply_next: Whether the header of the assistant's next reply follows.
        thinking: Whether the model is to reason before it answers, where the template can say so.
        date: The date that templates with a date write, YYYY-MM-DD; None for today.

    Raises:
        UserError: The template refuses the messages, or the tokenizer cannot say where its tokens are.
    """
    _require_offsets(tokenizer)
    wanted = Wanted(reply_next, thinking, date)
    text, as_rendered = _render(tokenizer, messages, wanted)
    pieces = list(_pieces(messages))

    def render(texts: Sequence[str]) -> str:
        said = as_rendered(_with_texts(messages, pieces, texts))
        return render_text(tokenizer, said, wanted)

    source = template_source(tokenizer)
    places = locate(text, pieces, render, source.constants, source.text)
    spans = _joined(places)
    ids, offsets = encode(tokenizer, text, spans)
    hidden = control_tokens(tokenizer).hidden
    owners = [
        None if token in hidden else _owner_of(start, end, places, pieces)
        for token, (start, end) in zip(ids, offsets, strict=True)
    ]
    stable = len(ids)
    if reply_next:
        bare = _render(tokenizer, messages, replace(wanted, reply_next=False))[0]
        stable = _common_tokens(tokenizer, text, bare, spans, ids)
    after = text[max((end for _, end in spans), default=0) :]
    return RenderedChat(
        ids=ids,
        owner=[-1 if owner is None else owner.message for owner in owners],
        reasoning=[owner is not None and owner.reasoning for owner in owners],
        stable=stable,
        left_out=tuple(_left_out(messages, pieces, places)),
        opens_reasoning=reply_next and leaves_open(reasoning_format(tokenizer), after),
    )


def default_system_prompt(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the template writes by itself where a chat has no system prompt, and only there; "" for nothing.

    Qwen 2.5's, for one, writes that the model is Qwen. It is found by comparing a chat without a system
    prompt with the same chat under one. What the template writes in both, such as a date, is not part of it.

    Raises:
        UserError: The template refuses a chat of one message.
    """
    user: Message = {"role": "user", "content": PROBES[0]}
    without, _ = _render(tokenizer, [user], Wanted())
    under, _ = _render(tokenizer, [{"role": "system", "content": PROBES[1]}, user], Wanted())
    start = common_length(without, under)
    end = common_length(without[start:][::-1], under[start:][::-1])
    return without[start : len(without) - end].strip()


def uses_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template writes the date of today."""
    return template_source(tokenizer).dated


def listed_ends(settings: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Token ids that end a reply by the tokenizer's and the model's generation settings."""
    named = settings.eos_token_id if settings else None
    listed = named if isinstance(named, list) else [named]
    return frozenset(token for token in (*listed, tokenizer.eos_token_id) if token is not None)


def stop_tokens(settings: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Token ids that end a reply: those of the settings, and those that the template writes after replies.

    A token between reasoning and answer is not one of the latter, even if it ends earlier replies.
    """
    learnt = turn_ends(tokenizer)
    marks = reasoning_format(tokenizer)
    if marks:
        names = control_tokens(tokenizer).names
        learnt = frozenset(token for token in learnt if names.get(token, "") not in marks.closing)
    return listed_ends(settings, tokenizer) | learnt


def _find_turn_ends(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    _require_offsets(tokenizer)
    if is_transcript(tokenizer):
        return line_breaks(tokenizer)
    names = {entry.content: token for token, entry in tokenizer.added_tokens_decoder.items()}
    present = sorted((name for name in names if name.strip()), key=len, reverse=True)
    if not present:
        return frozenset()
    opening = re.compile(r"\s*(" + "|".join(map(re.escape, present)) + ")")
    found = set()
    for roles in (("user", "assistant", "user"), ("user", "assistant")):
        chat = [{"role": role, "content": text} for role, text in zip(roles, PROBES, strict=False)]
        try:
            text = render_text(tokenizer, chat, Wanted(reply_next=False))
        except Exception:  # a template can raise errors of any kind; chats that it takes will say more
            continue
        at = text.find(chat[1]["content"])
        match = opening.match(text, at + len(chat[1]["content"])) if at >= 0 else None
        if match:
            found.add(names[match[1]])
    return frozenset(found)


_turn_ends = PerTokenizer(_find_turn_ends)


def turn_ends(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Token ids that the chat template writes straight after the assistant's messages.

    Whitespace may stand between. The set is empty if the template writes plain text there, except for a plain
    transcript, in which every line break ends a message.

    Raises:
        UserError: The tokenizer cannot say where its tokens are.
    """
    return _turn_ends(tokenizer)


def _require_offsets(tokenizer: PreTrainedTokenizerBase) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            "The model's tokenizer has no tokenizer.json, so its tokens cannot be assigned to messages: "
            "use a version of the model that has one."
        )


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], wanted: Wanted
) -> tuple[str, Any]:
    """The rendered chat, and the function that gives messages the form in which the template takes them."""
    reason: Exception | None = None
    for form in (list, _system_in_user_turn):
        try:
            return render_text(tokenizer, form(messages), wanted), form
        except UserError:
            raise
        except Exception as error:  # a template can raise errors of any kind
            reason = error
    assert reason is not None
    said = str(reason).strip() or first_sentence(reason)
    raise UserError(
        f"The model's chat template refused these messages ({said}); start a new chat."
    ) from reason


def _system_in_user_turn(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The chat with its system message at the beginning of the first user message, as in the paper.

    For templates that raise an error for the system role, such as Gemma 2's.
    """
    if len(messages) < 2 or messages[0]["role"] != "system":
        return list(messages)
    system, first, *rest = messages
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def _pieces(messages: Sequence[Message]) -> Iterator[Piece]:
    for number, message in enumerate(messages):
        spoken = message["role"] == "assistant"
        if message.get("reasoning"):
            yield Piece(number, True, spoken, message["reasoning"])
        yield Piece(number, False, spoken, message["content"])


def _with_texts(
    messages: Sequence[Message], pieces: Sequence[Piece], texts: Sequence[str]
) -> list[dict[str, Any]]:
    """The messages with other texts in place of the pieces'."""
    changed: list[dict[str, Any]] = [dict(message) for message in messages]
    for piece, text in zip(pieces, texts, strict=True):
        changed[piece.message]["reasoning" if piece.reasoning else "content"] = text
    return changed


def _joined(places: Sequence[Place]) -> list[tuple[int, int]]:
    """The places' spans without overlaps; those that touch are joined."""
    spans: list[tuple[int, int]] = []
    for start, end, *_ in places:
        if spans and start <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
        else:
            spans.append((start, end))
    return spans


def _owner_of(start: int, end: int, places: Sequence[Place], pieces: Sequence[Piece]) -> Piece | None:
    """The piece to which most of the token's characters belong."""
    start = min(start, end - 1)  # some tokenizers leave spaces out of a token's span, up to its end
    found, most = None, 0
    at = bisect_right(places, start, key=lambda place: place.end)
    for place in places[at : at + end - start]:  # a place has at least one character
        shared = min(end, place.end) - max(start, place.start)
        if shared > most:
            found, most = pieces[place.piece], shared
    return found


def _common_tokens(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    bare: str,
    spans: Sequence[tuple[int, int]],
    ids: Sequence[int],
) -> int:
    """Number of leading tokens that `text` shares with `bare`, the chat without the header of a reply."""
    if text == bare:
        return len(ids)
    shared = common_length(text, bare)
    inside = [(start, min(end, shared)) for start, end in spans if start < shared]
    without, _ = encode(tokenizer, bare, inside)
    return common_length(ids, without)


def _left_out(
    messages: Sequence[Message], pieces: Sequence[Piece], places: Sequence[Place]
) -> Iterator[LeftOut]:
    by_piece: dict[int, list[Place]] = {}
    for place in places:
        by_piece.setdefault(place.piece, []).append(place)
    for number, piece in enumerate(pieces):
        if piece.reasoning or not piece.text.strip():
            continue
        missing: list[str] = []
        found, cursor = False, 0
        for place in sorted(by_piece.get(number, ()), key=lambda one: one.offset or 0):
            # Rewritten text stands for the whole piece.
            first = 0 if place.offset is None else place.offset
            last = len(piece.text) if place.offset is None else first + place.end - place.start
            missing.append(piece.text[cursor:first])
            found = found or bool(piece.text[first:last].strip())
            cursor = max(cursor, last)
        missing.append(piece.text[cursor:])
        if any(part.strip() for part in missing):
            yield LeftOut(piece.message, messages[piece.message]["role"], not found)
