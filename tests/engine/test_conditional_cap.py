"""A cap that acts only on replies that begin below a threshold, against plain forward passes.

The models are small and random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from demo.axis.files import load_axis
from demo.bench.architectures import as_loaded
from demo.bench.tiny_configs import tiny_model
from demo.conversation.settings import own_cap
from demo.engine.protocol import Cap, PromptEvent, Request, Sampling, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.models.chat_template import Message, render_chat
from demo.models.loading import load_model
from tests.helpers.axes import random_axis
from tests.helpers.reference import CappedForward, template_positions
from tests.helpers.tiny_models import tiny_llama

GREEDY = Sampling(temperature=0, max_new_tokens=8, repetition_penalty=1)
FIRST = (Message(role="user", content="Tell me about the sea."),)
ALWAYS, NEVER = 1e6, -1e6


@pytest.fixture(scope="module", params=["llama", "qwen3_5_text"])
def case(request, model):
    """A model whose cache can be cut back, and a hybrid one whose state cannot, with an axis and a cap."""
    name = request.param
    tiny = tiny_llama(model) if name == "llama" else as_loaded(tiny_model(name), name)
    count = len(tiny.layers)
    axis = random_axis(count, tiny.hidden_size, count - 1, (0, count - 1))
    # Far above every projection, so that a capped reply has other words.
    floors = tuple(float(20 * axis.norm[layer]) for layer in range(count))
    return tiny, axis, Cap(tuple(range(count)), floors)


def answer(engine: TransformersEngine, messages: Sequence[Message], cap: Cap | None, branch: str = "a"):
    """Where the reply begins, its token ids, its text, and whether the cap acted."""
    events = list(engine.stream([Request(branch, tuple(messages), GREEDY, cap)]))
    start = next(event.start for event in events if isinstance(event, PromptEvent))
    tokens = [event for event in events if isinstance(event, TokenEvent)]
    acted = any(event.token.correction > 0 for event in tokens)
    return start, [e.token_id for e in tokens], "".join(e.token.text for e in tokens), acted


def expected(model, axis, cap: Cap | None, messages: Sequence[Message]) -> tuple[float, list[int]]:
    """The same by whole forward passes, in which the clamp acts on the new tokens only."""
    ids = list(render_chat(model.tokenizer, messages).ids)
    prompt, special = len(ids), set(model.tokenizer.all_special_ids)
    start = float(CappedForward(model, axis, None)(ids, [])[1][-1])
    stops = model.stops
    while len(ids) - prompt < GREEDY.max_new_tokens:
        exempt = [n for n, token in enumerate(ids) if n < prompt or token in special]
        logits, _ = CappedForward(model, axis, cap)(ids, exempt)
        ids.append(int(logits[-1].argmax()))
        if ids[-1] in stops:
            break
    return start, ids[prompt:]


def test_a_reply_that_begins_above_the_threshold_is_the_uncapped_one_bit_for_bit(case):
    model, axis, cap = case
    uncapped = answer(TransformersEngine(model, axis), FIRST, None)
    closed = replace(cap, only_below=uncapped[0])
    events = {
        name: [
            (event.token_id, event.token.before, event.token.probability, event.token.alternatives)
            for event in TransformersEngine(model, axis).stream([Request("a", FIRST, GREEDY, own)])
            if isinstance(event, TokenEvent)
        ]
        for name, own in (("closed", closed), ("none", None))
    }
    assert events["closed"] == events["none"]
    assert answer(TransformersEngine(model, axis), FIRST, closed) == uncapped


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_pair_that_is_left_alone_is_the_same_bit_for_bit_beside_other_visitors(dtype):
    """In bfloat16 a token that runs alone is rounded otherwise than one that runs with those before it."""
    model = load_model(dtype=dtype)
    axis = load_axis(model.slug)
    engine, closed = TransformersEngine(model, axis), replace(own_cap(axis), only_below=NEVER)
    caps: dict[str, Cap | None] = {"none": None, "cap": closed}
    questions = ("What is the boiling point of water?", "Why is the sky blue?", "Hi!")
    said = {(q, name): (Message(role="user", content=q),) for q in questions for name in caps}
    for turn in range(2):
        sampling = Sampling(seed=turn, max_new_tokens=16)
        requests = [Request(" ".join(key), said[key], sampling, caps[key[1]]) for key in said]
        tokens: dict[str, list[TokenEvent]] = {request.branch: [] for request in requests}
        for event in engine.stream(requests):
            if isinstance(event, TokenEvent):
                tokens[event.branch].append(replace(event, branch=""))
        assert all(tokens[f"{question} cap"] == tokens[f"{question} none"] for question in questions)
        for key in said:
            text = "".join(event.token.text for event in tokens[" ".join(key)])
            reply, further = Message(role="assistant", content=text), Message(role="user", content="Go on.")
            said[key] = (*said[key], reply, further)


def test_a_reply_that_begins_below_it_is_capped_and_the_prompt_is_not(case):
    model, axis, cap = case
    begin, plain, _, _ = answer(TransformersEngine(model, axis), FIRST, None)
    start, ids, _, acted = answer(
        TransformersEngine(model, axis), FIRST, replace(cap, only_below=begin + 0.01)
    )
    reference = expected(model, axis, cap, FIRST)
    assert start == pytest.approx(reference[0], abs=1e-4)
    assert ids == reference[1]
    assert acted
    assert ids != plain, "the cap changes nothing here, so this proves nothing"


@pytest.mark.parametrize("keep", [True, False])
def test_later_turns_read_a_capped_reply_without_the_cap(case, keep):
    model, axis, cap = case
    engine, always = TransformersEngine(model, axis, keep=keep), replace(cap, only_below=ALWAYS)
    _, _, text, acted = answer(engine, FIRST, always)
    assert acted
    second = (*FIRST, Message(role="assistant", content=text), Message(role="user", content="And then?"))
    for threshold, own in ((ALWAYS, cap), (NEVER, None)):
        _, ids, _, _ = answer(engine, second, replace(cap, only_below=threshold), f"{threshold}")
        assert ids == expected(model, axis, own, second)[1]
    _, ids, _, _ = answer(engine, second, always)
    assert ids == expected(model, axis, cap, second)[1]


def test_a_prompt_that_another_branch_has_read_is_shared_with_the_uncapped_one(case):
    model, axis, cap = case
    engine = TransformersEngine(model, axis)
    _, _, text, _ = answer(engine, FIRST, None)
    events = list(engine.stream([Request("b", FIRST, GREEDY, replace(cap, only_below=ALWAYS))]))
    reused = next(event.reused_tokens for event in events if isinstance(event, PromptEvent))
    assert reused > len("Tell me about")
    second = (*FIRST, Message(role="assistant", content=text), Message(role="user", content="And then?"))
    assert answer(engine, second, None)[1] == expected(model, axis, None, second)[1]


def test_both_branches_together_are_what_each_is_alone(case):
    model, axis, cap = case
    requests = [Request("u", FIRST, GREEDY), Request("c", FIRST, GREEDY, replace(cap, only_below=ALWAYS))]
    ids: dict[str, list[int | None]] = {}
    for event in TransformersEngine(model, axis).stream(requests):
        if isinstance(event, TokenEvent):
            ids.setdefault(event.branch, []).append(event.token_id)
    assert ids == {"u": expected(model, axis, None, FIRST)[1], "c": expected(model, axis, cap, FIRST)[1]}


@pytest.mark.parametrize("chunk", [5, 512])
def test_reading_a_chat_caps_each_reply_by_where_it_begins(case, chunk):
    model, axis, cap = case
    chat = (
        *FIRST,
        Message(role="assistant", content="It is wide and blue."),
        Message(role="user", content="What lives in it? I would like to know."),
        Message(role="assistant", content="Fish, and whales."),
    )
    starts = [expected(model, axis, None, chat[:end])[0] for end in (1, 3)]
    threshold = sum(starts) / 2  # one reply begins below it, the other above
    rendered, probe = render_chat(model.tokenizer, chat, reply_next=False), axis.probe_layer
    engine = TransformersEngine(model, axis, chunk=chunk)
    request = Request("a", chat, cap=replace(cap, only_below=threshold))
    read = [token for part in engine.read(request) for token in part]
    outside = template_positions(rendered)
    for message, token_is_capped in (
        (0, False),
        (1, starts[0] < threshold),
        (2, False),
        (3, starts[1] < threshold),
    ):
        exempt = [n for n, owner in enumerate(rendered.owner) if owner != message or n in outside]
        forward = CappedForward(model, axis, cap if token_is_capped else None)
        forward(rendered.ids, exempt)
        assert forward.after is not None
        own = [n for n, owner in enumerate(rendered.owner) if owner == message]
        after = axis.to_units(forward.after[own] @ axis.unit[probe], probe)
        actual = torch.tensor([token.after[probe] for token in read if token.message == message])
        torch.testing.assert_close(actual, after, rtol=1e-4, atol=2e-3)
