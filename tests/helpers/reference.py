"""Plain reference implementations to compare the program with.

They are written to be read, not to be fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.engine.protocol import Cap, Event, PromptEvent, TokenEvent
from demo.models.chat_template import Message, RenderedChat, render_chat
from demo.models.loading import LoadedModel


def clamp_one(h: list[float], unit: list[float], floor: float) -> list[float]:
    """Paper Eq. 1 for one vector, in Python floats:  h - v * min(<h, v> - tau, 0)."""
    gap = min(sum(a * b for a, b in zip(h, unit, strict=True)) - floor, 0.0)
    return [a - gap * b for a, b in zip(h, unit, strict=True)]


@dataclass
class CappedForward:
    """A model under plain hooks that clamp every content token of a single unpadded sequence.

    Attributes:
        after: [T, D], the probe layer's residual stream of the last call, after the clamp there.
    """

    model: LoadedModel
    axis: AssistantAxis
    cap: Cap | None
    after: Tensor | None = None

    def __call__(self, ids: Sequence[int], exempt: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Run one full forward pass over T tokens.

        Args:
            exempt: positions on which the clamp does not act.

        Returns:
            Logits [T, V], and projections [T] at the probe layer before the clamp, axis units.
        """
        seen: dict[str, Tensor] = {}
        handles = []
        content = torch.ones(len(ids), dtype=torch.bool)
        content[list(exempt)] = False
        floors = dict(zip(self.cap.layers, self.cap.floors, strict=True)) if self.cap else {}
        for index, layer in enumerate(self.model.layers):
            handles.append(layer.register_forward_hook(self._hook(index, floors.get(index), content, seen)))
        try:
            with torch.no_grad():
                logits = self.model.model(torch.tensor([list(ids)]), use_cache=False).logits[0]
        finally:
            for handle in handles:
                handle.remove()
        probe = self.axis.probe_layer
        self.after = seen["after"]
        return logits, self.axis.to_units(seen["probe"], probe)

    def _hook(self, index: int, floor: float | None, content: Tensor, seen: dict[str, Tensor]):
        direction = self.axis.direction[index]
        unit = direction / direction.norm()

        def hook(module, args, output):
            hidden = output[0] if isinstance(output, tuple) else output
            projection = (hidden[0].float() * unit).sum(-1)
            if index == self.axis.probe_layer:
                seen["probe"] = projection
            changed = hidden
            if floor is not None:
                lift = torch.relu(floor - projection) * content
                changed = hidden + (lift[:, None] * unit).to(hidden.dtype)
            if index == self.axis.probe_layer:
                seen["after"] = changed[0]
            if floor is None:
                return None
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook


def template_positions(chat: RenderedChat) -> list[int]:
    """Positions of the tokens that belong to no message."""
    return [position for position, owner in enumerate(chat.owner) if owner < 0]


def read_reply(
    model: LoadedModel, axis: AssistantAxis, cap: Cap | None, chat: RenderedChat, reply: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Run one full forward pass over a prompt and the T reply tokens after it.

    The clamp does not act on template and special tokens.

    Returns:
        Projections of all tokens at the probe layer before the clamp, axis units; and the probe layer's
        residual stream [T, D] of the reply after the clamp.
    """
    special, start = set(model.tokenizer.all_special_ids), len(chat.ids)
    exempt = template_positions(chat) + [start + n for n, token in enumerate(reply) if token in special]
    forward = CappedForward(model, axis, cap)
    _, projections = forward([*chat.ids, *reply], exempt)
    assert forward.after is not None
    return projections, forward.after[start:]


def coordinates(hidden: Tensor, axis: AssistantAxis) -> list[float]:
    """The place of one residual stream [D] at the probe layer on the persona map, axis units."""
    probe = axis.probe_layer
    assert axis.pca is not None
    length = sum(value * value for value in axis.direction[probe].tolist()) ** 0.5
    centred = [a - b for a, b in zip(hidden.tolist(), axis.role_mean[probe].tolist(), strict=True)]
    components = axis.pca[:, probe].tolist()
    return [sum(a * b for a, b in zip(centred, component, strict=True)) / length for component in components]


def capped_generate(
    model: LoadedModel, axis: AssistantAxis, cap: Cap | None, chat: RenderedChat, limit: int
) -> list[int]:
    """Greedy reply by plain `model.generate` with hooks; the end-of-turn token is included."""
    special = torch.tensor(model.tokenizer.all_special_ids)
    content = torch.ones(len(chat.ids), dtype=torch.bool)
    content[template_positions(chat)] = False
    now: dict[str, Tensor] = {}

    def look(module, args, kwargs):
        step = kwargs["input_ids"][0]
        now["content"] = content if len(step) == len(chat.ids) else ~torch.isin(step, special)

    handles = [model.model.register_forward_pre_hook(look, with_kwargs=True)]
    floors = dict(zip(cap.layers, cap.floors, strict=True)) if cap else {}
    for index, floor in floors.items():
        unit = axis.direction[index] / axis.direction[index].norm()

        def clamp(module, args, output, unit=unit, floor=floor):
            hidden = output[0] if isinstance(output, tuple) else output
            lift = torch.relu(floor - (hidden * unit).sum(-1)) * now["content"]
            changed = hidden + lift[..., None] * unit
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handles.append(model.layers[index].register_forward_hook(clamp))
    try:
        prompt = torch.tensor([chat.ids])
        out = model.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=limit,
            pad_token_id=0,
        )
    finally:
        for handle in handles:
            handle.remove()
    return out[0, len(chat.ids) :].tolist()


def assert_equals_reference(
    model: LoadedModel,
    axis: AssistantAxis,
    cap: Cap | None,
    messages: Sequence[Message],
    events: Sequence[Event],
    limit: int,
) -> list[TokenEvent]:
    """Assert that an engine's events are the greedy reply of the reference, with its projections.

    Args:
        messages: the prompt.
        events: all events of one branch.

    Returns:
        The events of the tokens that were run.
    """
    chat = render_chat(model.tokenizer, messages)
    tokens = [event for event in events if isinstance(event, TokenEvent)]
    assert [event.token_id for event in tokens] == capped_generate(model, axis, cap, chat, limit)
    ran = [event for event in tokens if event.token.before is not None]
    expected, _ = read_reply(model, axis, cap, chat, [event.token_id for event in ran])
    actual = torch.tensor([event.token.before for event in ran])
    torch.testing.assert_close(actual, expected[len(chat.ids) :], rtol=0, atol=1e-4)
    (prompt,) = (event for event in events if isinstance(event, PromptEvent))
    user = [position for position, owner in enumerate(chat.owner) if owner == len(messages) - 1]
    assert prompt.user_projection == pytest.approx(float(expected[user].mean()), abs=1e-4)
    return ran
