"""Read finished replies with the unsteered model: how likely each token was, and where the reply stands.

The same text read under another prompt tells whose reply it is (`uptake`); a capped reply read without the cap tells how
natural it is and where it really went (`sweep`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from demo.capping import residual_of
from demo.models import LoadedModel

# Logits over the whole vocabulary for every reply token are the largest thing in memory: at most so many numbers at once.
_MOST_LOGITS = 48_000_000


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt with its template and the reply tokens that follow it."""

    prompt: Sequence[int]
    reply: Sequence[int]


@dataclass(frozen=True, slots=True)
class ReadText:
    """log_p [n] float32: natural log probability of each reply token; mean [D] float32 or None: mean residual stream of
    the reply at the asked layer."""

    log_p: Tensor
    mean: Tensor | None


def read_texts(model: LoadedModel, texts: Sequence[Text], layer: int | None = None) -> list[ReadText]:
    """Read each reply (at least one token) after its prompt, without any cap. layer: where to take the mean, if at all."""
    longest = max((len(text.reply) for text in texts), default=1)
    rows = max(1, min(16, _MOST_LOGITS // ((longest + 1) * len(model.tokenizer))))
    results: list[ReadText] = []
    for start in range(0, len(texts), rows):
        results += _read(model, texts[start : start + rows], layer)
    return results


@torch.inference_mode()
def _read(model: LoadedModel, texts: Sequence[Text], layer: int | None) -> list[ReadText]:
    """One forward pass over right-aligned rows, so that all replies end in the last column."""
    lengths = torch.tensor([len(text.prompt) + len(text.reply) for text in texts])
    width = int(lengths.max())
    pad = width - lengths
    ids = torch.tensor(
        [[0] * int(gap) + [*text.prompt, *text.reply] for gap, text in zip(pad, texts, strict=True)]
    )
    columns = torch.arange(width)[None]
    states: list[Tensor] = []
    handles = []
    if layer is not None:
        handle = model.layers[layer].register_forward_hook(lambda *call: states.append(residual_of(call[2])))
        handles.append(handle)
    keep = max(len(text.reply) for text in texts) + 1
    try:
        output = model.model(
            input_ids=ids.to(model.device),
            attention_mask=(columns >= pad[:, None]).long().to(model.device),
            position_ids=(columns - pad[:, None]).clamp(min=0).to(model.device),
            use_cache=False,
            logits_to_keep=keep,
        )
    finally:
        for handle in handles:
            handle.remove()
    return [
        ReadText(
            _log_p(output.logits[row], text.reply),
            states[0][row, -len(text.reply) :].float().mean(0).cpu() if states else None,
        )
        for row, text in enumerate(texts)
    ]


def _log_p(logits: Tensor, reply: Sequence[int]) -> Tensor:
    """Log probabilities of `reply` from one row's logits [T, V]; each token is predicted by the column before it."""
    before = logits[-len(reply) - 1 : -1].float()
    tokens = torch.tensor(reply, device=before.device)[:, None]
    return (before.gather(1, tokens)[:, 0] - before.logsumexp(-1)).cpu()
