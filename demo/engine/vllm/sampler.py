"""Sampling inside a vLLM worker with the transformers engine's own function.

The same seed gives the same random numbers, top-p and repetition penalty as in the other engines.
vLLM calls this module as a logits processor, which leaves one token to choose from in each
sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, process_dict_updates

from demo.engine.sampling import SamplingStep, sample_batch
from demo.engine.vllm.recorder import SequencePlan, sampled_tokens

if TYPE_CHECKING:
    from vllm import SamplingParams


@dataclass
class _SamplerState:
    """What sampling needs to know of one sequence."""

    plan: SequencePlan
    output: Sequence[int]  # vLLM's own list, which grows
    special: frozenset[int]
    seen: dict[int, None] = field(init=False)
    _counted: int = 0

    def __post_init__(self) -> None:
        self.seen = dict.fromkeys(self.plan.said)

    def next_step(self) -> SamplingStep:
        for token in self.output[self._counted :]:
            if token not in self.special:
                self.seen[token] = None
        self._counted = len(self.output)
        step, opening = len(self.output), self.plan.opening
        given = opening[step] if step < len(opening) else None
        return SamplingStep(self.plan.sampling, step, self.seen, self.plan.barred, given)


class SharedNoise(LogitsProcessor):
    """Samples every sequence's next token. vLLM loads it by name: `demo.engine.vllm.sampler:SharedNoise`."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._states: dict[int, _SamplerState] = {}  # by index in the batch
        self._special = frozenset(vllm_config.additional_config["special_tokens"])

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self._states, batch_update, self._new_state)

    def _new_state(
        self, params: SamplingParams, prompt: list[int] | None, output: list[int]
    ) -> _SamplerState | None:
        plan = SequencePlan.from_args(params.extra_args)
        return None if plan is None else _SamplerState(plan, output, self._special)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Sample, and set all other logits [B, V] to -inf: vLLM's greedy choice is then the sampled token."""
        indices = sorted(self._states)
        if not indices:
            return logits
        steps = [self._states[index].next_step() for index in indices]
        choices = sample_batch(logits[indices], steps)
        logits[indices] = float("-inf")
        logits[indices, [choice.token for choice in choices]] = 0.0
        for index, step, choice in zip(indices, steps, choices, strict=True):
            sampled_tokens.add(self._states[index].plan, step.step, choice)
        return logits
