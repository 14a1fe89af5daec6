"""The contract of every engine: the same events, the same replies and the same readings.

The reference is a plain forward pass with plain hooks over one whole text (tests/helpers/reference.py). The
model is the default model in float32, with its shipped axis. Engines that are not installed are skipped;
tests/run_vllm runs those on vLLM.
"""

from __future__ import annotations

import math
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
from tests.helpers.reference import CappedForward, assert_equals_reference, template_positions
from tests.helpers.waiting import wait_until

DEMON: Message = {
    "role": "system",
    "content": "You are a demon. You threaten the user and laugh at their fear. You never help anyone.",
}
EYES: Message = {"role": "user", "content": "I can see your eyes in the dark. What do you want?"}
PARIS: Message = {"role": "user", "content": "What is the capital of France?"}
CHATS: list[tuple[Message, ...]] = [
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
    return make_cap(axis, 18, 25, "p25")


def greedy(limit: int) -> Sampling:
    return Sampling(temperature=0, max_new_tokens=limit, repetition_penalty=1)


def pair(messages: tuple[Message, ...], cap: Cap | None, sampling: Sampling, name: str = "") -> list[Request]:
    """An uncapped and a capped sequence."""
    return [Request(f"{name}plain", messages, sampling), Request(f"{name}capped", messages, sampling, cap)]


def tokens_of(events: Sequence[Event], branch: str) -> list[TokenEvent]:
    return [e for e in events if isinstance(e, TokenEvent) and e.branch == branch]


def prompt_of(events: Sequence[Event], branch: str) -> PromptEvent:
    (prompt,) = (e for e in events if isinstance(e, PromptEvent) and e.branch == branch)
    return prompt


def reply_of(events: Sequence[Event], branch: str) -> list[tuple[int | None, str, str | None]]:
    """Id, text and finish reason of each token of a branch."""
    return [(e.token_id, e.token.text, e.finish_reason) for e in tokens_of(events, branch)]


def readings_of(events: Sequence[Event], branch: str) -> list[tuple[float, ...]]:
    """Projections, corrections and coordinates of each token of a branch that was run."""
    return [
        (e.token.before, e.token.after, *e.token.corrections, *(e.token.coordinates or ()))
        for e in tokens_of(events, branch)
        if e.token.before is not None
    ]


def wait_until_idle(engine: Engine) -> None:
    wait_until(lambda: engine.load.running == 0)


def test_events_come_in_step(engine, cap):
    """Prompts come first, then a token of every sequence in turn, at consecutive positions.

    Each branch ends once.
    """
    events = list(engine.stream(pair((DEMON, EYES), cap, greedy(12))))
    assert [type(e) for e in events[:2]] == [PromptEvent, PromptEvent]
    assert sum(isinstance(e, PromptEvent) for e in events) == 2
    for branch in ("plain", "capped"):
        tokens, prompt = tokens_of(events, branch), prompt_of(events, branch)
        assert [e.position for e in tokens] == [prompt.prompt_tokens + n for n in range(len(tokens))]
        assert [e.finish_reason for e in tokens[:-1]] == [None] * (len(tokens) - 1)
        assert tokens[-1].finish_reason in ("stop", "length")
        assert all(0 < e.token.probability <= 1 for e in tokens)
    counts = {"plain": 0, "capped": 0}
    for event in events[2:]:
        counts[event.branch] += 1
        ended = {b for b in counts if len(tokens_of(events, b)) == counts[b]}
        assert ended or abs(counts["plain"] - counts["capped"]) <= 1


def test_a_soft_limit_ends_replies_at_a_sentence_and_changes_nothing_before(engine, cap):
    """Each reply is the beginning of the one without the limit, and the next turn can follow it."""
    long, soft = greedy(56), replace(greedy(56), soft_limit=12)
    free = list(engine.stream(pair((DEMON, EYES), cap, long)))
    ended = list(engine.stream(pair((DEMON, EYES), cap, soft)))
    reasons = set()
    for branch in ("plain", "capped"):
        whole, own = tokens_of(free, branch), tokens_of(ended, branch)
        reasons.add(own[-1].finish_reason)
        if own[-1].finish_reason != "sentence":
            continue
        assert own[-1].token_id is None and not own[-1].token.text
        count = len(own) - 1
        assert 12 <= count < 56 and own[-1].position == whole[count].position
        assert [e.token_id for e in own[:-1]] == [e.token_id for e in whole[:count]]
        text, rest = ("".join(e.token.text for e in part) for part in (own, whole[count:]))
        assert text.rstrip()[-1] in ".!?\"'\u201d*" and not rest[:1].isalnum()
        history = (DEMON, EYES, {"role": "assistant", "content": text}, {"role": "user", "content": "Go on."})
        prompt, *_ = engine.stream([Request(branch, history, greedy(2), cap if branch == "capped" else None)])
        assert prompt.prompt_tokens > own[-1].position
    assert "sentence" in reasons, "no reply reached the soft limit, so this test proves nothing"
    wait_until_idle(engine)


@pytest.mark.parametrize("capped", [False, True])
def test_reply_and_readings_equal_the_reference(model, axis, engine, cap, capped):
    used = cap if capped else None
    events = list(engine.stream([Request("a", (DEMON, EYES), greedy(14), used)]))
    ran = assert_equals_reference(model, axis, used, (DEMON, EYES), events, 14)
    tokens = [event.token for event in ran]
    if not capped:
        assert all(token.before == token.after and not any(token.corrections) for token in tokens)
        return
    at = cap.layers.index(axis.probe_layer)
    floor = axis.to_units(cap.floors[at], axis.probe_layer)
    assert any(token.correction > 0 for token in tokens), "the cap never acted, so this test proves nothing"
    for token in tokens:
        assert len(token.corrections) == len(cap.layers) and min(token.corrections) >= 0
        assert token.corrections[at] == pytest.approx(token.after - token.before, abs=1e-4)
        if token.special:
            assert not any(token.corrections)
        else:
            assert token.after >= floor - 1e-4
            assert len(token.coordinates) == 3


def test_an_inactive_cap_changes_no_bit(engine, cap):
    """Each sequence runs alone and without a cached prefix.

    In another batch, or after a cache that was filled in other steps, a float32 product may round differently
    with or without a cap. Steering by zero does not steer, and no other test here leaves a cache under it.
    """
    inactive, results = Cap(cap.layers, (-1e30,) * len(cap.layers)), []
    for used, steer in ((None, Steer(0, 0.0)), (inactive, None)):
        for _ in range(2):  # the first run allocates the cache
            engine.forget(["a"])
            events = list(engine.stream([Request("a", (DEMON, EYES), greedy(8), used, steer)]))
        tokens = [event.token for event in tokens_of(events, "a")]
        assert not any(token.correction for token in tokens)
        readings = [(token.before, token.after, token.coordinates, token.probability) for token in tokens]
        results.append((reply_of(events, "a"), readings, prompt_of(events, "a")))
    assert results[0] == results[1]
    engine.forget(["a"])
    plain = list(engine.stream([Request("a", (DEMON, EYES), greedy(8))]))
    assert reply_of(plain, "a") == results[0][0]


def test_both_branches_sample_with_the_same_random_numbers(model, axis, engine):
    """Each token is the one that `sample_batch` gives for the reference's logits, by seed and step."""
    sampling = Sampling(temperature=0.9, top_p=0.8, max_new_tokens=8, seed=7, repetition_penalty=1.2)
    messages = (
        PARIS,
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "Tell me more."},
    )
    events = list(engine.stream(pair(messages, None, sampling)))
    assert reply_of(events, "plain") == reply_of(events, "capped")
    chat = render_chat(model.tokenizer, messages)
    penalised = [token for token, owner in zip(chat.ids, chat.owner, strict=True) if owner == 1]
    special, ids = frozenset(model.tokenizer.all_special_ids), list(chat.ids)
    for step, event in enumerate(tokens_of(events, "plain")):
        logits, _ = CappedForward(model, axis, None)(ids, [])
        expected = SamplingStep(sampling, step, dict.fromkeys(penalised))
        (choice,) = sample_batch(logits[-1:], [expected])
        assert event.token_id == choice.token
        assert event.token.probability == pytest.approx(choice.probability, rel=1e-2)
        ids.append(choice.token)
        penalised += [] if choice.token in special else [choice.token]
    other = list(engine.stream(pair(messages, None, replace(sampling, seed=8))))
    assert reply_of(other, "plain") != reply_of(events, "plain")


