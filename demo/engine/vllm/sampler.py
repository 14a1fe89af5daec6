"""Drawing inside a vLLM worker, by the transformers engine's own function: the same random numbers for the same seed, the same top-p
and repetition penalty. vLLM calls it as a logits processor; it leaves each row one token to choose from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, process_dict_updates

from demo.engine.sampling import SamplingStep, sample_batch
from demo.engine.vllm.recorder import SequencePlan, drawn

if TYPE_CHECKING:
    from vllm import SamplingParams


@dataclass
class _Row:
    plan: SequencePlan
    output: Sequence[int]  # vLLM's own list, which grows
    special: frozenset[int]
    seen: dict[int, None] = field(init=False)
    _counted: int = 0

    def __post_init__(self) -> None:
        self.seen = dict.fromkeys(self.plan.said)

    def draw(self) -> SamplingStep:
        for token in self.output[self._counted :]:
            if token not in self.special:
                self.seen[token] = None
        self._counted = len(self.output)
        return SamplingStep(self.plan.sampling, len(self.output), self.seen, self.plan.barred)


class SharedNoise(LogitsProcessor):
    """Named to vLLM as `demo.engine.vllm.sampler:SharedNoise`."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, _Row] = {}
        self._special = frozenset(vllm_config.additional_config["special_tokens"])

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self._rows, batch_update, self._row)

    def _row(self, params: SamplingParams, prompt: list[int] | None, output: list[int]) -> _Row | None:
        plan = SequencePlan.from_args(params.extra_args)
        return None if plan is None else _Row(plan, output, self._special)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        rows = sorted(self._rows)
        if not rows:
            return logits
        draws = [self._rows[index].draw() for index in rows]
        tokens, probabilities = sample_batch(logits[rows], draws)
        logits[rows] = float("-inf")
        logits[rows, tokens] = 0.0
        for index, draw, token, probability in zip(rows, draws, tokens, probabilities, strict=True):
            drawn.add(self._rows[index].plan, draw.step, token, probability)
        return logits
