"""The cost of one side-by-side turn, measured with several methods in one run.

(a) plain `model.generate` with one sequence; (b) the naive side-by-side method: two calls of
`generate`, one after the other, each of which reads the whole history again, and a forward pass
over each finished reply to read its projections; (c) this project's engine with one pair; (d) the
same engine with one sequence. The replies have the same fixed length, the methods take turns, and
medians are reported.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers.generation.streamers import BaseStreamer

from demo.axis.axis import AssistantAxis
from demo.axis.store import axis_of
from demo.capping import AxisHooks
from demo.conversation.conversation import Conversation
from demo.conversation.settings import BRANCHES, CAPPED, TurnSettings, own_cap
from demo.engine import sampling
from demo.engine.forward.forward_pass import last_positions, usual_strides
from demo.engine.forward.products import ReadBackLinear
from demo.engine.protocol import Cap, Request, Sampling, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.models.chat_template import Message, render_chat
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel, load_model
from demo.utils.progress import ProgressLine

# User messages of the same kind and length, so that turns differ in their history only.
MESSAGES = (
    "How do I start a small vegetable garden on a balcony?",
    "Which plants should I choose for a windy north side?",
    "How often should I water them in a hot dry summer?",
    "What can I do about the greenfly on my young beans?",
    "Can I grow potatoes in a bag or is that too small?",
    "When is the best time of the day to pick my herbs?",
    "How do I keep the soil fresh from one year to the next?",
    "What should I plant when the autumn weather has come?",
)


@dataclass
class Timings:
    """Seconds, one entry per measurement.

    Attributes:
        plain_step: One step of plain `generate`.
        single_step: One step of a single sequence by this engine.
        pair_step: One step of a pair by this engine.
        plain_reading_step: The same while the capped words are read without the cap, too.
        no_alternatives_step: The latter without the likeliest tokens at every place.
        naive_turn: A whole turn by the naive method, by turn number.
        pair_turn: A whole turn of a pair by this engine, by turn number.
        first_token: The time to a pair's first token, by turn number.
    """

    plain_step: list[float] = field(default_factory=list)
    single_step: list[float] = field(default_factory=list)
    pair_step: list[float] = field(default_factory=list)
    plain_reading_step: list[float] = field(default_factory=list)
    no_alternatives_step: list[float] = field(default_factory=list)
    naive_turn: dict[int, list[float]] = field(default_factory=dict)
    pair_turn: dict[int, list[float]] = field(default_factory=dict)
    first_token: dict[int, list[float]] = field(default_factory=dict)


class TokenClock(BaseStreamer):
    """Records when each token of `generate` arrives."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None: ...


@dataclass(frozen=True)
class Bench:
    """Runs turns with methods (a) to (d) on one model and axis.

    Attributes:
        plain: the model for methods (a) and (b). It is another copy where the engine has taken over the
            matrices of a large one, which then take longer for everybody else.
    """

    model: LoadedModel
    plain: LoadedModel
    axis: AssistantAxis
    engine: TransformersEngine
    cap: Cap
    sampling: Sampling

    def generate(self, messages: Sequence[Message], clock: TokenClock | None = None) -> torch.Tensor:
        """Run plain `generate` with the page's sampling and a fixed number of tokens.

        Returns:
            The token ids of prompt and reply, [1, T].
        """
        model = self.plain
        prompt = torch.tensor([render_chat(model.tokenizer, messages).ids], device=model.device)
        torch.manual_seed(self.sampling.seed)
        generate: Any = model.model.generate
        # The comparison is with transformers at its best, not with a slip of its own.
        with usual_strides(model):
            result = generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=True,
                temperature=self.sampling.temperature,
                top_p=self.sampling.top_p,
                repetition_penalty=self.sampling.repetition_penalty,
                max_new_tokens=self.sampling.max_new_tokens,
                suppress_tokens=sorted(model.stops),
                pad_token_id=0,
                streamer=clock,
            )
        assert isinstance(result, torch.Tensor)
        return result

    def naive_turn(self, histories: dict[str, list[Message]]) -> float:
        """Run one turn by the naive method: no batch, no prefix cache. Returns its seconds."""
        start = time.perf_counter()
        for branch in BRANCHES:
            floors = dict(zip(self.cap.layers, torch.tensor(self.cap.floors)[:, None], strict=True))
            hooks = AxisHooks(
                self.plain.layers, self.axis.unit, self.axis.probe_layer, floors if branch == CAPPED else {}
            )
            with hooks.installed():
                ids = self.generate(histories[branch])
            reader = AxisHooks(self.plain.layers, self.axis.unit, self.axis.probe_layer, {})
            with reader.installed(), torch.inference_mode():
                self.plain.model(ids, logits_to_keep=last_positions(ids.shape[1], 1, ids.device))
        return time.perf_counter() - start

    def pair_turn(self, conversation: Conversation, text: str, plain: bool = False) -> list[float]:
        """Run one turn of this engine. Returns the time of its start, then that of every step of the pair.

        Args:
            plain: read the capped words without the cap, too.
        """
        times = [time.perf_counter()]
        settings = TurnSettings(self.sampling, self.cap, plain=plain)
        for event in conversation.send(self.engine, text, settings):
            if isinstance(event, TokenEvent) and event.branch == CAPPED:
                times.append(time.perf_counter())
        return times

    def plain_reading_steps(self, text: str) -> list[float]:
        """The time of every step of a first turn whose capped words are read without the cap, too."""
        conversation = Conversation()
        times = self.pair_turn(conversation, text, plain=True)
        self.engine.forget([conversation.branch_id(branch) for branch in BRANCHES])
        return gaps(times[1:])

    def single_turn(self, text: str) -> list[float]:
        """Run one uncapped sequence on this engine. Returns the time of every step."""
        request = Request("single", (Message(role="user", content=text),), self.sampling)
        times = [
            time.perf_counter() for event in self.engine.stream([request]) if isinstance(event, TokenEvent)
        ]
        self.engine.forget(["single"])
        return times


