"""Reading a finished chat: the projection of each token at every decoder layer, with or without a cap."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from demo.axis.axis import AssistantAxis
from demo.engine.forward.forward_pass import Chunk, ForwardPass, Probe
from demo.engine.protocol import ReadToken, Request, as_coordinates
from demo.engine.text import content_texts
from demo.models.chat_template import RenderedChat
from demo.utils.errors import nan_error


class TokenProjections:
    """Records the projections of T tokens at every decoder layer, raw units. See `ActivationRecorder`.

    Attributes:
        after: [T, L] float32, projections after the clamp.
        lifts: [T, L] float32, what the clamp added.
        places: [T, 3] float32, places on the persona map; [T, 0] for an axis without components.
    """

    def __init__(
        self, unit: Tensor, probe_layer: int, place: Callable[[Tensor], Tensor] | None, tokens: int
    ) -> None:
        """Make room for `tokens` tokens.

        Args:
            unit: [L, D] unit directions.
            place: residual streams [N, D] at the probe layer -> places on the persona map [N, 3].
        """
        self._unit, self._probe_layer, self._place = unit, probe_layer, place
        self.after = torch.zeros(tokens, len(unit), device=unit.device)
        self.lifts = torch.zeros_like(self.after)
        self.places = torch.zeros(tokens, 0 if place is None else 3, device=unit.device)

    def record(self, layer: int, hidden: Tensor, lift: Tensor | None, rows: Tensor) -> None:
        unit, rows = self._unit[layer].to(hidden.device), rows.to(self.after.device)
        self.after[rows, layer] = (hidden.float() @ unit).to(self.after.device)
        if lift is not None:
            self.lifts[rows, layer] = lift.to(self.lifts.device)
        if layer == self._probe_layer and self._place is not None:
            self.places[rows] = self._place(hidden).to(self.places.device)

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
    cache = forward.new_cache()
    cache.reserve(1, len(chat.ids))
    for start in range(0, len(chat.ids), chunk):
        ids, owners = chat.ids[start : start + chunk], chat.owner[start : start + chunk]
        reasoning = chat.reasoning[start : start + chunk]
        seen = TokenProjections(probe.unit, axis.probe_layer, probe.place, len(ids))
        exempt = [
            owner < 0 or not request.acts_on(kind) for owner, kind in zip(owners, reasoning, strict=True)
        ]
        run = Chunk(
            0, start, ids, exempt, request.cap, request.steer, False, recorder=seen, rows=range(len(ids))
        )
        forward.run([run], cache)
        if not bool(torch.isfinite(seen.after).all()):
            raise nan_error()
        before, after = seen.in_units(axis)
        yield [
            ReadToken(
                owner,
                texts[start + index],
                tuple(before[index]),
                tuple(after[index]),
                as_coordinates(seen.places[index].tolist()),
                reasoning[index],
            )
            for index, owner in enumerate(owners)
            if owner >= 0
        ]
