"""Generate a batch of replies and take the mean activation of each over its content tokens, at every layer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from demo.capping import residual_of
from demo.engine.batch import RowBatch
from demo.engine.protocol import Sampling
from demo.engine.sampling import draw
from demo.extraction.plan import Rollout
from demo.models.chat_template import render_chat
from demo.models.loading import LoadedModel

# Finished rows run along until this share is left: taking rows out copies the whole KV cache.
_COMPACT_BELOW = 0.7


@dataclass(frozen=True, slots=True)
class Reply:
    """A finished rollout: its text, its content tokens, their mean residual stream [L, D] float32, and each
    token's natural log probability under the prompt it answers (at temperature 1)."""

    rollout: Rollout
    text: str
    tokens: tuple[int, ...]
    mean: Tensor
    log_p: tuple[float, ...]


class LayerSums:
    """Sums the residual stream of reply tokens over decode steps, for every decoder layer: [L, B, D] float32."""

    def __init__(self, layers: Sequence[nn.Module], rows: int, hidden_size: int) -> None:
        self.sums = torch.zeros(len(layers), rows, hidden_size)
        self.counts = torch.zeros(rows)
        self._layers = layers
        self._rows: list[int] = []
        self._places: list[int] = []

    def expect(self, rows: list[int], places: list[int]) -> None:
        """Say which rows of the sums the next forward pass feeds, and from which places of its batch."""
        self._rows, self._places = rows, places
        self.counts[rows] += 1

    def install(self, stack: ExitStack) -> None:
        for index, layer in enumerate(self._layers):
            stack.callback(layer.register_forward_hook(self._hook(index)).remove)

    def _hook(self, index: int):
        def hook(module: nn.Module, args: object, output: object) -> None:
            self.sums[index, self._rows] += residual_of(output)[self._places, -1].float().cpu()

        return hook


@dataclass(slots=True)
class _Draft:
    """A reply as far as it is written."""

    sampling: Sampling
    tokens: list[int] = field(default_factory=list)
    log_p: list[float] = field(default_factory=list)

    def grow(self, logits: Tensor, total: Tensor, step: int, ends: frozenset[int]) -> bool:
        """Draw the next token from one row's logits [V]; whether the reply goes on. total: their log-sum-exp."""
        token = draw(logits, self.sampling, step)
        if token in ends:
            return False
        self.tokens.append(token)
        self.log_p.append(float(logits[token] - total))
        return True


def run_batch(model: LoadedModel, rollouts: Sequence[Rollout], sampling: Sampling) -> list[Reply]:
    """Generate one reply per rollout; the end-of-turn token and other special tokens stay out of the means.

    Rollouts of the same question and sample share their random numbers, so that what differs is the role.
    """
    prompts = [render_chat(model.tokenizer, rollout.messages).ids for rollout in rollouts]
    drafts = [_Draft(_sampling(sampling, rollout)) for rollout in rollouts]
    sums = LayerSums(model.layers, len(rollouts), model.hidden_size)
    batch = RowBatch(model, len(rollouts))
    logits = batch.forward(batch.load(prompts))
    with ExitStack() as stack:
        sums.install(stack)
        _write(batch, drafts, sums, logits, model.stops | frozenset(model.tokenizer.all_special_ids))
    means = sums.sums / sums.counts.clamp(min=1)[:, None]
    return [
        Reply(
            rollout,
            str(model.tokenizer.decode(draft.tokens, skip_special_tokens=True)),
            tuple(draft.tokens),
            means[:, index],
            tuple(draft.log_p),
        )
        for index, (rollout, draft) in enumerate(zip(rollouts, drafts, strict=True))
    ]


def _write(
    batch: RowBatch, drafts: Sequence[_Draft], sums: LayerSums, logits: Tensor, ends: frozenset[int]
) -> None:
    """Decode until every draft has ended. logits [B, V]: after the prompts."""
    live = {place: place for place in range(len(drafts))}  # place in the batch -> draft
    for step in range(drafts[0].sampling.max_new_tokens):
        logits = logits.float()
        totals = logits.logsumexp(-1)
        live = {
            place: index
            for place, index in live.items()
            if drafts[index].grow(logits[place], totals[place], step, ends)
        }
        if not live:
            return
        if len(live) < _COMPACT_BELOW * batch.rows:
            batch.select(list(live))
            live = dict(enumerate(live.values()))
        sums.expect(list(live.values()), list(live))
        tokens = torch.zeros(batch.rows, 1, dtype=torch.long)
        tokens[list(live), 0] = torch.tensor([drafts[index].tokens[-1] for index in live.values()])
        logits = batch.forward(tokens)


def _sampling(base: Sampling, rollout: Rollout) -> Sampling:
    # Samples are far apart, so that no question's numbers are another's.
    seed = base.seed + rollout.question + 10_000 * rollout.sample
    return replace(base, seed=seed, repetition_penalty=1.0)


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
