"""Reading a finished chat: the projection of each token at every decoder layer, with or without a cap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from demo.axis.axis import AssistantAxis
from demo.engine.forward.forward_pass import Beside, Chunk, ForwardPass, Probe
from demo.engine.protocol import Cap, ReadToken, Request
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
    cap, or a reply layer by layer. Where a conditional cap acts on a reply, that reply is run again without
    the cap, because what follows reads it so.

    Yields:
        The content tokens of each chunk.
    """
    reading = _Reading(forward, probe, content_texts(tokenizer, chat), chat, request, chunk)
    plain, position = request.in_prompt[:2], 0
    for begin, end in _replies(chat, request) if request.is_conditional else ():
        yield from reading.run(position, begin, plain)
        caps, position = request.in_reply(reading.last), end
        if caps == plain:
            yield from reading.run(begin, end, plain)
            continue
        before = reading.cache.saved(0, begin)
        yield from reading.run(begin, end, caps)
        if not any(owner >= 0 for owner in chat.owner[end:]):
            return
        reading.cache.load(0, before, begin)
        for _ in reading.run(begin, end, plain):
            yield []  # as short a step as any other
    yield from reading.run(position, len(chat.ids), plain)


def _replies(chat: RenderedChat, request: Request) -> list[tuple[int, int]]:
    """Where the content of each of the assistant's messages begins, and the token after its end."""
    places: dict[int, list[int]] = {}
    for index, owner in enumerate(chat.owner):
        if owner >= 0 and request.messages[owner]["role"] == "assistant":
            places.setdefault(owner, []).append(index)
    return [(own[0], own[-1] + 1) for own in places.values()]


@dataclass
class _Reading:
    """A chat that is being read, in the one slot of a cache.

    Attributes:
        texts: of all tokens.
        last: projection of the newest token at the probe layer, axis units, before the clamp.
    """

    forward: ForwardPass
    probe: Probe
    texts: Sequence[str]
    chat: RenderedChat
    request: Request
    chunk: int
    last: float = math.inf

    def __post_init__(self) -> None:
        self.cache = self.forward.new_cache()
        self.cache.open(0, len(self.chat.ids))

    def run(self, begin: int, end: int, caps: tuple[Cap | None, Cap | None]) -> Iterator[list[ReadToken]]:
        """Run the tokens from `begin` to before `end` under these caps."""
        for start in range(begin, end, self.chunk):
            yield self._run(start, min(start + self.chunk, end), *caps)

    def _run(self, start: int, end: int, cap: Cap | None, also: Cap | None) -> list[ReadToken]:
        probe, request, axis = self.probe, self.request, self.probe.axis
        ids, owners = self.chat.ids[start:end], self.chat.owner[start:end]
        reasoning = self.chat.reasoning[start:end]
        seen = TokenProjections(probe.unit, axis.probe_layer, probe.beside, len(ids))
        exempt = [
            owner < 0 or not request.acts_on(kind) for owner, kind in zip(owners, reasoning, strict=True)
        ]
        run = Chunk(0, start, ids, exempt, cap, request.steer, False, also=also)
        run.recorder, run.rows = seen, range(len(ids))
        self.forward.run([run], self.cache)
        if not bool(torch.isfinite(seen.after).all()):
            raise nan_error()
        before, after = seen.in_units(axis)
        self.last = before[-1][axis.probe_layer]
        coordinates, along, _ = probe.beside.parts(seen.beside.cpu())
        asked = [probe.beside.names.index(name) for name in request.along]
        return [
            ReadToken(
                owner,
                self.texts[start + index],
                tuple(before[index]),
                tuple(after[index]),
                coordinates[index],
                reasoning[index],
                tuple(along[index][number] for number in asked),
            )
            for index, owner in enumerate(owners)
            if owner >= 0
        ]
