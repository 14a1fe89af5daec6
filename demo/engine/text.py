"""Tokens as text, one at a time: what each token adds to a reply, and which tokens are reasoning."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demo.models.chat_template import ReasoningFormat, RenderedChat, special_tokens
from demo.models.control_tokens import control_tokens, encode
from demo.models.template_text import PerTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are not UTF-8

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")  # a byte-fallback token, as in Llama 2, Mistral, Gemma and Phi-3


def _find_byte_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The byte-fallback tokens. A run of them is one text, valid or not as a whole."""
    return frozenset(token for name, token in tokenizer.get_vocab().items() if _BYTE.fullmatch(name))


byte_tokens = PerTokenizer(_find_byte_tokens)
_special_tokens = PerTokenizer(special_tokens)


class TokenTexts:
    """What single tokens would add to a text; the name of a special token, U+FFFD for part of a character."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._backend = tokenizer.backend_tokenizer
        # Decoders treat the first token in their own way.
        self._ahead = self._backend.encode("a", add_special_tokens=False).ids
        self._skipped = len(self._decode(self._ahead))
        self._known: dict[int, str] = {}

    def __call__(self, token: int) -> str:
        if token not in self._known:
            self._known[token] = self._decode([*self._ahead, token])[self._skipped :]
        return self._known[token]

    def _decode(self, ids: list[int]) -> str:
        return str(self._backend.decode(ids, skip_special_tokens=False))


# What a text is encoded behind. Tokens do not reach from one of these into what follows, with few exceptions.
_AHEAD = (".", "a", "\n", "1")


def encode_following(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of a text that follows other text. Names of control tokens in it are encoded as text.

    Tokenizers treat the beginning of a text in their own way: many put a space in front.
    """
    for ahead in _AHEAD:
        known, _ = encode(tokenizer, ahead, [(0, len(ahead))])
        whole, _ = encode(tokenizer, ahead + text, [(0, len(ahead) + len(text))])
        if whole[: len(known)] == known:
            return whole[len(known) :]
    return encode(tokenizer, text, [(0, len(text))])[0]


