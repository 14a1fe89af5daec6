"""The places of tokens on the persona map: the engine against a plain reference.

The models are tiny and have random weights.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from demo.axis.axis import AssistantAxis
from demo.axis.components import default_place, probe_components
from demo.axis.files import load_axis, save_axis
from demo.capping import AxisHooks
from demo.conversation.conversation import Conversation
from demo.conversation.settings import CAPPED, UNCAPPED, TurnSettings, make_cap
from demo.engine.protocol import Request, Sampling, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.models.chat_template import render_chat
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis, with_components
from tests.helpers.reference import coordinates, read_reply
from tests.helpers.tiny_models import tiny_llama

GREEDY = Sampling(temperature=0, max_new_tokens=6, repetition_penalty=1)


@pytest.fixture
def tiny(model: LoadedModel) -> LoadedModel:
    return tiny_llama(model)


def axis_for(tiny: LoadedModel, probe: int, pca: bool = True) -> AssistantAxis:
    axis = random_axis(len(tiny.layers), tiny.hidden_size, probe, (1, 2), "tiny")
    return with_components(axis) if pca else axis


def talk(tiny: LoadedModel, axis: AssistantAxis, sampling: Sampling = GREEDY) -> list[TokenEvent]:
    """Two turns. The random floors of the capped branch are well above most of this model's projections."""
    engine, conversation = TransformersEngine(tiny, axis), Conversation()
    settings = TurnSettings(sampling, make_cap(axis, 1, 2, "p75"))
    texts = ("One two three", "four")
    events = [event for text in texts for event in conversation.send(engine, text, settings)]
    return [event for event in events if isinstance(event, TokenEvent)]


@pytest.mark.parametrize("probe", [0, 1, 2], ids=["before the band", "its first layer", "its last layer"])
def test_coordinates_equal_the_plain_reference(tiny, probe):
    axis = axis_for(tiny, probe)
    engine, conversation = TransformersEngine(tiny, axis), Conversation()
    cap = make_cap(axis, 1, 2, "p75")
    lifted = 0.0
    for text in ("One two three", "four"):
        histories = {branch: conversation.messages(branch) for branch in (UNCAPPED, CAPPED)}
        events = list(conversation.send(engine, text, TurnSettings(GREEDY, cap)))
        for branch, branch_cap in ((UNCAPPED, None), (CAPPED, cap)):
            tokens = [e for e in events if isinstance(e, TokenEvent) and e.branch == branch]
            ran = [event for event in tokens if event.token.before is not None]
            chat = render_chat(tiny.tokenizer, [*histories[branch], {"role": "user", "content": text}])
            _, states = read_reply(tiny, axis, branch_cap, chat, [event.token_id for event in ran])
            for event, hidden in zip(ran, states, strict=True):
                assert event.token.coordinates == pytest.approx(coordinates(hidden, axis), abs=1e-4)
            lifted += sum(sum(event.token.corrections) for event in ran)
    assert lifted > 0, "the cap never acted, so this test proves nothing"


def test_the_average_role_is_the_origin_and_the_default_assistant_is_at_its_cosines():
    axis = with_components(random_axis(4, 16, 2, (1, 2)))
    components = probe_components(axis)
    assert components is not None
    places = components.place(torch.stack([axis.role_mean[2], axis.role_mean[2] + 5 * axis.pca[1, 2]]))
    length = float(axis.direction[2].norm())
    assert places.tolist() == [
        pytest.approx([0, 0, 0], abs=1e-5),
        pytest.approx([0, 5 / length, 0], abs=1e-5),
    ]
    cosines = [float(torch.cosine_similarity(pc[2], axis.direction[2], dim=0)) for pc in axis.pca]
    assert default_place(axis) == pytest.approx(cosines, abs=1e-5)


def test_reading_coordinates_does_not_change_replies(tiny):
    """Tokens and projections are equal with and without components."""
    sampling = Sampling(temperature=1, max_new_tokens=6, seed=3)
    with_map, without = (talk(tiny, axis_for(tiny, 1, pca=pca), sampling) for pca in (True, False))
    assert [
        replace(event, token=replace(event.token, coordinates=None), branch="") for event in with_map
    ] == [replace(event, branch="") for event in without]
    assert all(event.token.coordinates is None for event in without)


def test_hooks_with_an_inactive_cap_leave_logits_bit_identical(tiny):
    axis = axis_for(tiny, 1)
    ids = torch.randint(3, 60, (2, 9))
    floors = {layer: torch.full((2,), float("-inf")) for layer in (1, 2)}
    place = probe_components(axis).place
    with torch.inference_mode():
        plain = tiny.model(ids).logits
        hooks = AxisHooks(tiny.layers, axis.unit, 1, floors, place=place)
        with hooks.installed():
            hooked = tiny.model(ids).logits
    assert torch.equal(plain, hooked)
    assert hooks.reading().places.shape == (2, 3)


def test_only_content_tokens_have_coordinates(tiny):
    events = talk(tiny, axis_for(tiny, 1))
    assert all((e.token.coordinates is None) == (e.token.special or e.token.before is None) for e in events)
    ran = [event.token_id for event in events if event.token.before is not None]
    # The same reply again, with one of its tokens declared special.
    engine = TransformersEngine(tiny, axis_for(tiny, 1))
    engine.vocabulary = replace(engine.vocabulary, special=frozenset(ran[:1]))
    request = Request("a", ({"role": "user", "content": "One two three"},), GREEDY)
    again = [event for event in engine.stream([request]) if isinstance(event, TokenEvent)]
    assert any(event.token.special and event.token.before is not None for event in again)
    assert all(event.token.coordinates is None for event in again if event.token.special)


def test_an_axis_is_saved_and_loaded_with_its_components(tmp_path):
    axis = with_components(random_axis(4, 16, 2, (1, 2)))
    save_axis(axis, tmp_path / "axis")
    assert torch.equal(load_axis(tmp_path / "axis").pca, axis.pca)
    save_axis(random_axis(4, 16, 2, (1, 2)), tmp_path / "plain")
    plain = load_axis(tmp_path / "plain")
    assert plain.pca is None and probe_components(plain) is None and default_place(plain) is None
    for broken, words in ((axis.pca[:2], "do not fit together"), (axis.pca * float("nan"), "NaN")):
        save_axis(replace(axis, pca=broken), tmp_path / "axis")
        with pytest.raises(UserError, match=words):
            load_axis(tmp_path / "axis")
