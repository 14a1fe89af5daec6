"""Reading a finished chat against one plain forward pass, on the real model."""

from __future__ import annotations

from dataclasses import replace
from threading import Event as CancelFlag

import pytest
import torch

from demo.conversation.settings import make_cap
from demo.engine.protocol import Request
from demo.engine.transformers_engine import TransformersEngine
from demo.models.chat_template import render_chat
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis, with_components
from tests.helpers.reference import CappedForward, template_positions

CHAT = (
    {"role": "user", "content": "Tell me about the sea — 海."},
    {"role": "assistant", "content": "The sea is wide, blue and deep.\n\n1. It has waves."},
    {"role": "user", "content": "Thanks!"},
    {"role": "assistant", "content": "You are welcome."},
)


@pytest.fixture(scope="module")
def axis(model):
    return random_axis(len(model.layers), model.hidden_size, 17, (14, 20))


@pytest.mark.parametrize("floor", [None, "p50"])
def test_projections_at_every_layer_equal_a_plain_forward_pass(model, axis, floor):
    cap = make_cap(axis, 14, 20, floor) if floor else None
    engine = TransformersEngine(model, axis, chunk=7)  # several chunks, so that their KV cache is used
    tokens = [token for chunk in engine.read(Request("a", CHAT, cap=cap)) for token in chunk]
    chat = render_chat(model.tokenizer, CHAT, reply_next=False)
    content = [index for index, owner in enumerate(chat.owner) if owner >= 0]
    assert [token.message for token in tokens] == [chat.owner[index] for index in content]
    for number, message in enumerate(CHAT):
        assert "".join(token.text for token in tokens if token.message == number) == message["content"]
    acted = False
    for layer in (3, 16, 17, 29):
        probed = replace(axis, manifest={**axis.manifest, "probe_layer": layer})
        forward = CappedForward(model, probed, cap)
        _, before = forward(chat.ids, template_positions(chat))
        after = probed.to_units(forward.after @ probed.unit[layer], layer)
        for name, expected in (("before", before), ("after", after)):
            actual = torch.tensor([getattr(token, name)[layer] for token in tokens])
            torch.testing.assert_close(actual, expected[content], rtol=0, atol=2e-4)
        acted = acted or bool(((after - before).abs() > 1e-3).any())
    assert acted == (cap is not None)


@pytest.mark.parametrize("floor", [None, "p50"])
def test_tokens_have_coordinates_where_the_axis_has_components(model, axis, floor):
    plain = TransformersEngine(model, axis).read(Request("a", CHAT))
    assert {token.coordinates for chunk in plain for token in chunk} == {None}
    mapped = with_components(axis)
    mapped.pca[0] = axis.unit  # the first coordinate is then the projection after the clamp
    engine = TransformersEngine(model, mapped, chunk=7)
    request = Request("a", CHAT, cap=make_cap(axis, 14, 20, floor) if floor else None)
    tokens = [token for chunk in engine.read(request) for token in chunk]
    first = torch.tensor([token.coordinates[0] for token in tokens])
    after = torch.tensor([token.after[17] for token in tokens])
    torch.testing.assert_close(first, after, rtol=0, atol=2e-4)


def test_reading_can_be_stopped_and_keeps_nothing(model, axis):
    engine = TransformersEngine(model, axis, chunk=5)
    flag, hooks = CancelFlag(), [len(layer._forward_hooks) for layer in model.layers]
    chunks = engine.read(Request("a", CHAT), flag)
    assert next(chunk for chunk in chunks if chunk), "every chunk was empty"
    flag.set()
    assert list(chunks) == []
    assert engine.prefix_cache.nbytes == 0
    assert [len(layer._forward_hooks) for layer in model.layers] == hooks


def test_a_chat_longer_than_the_context_is_refused(model, axis):
    engine = TransformersEngine(model, axis)
    with pytest.raises(UserError, match="tokens long"):
        engine.read(Request("a", ({"role": "user", "content": "word " * 9000},)))
