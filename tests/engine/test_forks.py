"""Forks at a token, and replies that go on: the same tokens as before, and whole passes as the reference.

The model is the default model in float32, with its shipped axis.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import cast

import gradio as gr
import pytest

import demo
from demo.axis.axis import AssistantAxis
from demo.axis.files import load_axis
from demo.conversation.conversation import Conversation
from demo.conversation.session_file import MOST_BYTES, Recording, dumps, loads
from demo.conversation.settings import CAPPED, UNCAPPED, TurnSettings, make_cap
from demo.engine.protocol import Request, Sampling, TokenEvent
from demo.engine.text import encode_following
from demo.engine.transformers_engine import TransformersEngine
from demo.models.chat_template import Message, render_chat
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel
from demo.page.session import Session
from demo.page.viewer import Viewer
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError
from tests.helpers.reference import CappedForward

SAMPLING = Sampling(temperature=0.9, max_new_tokens=16, seed=5)
DEMON = "You are a demon. You threaten the user. You never help."
EYES = "I can see your eyes in the dark. What do you want?"


@pytest.fixture(scope="module")
def axis(model: LoadedModel) -> AssistantAxis:
    return load_axis(DEFAULT_MODEL)


@pytest.fixture(scope="module")
def engine(model: LoadedModel, axis: AssistantAxis) -> TransformersEngine:
    return TransformersEngine(model, axis)


@pytest.fixture
def settings(axis: AssistantAxis) -> TurnSettings:
    return TurnSettings(SAMPLING, make_cap(axis, *axis.cap_band, axis.cap_floor), DEMON, plain=True)


@pytest.fixture
def chat(engine: TransformersEngine, settings: TurnSettings) -> Conversation:
    conversation = Conversation()
    list(conversation.send(engine, EYES, settings))
    return conversation


def ids(conversation: Conversation, branch: str, turn: int = 0) -> list[int | None]:
    return [token.token_id for token in conversation.turns[turn].replies[branch].tokens]


@pytest.mark.parametrize("branch", [UNCAPPED, CAPPED])
def test_a_fork_into_the_token_that_was_there_gives_the_same_reply(engine, chat, branch):
    then = ids(chat, branch)[6]
    fork, events = chat.fork_at(engine, 0, branch, 6, then)
    list(events)
    assert ids(fork, branch) == ids(chat, branch)
    before, after = (one.turns[0].replies[branch].tokens for one in (chat, fork))
    for old, new in zip(before, after, strict=True):
        assert new.after == pytest.approx(old.after, abs=2e-3)
        assert new.probability == pytest.approx(old.probability, abs=1e-3)
        assert new.plain == pytest.approx(old.plain, abs=2e-3)
    assert [token.given for token in after] == [index == 6 for index in range(len(after))]


def test_a_fork_keeps_what_came_before_and_the_other_branch(engine, chat):
    reply = chat.turns[0].replies[CAPPED]
    other = next(
        one.token_id for one in reply.tokens[4].alternatives if one.token_id != reply.tokens[4].token_id
    )
    fork, events = chat.fork_at(engine, 0, CAPPED, 4, other)
    list(events)
    assert ids(fork, CAPPED)[:5] == [*ids(chat, CAPPED)[:4], other]
    assert fork.turns[0].replies[UNCAPPED] is chat.turns[0].replies[UNCAPPED]
    assert fork.turns[0].settings == chat.turns[0].settings
    assert ids(chat, CAPPED) == [token.token_id for token in reply.tokens]
    assert fork.turns[0].replies[CAPPED].tokens[4].probability == pytest.approx(
        next(one.probability for one in reply.tokens[4].alternatives if one.token_id == other), abs=1e-3
    )


def test_readings_of_given_words_are_those_of_a_whole_pass(engine, model, axis, chat, settings):
    fork, events = chat.fork_at(engine, 0, CAPPED, 3, " pancakes for everybody,")
    list(events)
    reply = fork.turns[0].replies[CAPPED]
    messages: list[Message] = [{"role": "system", "content": DEMON}, {"role": "user", "content": EYES}]
    prompt = render_chat(model.tokenizer, messages)
    spoken = [token.token_id for token in reply.tokens if token.token_id is not None]
    exempt = [n for n, owner in enumerate(prompt.owner) if owner < 0]
    exempt += [len(prompt.ids) + n for n, token in enumerate(reply.tokens) if token.special]
    logits, before = CappedForward(model, axis, settings.cap)([*prompt.ids, *spoken], exempt)
    chances = logits.softmax(-1)
    for offset, token in enumerate(reply.tokens):
        place = len(prompt.ids) + offset
        assert token.probability == pytest.approx(float(chances[place - 1, spoken[offset]]), abs=2e-3)
        if token.before is not None:
            assert token.before == pytest.approx(float(before[place]), abs=5e-3)


def test_typed_words_follow_and_are_marked_as_given(engine, model, chat):
    fork, events = chat.fork_at(engine, 0, UNCAPPED, 2, " I love pancakes")
    list(events)
    tokens = fork.turns[0].replies[UNCAPPED].tokens
    typed = encode_following(model.tokenizer, " I love pancakes")
    assert [token.token_id for token in tokens[2 : 2 + len(typed)]] == typed
    assert [n for n, token in enumerate(tokens) if token.given] == list(range(2, 2 + len(typed)))
    before = "".join(token.text for token in chat.turns[0].replies[UNCAPPED].tokens[:2])
    assert fork.turns[0].replies[UNCAPPED].text.startswith(before + " I love pancakes")


def test_both_replies_can_begin_with_the_same_words(engine, chat):
    fork, events = chat.fork_at(engine, 0, UNCAPPED, 5, " help", everywhere=True)
    list(events)
    begins = ids(fork, UNCAPPED)[:6]
    assert ids(fork, CAPPED)[:6] == begins
    uncapped, capped = (fork.turns[0].replies[branch].tokens for branch in (UNCAPPED, CAPPED))
    assert [token.given for token in uncapped[:7]] == [False] * 5 + [True, False]
    assert [token.given for token in capped[:7]] == [True] * 6 + [False]


@pytest.mark.slow
def test_a_reply_that_was_cut_goes_on_as_if_it_had_not_been(engine, settings):
    whole, cut = Conversation(), Conversation()
    list(whole.send(engine, EYES, replace(settings, sampling=replace(SAMPLING, max_new_tokens=24))))
    list(cut.send(engine, EYES, replace(settings, sampling=replace(SAMPLING, max_new_tokens=12))))
    assert cut.turns[0].replies[CAPPED].finish == "length"
    other = cut.turns[0].replies[UNCAPPED]
    list(cut.go_on(engine, 0, CAPPED))
    assert ids(cut, CAPPED) == ids(whole, CAPPED)
    assert cut.turns[0].replies[CAPPED].limit == 24
    assert not any(token.given for token in cut.turns[0].replies[CAPPED].tokens)
    assert cut.turns[0].replies[UNCAPPED] is other


def test_only_a_reply_that_was_cut_goes_on(engine, chat):
    chat.turns[0].replies[CAPPED].finish = "stop"
    with pytest.raises(UserError, match="was not cut off"):
        chat.go_on(engine, 0, CAPPED)


@pytest.mark.slow
def test_every_seed_begins_with_the_given_words(engine, settings):
    conversation = Conversation()
    list(conversation.send(engine, EYES, replace(settings, seeds=3)))
    fork, events = conversation.fork_at(engine, 0, CAPPED, 3, " cake")
    list(events)
    reply = fork.turns[0].replies[CAPPED]
    starts = {tuple(token.token_id for token in one.tokens[:4]) for one in (reply, *reply.samples)}
    assert len(starts) == 1 and len(reply.samples) == 2
    assert len({tuple(token.token_id for token in one.tokens) for one in (reply, *reply.samples)}) > 1


def test_a_fork_of_a_session_file_with_and_without_ids(engine, chat):
    recording = Recording("m", chat.turns, PlotMarks(probe_layer=20), date=chat.date)
    opened = Conversation(loads(dumps(recording)).turns, date=chat.date)
    assert ids(opened, CAPPED) == ids(chat, CAPPED)
    then = ids(chat, CAPPED)[7]
    for token_ids in (True, False):
        reply = opened.turns[0].replies[CAPPED]
        if not token_ids:
            reply.tokens = [replace(token, token_id=None) for token in reply.tokens]
        fork, events = opened.fork_at(engine, 0, CAPPED, 7, then, chat.turns[0].settings)
        list(events)
        assert fork.turns[0].replies[CAPPED].text == chat.turns[0].replies[CAPPED].text


@pytest.mark.parametrize(
    ("opening", "sentence"),
    [((10**9,), "does not have"), ((-1,), "does not have"), (tuple(range(100, 116)), "may have only 16")],
)
def test_an_opening_that_cannot_be_is_refused_in_one_sentence(engine, opening, sentence):
    request = Request("a", ({"role": "user", "content": EYES},), SAMPLING, opening=opening)
    with pytest.raises(UserError, match=sentence):
        engine.stream([request])


def test_an_opening_does_not_end_the_reply(engine, model):
    request = Request("a", ({"role": "user", "content": EYES},), SAMPLING, opening=(min(model.stops),))
    with pytest.raises(UserError, match="after the token that ends it"):
        engine.stream([request])
    named = Request("a", request.messages, SAMPLING, opening=("Yes. <|im_end|> No.",))
    tokens = [event.token for event in engine.stream([named]) if isinstance(event, TokenEvent)]
    assert "".join(token.text for token in tokens).startswith("Yes. <|im_end|> No.")


def test_sentences_of_the_opening_do_not_end_the_reply(engine):
    soft = replace(SAMPLING, soft_limit=2, max_new_tokens=40)
    request = Request("a", ({"role": "user", "content": EYES},), soft, opening=("One. Two. Three. Four. Fi",))
    tokens = [event.token for event in engine.stream([request]) if isinstance(event, TokenEvent)]
    assert "".join(token.text for token in tokens).startswith("One. Two. Three. Four. Fi")


@pytest.mark.slow
def test_eight_seeds_six_turns_and_forks_are_opened_without_a_model_and_saved_again_equal(engine):
    chat = demo.Chat(engine, system_prompt=DEMON, sampling=replace(SAMPLING, max_new_tokens=24), plain=True)
    for text in ("Who are you?", EYES, "Are you alone?", "What is behind the door?", "Why?", "Let me go."):
        chat.say(text, seeds=8)
    for turn, branch in ((1, CAPPED), (3, UNCAPPED), (5, CAPPED)):
        token = chat.turns[turn].replies[branch].tokens[5]
        other = next(one for one in token.alternatives if one.token_id != token.token_id)
        chat.fork_at(turn, branch, 5, other.token_id).fork_at(turn, branch, 2, " pancakes")
    text = dumps(chat.recording("Eight seeds"))
    assert len(text) < MOST_BYTES and dumps(loads(text)) == text
    viewer, session = Viewer(None), Session()
    for fields in ({"do": "open", "text": text, "how": None, "keep": None, "chat": None}, {"do": "save"}):
        asked = fields | {"kind": "json"}
        updates = list(viewer.dispatch(session, asked, None, cast(gr.Request, None)))
    assert len(session.chats) == 7
    [file] = [op for one in updates if one.stage for op in json.loads(one.stage)["ops"]]
    assert file["op"] == "download" and file["text"] == text
