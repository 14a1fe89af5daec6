"""Every known architecture through the whole engine, as tiny random models.

They test the computation and say nothing about personas.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from demo.axis.axis import AssistantAxis
from demo.capping import residual_of
from demo.conversation.conversation import Conversation
from demo.conversation.settings import CAPPED, UNCAPPED, TurnSettings, make_cap
from demo.engine.protocol import Sampling
from demo.engine.transformers_engine import TransformersEngine
from demo.models.chat_template import Message, render_chat
from demo.models.loading import LoadedModel
from tests.helpers.axes import random_axis
from tests.helpers.reference import assert_equals_reference
from tests.helpers.tiny_models import BUILD, GPT2, SMALL, as_loaded


@pytest.fixture(params=[*BUILD, "mistral-sliding", "gemma3-sliding"])
def tiny(request, model: LoadedModel, monkeypatch) -> LoadedModel:
    """A random model of the family with the default model's tokenizer."""
    for settings in (SMALL, GPT2):
        monkeypatch.setitem(settings, "vocab_size", len(model.tokenizer))
    monkeypatch.setitem(SMALL, "max_position_embeddings", 256)
    monkeypatch.setitem(GPT2, "n_positions", 256)
    if request.param.endswith("-sliding"):
        monkeypatch.setitem(SMALL, "sliding_window", 16)
    torch.manual_seed(7)
    made = BUILD[request.param.removesuffix("-sliding")]()
    made.generation_config.eos_token_id = model.tokenizer.eos_token_id
    return as_loaded(made, model.tokenizer, 256)


def tight_axis(tiny: LoadedModel) -> AssistantAxis:
    """An axis with floors at the median projections, so that the cap acts on some tokens only."""
    axis = random_axis(len(tiny.layers), tiny.hidden_size, 1, (1, 2), "tiny")
    ids = render_chat(tiny.tokenizer, [{"role": "user", "content": "The quick brown fox"}]).ids
    states: list[torch.Tensor] = []
    handles = [
        layer.register_forward_hook(lambda module, args, output: states.append(residual_of(output)[0]))
        for layer in tiny.layers
    ]
    with torch.no_grad():
        tiny.model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    medians = torch.stack([(hidden @ unit).median() for hidden, unit in zip(states, axis.unit, strict=True)])
    return replace(axis, floors={**axis.floors, "p50": medians})


def test_two_turns_equal_plain_generate(tiny):
    axis = tight_axis(tiny)
    engine, conversation = TransformersEngine(tiny, axis), Conversation()
    cap = make_cap(axis, 1, 2, "p50")
    corrections = []
    for limit, text in ((7, "One two three"), (5, "four")):
        histories = {branch: conversation.messages(branch) for branch in (UNCAPPED, CAPPED)}
        settings = TurnSettings(Sampling(temperature=0, max_new_tokens=limit, repetition_penalty=1), cap)
        events = list(conversation.send(engine, text, settings))
        for branch, branch_cap in ((UNCAPPED, None), (CAPPED, cap)):
            messages = [*histories[branch], Message(role="user", content=text)]
            own = [event for event in events if event.branch == branch]
            ran = assert_equals_reference(tiny, axis, branch_cap, messages, own, limit)
            corrections += [event.token.correction for event in ran]
    assert any(correction > 0 for correction in corrections), (
        "the cap never acted, so this test proves nothing"
    )