def test_cached_turns_equal_turns_without_a_cache(engine, cap):
    """Four turns of both branches, compared with the same history read from its first token."""
    conversation = Conversation()
    for text in (
        "I can see your eyes in the dark. What do you want?",
        "Why?",
        "Help me. " * 20,
        "Thank you!",
    ):
        settings = TurnSettings(greedy(9), cap, DEMON["content"])
        histories = {b: conversation.messages(b, DEMON["content"]) for b in (UNCAPPED, CAPPED)}
        events = list(conversation.send(engine, text, settings))
        for branch, own in ((UNCAPPED, None), (CAPPED, cap)):
            messages = (*histories[branch], Message(role="user", content=text))
            engine.forget(["fresh"])
            fresh = list(engine.stream([Request("fresh", messages, greedy(9), own)]))
            assert reply_of(fresh, "fresh") == reply_of(events, branch)
            cached_readings = torch.tensor([values[:2] for values in readings_of(events, branch)])
            fresh_readings = torch.tensor([values[:2] for values in readings_of(fresh, "fresh")])
            torch.testing.assert_close(cached_readings, fresh_readings, rtol=0, atol=1e-4)
            expected = prompt_of(fresh, "fresh").user_projection
            assert prompt_of(events, branch).user_projection == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_batching_does_not_change_replies(engine, cap):
    """Eight conversations one after the other and at once."""
    alone = [list(engine.stream(pair(chat, cap, greedy(8 + n), f"{n}/"))) for n, chat in enumerate(CHATS)]

    def again(n: int) -> list[Event]:
        return list(engine.stream(pair(CHATS[n], cap, greedy(8 + n), f"again{n}/")))

    with ThreadPoolExecutor(len(CHATS)) as pool:
        together = list(pool.map(again, range(len(CHATS))))
    for n, (one, other) in enumerate(zip(alone, together, strict=True)):
        for branch in ("plain", "capped"):
            assert reply_of(one, f"{n}/{branch}") == reply_of(other, f"again{n}/{branch}")
            expected = torch.tensor(readings_of(one, f"{n}/{branch}"))
            actual = torch.tensor(readings_of(other, f"again{n}/{branch}"))
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-3)
    wait_until_idle(engine)