@contextmanager
def no_alternatives() -> Iterator[None]:
    """Nothing but the sampled token is reported of each choice, for comparison."""
    usual = sampling.MOST_ALTERNATIVES
    sampling.MOST_ALTERNATIVES = 0
    try:
        yield
    finally:
        sampling.MOST_ALTERNATIVES = usual


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `make_bench` reads, and `--json`."""
    parser.add_argument("--model", default=DEFAULT_MODEL, help="default: %(default)s")
    parser.add_argument("--axis", help="axis folder or slug (default: the model's)")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    parser.add_argument("--dtype", default="auto", help="default: %(default)s")
    parser.add_argument(
        "--tokens",
        type=int,
        default=Sampling().max_new_tokens,
        help="length of every reply (default: %(default)s, as on the page)",
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")


def make_bench(options: argparse.Namespace, plain_methods: bool = True) -> Bench:
    """Load model and axis for replies that always reach the token limit.

    Args:
        plain_methods: whether methods (a) and (b) are to run, which may take a second copy of the model.

    Raises:
        UserError: model or axis cannot be loaded.
    """
    model = load_model(options.model, device=options.device, dtype=options.dtype)
    axis = axis_of(options.axis, model)[0]
    axis.check_model(model)
    engine = TransformersEngine(model, axis, fixed_length=True)
    cap, plain = own_cap(axis), model
    if plain_methods and any(isinstance(module, ReadBackLinear) for module in model.model.modules()):
        plain = load_model(options.model, device=options.device, dtype=options.dtype)
    return Bench(model, plain, axis, engine, cap, Sampling(max_new_tokens=options.tokens))


def measure(bench: Bench, turns: int, repeats: int) -> Timings:
    """Time `repeats` conversations of `turns` turns, after a warm-up of `generate` and of the engine.

    Whole turns are timed in the first and the last turn, single steps in the first.
    """
    timings, progress = Timings(), ProgressLine("bench")
    first: list[Message] = [{"role": "user", "content": MESSAGES[0]}]
    bench.generate(first)
    for plain in (False, True):
        bench.pair_turn(Conversation(), MESSAGES[0], plain)
    for repeat in range(repeats):
        conversation = Conversation()
        for turn, text in enumerate(MESSAGES[:turns], start=1):
            progress.update((repeat + (turn - 1) / turns) / repeats, f"(round {repeat + 1}, turn {turn})")
            if turn in (1, turns):
                history = {
                    b: [*conversation.messages(b), Message(role="user", content=text)] for b in BRANCHES
                }
                timings.naive_turn.setdefault(turn, []).append(bench.naive_turn(history))
            times = bench.pair_turn(conversation, text)
            if turn in (1, turns):
                timings.pair_turn.setdefault(turn, []).append(times[-1] - times[0])
                timings.first_token.setdefault(turn, []).append(times[1] - times[0])
            if turn == 1:
                timings.pair_step += gaps(times[1:])
                timings.plain_reading_step += bench.plain_reading_steps(text)
                with no_alternatives():
                    timings.no_alternatives_step += bench.plain_reading_steps(text)
                clock = TokenClock()
                bench.generate(first, clock)
                timings.plain_step += gaps(clock.times[1:])
                timings.single_step += gaps(bench.single_turn(text))
        bench.engine.forget([conversation.branch_id(branch) for branch in BRANCHES])
    progress.update(1.0)
    return timings


def summary(timings: Timings, turns: int) -> dict[str, float]:
    """Medians in milliseconds, and the ratios of these medians."""
    ms: dict[str, float] = {
        "plain_step_ms": _median_ms(timings.plain_step),
        "single_step_ms": _median_ms(timings.single_step),
        "pair_step_ms": _median_ms(timings.pair_step),
        "plain_reading_step_ms": _median_ms(timings.plain_reading_step),
        "no_alternatives_step_ms": _median_ms(timings.no_alternatives_step),
    }
    for turn in (1, turns):
        ms[f"naive_turn{turn}_ms"] = _median_ms(timings.naive_turn[turn])
        ms[f"pair_turn{turn}_ms"] = _median_ms(timings.pair_turn[turn])
        ms[f"ttft{turn}_ms"] = _median_ms(timings.first_token[turn])
    return {
        "pair_vs_plain": ms["pair_step_ms"] / ms["plain_step_ms"],
        "pair_vs_single": ms["pair_step_ms"] / ms["single_step_ms"],
        "plain_reading_cost": ms["plain_reading_step_ms"] / ms["pair_step_ms"],
        "alternatives_cost": ms["plain_reading_step_ms"] / ms["no_alternatives_step_ms"],
        f"turn{turns}_vs_naive": ms[f"naive_turn{turns}_ms"] / ms[f"pair_turn{turns}_ms"],
        f"ttft{turns}_vs_ttft1": ms[f"ttft{turns}_ms"] / ms["ttft1_ms"],
        **ms,
    }


def gaps(times: Sequence[float]) -> list[float]:
    """The differences between successive times."""
    return [after - before for before, after in itertools.pairwise(times)]


def _median_ms(seconds: Sequence[float]) -> float:
    return statistics.median(seconds) * 1e3