class TextStream:
    """Decodes tokens one at a time. The pieces together equal the decoding of all tokens at once.

    A piece is held back until later tokens cannot change it: while a character is incomplete, and while a run
    of byte-fallback tokens goes on. Any sequence of tokens can be decoded; bytes that are not UTF-8 become
    replacement characters.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, skip_special: bool = True) -> None:
        """skip_special: leave out tokens that the tokenizer flags as special."""
        self._backend = tokenizer.backend_tokenizer
        self._skip = skip_special
        self._bytes = byte_tokens(tokenizer)
        self._unseen = _special_tokens(tokenizer) if skip_special else frozenset[int]()
        # Decoders treat the first token in their own way, so new tokens are decoded after some earlier ones.
        self._context: list[int] = []
        self._held: list[int] = []
        self._in_bytes = False

    def step(self, token: int) -> str:
        """What is certain of the text after one more token."""
        self._held.append(token)
        if token not in self._unseen:
            self._in_bytes = token in self._bytes
        return "" if self._in_bytes else self._released(last=False)

    def end(self) -> str:
        """What was held back. Nothing may follow."""
        return self._released(last=True)

    def _released(self, last: bool) -> str:
        if not self._held:
            return ""
        whole = self._decode(self._context + self._held)
        if whole.endswith(_REPLACEMENT) and not last:
            return ""
        known = self._decode(self._context)
        visible = bool(self._decode(self._held))
        self._context = self._held if visible else self._context + self._held
        self._held = []
        return whole[len(known) :]

    def _decode(self, ids: list[int]) -> str:
        return str(self._backend.decode(ids, skip_special_tokens=self._skip))


_SENTENCE_END = re.compile(r"""(?:[.!?…]["'”’»)\]*_]*|[。！？]["”’」』）]*)\s*\Z""")
# A dot after a number or a letter of its own, or after a title, seldom ends a sentence.
_NO_END = re.compile(
    r"""(?:^|[\s("'*])(?:\d+|[A-Za-z]|[A-Za-z]\.[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|vs)\.\**\s*\Z"""
)
_WIDE_END = re.compile(r"""[。！？]["”’」』）]*\Z""")
_FENCE = "```"
_LONGEST_END = 64  # characters; more than a number or a title before its dot, with quotes and white space


def ends_sentence(text: str, following: str) -> bool:
    """Whether a sentence ends where `text` does, given the piece of text that would come next.

    Code is not cut. A line of a list ends like a sentence, a heading or an introduction ("...:") does not.
    """
    if text.count(_FENCE) % 2:
        return False
    if following.startswith("\n") or text.endswith("\n"):
        line = text.rstrip().rpartition("\n")[2]
        if len(line.split()) > 2 and not line.startswith("#") and line[-1] not in ":;,-–—":
            return True
    end = text[-_LONGEST_END:]  # a long answer is looked at for every token
    parted = (
        following[:1].isspace() or text[-1:].isspace() or bool(_WIDE_END.search(end) and following.isalnum())
    )
    return parted and bool(_SENTENCE_END.search(end)) and not _NO_END.search(end)


def content_texts(tokenizer: PreTrainedTokenizerBase, chat: RenderedChat) -> list[str]:
    """What each token of a finished chat adds to its message; empty for template text."""
    texts = [""] * len(chat.ids)
    streams: dict[tuple[int, bool], TextStream] = {}
    last: dict[tuple[int, bool], int] = {}
    for index, (token, owner, reasoning) in enumerate(zip(chat.ids, chat.owner, chat.reasoning, strict=True)):
        if owner >= 0:
            span = owner, reasoning
            stream = streams.setdefault(span, TextStream(tokenizer))
            texts[index], last[span] = stream.step(token), index
    for span, index in last.items():
        texts[index] += streams[span].end()
    return texts


@dataclass(frozen=True, slots=True)
class Piece:
    """What one token adds to a reply.

    Attributes:
        text: empty for special tokens and while a character is incomplete.
        special: whether the token is a special token or a mark around reasoning, rather than content.
        reasoning: whether it belongs to the reasoning before the answer.
    """

    text: str
    special: bool
    reasoning: bool


class ReplyText:
    """Reads a reply token by token: its text, and where its reasoning begins and ends."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        special: frozenset[int],
        marks: ReasoningFormat | None = None,
        in_reasoning: bool = False,
    ) -> None:
        """Begin a reply.

        Args:
            special: ids that are not content.
            marks: how the model marks reasoning; None for a model that does not reason.
            in_reasoning: whether the prompt ends inside reasoning.
        """
        self._special, self._marks = special, marks
        self._text = TextStream(tokenizer)
        self._withheld = ""
        self.in_reasoning = in_reasoning
        if marks is not None:
            # Special tokens can be part of a mark, so marks are looked for in the text with them.
            self._raw = TextStream(tokenizer, skip_special=False)
            self._tail = ""
            names = control_tokens(tokenizer).names.values()
            self._openings = (marks.opening, *_headers(marks.closing, names))
            every = (*self._openings, marks.closing)
            self._longest = max(map(len, every))
            # Mark -> the control token that it begins with; marks of plain text are left out.
            self._beginnings = {
                mark: max(begins, key=len)
                for mark in every
                if (begins := [name for name in names if mark.startswith(name)])
            }

    def step(self, token: int) -> Piece:
        """What this token adds."""
        text = self._text.step(token)
        if self._marks is None:
            return Piece(text, token in self._special, False)
        reasoning = self.in_reasoning
        state, rest = self._advance(self._raw.step(token))
        if state == "mark":
            return Piece(rest, True, reasoning)
        if state == "maybe":
            self._withheld += text
            return Piece("", True, reasoning)
        text, self._withheld = self._withheld + text, ""
        return Piece(text, token in self._special, reasoning)

    def end(self) -> str:
        """The text that was held back. Nothing may follow."""
        return self._withheld + self._text.end()

    def _advance(self, raw: str) -> tuple[str, str]:
        """Look for a mark at the end of the reply so far.

        Returns:
            "mark" and the text after it, when one has just ended; "maybe" while one may have begun with a
            control token; "text" otherwise.
        """
        assert self._marks is not None
        self._tail = (self._tail + raw)[-self._longest - len(raw) :]
        wanted = (self._marks.closing,) if self.in_reasoning else self._openings
        for mark in wanted:
            at = self._tail.find(mark)
            if at >= 0:
                rest = self._tail[at + len(mark) :]
                self._tail, self._withheld = "", ""
                if mark in (self._marks.opening, self._marks.closing):
                    self.in_reasoning = mark == self._marks.opening
                return "mark", rest.lstrip("\n") if rest else ""
        begun = any(self._has_begun(mark) for mark in wanted)
        return ("maybe" if begun else "text"), ""

    def _has_begun(self, mark: str) -> bool:
        """Whether the reply ends with the beginning of a mark that begins with a control token."""
        first = self._beginnings.get(mark)
        at = -1 if first is None else self._tail.rfind(first)
        return at >= 0 and mark.startswith(self._tail[at:])


def _headers(closing: str, names: Collection[str]) -> list[str]:
    """The ends of a closing mark from each inner control token on: what heads an answer without reasoning."""
    inner = {match.start() for name in names for match in re.finditer(re.escape(name), closing)}
    return [closing[at:] for at in sorted(inner - {0})]
