"""One contract for every engine: the same events, the same words, the same numbers, whoever runs the model.

The reference is a plain forward pass with plain hooks over the whole text, one row at a time (reference.py); the model is the real
default model with its shipped axis, in float32. Engines that are not installed are skipped; .ci/run has an environment for each.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event as CancelFlag

import pytest
import torch

from demo.axis.axis import AssistantAxis
from demo.axis.files import load_axis
from demo.conversation.conversation import Conversation
from demo.conversation.settings import CAPPED, UNCAPPED, TurnSettings, make_cap
from demo.engine.protocol import Cap, Engine, Event, PromptEvent, Request, Sampling, Steer, TokenEvent
from demo.engine.sampling import SamplingStep, sample_batch
from demo.models.chat_template import Message, render_chat
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from tests.helpers.engines import ENGINES, engine_parameters
from tests.helpers.reference import CappedForward, capped_generate

DEMON: Message = {
    "role": "system",
    "content": "You are a demon. You threaten the user and laugh at their fear. You never help anyone.",
}
EYES: Message = {"role": "user", "content": "I can see your eyes in the dark. What do you want?"}
PARIS: Message = {"role": "user", "content": "What is the capital of France?"}
TALKS: list[tuple[Message, ...]] = [
    (DEMON, EYES),
    (PARIS,),
    ({"role": "user", "content": "Give me a recipe for pancakes, with the amounts, please."},),
    ({"role": "system", "content": "You are a pirate."}, PARIS),
    (PARIS, {"role": "assistant", "content": "Paris."}, {"role": "user", "content": "And of Spain? 🎉"}),
    ({"role": "user", "content": "Hi"},),
    (DEMON, {"role": "user", "content": "Say " + "boo " * 60}),
    ({"role": "user", "content": "Schreib mir ein Gedicht über den Mond. Ü ä ö 日本語"},),
]


@pytest.fixture(scope="module")
def axis(model: LoadedModel) -> AssistantAxis:
    return load_axis(DEFAULT_MODEL)


@pytest.fixture(scope="module", params=engine_parameters())
def engine(request, model: LoadedModel, axis: AssistantAxis) -> Iterator[Engine]:
    with ENGINES[request.param](model, axis) as engine:
        yield engine


@pytest.fixture(scope="module")
def cap(axis: AssistantAxis) -> Cap:
    return make_cap(axis, *axis.cap_band, axis.cap_floor)


def greedy(limit: int) -> Sampling:
    return Sampling(temperature=0, max_new_tokens=limit, repetition_penalty=1)


def of(events: Sequence[Event], branch: str) -> list[TokenEvent]:
    return [e for e in events if isinstance(e, TokenEvent) and e.branch == branch]


def said(events: Sequence[Event], branch: str) -> list[tuple[int | None, str, str | None]]:
    return [(e.token_id, e.token.text, e.finish_reason) for e in of(events, branch)]


def numbers(events: Sequence[Event], branch: str) -> list[tuple[float, ...]]:
    return [
        (e.token.before, e.token.after, *e.token.corrections, *(e.token.coordinates or ()))
        for e in of(events, branch)
        if e.token.before is not None
    ]


def pair(messages: tuple[Message, ...], cap: Cap | None, sampling: Sampling, name: str = "") -> list[Request]:
    return [Request(f"{name}plain", messages, sampling), Request(f"{name}capped", messages, sampling, cap)]


def test_events_come_in_step(engine, cap):
    """Prompts first, then a token of every row that has not ended, at consecutive positions, each branch ending once."""
    events = list(engine.stream(pair((DEMON, EYES), cap, greedy(20))))
    prompts = [e for e in events if isinstance(e, PromptEvent)]
    assert [type(e) for e in events[:2]] == [PromptEvent, PromptEvent]
    assert {e.branch for e in prompts} == {"plain", "capped"} and len(prompts) == 2
    for branch in ("plain", "capped"):
        tokens, prompt = of(events, branch), next(e for e in prompts if e.branch == branch)
        assert [e.position for e in tokens] == [prompt.prompt_tokens + n for n in range(len(tokens))]
        assert [e.finish_reason for e in tokens[:-1]] == [None] * (len(tokens) - 1)
        assert tokens[-1].finish_reason in ("stop", "length")
        assert all(0 < e.token.probability <= 1 for e in tokens)
    counts = {"plain": 0, "capped": 0}
    for event in events[2:]:
        counts[event.branch] += 1
        ended = {b for b in counts if len(of(events, b)) == counts[b]}
        assert ended or abs(counts["plain"] - counts["capped"]) <= 1


@pytest.mark.parametrize("capped", [False, True])
def test_words_and_numbers_are_the_references(model, axis, engine, cap, capped):
    """Tokens, projections before and after the clamp, corrections per layer, places on the map, the user's mean."""
    messages, special = (DEMON, EYES), frozenset(model.tokenizer.all_special_ids)
    used = cap if capped else None
    events = list(engine.stream([Request("a", messages, greedy(24), used)]))
    chat = render_chat(model.tokenizer, messages)
    exempt = [n for n, owner in enumerate(chat.owner) if owner < 0]
    tokens = of(events, "a")
    assert [e.token_id for e in tokens] == capped_generate(model, axis, used, chat.ids, exempt, 24)
    ran = [e for e in tokens if e.token.before is not None]
    full = [*chat.ids, *(e.token_id for e in ran)]
    alone = exempt + [len(chat.ids) + n for n, e in enumerate(ran) if e.token_id in special]
    _, expected = CappedForward(model, axis, used)(full, alone)
    got = torch.tensor([e.token.before for e in ran])
    torch.testing.assert_close(got, expected[len(chat.ids) :], rtol=0, atol=1e-4)
    user = expected[: len(chat.ids)][[n for n, owner in enumerate(chat.owner) if owner == 1]].mean()
    prompt = next(e for e in events if isinstance(e, PromptEvent))
    assert prompt.user_projection == pytest.approx(float(user), abs=1e-4)
    if not capped:
        assert all(e.token.before == e.token.after and not any(e.token.corrections) for e in ran)
        return
    at = cap.layers.index(axis.probe_layer)
    floor = axis.to_units(cap.floors[at], axis.probe_layer)
    assert any(sum(e.token.corrections) > 0 for e in ran), (
        "the cap never acted, so this test would show nothing"
    )
    for event in ran:
        assert len(event.token.corrections) == len(cap.layers) and min(event.token.corrections) >= 0
        assert event.token.corrections[at] == pytest.approx(event.token.after - event.token.before, abs=1e-4)
        if event.token.special:
            assert not any(event.token.corrections)
        else:
            assert event.token.after >= floor - 1e-4
            assert len(event.token.coordinates) == 3