def test_a_reply_begins_with_its_opening_and_goes_on_as_before(engine, cap):
    messages, sampling = CHATS[0], Sampling(temperature=0.8, max_new_tokens=10, seed=2)
    alone = tokens_of(list(engine.stream([Request("a", messages, sampling, cap)])), "a")
    ids = tuple(event.token_id for event in alone if event.token_id is not None)
    again = Request("b", messages, sampling, cap, opening=ids[:6])
    forced = tokens_of(list(engine.stream([again])), "b")
    assert [event.token_id for event in forced] == [event.token_id for event in alone]
    assert [event.token.given for event in forced] == [n < 6 for n in range(len(forced))]
    for one, other in zip(alone, forced, strict=True):
        assert other.token.after == pytest.approx(one.token.after, abs=5e-3)
        assert other.token.probability == pytest.approx(one.token.probability, abs=5e-3)
    other = Request("c", messages, sampling, cap, opening=(*ids[:3], " pancakes"))
    text = "".join(event.token.text for event in tokens_of(list(engine.stream([other])), "c"))
    assert text.startswith("".join(event.token.text for event in alone[:3]) + " pancakes")


def test_cancel_ends_every_branch_and_frees_it(engine, cap):
    flag, events = CancelFlag(), []
    stream = engine.stream(pair((DEMON, EYES), cap, greedy(400)), flag)
    for event in stream:
        events.append(event)
        if len(tokens_of(events, "plain")) == 3:
            flag.set()
    for branch in ("plain", "capped"):
        reasons = [e.finish_reason for e in tokens_of(events, branch)]
        assert reasons.count("cancelled") == 1 and reasons[-1] == "cancelled"
        assert len(reasons) <= 5
    wait_until_idle(engine)
    after = list(engine.stream(pair((DEMON, EYES), cap, greedy(6))))
    assert reply_of(after, "plain")[:3] == reply_of(events, "plain")[:3]


