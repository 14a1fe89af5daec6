"""Two conversations compared from Python: their turns, and the words that differ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.conversation.comparison import compare, word_difference
from demo.conversation.conversation import Conversation
from demo.conversation.settings import CAPPED, UNCAPPED
from tests.helpers.scripted import SETTINGS, ScriptedEngine

TEXTS = st.text(alphabet="ab \n", max_size=40)


@given(TEXTS, TEXTS)
def test_the_pieces_make_both_texts(left, right):
    pieces = word_difference(left, right)
    assert "".join(text for kind, text in pieces if kind != "right") == left
    assert "".join(text for kind, text in pieces if kind != "left") == right
    assert all(text for _, text in pieces)
    assert (left == right) == all(kind == "same" for kind, _ in pieces)


def test_words_that_differ_are_told_apart():
    assert word_difference("I am a demon.", "I am a friendly elf.") == [
        ("same", "I am a"),
        ("left", " demon."),
        ("right", " friendly elf."),
    ]


def test_conversations_are_compared_turn_by_turn():
    one, other = Conversation(), Conversation()
    for conversation, texts in ((one, ("Hi", "And?")), (other, ("Hi",))):
        for text in texts:
            list(conversation.send(ScriptedEngine(), text, SETTINGS))
    first, second = compare(one.turns, other.turns, UNCAPPED, CAPPED)
    assert first.users == ("Hi", "Hi") and second.users == ("And?", None)
    assert first.difference == pytest.approx(1 / 3) and second.difference is None
    assert first.words == [("same", "Hello there!")]
    assert second.words == [("left", "Hello there!")]