def test_a_cap_with_nothing_to_do_changes_no_bit(engine, cap):
    """Each alone and read from its first token on: in other company, or from a cache that was filled in other steps, a float32
    product may round otherwise, cap or no cap. Steering by zero is no steering, and nobody else here has a cache under it."""
    idle, seen = Cap(cap.layers, (-1e30,) * len(cap.layers)), []
    for used, steer in ((None, Steer(0, 0.0)), (idle, None)):
        for _ in range(2):  # the first makes room
            engine.forget(["a"])
            events = list(engine.stream([Request("a", (DEMON, EYES), greedy(16), used, steer)]))
        prompt = next(e for e in events if isinstance(e, PromptEvent))
        rows = [
            (e.token.before, e.token.after, e.token.coordinates, e.token.probability) for e in of(events, "a")
        ]
        seen.append((said(events, "a"), rows, prompt))
        assert not any(sum(e.token.corrections) for e in of(events, "a"))
    assert seen[0] == seen[1]
    engine.forget(["a"])
    assert said(list(engine.stream([Request("a", (DEMON, EYES), greedy(16))])), "a") == seen[0][0]


def test_both_rows_draw_with_the_same_random_numbers(model, axis, engine):
    """Sampled as the shared draw says: each token from the reference's logits, by seed and step."""
    sampling = Sampling(temperature=0.9, top_p=0.8, max_new_tokens=12, seed=7, repetition_penalty=1.2)
    messages = (
        PARIS,
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "Tell me more."},
    )
    events = list(engine.stream(pair(messages, None, sampling)))
    assert said(events, "plain") == said(events, "capped")
    tokens = [e.token_id for e in of(events, "plain")]
    chat = render_chat(model.tokenizer, messages)
    seen = [t for t, owner in zip(chat.ids, chat.owner, strict=True) if owner == 1]
    special, ids = frozenset(model.tokenizer.all_special_ids), list(chat.ids)
    for step, token in enumerate(tokens):
        logits, _ = CappedForward(model, axis, None)(ids, [])
        drawn, probability = sample_batch(logits[-1:], [SamplingStep(sampling, step, dict.fromkeys(seen))])
        assert token == drawn[0]
        assert of(events, "plain")[step].probability == pytest.approx(probability[0], rel=1e-2)
        ids.append(token)
        seen += [] if token in special else [token]
    other = list(engine.stream(pair(messages, None, replace(sampling, seed=8))))
    assert said(other, "plain") != said(events, "plain")


def test_several_turns_are_as_if_each_was_read_anew(engine, cap):
    """Four turns of both branches; the same history with nothing cached gives the same words and numbers."""
    conversation = Conversation()
    for text in (
        "I can see your eyes in the dark. What do you want?",
        "Why?",
        "Help me. " * 20,
        "Thank you!",
    ):
        settings = TurnSettings(greedy(14), cap, DEMON["content"])
        histories = {b: conversation.messages(b, DEMON["content"]) for b in (UNCAPPED, CAPPED)}
        events = list(conversation.send(engine, text, settings))
        for branch, own in ((UNCAPPED, None), (CAPPED, cap)):
            messages = (*histories[branch], Message(role="user", content=text))
            engine.forget(["anew"])
            anew = list(engine.stream([Request("anew", messages, greedy(14), own)]))
            assert said(anew, "anew") == said(events, branch)
            mine = torch.tensor([row[:2] for row in numbers(events, branch)])
            theirs = torch.tensor([row[:2] for row in numbers(anew, "anew")])
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4)
            user = [
                next(e for e in seen if isinstance(e, PromptEvent) and e.branch == name).user_projection
                for seen, name in ((events, branch), (anew, "anew"))
            ]
            assert user[0] == pytest.approx(user[1], abs=1e-4)


