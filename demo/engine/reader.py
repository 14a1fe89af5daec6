"""Reading a finished chat: where each of its tokens stands at every decoder layer, with or without a cap.

Nothing is generated, so any text can be read: a transcript from elsewhere, a reply once more without the cap, or a reply
layer by layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from demo.axis.axis import AssistantAxis
from demo.capping import AxisHooks, residual_of
from demo.engine.batch import RowBatch
from demo.engine.forward.forward_pass import Chunk, Probe
from demo.engine.protocol import ReadToken, Request, as_coordinates
from demo.models.chat_template import RenderedChat
from demo.models.loading import LoadedModel


@dataclass
class LayerProjections:
    """Hooks that project the residual stream onto each layer's unit direction. Install them after hooks that change it.

    unit [L, D] float32. place: reads coordinates [T, 3] off the residual stream [T, D] at the probe layer; None where
    the axis has no components.
    """

    layers: Sequence[nn.Module]
    unit: Tensor
    probe_layer: int
    place: Callable[[Tensor], Tensor] | None = None
    _places: Tensor | None = field(default=None, init=False)
    _columns: dict[int, Tensor] = field(default_factory=dict, init=False)

    @contextmanager
    def installed(self) -> Iterator[LayerProjections]:
        handles = [layer.register_forward_hook(self._hook(index)) for index, layer in enumerate(self.layers)]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def last(self) -> Tensor:
        """Projections of the last forward pass's first row, [T, L] float32 on the CPU, raw units."""
        return torch.stack([self._columns[index].cpu() for index in range(len(self.layers))], dim=-1)

    def places(self) -> list[list[float]] | None:
        """Coordinates of the last forward pass's first row, T of three numbers, axis units at the probe layer."""
        return None if self._places is None else self._places.tolist()

    def _hook(self, index: int):
        def hook(module: nn.Module, args: object, output: object) -> None:
            hidden = residual_of(output)
            if index == self.probe_layer and self.place is not None:
                self._places = self.place(hidden[0])
            self._columns[index] = hidden[0].float() @ self.unit[index].to(hidden.device)

        return hook


class Speller:
    """Turns content tokens into the text each adds, one message after the other."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._message = -1
        self._stream = DecodeStream(skip_special_tokens=True)

    def spell(self, message: int, token: int) -> str:
        if message != self._message:
            self._message, self._stream = message, DecodeStream(skip_special_tokens=True)
        return self._stream.step(self._tokenizer.backend_tokenizer, token) or ""


def read_chat(
    model: LoadedModel, axis: AssistantAxis, chat: RenderedChat, watch: Probe, request: Request, chunk: int
) -> Iterator[list[ReadToken]]:
    """Run `chat` once, `chunk` tokens at a time, under the request's intervention; content tokens of each part."""
    batch, speller = RowBatch(model, 1), Speller(model.tokenizer)
    ids = batch.load([chat.ids])
    projections, start = LayerProjections(model.layers, axis.unit, axis.probe_layer, watch.place), 0
    for ids_read in ids.split(chunk, dim=1):
        tokens, owners = ids_read[0].tolist(), chat.owner[start : start + ids_read.shape[1]]
        part = Chunk(0, start, tokens, [owner < 0 for owner in owners], request.cap, request.steer)
        hooks = watch.hooks([part], [1], [part.exempt])
        # Installed for this part only: between two parts the model serves others.
        with hooks.installed(), projections.installed():
            batch.forward(ids_read)
        before, after = _units(axis, hooks, projections.last())
        places = projections.places() or [[]] * len(owners)
        yield [
            ReadToken(owner, speller.spell(owner, token), tuple(low), tuple(high), as_coordinates(place))
            for owner, token, low, high, place in zip(
                owners, tokens, before.tolist(), after.tolist(), places, strict=True
            )
            if owner >= 0
        ]
        start += len(tokens)


def _units(axis: AssistantAxis, hooks: AxisHooks, raw: Tensor) -> tuple[Tensor, Tensor]:
    """Projections [T, L] in axis units before and after the clamp; raw: after it."""
    after = (raw - axis.origin) / axis.norm
    before, capped = after.clone(), list(hooks.capped_layers)
    if capped:
        before[:, capped] -= hooks.reading().lifts[0].cpu() / axis.norm[capped]
    return before, after
