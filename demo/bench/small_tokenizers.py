"""Small tokenizers of the usual kinds, trained in memory on a few sentences."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE, Unigram, WordLevel, WordPiece

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedTokenizerBase

_TEXT = (
    "You are the cook of a ship. Answer in few words, and say what is for supper tonight.",
    "A user asks, an assistant answers; system, model and role are words that templates write.",
    "Soup of leek and potato, with bread. First think, then write the list: 1. leek 2. potato",
    "def cook(pot): return [print(item) for item in pot if item != 'salt'] # instruction, response",
)

KINDS = ("byte-level BPE", "sentencepiece BPE", "Metaspace BPE", "Unigram", "WordPiece", "WordLevel")

# Kinds that can spell any text.
SPELLING = frozenset(KINDS[:3])

_BYTES = [f"<0x{value:02X}>" for value in range(256)]


def small_tokenizer(kind: str, added: list[AddedToken], bos: str | None, eos: str | None) -> Any:
    """A tokenizer of one of `KINDS` with these added tokens."""
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(_trained(kind))
    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    return with_tokens(tokenizer, added, bos, eos)


def with_tokens(tokenizer: Any, added: list[AddedToken], bos: str | None, eos: str | None) -> Any:
    """The tokenizer itself, with more tokens."""
    for token in added:
        tokenizer.add_tokens([token], special_tokens=token.special)
    tokenizer.bos_token, tokenizer.eos_token = bos, eos
    return tokenizer


@cache
def _trained(kind: str) -> str:
    """The tokenizer as JSON."""
    backend, trainer = _BUILD[kind]()
    backend.train_from_iterator(_TEXT, trainer)
    content = json.loads(backend.to_str())
    # The trainer keeps bytes only as special tokens, which they are not.
    content["added_tokens"] = [one for one in content["added_tokens"] if one["content"] not in _BYTES]
    return json.dumps(content)


def _byte_level() -> tuple[Tokenizer, Any]:
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return backend, trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>"], initial_alphabet=alphabet)


def _sentencepiece() -> tuple[Tokenizer, Any]:
    """With the space marker put in by the normaliser, as in Llama 2."""
    backend, trainer = _metaspace()
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = None
    return backend, trainer


def _metaspace() -> tuple[Tokenizer, Any]:
    backend = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<unk>", *_BYTES], max_token_length=8, show_progress=False
    )
    return backend, trainer


def _unigram() -> tuple[Tokenizer, Any]:
    backend = Tokenizer(Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    return backend, trainers.UnigramTrainer(
        vocab_size=120, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )


def _word_piece() -> tuple[Tokenizer, Any]:
    backend = Tokenizer(WordPiece(unk_token="<unk>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend, trainers.WordPieceTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False)


def _word_level() -> tuple[Tokenizer, Any]:
    backend = Tokenizer(WordLevel(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return backend, trainers.WordLevelTrainer(special_tokens=["<unk>"], show_progress=False)


_BUILD = dict(
    zip(KINDS, (_byte_level, _sentencepiece, _metaspace, _unigram, _word_piece, _word_level), strict=True)
)
