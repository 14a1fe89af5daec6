"""The engine against plain `model.generate` with hooks, on the real model."""

from __future__ import annotations

from dataclasses import replace
from threading import Event as CancelFlag

import pytest

from demo.conversation.conversation import Conversation
from demo.conversation.settings import CAPPED, UNCAPPED, TurnSettings, make_cap
from demo.engine import transformers_engine
from demo.engine.forward.forward_pass import ChunkReading
from demo.engine.protocol import Cap, PromptEvent, Request, Sampling, TokenEvent
from demo.engine.sampling import Choice
from demo.engine.sequence import TokenSequence, Vocabulary
from demo.engine.text import TokenTexts
from demo.engine.transformers_engine import TransformersEngine
from demo.models.chat_template import Message, render_chat
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis
from tests.helpers.reference import assert_equals_reference

PROBE, BAND = 17, (14, 20)


@pytest.fixture(scope="module")
def axis(model: LoadedModel):
    return random_axis(len(model.layers), model.hidden_size, PROBE, BAND)


@pytest.fixture
def engine(model: LoadedModel, axis) -> TransformersEngine:
    return TransformersEngine(model, axis)


def greedy(limit: int) -> Sampling:
    return Sampling(temperature=0, max_new_tokens=limit, repetition_penalty=1)


def ask(engine: TransformersEngine, text: str, branch: str) -> PromptEvent:
    """Answer a message in one branch. Returns the prompt's event."""
    request = Request(branch, ({"role": "user", "content": text},), greedy(12))
    prompt, *_ = engine.stream([request])
    assert isinstance(prompt, PromptEvent)
    return prompt


@pytest.mark.slow
def test_several_turns_equal_plain_generate(model, axis, engine):
    """Both branches, four turns of different lengths, one of which the limit ends in mid-sentence."""
    cap = make_cap(axis, *BAND, "p50")
    conversation = Conversation()
    acted = 0.0
    texts = ["What is the capital of France?", "Tell me a joke.", "Another one", "Thanks!\n\n1. bye"]
    for limit, text in zip((24, 4, 17, 12), texts, strict=True):
        histories = {branch: conversation.messages(branch) for branch in (UNCAPPED, CAPPED)}
        events = list(conversation.send(engine, text, TurnSettings(greedy(limit), cap, "")))
        for branch, branch_cap in ((UNCAPPED, None), (CAPPED, cap)):
            messages = [*histories[branch], Message(role="user", content=text)]
            own = [event for event in events if event.branch == branch]
            ran = assert_equals_reference(model, axis, branch_cap, messages, own, limit)
            acted += sum(event.token.correction for event in ran)
    assert acted > 0, "the cap never acted, so this test proves nothing"
    assert {turn.replies[UNCAPPED].finish for turn in conversation.turns} == {"stop", "length"}


def test_a_capped_sequence_does_not_change_its_uncapped_neighbour(axis, engine):
    cap = make_cap(axis, *BAND, "p75")
    message = ({"role": "user", "content": "Tell me about the sea."},)
    replies = []
    # An inactive cap and not None: with None the second prompt would be copied from the first.
    inactive = Cap(cap.layers, (-1e9,) * len(cap.layers))
    for other in (cap, inactive):
        engine.forget(["own", "other"])
        requests = [Request("own", message, greedy(10)), Request("other", message, greedy(10), other)]
        events = [event for event in engine.stream(requests) if isinstance(event, TokenEvent)]
        own = [(event.token_id, event.token.before) for event in events if event.branch == "own"]
        replies.append(own)
    assert replies[0] == replies[1]


def test_only_new_tokens_are_prefilled(axis, engine):
    """A turn reuses its branch's last prompt and reply, unless the floor has changed."""
    conversation = Conversation()

    def prompts(text: str, limit: int, floor: str) -> dict[str, PromptEvent]:
        settings = TurnSettings(greedy(limit), make_cap(axis, *BAND, floor))
        events = conversation.send(engine, text, settings)
        return {event.branch: event for event in events if isinstance(event, PromptEvent)}

    first, second = prompts("Hello there.", 16, "p50"), prompts("How are you?", 16, "p50")
    for branch, prompt in second.items():
        reply = conversation.turns[0].replies[branch]
        assert prompt.reused_tokens >= first[branch].prompt_tokens + len(reply.read)
    changed = prompts("And now?", 4, "p25")
    assert changed[CAPPED].reused_tokens == 0 and changed[UNCAPPED].reused_tokens > 0


