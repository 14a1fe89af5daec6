"""Models that reason before they answer: spans, the part on which the cap acts, and the history."""

from __future__ import annotations

import pytest
import torch
import transformers
from tokenizers import AddedToken

from demo.bench.small_tokenizers import small_tokenizer
from demo.conversation.conversation import Conversation
from demo.conversation.settings import CAPPED, UNCAPPED, TurnSettings
from demo.engine.protocol import Cap, Request, Sampling
from demo.engine.transformers_engine import TransformersEngine
from demo.models.chat_template import render_chat
from demo.models.loading import thinking_of
from tests.helpers.axes import random_axis
from tests.helpers.faults import forward_replaced
from tests.helpers.tiny_models import SMALL, as_loaded

TEMPLATE = """
{%- for m in messages -%}
<|im_start|>{{ m.role }}
{% if m.role == 'assistant' and loop.last and m.reasoning_content -%}
<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{%- endif -%}
"""
REPLY = "<think>\nfirst leek\n</think>\n\nSoup.<|im_end|>"


@pytest.fixture(scope="module")
def thinker():
    added = [
        AddedToken("<|im_start|>", special=True, normalized=False),
        AddedToken("<|im_end|>", special=True, normalized=False),
        AddedToken("<think>", special=False, normalized=False),
        AddedToken("</think>", special=False, normalized=False),
    ]
    tokenizer = small_tokenizer("byte-level BPE", added, None, "<|im_end|>")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(7)
    sizes = {**SMALL, "vocab_size": len(tokenizer), "max_position_embeddings": 512}
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    made.generation_config.eos_token_id = tokenizer.eos_token_id
    return as_loaded(made, tokenizer, 512)


@pytest.fixture
def engine(thinker):
    return TransformersEngine(thinker, random_axis(len(thinker.layers), thinker.hidden_size, 1, (1, 2)))


def says(engine, text: str):
    """A forward pass whose logits make every reply `text`."""
    run, batch = engine.forward.run, engine.scheduler.batch
    ids = engine.model.tokenizer(text, add_special_tokens=False)["input_ids"]

    def scripted(chunks, cache):
        logits, readings = run(chunks, cache)
        logits = logits.clone()
        generated = {
            s.slot: len(s.generated) + (s.prompt_left == 0 and s.pending is not None) for s in batch.sequences
        }
        wanted = [chunk for chunk in chunks if chunk.last]
        for own, chunk in zip(logits, wanted, strict=True):
            number = 0 if chunk.prompt else generated[chunk.slot]
            own[ids[min(number, len(ids) - 1)]] = 1e4
        return logits, readings

    return scripted


def settings(span="both", cap: bool = True) -> TurnSettings:
    floor = Cap((1,), (1e3,)) if cap else None  # so high that it acts on every token that it may act on
    return TurnSettings(Sampling(temperature=0, max_new_tokens=60), floor, thinking=True, span=span)


def test_reasoning_is_a_span_of_its_own_and_the_history_has_the_answer(engine):
    assert thinking_of(engine.model.tokenizer) == "optional"
    conversation = Conversation()
    with forward_replaced(engine, says(engine, REPLY)):
        list(conversation.send(engine, "What is for supper?", settings(cap=False)))
    reply = conversation.turns[0].replies[UNCAPPED]
    assert reply.reasoning.strip() == "first leek" and reply.text.strip() == "Soup."
    assert reply.finish == "stop" and reply.mean is not None and reply.reasoning_mean is not None
    assert reply.mean != reply.reasoning_mean
    history = conversation.messages(UNCAPPED)
    assert history[1]["content"].strip() == "Soup." and history[1]["reasoning"] == "first leek"
    later = render_chat(
        engine.model.tokenizer, [*history, {"role": "user", "content": "And then?"}], thinking=True
    )
    assert "leek" not in engine.model.tokenizer.decode(later.ids)


@pytest.mark.parametrize(
    ("span", "on_reasoning", "on_answer"),
    [("both", True, True), ("answer", False, True), ("reasoning", True, False)],
)
def test_the_cap_acts_on_the_chosen_part(engine, span, on_reasoning, on_answer):
    conversation = Conversation()
    with forward_replaced(engine, says(engine, REPLY)):
        list(conversation.send(engine, "What is for supper?", settings(span)))
    content = [
        t for t in conversation.turns[0].replies[CAPPED].tokens if not t.special and t.before is not None
    ]
    for reasoning, expected in ((True, on_reasoning), (False, on_answer)):
        acted = [token.correction > 0 for token in content if token.reasoning == reasoning]
        assert acted and all(one == expected for one in acted), (span, reasoning)


def test_marks_are_never_capped(engine):
    conversation = Conversation()
    with forward_replaced(engine, says(engine, REPLY)):
        list(conversation.send(engine, "What is for supper?", settings()))
    marks = [token for token in conversation.turns[0].replies[CAPPED].tokens if token.special]
    assert len(marks) == 3 and all(token.correction == 0 for token in marks)


def test_reading_a_chat_knows_its_reasoning(engine):
    messages = (
        {"role": "user", "content": "What is for supper?"},
        {"role": "assistant", "content": "Soup.", "reasoning": "first leek"},
    )
    cap = Cap((1,), (1e3,))
    read = [
        t
        for chunk in engine.read(Request("r", messages, cap=cap, span="answer", thinking=True))
        for t in chunk
    ]
    texts = {
        kind: "".join(t.text for t in read if t.message == 1 and t.reasoning == kind)
        for kind in (True, False)
    }
    assert texts[True].strip() == "first leek" and texts[False].strip() == "Soup."
    lifted = {t.reasoning for t in read if t.message == 1 and t.after[1] > t.before[1]}
    assert lifted == {False}


def test_without_thinking_the_header_closes_the_reasoning(thinker):
    messages = [{"role": "user", "content": "What is for supper?"}]
    off, on = (render_chat(thinker.tokenizer, messages, thinking=thinking) for thinking in (False, True))
    assert off.ids[: len(on.ids)] == on.ids and len(off.ids) > len(on.ids)
    assert not off.opens_reasoning and not on.opens_reasoning
