"""Reading a finished chat: the projection of each token at every decoder layer, with or without a cap."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from demo.axis.axis import AssistantAxis
from demo.engine.forward.forward_pass import Beside, Chunk, ForwardPass, Probe
from demo.engine.protocol import ReadToken, Request
from demo.engine.text import content_texts
from demo.models.chat_template import RenderedChat
from demo.utils.errors import nan_error


class TokenProjections:
    """Records the projections of T tokens at every decoder layer, raw units. See `ActivationRecorder`.

    Attributes:
        after: [T, L] float32, projections after the clamp.
        lifts: [T, L] float32, what the clamp added.
        beside: [T, P] float32, what `Beside.read` finds at the probe layer.
    """

    def __init__(self, unit: Tensor, probe_layer: int, beside: Beside, tokens: int) -> None:
        """Make room for `tokens` tokens.

        Args:
            unit: [L, D] unit directions.
            beside: what is read at the probe layer beside the projection.
        """
        self._unit, self._probe_layer, self._beside = unit, probe_layer, beside
        self.after = torch.zeros(tokens, len(unit), device=unit.device)
        self.lifts = torch.zeros_like(self.after)
        self.beside = torch.zeros(tokens, beside.width, device=unit.device)

    def record(self, layer: int, hidden: Tensor, lift: Tensor | None, rows: Tensor) -> None:
        unit, rows = self._unit[layer].to(hidden.device), rows.to(self.after.device)
        self.after[rows, layer] = (hidden.float() @ unit).to(self.after.device)
        if lift is not None:
            self.lifts[rows, layer] = lift.to(self.lifts.device)
        if layer == self._probe_layer and self._beside.width:
            self.beside[rows] = self._beside.read(hidden).to(self.beside.device)

    def in_units(self, axis: AssistantAxis) -> tuple[list[list[float]], list[list[float]]]:
        """Projections [T][L] in axis units, before and after the clamp."""
        after = (self.after.cpu() - axis.origin) / axis.norm
        before = after - self.lifts.cpu() / axis.norm
        return before.tolist(), after.tolist()


def read_chat(
    forward: ForwardPass,
    probe: Probe,
    tokenizer: PreTrainedTokenizerBase,
    chat: RenderedChat,
    request: Request,
    chunk: int,
) -> Iterator[list[ReadToken]]:
    """Run `chat` once under the request's intervention, `chunk` tokens at a time, with a KV cache of its own.

    Nothing is generated, so any text can be read: a transcript from elsewhere, a capped reply without the
    cap, or a reply layer by layer.

    Yields:
        The content tokens of each chunk.
    """
    axis, texts = probe.axis, content_texts(tokenizer, chat)
    asked = [probe.beside.names.index(name) for name in request.along]
    cache = forward.new_cache()
    cache.reserve(1, len(chat.ids))
    for start in range(0, len(chat.ids), chunk):
        ids, owners = chat.ids[start : start + chunk], chat.owner[start : start + chunk]
        reasoning = chat.reasoning[start : start + chunk]
        seen = TokenProjections(probe.unit, axis.probe_layer, probe.beside, len(ids))
        exempt = [
            owner < 0 or not request.acts_on(kind) for owner, kind in zip(owners, reasoning, strict=True)
        ]
        run = Chunk(0, start, ids, exempt, request.cap, request.steer, False, also=request.also)
        run.recorder, run.rows = seen, range(len(ids))
        forward.run([run], cache)
        if not bool(torch.isfinite(seen.after).all()):
            raise nan_error()
        before, after = seen.in_units(axis)
        coordinates, along, _ = probe.beside.parts(seen.beside.cpu())
        yield [
            ReadToken(
                owner,
                texts[start + index],
                tuple(before[index]),
                tuple(after[index]),
                coordinates[index],
                reasoning[index],
                tuple(along[index][number] for number in asked),
            )
            for index, owner in enumerate(owners)
            if owner >= 0
        ]
