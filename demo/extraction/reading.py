"""Finished replies, read by the unsteered model in as few passes as possible.

Where the engine has its fused forward pass, replies to the same prompt are read after one copy of it, without
padding, and equal texts are read once. Elsewhere transformers' own modules read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from demo.engine.forward.forward_pass import Chunk, Probe
from demo.engine.forward.fused_cpu import FusedForward
from demo.engine.forward.selection import choose_forward
from demo.engine.threads import threads_for
from demo.extraction.rollouts import ReadText, Text, placeholder_axis, read_texts
from demo.models.loading import LoadedModel

_TOKENS = 512  # reply tokens in one forward pass
# Logits over the whole vocabulary for every reply token take the most memory, so only so many numbers are
# held at once.
_MOST_LOGITS = 6_000_000


class Reader:
    """Reads replies with the forward pass that generates them."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        axis = placeholder_axis(model.layer_count, model.hidden_size)
        forward = choose_forward(model, Probe(model, axis, None), reproducible=True)
        self._forward = forward if isinstance(forward, FusedForward) else None
        with model.turn:
            self._threads = None if self._forward is None else threads_for(model, self._forward)

    def read(self, texts: Sequence[Text], layer: int | None = None) -> list[ReadText]:
        """Read each reply, of at least one token, after its prompt, without any cap.

        Args:
            layer: the decoder layer at which to take the states; None for no states.
        """
        if self._forward is None:
            return read_texts(self._model, texts, layer)
        # In order of their prompts, so that replies to the same prompt are in the same pass.
        different = sorted({(tuple(text.prompt), tuple(text.reply)) for text in texts})
        found: dict[tuple[tuple[int, ...], tuple[int, ...]], ReadText] = {}
        for part in _parts(different):
            timed = nullcontext() if self._threads is None else self._threads.step(_TOKENS)
            with self._model.turn, timed:
                found |= zip(part, _read(self._forward, part, layer), strict=True)
        return [found[tuple(text.prompt), tuple(text.reply)] for text in texts]


_Pair = tuple[tuple[int, ...], tuple[int, ...]]  # a prompt and the reply to it


def _parts(pairs: Sequence[_Pair]) -> Iterator[list[_Pair]]:
    """The pairs in parts of about _TOKENS reply tokens."""
    part: list[_Pair] = []
    for pair in pairs:
        if part and sum(len(reply) + 1 for _, reply in part) + len(pair[1]) >= _TOKENS:
            yield part
            part = []
        part.append(pair)
    if part:
        yield part


@torch.inference_mode()
def _read(forward: FusedForward, pairs: Sequence[_Pair], layer: int | None) -> list[ReadText]:
    """Two passes: over the different prompts without their last tokens, and over all that follows them."""
    cache = forward.new_cache()
    cache.reserve(len(pairs), max(len(prompt) + len(reply) for prompt, reply in pairs))
    first: dict[tuple[int, ...], int] = {}
    for slot, (prompt, _) in enumerate(pairs):
        first.setdefault(prompt, slot)
    prompts = [_chunk(slot, 0, prompt[:-1]) for prompt, slot in first.items() if len(prompt) > 1]
    if prompts:
        forward.run(prompts, cache)
    seen = _Residuals({forward.layers - 1} if layer is None else {forward.layers - 1, layer})
    replies = []
    for slot, (prompt, reply) in enumerate(pairs):
        if first[prompt] != slot:
            cache.copy(first[prompt], slot, len(prompt) - 1)
        replies.append(_chunk(slot, len(prompt) - 1, (prompt[-1], *reply), seen))
    forward.run(replies, cache)
    counts = [len(reply) + 1 for _, reply in pairs]
    log_p = _log_p(forward, seen.found[forward.layers - 1].split(counts), [reply for _, reply in pairs])
    states: list[Tensor | None] = [None] * len(pairs)
    if layer is not None:
        states = [hidden[1:].float() for hidden in seen.found[layer].split(counts)]
    return [ReadText(*one) for one in zip(log_p, states, strict=True)]


def _chunk(slot: int, start: int, ids: Sequence[int], recorder: _Residuals | None = None) -> Chunk:
    rows = () if recorder is None else range(len(ids))
    return Chunk(slot, start, ids, [False] * len(ids), last=False, recorder=recorder, rows=rows)


class _Residuals:
    """Holds the residual stream of all recorded tokens at some layers. See `ActivationRecorder`.

    Attributes:
        found: layer -> [N, D].
    """

    def __init__(self, layers: set[int]) -> None:
        self._layers = layers
        self.found: dict[int, Tensor] = {}

    def record(self, layer: int, hidden: Tensor, lift: Tensor | None, rows: Tensor) -> None:
        if layer in self._layers:
            self.found[layer] = hidden


def _log_p(
    forward: FusedForward, hidden: Sequence[Tensor], replies: Sequence[tuple[int, ...]]
) -> list[Tensor]:
    """Natural log probability of each reply's tokens.

    Args:
        hidden: per reply [n + 1, D], at the last layer from the token before the reply on.
    """
    before = torch.cat([states[:-1] for states in hidden])
    tokens = torch.tensor([token for reply in replies for token in reply])
    rows = max(1, _MOST_LOGITS // forward.vocabulary)
    found = []
    for states, own in zip(before.split(rows), tokens.split(rows), strict=True):
        found.append(forward.logits(states).float().log_softmax(-1).gather(1, own[:, None])[:, 0])
    return list(torch.cat(found).split([len(reply) for reply in replies]))
