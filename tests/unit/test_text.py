"""Decoding token by token, and where the reasoning in a reply begins and ends."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken

from demo.bench.decoding import difference_of, try_sequences
from demo.bench.small_tokenizers import KINDS, small_tokenizer
from demo.engine.text import (
    ReplyText,
    TextStream,
    byte_tokens,
    content_texts,
    encode_following,
    ends_sentence,
)
from demo.models.chat_template import ReasoningFormat, RenderedChat, special_tokens

BYTE_FALLBACK = "sentencepiece BPE"


def streamed(tokenizer, ids) -> list[str]:
    stream = TextStream(tokenizer)
    return [*(stream.step(token) for token in ids), stream.end()]


@pytest.mark.parametrize("kind", KINDS)
def test_random_tokens_decode_as_they_do_at_once(kind):
    added = [AddedToken("<s>", special=True), AddedToken("</think>", special=False)]
    assert try_sequences(small_tokenizer(kind, added, "<s>", None), 400, seed=1) == []


def test_random_bytes_of_the_default_model_decode_as_they_do_at_once(model):
    assert try_sequences(model.tokenizer, 400, seed=2) == []


# Their decoders put a space before a token that begins a word, so no text can be glued to the word before it.
WHOLE_WORDS = ("WordPiece", "WordLevel")
FOLLOWING = [(kind, text) for kind in KINDS for text in (" soup", ", soup", " s\n")]
FOLLOWING += [(kind, text) for kind in KINDS if kind not in WHOLE_WORDS for text in ("s", "Soup")]


@pytest.mark.parametrize(("kind", "text"), FOLLOWING)
def test_a_text_that_follows_another_adds_itself_and_no_space(kind, text):
    tokenizer = small_tokenizer(kind, [], None, None)
    before = tokenizer("soup", add_special_tokens=False)["input_ids"]
    known = tokenizer.backend_tokenizer.decode(before)
    ids = [*before, *encode_following(tokenizer, text)]
    whole = tokenizer("soup" + text, add_special_tokens=False)["input_ids"]
    assert tokenizer.backend_tokenizer.decode(ids) == tokenizer.backend_tokenizer.decode(whole)
    assert tokenizer.backend_tokenizer.decode(ids).startswith(known)


def byte_ids(tokenizer, data: bytes) -> list[int]:
    return [tokenizer.convert_tokens_to_ids(f"<0x{value:02X}>") for value in data]


def test_bytes_that_are_not_utf8_become_replacement_characters():
    tokenizer = small_tokenizer(BYTE_FALLBACK, [], None, None)
    assert len(byte_tokens(tokenizer)) == 256
    word = tokenizer("soup", add_special_tokens=False)["input_ids"]
    ids = [*word, *byte_ids(tokenizer, b"\xff\xfe"), *word]
    assert "\ufffd\ufffd" in "".join(streamed(tokenizer, ids))
    assert difference_of(tokenizer, ids) is None


def test_a_character_is_shown_only_when_later_bytes_cannot_change_it():
    """An invalid byte makes the decoder replace the whole run of bytes, the valid character too."""
    tokenizer = small_tokenizer(BYTE_FALLBACK, [], None, None)
    pieces = streamed(tokenizer, byte_ids(tokenizer, "€".encode()))
    assert pieces == ["", "", "", "€"]
    assert difference_of(tokenizer, byte_ids(tokenizer, "€".encode() + b"\xff")) is None


def test_texts_of_a_finished_chat_begin_anew_with_each_message():
    tokenizer = small_tokenizer(BYTE_FALLBACK, [], None, None)
    half, word = (
        byte_ids(tokenizer, "é".encode())[:1],
        tokenizer("soup", add_special_tokens=False)["input_ids"],
    )
    ids = [*half, *word, *half]
    owner = [0, *[1] * len(word), 2]
    chat = RenderedChat(ids, owner, [False] * len(ids), len(ids), (), False)
    texts = content_texts(tokenizer, chat)
    assert texts[0] == texts[-1] == "\ufffd" and "".join(texts[1:-1]).strip() == "soup"


THINK = ReasoningFormat("<think>", "</think>", True)
CHANNELS = ReasoningFormat(
    "<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>", False
)


def reader(marks: ReasoningFormat | None, inside: bool = False) -> tuple[ReplyText, object]:
    names = ["<think>", "</think>", "<|channel|>", "<|message|>", "<|end|>", "<|start|>"]
    added = [AddedToken(name, special=name.startswith("<|"), normalized=False) for name in names]
    tokenizer = small_tokenizer("byte-level BPE", added, None, None)
    return ReplyText(tokenizer, special_tokens(tokenizer), marks, inside), tokenizer


def spans(marks: ReasoningFormat | None, text: str, inside: bool = False) -> tuple[str, str, list[str]]:
    """The reasoning, the answer, and the tokens that are neither."""
    reply, tokenizer = reader(marks, inside)
    found, marked = {True: "", False: ""}, []
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        piece = reply.step(token)
        found[piece.reasoning] += piece.text
        if piece.special:
            marked.append(tokenizer.decode([token]))
    found[reply.in_reasoning] += reply.end()
    return found[True], found[False], marked


def test_reasoning_is_told_from_the_answer():
    reasoning, answer, marked = spans(THINK, "<think>\nfirst leek</think>\n\nSoup.")
    assert reasoning.strip() == "first leek" and answer.strip() == "Soup."
    assert marked == ["<think>", "</think>"]


def test_a_prompt_can_end_inside_reasoning():
    reasoning, answer, _ = spans(THINK, "first leek</think>Soup.", inside=True)
    assert (reasoning, answer) == ("first leek", "Soup.")


def test_marks_of_several_tokens_are_no_content():
    text = "<|channel|>analysis<|message|>first leek<|end|><|start|>assistant<|channel|>final<|message|>Soup."
    reasoning, answer, marked = spans(CHANNELS, text)
    assert (reasoning, answer) == ("first leek", "Soup.")
    assert "".join(marked) == text.replace("first leek", "").replace("Soup.", "")


def test_an_answer_without_reasoning_loses_its_header_only():
    assert spans(CHANNELS, "<|channel|>final<|message|>Soup.")[:2] == ("", "Soup.")


def test_text_that_only_resembles_a_mark_stays():
    assert spans(THINK, "a < b and <b>")[1] == "a < b and <b>"
    assert spans(None, "no marks at all")[:2] == ("", "no marks at all")


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ("I am a demon.", " I"),
        ("I am a demon. ", "I"),
        ('He said "no."', " Then"),
        ("Really?!", "\n"),
        ("**Stop!**", " Now"),
        ("It ends…", " And"),
        ("我是一个恶魔。", "我"),
        ("「来吧。」", "他"),
        ("- two loaves of bread", "\n"),
        ("Done.\n\n", "Next"),
        ("```\nx = 1\n```\nThat is all.", " So"),
    ],
)
def test_a_sentence_ends_between_two_sentences(text, following):
    assert ends_sentence(text, following)


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ("Pi is 3.", "14"),
        ("Read example.", "com"),
        ('He said "no.', '"'),
        ("I am a", " demon"),
        ("Ask Dr.", " Marrow"),
        ("First, e.g.", " bread"),
        ("Two things:\n1.", " Bread"),
        ("Here are the steps:", "\n"),
        ("## What to do", "\n"),
        ("This is\n", "it"),
        ("", " I"),
        ("恶魔。", "」"),
        ("```python\nprint('Hello there, you.')", "\n"),
        ("Nobody knows,", " yet"),
    ],
)
def test_a_sentence_goes_on(text, following):
    assert not ends_sentence(text, following)
