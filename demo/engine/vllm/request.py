"""What the engine knows of each request that vLLM runs, and the events made of it.

Sampled tokens and the workers' records arrive separately and in any order, so each request collects
both here.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from math import isnan, nan

import numpy as np

from demo.axis.axis import AssistantAxis
from demo.engine.forward.forward_pass import ChunkReading
from demo.engine.kv_cache import common_prefix
from demo.engine.protocol import Intervention, PromptEvent, ReadToken, TokenEvent, as_coordinates
from demo.engine.sampling import Choice
from demo.engine.sequence import TokenSequence
from demo.engine.vllm.client import Step
from demo.engine.vllm.recorder import SequencePlan, decode
from demo.models.chat_template import RenderedChat
from demo.utils.errors import nan_error


@dataclass(eq=False)
class VllmSequence:
    """A reply that vLLM is generating.

    Attributes:
        state: The prompt, what has been generated, and the text so far.
        known: Projections (axis units, before the clamp) of the beginning of the prompt, as far as
            an earlier request has left them. They serve for tokens that vLLM takes from its prefix
            cache, which no worker records.
        cached: How many prompt tokens vLLM took from its prefix cache.
        prefilled: Whether vLLM has run the prompt.
        awaiting_record: Whether the last token in `state` has no token event yet, because its
            record is missing.
        tokens: The tokens that vLLM has sampled, of which `state` may have taken fewer.
    """

    state: TokenSequence
    plan: SequencePlan
    axis: AssistantAxis
    known: list[float] = field(default_factory=list)
    cached: int = 0
    prefilled: bool = False
    awaiting_record: bool = False
    tokens: list[int] = field(default_factory=list)
    _recorded: dict[int, dict[str, float]] = field(default_factory=dict)  # by position
    _choices: dict[int, Choice] = field(default_factory=dict)  # by step

    def add_step(self, step: Step) -> None:
        """Take what vLLM has returned."""
        self.cached = max(self.cached, step.cached)
        self.prefilled = self.prefilled or bool(step.tokens)
        self.tokens += step.tokens

    def add_record(self, start: int, columns: dict[str, bytes]) -> None:
        """Take what a worker has recorded at consecutive positions from `start` on."""
        decoded = decode(columns)
        for offset in range(max((len(column) for column in decoded.values()), default=0)):
            values = self._recorded.setdefault(start + offset, {})
            values.update({name: float(column[offset]) for name, column in decoded.items()})

    def add_choice(self, step: int, choice: Choice) -> None:
        """Take what was sampled at this step."""
        self._choices[step] = choice

    @property
    def prompt_is_recorded(self) -> bool:
        """Whether vLLM has run the prompt and the records of all its uncached tokens are here.

        The records may arrive after the token that follows the prompt.
        """
        prompt = range(self.cached, len(self.state.chat.ids))
        return self.prefilled and all(position in self._recorded for position in prompt)

    def prompt_event(self) -> PromptEvent:
        """The event for a prompt that has been run.

        The mean of the user's message is None when vLLM took tokens of the message from its prefix
        cache whose projections are not known here.
        """
        state, probe = self.state, self.axis.probe_layer
        state.reused = self.cached
        for position in range(len(state.chat.ids)):
            if position in self._recorded:
                state.before.append(self.axis.to_units(self._recorded.pop(position)["before"], probe))
            else:
                state.before.append(self.known[position] if position < len(self.known) else nan)
        event = state.prompt_event()
        unknown = event.user_projection is not None and isnan(event.user_projection)
        return replace(event, user_projection=None) if unknown else event

    def take_token(self) -> bool:
        """Move the next sampled token into `state`, unless the last one still awaits its record.

        Returns:
            Whether `state` holds a token that awaits its record.
        """
        if self.awaiting_record:
            return True
        step = len(self.state.generated)
        if len(self.tokens) <= step or step not in self._choices:
            return False
        self.state.take(self._choices.pop(step))
        self.awaiting_record = True
        return True

    @property
    def token_is_recorded(self) -> bool:
        """Whether the record of the last token in `state` is here."""
        return self.state.tokens_run in self._recorded

    def token_event(self) -> TokenEvent:
        """The event for the last token in `state`, whose record is here."""
        self.awaiting_record = False
        values = self._recorded.pop(self.state.tokens_run)
        axis, probe = self.axis, self.axis.probe_layer
        lifts = {layer: values[f"lift.{layer}"] / float(axis.norm[layer]) for layer in self.plan.layers}
        place = [values[f"place.{n}"] for n in range(3)] if "place.0" in values else []
        before, after = axis.to_units(values["before"], probe), axis.to_units(values["after"], probe)
        return self.state.token_event(ChunkReading([before], after, lifts, as_coordinates(place)))


@dataclass
class VllmRead:
    """A finished chat that vLLM reads.

    Attributes:
        texts: What each of its tokens adds to its message.
    """

    chat: RenderedChat
    texts: list[str]
    plan: SequencePlan
    axis: AssistantAxis

    def read_tokens(self, start: int, columns: dict[str, bytes]) -> list[ReadToken]:
        """The content tokens of a record, axis units."""
        decoded, axis = decode(columns), self.axis
        raw = np.stack([decoded[f"at.{layer}"] for layer in range(axis.layers)], axis=-1)
        if not np.isfinite(raw).all():
            raise nan_error()
        after = (raw - axis.origin.numpy()) / axis.norm.numpy()
        before = after.copy()
        for layer in self.plan.layers:
            before[:, layer] -= decoded[f"lift.{layer}"] / float(axis.norm[layer])
        places = None
        if "place.0" in decoded:
            places = np.stack([decoded[f"place.{n}"] for n in range(3)], axis=-1).tolist()
        tokens = []
        for offset in range(len(raw)):
            position = start + offset
            if position >= len(self.texts) or self.chat.owner[position] < 0:
                continue
            tokens.append(
                ReadToken(
                    self.chat.owner[position],
                    self.texts[position],
                    tuple(before[offset].tolist()),
                    tuple(after[offset].tolist()),
                    as_coordinates(places[offset] if places else []),
                    self.chat.reasoning[position],
                )
            )
        return tokens


class PromptProjections:
    """The projections of every branch's last text, under the intervention with which it was run."""

    def __init__(self, max_tokens: int) -> None:
        """max_tokens: How many tokens to keep, all branches together. The oldest are dropped first."""
        self._max_tokens, self._held = max_tokens, 0
        self._entries: OrderedDict[str, tuple[list[int], list[float], Intervention]] = OrderedDict()

    def put(self, state: TokenSequence) -> None:
        """Keep the projections of a sequence that has ended."""
        branch, ids = state.request.branch, (state.chat.ids + state.generated)[: state.tokens_run]
        self.drop(branch)
        self._entries[branch] = (ids, state.before[: state.tokens_run], state.request.in_prompt)
        self._held += len(ids)
        while self._held > self._max_tokens and self._entries:
            self.drop(next(iter(self._entries)))

    def of(self, state: TokenSequence) -> list[float]:
        """The projections of the longest known beginning of this prompt, axis units, before the clamp."""
        longest: list[float] = []
        for ids, before, intervention in self._entries.values():
            if intervention == state.request.in_prompt:
                shared = common_prefix(ids, state.chat.ids)
                if shared > len(longest):
                    longest = before[:shared]
        return longest

    def drop(self, branch: str) -> None:
        """Forget a branch."""
        entry = self._entries.pop(branch, None)
        self._held -= len(entry[0]) if entry else 0
