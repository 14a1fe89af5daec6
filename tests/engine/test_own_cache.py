"""Models whose state cannot be cut back, through the whole engine. The models are small and random."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from demo.bench.architectures import QUICK, as_loaded, axis_of, check
from demo.bench.tiny_configs import tiny_model
from demo.conversation.conversation import Conversation
from demo.conversation.settings import BRANCHES, TurnSettings
from demo.engine.forward import selection
from demo.engine.forward.forward_pass import Chunk, Probe
from demo.engine.forward.modules import ModuleForward
from demo.engine.forward.own_cache import OwnCacheForward
from demo.engine.forward.self_test import fault_of, reference_of
from demo.engine.protocol import Cap, PromptEvent, Request, Sampling, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.utils.errors import UserError

HYBRID = "qwen3_5_text"  # Gated DeltaNet layers with a full attention layer every fourth


@pytest.fixture(scope="module")
def hybrid():
    return as_loaded(tiny_model(HYBRID), HYBRID)


@pytest.fixture(scope="module")
def axis(hybrid):
    return axis_of(hybrid)


@pytest.fixture
def engine(hybrid, axis):
    return TransformersEngine(hybrid, axis)


@pytest.mark.parametrize("name", ["llama", HYBRID])
def test_the_output_head_gets_its_input_in_the_usual_layout(name: str):
    """With other strides, torch copies the weights of the head for every prompt, in the self-test as well."""
    model = as_loaded(tiny_model(name), name)
    strides = []

    def record(module, inputs, output) -> None:
        strides.append((inputs[0].stride(), torch.empty(inputs[0].shape).stride()))

    with model.model.get_output_embeddings().register_forward_hook(record):
        engine = TransformersEngine(model, axis_of(model), fused=False)
        tested = len(strides)
        message = ({"role": "user", "content": "hello"},)
        list(engine.stream([Request("a", message, Sampling(max_new_tokens=3))]))
    assert tested >= 10 and len(strides) >= tested + 3  # three: of the prompt and of two tokens
    assert all(found == usual for found, usual in strides)


def settings(axis, tokens: int = 6, seeds: int = 1, temperature: float = 0.0) -> TurnSettings:
    probe = axis.probe_layer
    cap = Cap((probe,), (float(axis.floors["p50"][probe]),))
    sampling = Sampling(temperature=temperature, max_new_tokens=tokens, repetition_penalty=1)
    return TurnSettings(sampling, cap, seeds=seeds)


def ids_of(events) -> dict[str, list[int | None]]:
    found: dict[str, list[int | None]] = {}
    for event in events:
        if isinstance(event, TokenEvent):
            found.setdefault(event.branch, []).append(event.token_id)
    return found


def reused(events) -> dict[str, int]:
    return {event.branch: event.reused_tokens for event in events if isinstance(event, PromptEvent)}


@pytest.mark.parametrize("name", QUICK)
def test_every_kind_of_architecture_equals_plain_generate(name):
    row = check(name)
    assert row.outcome == "equal", row
    assert row.capped_tokens > 0, "the cap never acted, so this proves nothing"


def test_a_hybrid_model_keeps_its_own_cache_and_reuses_it_at_each_turn(engine, axis):
    assert isinstance(engine.forward, OwnCacheForward)
    conversation = Conversation()
    first = list(conversation.send(engine, "One, two", settings(axis)))
    second = list(conversation.send(engine, "three", settings(axis)))
    assert reused(first) == dict.fromkeys(BRANCHES, 0)
    prompts = {e.branch: e.prompt_tokens for e in first if isinstance(e, PromptEvent)}
    # At least all of the first prompt but the header of the reply was kept.
    header = 1 + len("assistant\n")  # the control token, and a token for each letter
    assert all(reused(second)[branch] >= prompts[branch] - header for branch in BRANCHES)


def test_undo_and_another_try_begin_at_a_kept_state_and_give_the_same_reply(engine, axis):
    conversation = Conversation()
    list(conversation.send(engine, "One, two", settings(axis)))
    before = ids_of(conversation.send(engine, "three", settings(axis)))
    conversation.undo()
    again = list(conversation.send(engine, "three", settings(axis)))
    assert ids_of(again) == before
    assert min(reused(again).values()) > 0


def test_batching_and_several_seeds_do_not_change_replies(hybrid, axis):
    texts = [f"Number {n}" + ", and so on" * n for n in range(4)]
    chosen = settings(axis, tokens=7, seeds=2, temperature=1.0)
    alone = [ids_of(Conversation().send(TransformersEngine(hybrid, axis), text, chosen)) for text in texts]
    engine = TransformersEngine(hybrid, axis, own_thread=True)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: ids_of(Conversation().send(engine, text, chosen)), texts))
    assert together == alone
    assert engine.load.running == 0


def test_a_budget_without_room_for_kept_states_changes_no_reply(hybrid, axis, engine):
    poor = TransformersEngine(hybrid, axis, keep=False)
    replies = []
    for one in (engine, poor):
        conversation = Conversation()
        replies.append(
            [ids_of(conversation.send(one, text, settings(axis))) for text in ("One", "two", "three")]
        )
    assert replies[0] == replies[1]
    assert poor.prefix_cache.nbytes == 0


def test_a_model_that_computes_something_else_is_refused_in_one_sentence(hybrid, axis):
    probe = Probe(hybrid, axis)

    class Wrong(OwnCacheForward):
        def run(self, chunks, cache):
            logits, readings = super().run(chunks, cache)
            return logits.flip(-1), readings

    assert fault_of(reference_of(hybrid, axis), OwnCacheForward(hybrid, probe)) is None
    assert "differ" in (fault_of(reference_of(hybrid, axis), Wrong(hybrid, probe)) or "")
    with pytest.raises(UserError, match="did not pass the self-test") as error:
        selection.first_right(hybrid, probe, iter([Wrong]))
    assert str(error.value).count(". ") == 0


def test_slots_are_not_used_where_they_would_be_wrong(hybrid, axis):
    """The plain slots lose the recurrent state; the self-test finds that."""
    assert fault_of(reference_of(hybrid, axis), ModuleForward(hybrid, Probe(hybrid, axis, None))) is not None


def test_a_failed_self_test_with_nan_is_a_failure(hybrid, axis):
    class Nan(OwnCacheForward):
        def run(self, chunks, cache):
            logits, readings = super().run(chunks, cache)
            return torch.full_like(logits, float("nan")), readings

    assert fault_of(reference_of(hybrid, axis), Nan(hybrid, Probe(hybrid, axis, None))) is not None


def test_an_inactive_cap_leaves_the_logits_of_its_own_row_bit_identical(hybrid, axis):
    forward = OwnCacheForward(hybrid, Probe(hybrid, axis, None))
    ids = hybrid.tokenizer("One, two, three", add_special_tokens=False)["input_ids"]
    results = []
    for cap in (None, Cap((1,), (-1e30,))):
        cache = forward.new_cache()
        chunk = Chunk(0, 0, ids, [False] * len(ids), cap)
        logits = [forward.run([chunk], cache)[0]]
        for n in range(3):
            step = Chunk(0, len(ids) + n, [70 + n], [False], cap, prompt=False)
            logits.append(forward.run([step], cache)[0])
        results.append(torch.cat(logits))
    assert torch.equal(*results)


def test_a_cap_on_another_part_of_the_reply_is_another_intervention(hybrid, axis):
    request = Request("a", ({"role": "user", "content": "x"},), cap=Cap((1,), (0.0,)))
    assert replace(request, span="answer").in_prompt != request.in_prompt
