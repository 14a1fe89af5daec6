"""A self-test of a forward pass: does it compute what transformers' own `generate` computes?

Three sequences of different lengths run together for two turns: one without a cap, one whose cap acts, and
one whose cap never acts. Their logits are compared with those of plain, separate `generate` calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from demo.capping import AxisHooks
from demo.engine.forward.forward_pass import Chunk, ForwardPass, usual_strides
from demo.engine.kv_cache import SequenceCache, open_all
from demo.engine.protocol import Cap
from demo.utils.errors import first_sentence
from demo.utils.progress import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demo.axis.axis import AssistantAxis
    from demo.models.loading import LoadedModel

# The largest difference allowed, as a share of the largest logit. In float32 every step must keep to it. In
# shorter formats the median step must: rounding can send a token to another expert, or tip a near-tie.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 8e-2, torch.float16: 4e-2}

_TEXT = (
    "The lighthouse keeper climbs the stairs at dusk and lights the lamp. Ships far out at sea turn their "
    "bows toward the harbour, and the children on the quay count them one by one until it is dark."
)
_FIRST = (19, 12)  # prompt tokens of the two texts, read in chunks that end at _CUT
_CUT = 7
_LATER = (4, 9)  # tokens that the second turn adds
_STEPS = (3, 2)  # tokens generated in each turn
_NEVER = -1e30  # a raw floor that no projection reaches


@dataclass
class _Row:
    """One sequence of the test: the cap of the tested pass, the cap of the reference, and its text."""

    cap: Cap | None
    reference: Cap | None
    first: list[int]
    later: list[int]


@dataclass(frozen=True)
class Reference:
    """The sequences of the test and what plain generation makes of them.

    Attributes:
        logits: by turn, sequence and step, [V] each.
    """

    dtype: torch.dtype
    rows: list[_Row]
    logits: list[list[list[Tensor]]]


def reference_of(model: LoadedModel, axis: AssistantAxis) -> Reference:
    """Plain generation's answers to the test.

    It runs before a pass is made, because a pass may take over the model's matrices.
    """
    with quiet_transformers():
        rows = _rows(model, axis)
        return Reference(model.dtype, rows, _reference_logits(model, axis, rows))


def fault_of(reference: Reference, forward: ForwardPass) -> str | None:
    """What is wrong with a forward pass, as a phrase; None when it computes what the model computes."""
    try:
        with quiet_transformers():
            errors = _errors(reference, forward)
    except Exception as error:  # a pass that does not suit a model can raise errors of any kind
        return first_sentence(error) or type(error).__name__
    worst = torch.tensor(errors)
    measured = float(worst.max() if reference.dtype == torch.float32 else worst.median())
    # A comparison with NaN is false, so it is written such that NaN fails.
    if measured <= TOLERANCE.get(reference.dtype, 0.0):
        return None
    return f"its logits differ from those of plain generation by {measured:.2g} of the largest"


def text_tokens(model: LoadedModel, count: int) -> list[int]:
    """`count` tokens of ordinary text: random ids could name images or other inputs that are not there."""
    ids = list(model.tokenizer(_TEXT, add_special_tokens=False)["input_ids"])
    size = model.model.config.get_text_config().vocab_size
    usable = [token for token in ids if token < size] or [1]
    return (usable * (count // len(usable) + 1))[:count]


def _rows(model: LoadedModel, axis: AssistantAxis) -> list[_Row]:
    """The three sequences."""
    long, short = _FIRST
    ids = text_tokens(model, long + _LATER[0] + short + _LATER[1])
    one, more_one = ids[:long], ids[long : long + _LATER[0]]
    other, more_other = ids[-short - _LATER[1] : -_LATER[1]], ids[-_LATER[1] :]
    layers = tuple(sorted({axis.probe_layer, max(axis.probe_layer - 1, 0)}))
    active = Cap(layers, _median_projections(model, axis, other, layers))
    never = Cap(layers, (_NEVER,) * len(layers))
    return [
        _Row(None, None, one, more_one),
        _Row(active, active, other, more_other),
        _Row(never, None, one, more_one),
    ]


def _median_projections(
    model: LoadedModel, axis: AssistantAxis, ids: list[int], layers: tuple[int, ...]
) -> tuple[float, ...]:
    """Floors that lie above about half of the tokens."""
    seen: dict[int, float] = {}

    def record(layer: int, hidden: Tensor, lift: Tensor | None) -> None:
        unit = axis.unit[layer].to(hidden.device)
        seen[layer] = float(torch.linalg.vecdot(hidden.float(), unit).median())

    hooks = AxisHooks(model.layers, axis.unit, axis.probe_layer, {}, record=record)
    with torch.inference_mode(), hooks.installed():
        model.model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
    return tuple(seen[layer] for layer in layers)


def _reference_logits(
    model: LoadedModel, axis: AssistantAxis, rows: Sequence[_Row]
) -> list[list[list[Tensor]]]:
    """See `Reference`. Every sequence continues with its likeliest tokens."""
    texts: list[list[int]] = [[] for _ in rows]
    turns = []
    for turn, steps in enumerate(_STEPS):
        found: list[list[Tensor]] = []
        for index, row in enumerate(rows):
            texts[index] += row.later if turn else row.first
            # A cap that never acts changes nothing, so its text has been run without it already.
            same = next((n for n in range(index) if texts[n] == texts[index] and not row.reference), None)
            if same is not None:
                found.append(found[same])
            else:
                found.append(_plain_logits(model, axis, texts[index], row.reference, steps))
        for text, logits in zip(texts, found, strict=True):
            text += [int(step.argmax()) for step in logits]
        turns.append(found)
    return turns


def _errors(reference: Reference, forward: ForwardPass) -> list[float]:
    """The relative error of every compared step."""
    rows = reference.rows
    cache = forward.new_cache()
    open_all(cache, [sum(_FIRST) + sum(_LATER) + sum(_STEPS)] * len(rows))
    texts: list[list[int]] = [[] for _ in rows]
    errors: list[float] = []
    for turn, wanted in enumerate(reference.logits):
        for index, row in enumerate(rows):
            start = len(texts[index]) - (1 if turn else 0)  # the last token of a turn has not been run
            texts[index] += row.later if turn else row.first
            got = _read(forward, cache, index, row.cap, texts[index], start)
            errors.append(_error(got, wanted[index][0]))
        for step in range(_STEPS[turn]):
            for text, logits in zip(texts, wanted, strict=True):
                text.append(int(logits[step].argmax()))
            if step + 1 == _STEPS[turn]:
                break
            chunks = [
                Chunk(index, len(text) - 1, text[-1:], [False], row.cap, prompt=False)
                for index, (row, text) in enumerate(zip(rows, texts, strict=True))
            ]
            found, _ = forward.run(chunks, cache)
            errors += [_error(got, one[step + 1]) for got, one in zip(found, wanted, strict=True)]
    return errors


def _read(
    forward: ForwardPass, cache: SequenceCache, slot: int, cap: Cap | None, ids: list[int], start: int
) -> Tensor:
    """Read a prompt in two chunks and return the logits after it."""
    middle = start + _CUT if start == 0 else start + 2
    logits = torch.empty(0)
    for first, end in ((start, middle), (middle, len(ids))):
        chunk = Chunk(
            slot, first, ids[first:end], [False] * (end - first), cap, last=end == len(ids), prompt=True
        )
        logits, _ = forward.run([chunk], cache)
    return logits[0]


def _error(got: Tensor, wanted: Tensor) -> float:
    return float((got.float() - wanted.float()).abs().max() / wanted.float().abs().max())


@contextmanager
def _capped(model: LoadedModel, axis: AssistantAxis, cap: Cap | None) -> Iterator[None]:
    """Plain hooks on the model's own modules that clamp one sequence."""
    floors = {} if cap is None else dict(zip(cap.layers, cap.floors, strict=True))
    tensors = {layer: torch.tensor([floor]) for layer, floor in floors.items()}
    with AxisHooks(model.layers, axis.unit, axis.probe_layer, tensors).installed():
        yield


@torch.inference_mode()
def _plain_logits(
    model: LoadedModel, axis: AssistantAxis, ids: list[int], cap: Cap | None, steps: int
) -> list[Tensor]:
    """The logits [V] of each step of greedy `generate`."""
    from transformers import GenerationConfig

    prompt = torch.tensor([ids], device=model.device)
    greedy = GenerationConfig(max_new_tokens=steps, do_sample=False, eos_token_id=None, pad_token_id=0)
    with _capped(model, axis, cap), usual_strides(model):
        generate: Any = model.model.generate
        output = generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=greedy,
            return_dict_in_generate=True,
            output_logits=True,
        )
    return [step[0] for step in output.logits]