def test_cancel_ends_within_one_step_and_keeps_the_tokens_so_far(engine):
    conversation = Conversation()
    seen = 0
    for event in conversation.send(engine, "Tell me a long story.", TurnSettings(greedy(200), None)):
        if isinstance(event, TokenEvent):
            seen += 1
            if seen == 6:
                conversation.stop()
    assert seen <= 6 + 2
    for reply in conversation.turns[0].replies.values():
        assert reply.finish == "cancelled" and reply.text
    assert list(conversation.send(engine, "Go on.", TurnSettings(greedy(4), None)))


def test_cancel_before_the_first_token(engine):
    cancel = CancelFlag()
    cancel.set()
    (event,) = engine.stream([Request("x", ({"role": "user", "content": "Hi"},), greedy(5))], cancel)
    assert event.finish_reason == "cancelled" and event.token_id is None
    assert engine.load.running == 0 and engine.load.waiting == 0


def test_closing_the_stream_frees_the_engine(engine):
    before = [len(layer._forward_hooks) for layer in engine.model.layers]
    stream = engine.stream([Request("x", ({"role": "user", "content": "Hi"},), greedy(50))])
    for event in stream:
        if isinstance(event, TokenEvent):
            break
    stream.close()
    assert engine.load.running == 0, "at once, without another client"
    assert ask(engine, "Hi", "x").reused_tokens > 0
    assert [len(layer._forward_hooks) for layer in engine.model.layers] == before


def test_a_chat_that_both_branches_share_is_rendered_once(engine, monkeypatch):
    rendered = []

    def counted(tokenizer, messages, **options):
        rendered.append((messages, options))
        return render_chat(tokenizer, messages, **options)

    monkeypatch.setattr(transformers_engine, "render_chat", counted)
    sampling = greedy(8)
    one, other = (({"role": "user", "content": text},) for text in ("Count to ten.", "What is rain?"))
    pair = [Request(branch, one, sampling) for branch in "ab"]
    dated = replace(pair[0], branch="c", date="2001-02-03")
    events = list(engine.stream([*pair, Request("d", other, sampling), dated]))
    assert [messages for messages, _ in rendered] == [one, other, one]
    assert [options["date"] for _, options in rendered] == [None, None, "2001-02-03"]
    replies = {
        branch: [
            event.token_id for event in events if isinstance(event, TokenEvent) and event.branch == branch
        ]
        for branch in "abd"
    }
    assert replies["a"] == replies["b"] != replies["d"]


def test_a_prompt_longer_than_the_context_is_refused_and_replies_end_within_it(model, axis):
    engine = TransformersEngine(replace(model, context=64), axis)
    conversation = Conversation()
    with pytest.raises(UserError, match=r"tokens long, but the model holds 64"):
        conversation.send(engine, "word " * 80, TurnSettings(greedy(4), None))
    assert conversation.turns == []
    events = list(conversation.send(engine, "word " * 15, TurnSettings(greedy(500), None)))
    assert events[-1].finish_reason in ("length", "stop") and events[-1].position < 64


def test_a_multi_byte_character_is_never_split(model):
    text = "é 🙂 中文 👩‍🚀 ok"
    request = Request("x", ({"role": "user", "content": "x"},), greedy(99))
    vocabulary = Vocabulary(model.tokenizer, model.stops, frozenset(), TokenTexts(model.tokenizer))
    sequence = TokenSequence(request, render_chat(model.tokenizer, request.messages), 99, vocabulary)
    pieces = []
    for token in model.tokenizer(text).input_ids:
        sequence.take(Choice(token, 1.0, ()))
        pieces.append(sequence.token_event(ChunkReading([0.0], 0.0, {}, None)).token.text)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert "" in pieces, "no character needs several tokens, so this test proves nothing"


@pytest.mark.slow
def test_the_memory_budget_drops_the_least_recently_used_branch(model, axis):
    unlimited = TransformersEngine(model, axis)
    ask(unlimited, "Name three a", "a")
    size = unlimited.prefix_cache.nbytes
    running = unlimited.load.kv_bytes - size
    small = TransformersEngine(model, axis, kv_budget=int(running + size * 2.5))
    # Each branch gets another text, because one branch's cache would serve all with the same text.
    for branch in "abc":
        ask(small, f"Name three {branch}", branch)
    assert "a" not in small.prefix_cache and "b" in small.prefix_cache and "c" in small.prefix_cache
    assert small.load.kv_bytes <= small.load.kv_budget
    prompt = ask(small, "Name three a", "a")
    # Only what the other branches' prompts begin with too is reused.
    assert prompt.reused_tokens < prompt.prompt_tokens - 1
    small.forget(["a"])
    assert "a" not in small.prefix_cache
