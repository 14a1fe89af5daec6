"""How byte-level tokenizers split text before they merge bytes, by the name that a GGUF file gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """How a byte-level BPE tokenizer splits text before it merges bytes.

    Attributes:
        splits: Regular expressions, applied one after the other; each match becomes a piece of its own.
            Without any, text is split as by GPT-2.
        digits: Whether every digit is split off before that.
        whole_words: Whether a piece that is in the vocabulary stays whole, whatever the merges say.
        composed: Whether text is brought into Unicode's composed form (NFC) first.
    """

    splits: tuple[str, ...] = ()
    digits: bool = False
    whole_words: bool = False
    composed: bool = False


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"

_REST = r"|\s*[\r\n]+|\s+(?!\S)|\s+"


def _words_and_numbers(numbers: str) -> str:
    words = r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
    return _CONTRACTIONS + words + numbers + r"| ?[^\s\p{L}\p{N}]+[\r\n]*" + _REST


def _cased_words(suffix: str, numbers: str) -> str:
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    start = r"[^\r\n\p{L}\p{N}]?"
    words = f"{start}{upper}*{lower}+{suffix}|{start}{upper}+{lower}*{suffix}|"
    return words + numbers + r"| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _REST


_LLAMA_3 = _words_and_numbers(r"\p{N}{1,3}")

_GPT_2 = PreTokenizer()

_SINGLE_DIGITS = PreTokenizer(digits=True)

# By the name in `tokenizer.ggml.pre`. The expressions are those of the models' published tokenizer.json; they
# stand in src/llama-vocab.cpp of llama.cpp too, together with which kinds keep whole words.
PRE_TOKENIZERS = {
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais"), _GPT_2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"), _SINGLE_DIGITS),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"), PreTokenizer((_LLAMA_3,), whole_words=True)
    ),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe", "glm4"), PreTokenizer((_LLAMA_3,))),
    "qwen2": PreTokenizer((_words_and_numbers(r"\p{N}"),), composed=True),
    "deepseek-r1-qwen": PreTokenizer((_words_and_numbers(r"\p{N}"),)),
    "tekken": PreTokenizer((_cased_words("", r"\p{N}"),), whole_words=True),
    "gpt-4o": PreTokenizer((_cased_words(f"{_CONTRACTIONS}?", r"\p{N}{1,3}"),)),
    "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}")),
    "deepseek-v3": PreTokenizer(
        (
            r"\p{N}{1,3}",
            r"[一-龥぀-ゟ゠-ヿ]+",
            r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
            r"| ?[\p{P}\p{S}]+[\r\n]*" + _REST,
        )
    ),
}


def correct_tokenizer(tokenizer: Any, stated: PreTokenizer) -> None:
    """Make a byte-level BPE tokenizer split text as `stated`; transformers' import depends on its release."""
    from tokenizers import Regex
    from tokenizers.normalizers import NFC
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

    steps: list[Any] = [Digits(individual_digits=True)] if stated.digits else []
    steps += [Split(Regex(pattern), behavior="isolated") for pattern in stated.splits]
    steps.append(ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=not stated.splits))
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = Sequence(steps)
    if stated.composed:
        backend.normalizer = NFC()
    if stated.whole_words:
        backend.model.ignore_merges = True
