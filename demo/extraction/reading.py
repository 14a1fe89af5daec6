"""Finished replies, read by the unsteered model in as few passes as possible.

Where the engine has its fused forward pass, replies to the same prompt are read after one copy of it, without
padding, and equal texts are read once. Elsewhere transformers' own modules read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch
from torch import Tensor

from demo.engine.forward.forward_pass import Chunk, Probe
from demo.engine.forward.fused_cpu import FusedForward
from demo.engine.forward.selection import choose_forward
from demo.engine.kv_cache import SavedState, open_all
from demo.engine.shelved_cache import ShelvedCache
from demo.engine.threads import threads_for
from demo.extraction.rollouts import ReadText, Text, placeholder_axis, read_means, read_texts
from demo.models.loading import LoadedModel

_TOKENS = 512  # reply tokens in one forward pass
# Prompts that come again are kept where so many of their tokens, more than all extraction questions have, fit
# into so many bytes. Kept in part they would be run again and again, each in a pass of its own.
_KEPT_TOKENS = 10_000
_MOST_KEPT = 512 * 1024**2
# Logits over the whole vocabulary for every reply token take the most memory, so only so many numbers are
# held at once.
_MOST_LOGITS = 6_000_000

_Pair = tuple[tuple[int, ...], tuple[int, ...]]  # a prompt and the reply to it
# Layer -> residual streams by pair, [n + 1, D]: of the token before the reply, and of the reply's n tokens.
_States = dict[int, tuple[Tensor, ...]]
_Summary = TypeVar("_Summary")


class Reader:
    """Reads replies with the forward pass that generates them."""

    def __init__(self, model: LoadedModel, recurring: bool = False) -> None:
        """recurring: the same prompts come again in later calls. They are kept if the model is small."""
        self._model = model
        keeps = recurring and _KEPT_TOKENS * model.token_bytes <= _MOST_KEPT
        self._kept: dict[tuple[int, ...], SavedState] | None = {} if keeps else None
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
        forward, layers = self._forward, () if layer is None else (layer,)

        def summary(pairs: Sequence[_Pair], states: _States) -> Iterator[ReadText]:
            log_p = log_probabilities(forward, states[forward.layers - 1], [reply for _, reply in pairs])
            for number, own in enumerate(log_p):
                yield ReadText(own, states[layers[0]][number][1:].float() if layers else None)

        return self._each(forward, texts, {forward.layers - 1, *layers}, summary)

    def states(self, texts: Sequence[Text], layer: int) -> list[Tensor]:
        """The residual stream of each reply's tokens at a layer, [n, D] float32. See `read`."""
        if self._forward is None:
            return [read.states for read in read_texts(self._model, texts, layer) if read.states is not None]

        def summary(pairs: Sequence[_Pair], states: _States) -> Iterator[Tensor]:
            for number in range(len(pairs)):
                yield states[layer][number][1:].float()

        return self._each(self._forward, texts, {layer}, summary)

    def means(self, texts: Sequence[Text], layers: Sequence[int]) -> Tensor:
        """The same for the means alone, at several layers. See `read_means`."""
        if self._forward is None or not texts:
            return read_means(self._model, texts, layers)

        def summary(pairs: Sequence[_Pair], states: _States) -> Iterator[Tensor]:
            for number in range(len(pairs)):
                yield torch.stack([_mean(states[layer][number]) for layer in layers])

        return torch.stack(self._each(self._forward, texts, set(layers), summary))

    def _each(
        self,
        forward: FusedForward,
        texts: Sequence[Text],
        layers: set[int],
        summary: Callable[[Sequence[_Pair], _States], Iterator[_Summary]],
    ) -> list[_Summary]:
        """What `summary` makes of each text, from the states of the texts in one pass at these layers."""
        found: dict[_Pair, _Summary] = {}
        # In order of their prompts, so that replies to the same prompt are in the same pass.
        for part in _parts(sorted({(tuple(text.prompt), tuple(text.reply)) for text in texts})):
            timed = nullcontext() if self._threads is None else self._threads.step(_TOKENS)
            with self._model.turn, timed, torch.inference_mode():
                states = _states(forward, part, layers, self._kept)
                found |= zip(part, summary(part, states), strict=True)
        return [found[tuple(text.prompt), tuple(text.reply)] for text in texts]


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


def _states(
    forward: FusedForward,
    pairs: Sequence[_Pair],
    layers: set[int],
    kept: dict[tuple[int, ...], SavedState] | None = None,
) -> dict[int, tuple[Tensor, ...]]:
    """Residual streams at some layers, by pair [n + 1, D]: of the token before the reply, and of the reply's.

    The different prompts are run without their last tokens, and then all that follows them.

    Args:
        kept: what is kept of prompts between calls; None to keep nothing.
    """
    cache = forward.new_cache()
    open_all(cache, [len(prompt) + len(reply) for prompt, reply in pairs])
    first: dict[tuple[int, ...], int] = {}
    for slot, (prompt, _) in enumerate(pairs):
        first.setdefault(prompt, slot)
    if kept is None:
        prompts = [_chunk(slot, 0, prompt[:-1]) for prompt, slot in first.items() if len(prompt) > 1]
        if prompts:
            forward.run(prompts, cache)
    else:
        _fill_in(forward, cache, first, kept)
    seen = Residuals(layers)
    replies = []
    for slot, (prompt, reply) in enumerate(pairs):
        if first[prompt] != slot:
            cache.copy(first[prompt], slot, len(prompt) - 1)
        replies.append(_chunk(slot, len(prompt) - 1, (prompt[-1], *reply), seen))
    forward.run(replies, cache)
    counts = [len(reply) + 1 for _, reply in pairs]
    return {layer: hidden.split(counts) for layer, hidden in seen.found.items()}


def _fill_in(
    forward: FusedForward,
    cache: ShelvedCache,
    slots: Mapping[tuple[int, ...], int],
    kept: dict[tuple[int, ...], SavedState],
) -> None:
    """Put prompts without their last tokens into their slots, from what is kept of them where that is known.

    Each new one has a pass of its own. So the bits do not depend on which others were read before, and a run
    that was interrupted goes on with the same.
    """
    if sum(state.nbytes for state in kept.values()) > _MOST_KEPT:
        kept.clear()
    for prompt, slot in slots.items():
        count = len(prompt) - 1
        if count and prompt in kept:
            cache.load(slot, kept[prompt], count)
        elif count:
            forward.run([_chunk(slot, 0, prompt[:-1])], cache)
            kept[prompt] = cache.saved(slot, count)


def _mean(states: Tensor) -> Tensor:
    """The mean [D] of a reply's states; the first row is of the token before it."""
    return states[1:].float().mean(0)


def _chunk(slot: int, start: int, ids: Sequence[int], recorder: Residuals | None = None) -> Chunk:
    rows = () if recorder is None else range(len(ids))
    return Chunk(slot, start, ids, [False] * len(ids), last=False, recorder=recorder, rows=rows)


class Residuals:
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


def log_probabilities(
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
