"""Reading a finished chat against one plain forward pass, on the real model."""

from __future__ import annotations

from threading import Event as CancelFlag

import pytest
import torch

from demo.conversation.settings import make_cap
from demo.engine.protocol import Request
from demo.engine.transformers_engine import TransformersEngine
from demo.models.chat_template import render_chat
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis, with_components
from tests.helpers.reference import CappedForward

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
def test_every_layer_of_every_content_token_equals_a_plain_pass(model, axis, floor):
    cap = make_cap(axis, 14, 20, floor) if floor else None
    engine = TransformersEngine(
        model, axis, chunk=7
    )  # several chunks, so that the KV cache between them is used
    tokens = [token for part in engine.read(Request("a", CHAT, cap=cap)) for token in part]
    chat = render_chat(model.tokenizer, CHAT, reply_next=False)
    content = [index for index, owner in enumerate(chat.owner) if owner >= 0]
    assert [token.message for token in tokens] == [chat.owner[index] for index in content]
    for number, message in enumerate(CHAT):
        assert "".join(token.text for token in tokens if token.message == number) == message["content"]
    states: list[torch.Tensor] = []
    forward = CappedForward(model, axis, cap)
    exempt = [index for index, owner in enumerate(chat.owner) if owner < 0]
    for layer in (3, 16, 17, 29):
        probe = axis.__class__(
            axis.direction,
            axis.role_mean,
            axis.default_mean,
            axis.floors,
            {**axis.manifest, "probe_layer": layer},
        )
        forward = CappedForward(model, probe, cap)
        _, before = forward(chat.ids, exempt)
        after = probe.to_units(forward.after @ probe.unit[layer], layer)
        for name, expected in (("before", before), ("after", after)):
            found = torch.tensor([getattr(token, name)[layer] for token in tokens])
            torch.testing.assert_close(found, expected[content], rtol=0, atol=2e-4)
        states.append(after - before)
    moved = any(bool((state.abs() > 1e-3).any()) for state in states)
    assert moved == (cap is not None)


@pytest.mark.parametrize("floor", [None, "p50"])
def test_a_token_that_is_read_has_a_place_on_the_map(model, axis, floor):
    plain = TransformersEngine(model, axis).read(Request("a", CHAT))
    unplaced = {token.coordinates for part in plain for token in part}
    assert unplaced == {None}, "an axis without components has no map"
    mapped = with_components(axis)
    mapped.pca[0] = axis.unit  # so that the first coordinate is the projection after the clamp
    engine = TransformersEngine(model, mapped, chunk=7)
    request = Request("a", CHAT, cap=make_cap(axis, 14, 20, floor) if floor else None)
    tokens = [token for part in engine.read(request) for token in part]
    found = torch.tensor([token.coordinates[0] for token in tokens])
    after = torch.tensor([token.after[17] for token in tokens])
    torch.testing.assert_close(found, after, rtol=0, atol=2e-4)


def test_reading_keeps_nothing_and_can_be_stopped(model, axis):
    engine = TransformersEngine(model, axis, chunk=5)
    flag, hooks = CancelFlag(), [len(layer._forward_hooks) for layer in model.layers]
    parts = engine.read(Request("a", CHAT), flag)
    assert next(part for part in parts if part), "the first part may be all template"
    flag.set()
    assert list(parts) == []
    assert engine.prefix_cache.get("a") is None
    assert [len(layer._forward_hooks) for layer in model.layers] == hooks
    with pytest.raises(UserError, match="tokens long"):
        engine.read(Request("a", ({"role": "user", "content": "word " * 9000},)))
