"""Every known architecture through the whole engine, as tiny random models: plumbing only, no claim about persona."""

from __future__ import annotations

import pytest
import torch

from demo.axis.axis import AssistantAxis
from demo.conversation.conversation import Conversation
from demo.conversation.settings import CAPPED, UNCAPPED, TurnSettings, make_cap
from demo.engine.protocol import Sampling, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.models.chat_template import render_chat
from demo.models.loading import LoadedModel
from tests.helpers.axes import random_axis
from tests.helpers.reference import CappedForward, capped_generate
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
    """Floors in the middle of what this model shows, so that the cap acts on some tokens and not on others."""
    axis = random_axis(len(tiny.layers), tiny.hidden_size, 1, (1, 2), "tiny")
    ids = render_chat(tiny.tokenizer, [{"role": "user", "content": "The quick brown fox"}]).ids
    seen: list[torch.Tensor] = []
    handles = [
        layer.register_forward_hook(
            lambda m, a, out: seen.append((out[0] if isinstance(out, tuple) else out)[0])
        )
        for layer in tiny.layers
    ]
    with torch.no_grad():
        tiny.model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    middle = torch.stack([(hidden @ unit).median() for hidden, unit in zip(seen, axis.unit, strict=True)])
    return AssistantAxis(
        axis.direction, axis.role_mean, axis.default_mean, {**axis.floors, "p50": middle}, axis.manifest
    )


def test_two_turns_equal_plain_generate(tiny):
    axis = tight_axis(tiny)
    engine, conversation = TransformersEngine(tiny, axis), Conversation()
    cap = make_cap(axis, 1, 2, "p50")
    corrected = []
    for limit, text in ((7, "One two three"), (5, "four")):
        histories = {branch: conversation.messages(branch) for branch in (UNCAPPED, CAPPED)}
        settings = TurnSettings(Sampling(temperature=0, max_new_tokens=limit, repetition_penalty=1), cap)
        events = [
            event for event in conversation.send(engine, text, settings) if isinstance(event, TokenEvent)
        ]
        for branch, branch_cap in ((UNCAPPED, None), (CAPPED, cap)):
            chat = render_chat(tiny.tokenizer, [*histories[branch], {"role": "user", "content": text}])
            exempt = [index for index, owner in enumerate(chat.owner) if owner < 0]
            mine = [event for event in events if event.branch == branch]
            assert [event.token_id for event in mine] == capped_generate(
                tiny, axis, branch_cap, chat.ids, exempt, limit
            )
            ran = [event for event in mine if event.token.before is not None]
            special = set(tiny.tokenizer.all_special_ids)
            alone = exempt + [len(chat.ids) + i for i, event in enumerate(ran) if event.token_id in special]
            _, expected = CappedForward(tiny, axis, branch_cap)(
                [*chat.ids, *(e.token_id for e in ran)], alone
            )
            torch.testing.assert_close(
                torch.tensor([e.token.before for e in ran]), expected[len(chat.ids) :], rtol=0, atol=1e-4
            )
            corrected += [sum(event.token.corrections) for event in ran]
    assert any(value > 0 for value in corrected), "the cap never acted, so this test would show nothing"