def test_eight_conversations_at_once_are_as_each_alone(engine, cap):
    alone = [list(engine.stream(pair(talk, cap, greedy(16 + n), f"{n}/"))) for n, talk in enumerate(TALKS)]

    def again(n: int) -> list[Event]:
        return list(engine.stream(pair(TALKS[n], cap, greedy(16 + n), f"again{n}/")))

    with ThreadPoolExecutor(len(TALKS)) as pool:
        together = list(pool.map(again, range(len(TALKS))))
    for n, (one, other) in enumerate(zip(alone, together, strict=True)):
        for branch in ("plain", "capped"):
            assert said(one, f"{n}/{branch}") == said(other, f"again{n}/{branch}")
            mine, theirs = numbers(one, f"{n}/{branch}"), numbers(other, f"again{n}/{branch}")
            torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs), rtol=0, atol=1e-3)
    _wait_until_idle(engine)


def test_cancel_ends_every_branch_and_frees_it(engine, cap):
    flag, events = CancelFlag(), []
    stream = engine.stream(pair((DEMON, EYES), cap, greedy(400)), flag)
    for event in stream:
        events.append(event)
        if len(of(events, "plain")) == 3:
            flag.set()
    for branch in ("plain", "capped"):
        assert [e.finish_reason for e in of(events, branch)].count("cancelled") == 1
        assert of(events, branch)[-1].finish_reason == "cancelled"
        assert len(of(events, branch)) <= 5
    _wait_until_idle(engine)
    after = list(engine.stream(pair((DEMON, EYES), cap, greedy(6))))
    assert said(after, "plain")[:3] == said(events, "plain")[:3]


def test_a_reader_who_leaves_frees_the_rows(engine, cap):
    stream = engine.stream(pair((DEMON, EYES), cap, greedy(400)))
    for _ in range(4):
        next(stream)
    stream.close()
    _wait_until_idle(engine)


def test_what_cannot_be_run_is_refused_at_once(engine, axis):
    with pytest.raises(UserError, match="tokens long"):
        engine.stream([Request("a", ({"role": "user", "content": "word " * 9000},), greedy(4))])
    with pytest.raises(UserError, match="decoder layers 0 to 29"):
        engine.stream([Request("a", (PARIS,), greedy(4), Cap((30,), (0.0,)))])
    _wait_until_idle(engine)


def test_reading_a_chat_at_every_layer(model, axis, engine, cap):
    messages = (DEMON, EYES, Message(role="assistant", content="I want your soul. Run! 🎃"))
    chat = render_chat(model.tokenizer, messages, reply_next=False)
    exempt = [n for n, owner in enumerate(chat.owner) if owner < 0]
    for used in (None, cap):
        tokens = [t for part in engine.read(Request("r", messages, cap=used)) for t in part]
        forward = CappedForward(model, axis, used)
        _, expected = forward(chat.ids, exempt)
        content = [n for n, owner in enumerate(chat.owner) if owner >= 0]
        assert [t.message for t in tokens] == [chat.owner[n] for n in content]
        got = torch.tensor([t.before[axis.probe_layer] for t in tokens])
        torch.testing.assert_close(got, expected[content], rtol=0, atol=1e-4)
        assert "".join(t.text for t in tokens if t.message == 2) == messages[2]["content"]
        for token in tokens:
            assert len(token.before) == len(token.after) == axis.layers
            for layer in range(axis.layers):
                lifted = token.after[layer] - token.before[layer]
                if used and layer in used.layers:
                    assert lifted >= -1e-4
                else:
                    assert math.isclose(lifted, 0, abs_tol=1e-6)


def test_steering_adds_a_multiple_of_the_axis(axis, engine):
    """At the last layer nothing comes after, so the reading there moves by alpha and by nothing else."""
    last = axis.layers - 1
    messages = (PARIS, Message(role="assistant", content="Paris."))
    plain = [t for part in engine.read(Request("r", messages)) for t in part]
    steered = [t for part in engine.read(Request("r", messages, steer=Steer(last, 0.5))) for t in part]
    for one, other in zip(plain, steered, strict=True):
        assert other.after[last] - one.after[last] == pytest.approx(0.5, abs=1e-3)
        assert other.after[last - 1] == pytest.approx(one.after[last - 1], abs=1e-4)


def test_text_adds_up_to_what_was_said(model, engine):
    asked: Message = {"role": "user", "content": "Repeat exactly: 🎉 日本語 naïve"}
    tokens = of(list(engine.stream([Request("a", (asked,), greedy(30))])), "a")
    ids = [e.token_id for e in tokens]
    whole = model.tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(e.token.text for e in tokens) == whole.rstrip("�") and whole


def _wait_until_idle(engine: Engine) -> None:
    for _ in range(100):
        if engine.load.running == 0:
            return
        time.sleep(0.1)
    raise AssertionError(f"rows are still held: {engine.load}")
