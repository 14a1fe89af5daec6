"""python -m demo.bench.decoding: is text that is decoded token by token the text that is decoded at once?

Random sequences of bytes, words and special tokens are decoded both ways by every tokenizer at hand.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from demo.bench.small_tokenizers import KINDS, small_tokenizer
from demo.bench.tiny_configs import tiny_tokenizer
from demo.engine.text import TextStream, byte_tokens
from demo.models.chat_template import special_tokens
from demo.utils.cli import command
from demo.utils.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MOST_TOKENS = 12


def difference_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str | None:
    """What differs between the two ways of decoding `ids`; None when nothing does."""
    stream = TextStream(tokenizer)
    pieces = [stream.step(token) for token in ids]
    text = "".join(pieces) + stream.end()
    whole = tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=True)
    return None if text == whole else f"{list(ids)}: {text!r} for {whole!r}"


def random_sequences(tokenizer: PreTrainedTokenizerBase, count: int, seed: int) -> Iterator[list[int]]:
    """Short random sequences: mostly bytes where the tokenizer has them, with words and special tokens."""
    rng = random.Random(seed)
    size, special = len(tokenizer), sorted(special_tokens(tokenizer))
    pieces = sorted(byte_tokens(tokenizer)) or _single_bytes(tokenizer)
    for _ in range(count):
        ids = []
        for _ in range(rng.randint(1, _MOST_TOKENS)):
            chance = rng.random()
            if pieces and chance < 0.7:
                ids.append(rng.choice(pieces))
            elif special and chance < 0.8:
                ids.append(rng.choice(special))
            else:
                ids.append(rng.randrange(size))
        yield ids


def _single_bytes(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of single bytes in a byte-level vocabulary; none in others."""
    from tokenizers.pre_tokenizers import ByteLevel

    vocabulary = tokenizer.get_vocab()
    found = [vocabulary[letter] for letter in ByteLevel.alphabet() if letter in vocabulary]
    return found if len(found) > 128 else []


def try_sequences(tokenizer: PreTrainedTokenizerBase, count: int, seed: int) -> list[str]:
    """The differences among `count` random sequences."""
    found = (difference_of(tokenizer, ids) for ids in random_sequences(tokenizer, count, seed))
    return [one for one in found if one is not None]


def tokenizers(folders: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Every tokenizer at hand, by name: small ones of each kind, and those in `folders`."""
    from transformers import AutoTokenizer

    yield "bytes", tiny_tokenizer()
    for kind in KINDS:
        yield kind, small_tokenizer(kind, [], None, None)
    for folder in folders:
        yield folder, AutoTokenizer.from_pretrained(folder, local_files_only=True)


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Try the tokenizers and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m demo.bench.decoding", description=__doc__)
    parser.add_argument("folders", nargs="*", help="folders with further tokenizers")
    parser.add_argument(
        "--sequences", type=int, default=300_000, help="for each tokenizer (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    wrong = 0
    for name, tokenizer in tokenizers(options.folders):
        found = try_sequences(tokenizer, options.sequences, options.seed)
        wrong += len(found)
        print(
            "\n  ".join([f"{name}: {options.sequences} sequences, {len(found)} differ", *found[:3]]),
            flush=True,
        )
    if wrong:
        raise UserError(f"{wrong} sequences decode differently token by token.")


if __name__ == "__main__":
    main()