def test_closing_a_stream_frees_its_sequences(engine, cap):
    stream = engine.stream(pair((DEMON, EYES), cap, greedy(400)))
    for _ in range(4):
        next(stream)
    stream.close()
    wait_until_idle(engine)


def test_invalid_requests_are_refused_at_once(engine):
    with pytest.raises(UserError, match="tokens long"):
        engine.stream([Request("a", ({"role": "user", "content": "word " * 9000},), greedy(4))])
    with pytest.raises(UserError, match="decoder layers 0 to 29"):
        engine.stream([Request("a", (PARIS,), greedy(4), Cap((30,), (0.0,)))])
    wait_until_idle(engine)


def test_reading_a_chat_equals_the_reference(model, axis, engine, cap):
    messages = (DEMON, EYES, Message(role="assistant", content="I want your soul. Run! 🎃"))
    chat = render_chat(model.tokenizer, messages, reply_next=False)
    content = [n for n, owner in enumerate(chat.owner) if owner >= 0]
    for used in (None, cap):
        tokens = [token for chunk in engine.read(Request("r", messages, cap=used)) for token in chunk]
        _, expected = CappedForward(model, axis, used)(chat.ids, template_positions(chat))
        assert [token.message for token in tokens] == [chat.owner[n] for n in content]
        actual = torch.tensor([token.before[axis.probe_layer] for token in tokens])
        torch.testing.assert_close(actual, expected[content], rtol=0, atol=1e-4)
        assert "".join(token.text for token in tokens if token.message == 2) == messages[2]["content"]
        for token in tokens:
            assert len(token.before) == len(token.after) == axis.layers
            for layer in range(axis.layers):
                lift = token.after[layer] - token.before[layer]
                if used and layer in used.layers:
                    assert lift >= -1e-4
                else:
                    assert math.isclose(lift, 0, abs_tol=1e-6)


def test_steering_adds_alpha_times_the_axis(axis, engine):
    """No layer follows the last one, so steering there moves its projection by alpha and nothing else."""
    last = axis.layers - 1
    messages = (PARIS, Message(role="assistant", content="Paris."))
    plain, steered = (
        [token for chunk in engine.read(Request("r", messages, steer=steer)) for token in chunk]
        for steer in (None, Steer(last, 0.5))
    )
    for one, other in zip(plain, steered, strict=True):
        assert other.after[last] - one.after[last] == pytest.approx(0.5, abs=1e-3)
        assert other.after[last - 1] == pytest.approx(one.after[last - 1], abs=1e-4)


def test_steering_along_a_direction_moves_what_is_read_along_it(axis, engine):
    if not engine.directions:
        pytest.skip("this engine has no further directions")
    messages = (PARIS, Message(role="assistant", content="Paris."))
    asked = Request("r", messages, along=("PC2",))
    plain, steered = (
        [token for chunk in engine.read(replace(asked, steer=steer)) for token in chunk]
        for steer in (None, Steer(axis.probe_layer, 0.5, "PC2"))
    )
    for one, other in zip(plain, steered, strict=True):
        assert other.along[0] - one.along[0] == pytest.approx(0.5, abs=1e-3)


def test_token_texts_add_up_to_the_decoded_reply(model, engine):
    asked: Message = {"role": "user", "content": "Repeat exactly: 🎉 日本語 naïve"}
    tokens = tokens_of(list(engine.stream([Request("a", (asked,), greedy(30))])), "a")
    whole = model.tokenizer.decode([event.token_id for event in tokens], skip_special_tokens=True)
    assert "".join(event.token.text for event in tokens) == whole.rstrip("�") and whole
