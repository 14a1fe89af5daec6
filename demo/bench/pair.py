"""What one side-by-side turn costs, measured several ways in one run.

(a) plain `model.generate`, one row; (b) the naive side by side: two generates one after the other, each re-reading the
whole history, and a pass over each finished reply to read its projections; (c) this project's engine, one pair; (d) the
same engine, one row. Every reply has the same fixed length, the ways take turns, and medians are reported.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers.generation.streamers import BaseStreamer

from demo.axis.axis import AssistantAxis
from demo.axis.files import load_axis
from demo.capping import AxisHooks
from demo.conversation.conversation import Conversation
from demo.conversation.settings import BRANCHES, CAPPED, TurnSettings, make_cap
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
    """Seconds, one entry per measurement."""

    plain_step: list[float] = field(default_factory=list)
    single_step: list[float] = field(default_factory=list)
    pair_step: list[float] = field(default_factory=list)
    naive_turn: dict[int, list[float]] = field(default_factory=dict)
    pair_turn: dict[int, list[float]] = field(default_factory=dict)
    first_token: dict[int, list[float]] = field(default_factory=dict)


class Clock(BaseStreamer):
    """Notes when each token of `generate` arrives."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None: ...


@dataclass(frozen=True)
class Bench:
    """The three ways, on one model and axis."""

    model: LoadedModel
    axis: AssistantAxis
    engine: TransformersEngine
    cap: Cap
    sampling: Sampling

    def generate(self, messages: Sequence[Message], clock: Clock | None = None) -> torch.Tensor:
        """Plain generate with the page's sampling and a fixed number of tokens; ids of prompt and reply [1, T]."""
        prompt = torch.tensor([render_chat(self.model.tokenizer, messages).ids], device=self.model.device)
        torch.manual_seed(self.sampling.seed)
        generate: Any = self.model.model.generate
        result = generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=True,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            repetition_penalty=self.sampling.repetition_penalty,
            max_new_tokens=self.sampling.max_new_tokens,
            suppress_tokens=sorted(self.model.stops),
            pad_token_id=0,
            streamer=clock,
        )
        assert isinstance(result, torch.Tensor)
        return result

    def naive_turn(self, histories: dict[str, list[Message]]) -> float:
        """Wall time of one side-by-side turn without rows, kept caches or projections on the way."""
        start = time.perf_counter()
        for branch in BRANCHES:
            floors = dict(zip(self.cap.layers, torch.tensor(self.cap.floors)[:, None], strict=True))
            hooks = AxisHooks(
                self.model.layers, self.axis.unit, self.axis.probe_layer, floors if branch == CAPPED else {}
            )
            with hooks.installed():
                ids = self.generate(histories[branch])
            reader = AxisHooks(self.model.layers, self.axis.unit, self.axis.probe_layer, {})
            with reader.installed(), torch.inference_mode():
                self.model.model(ids, logits_to_keep=1)
        return time.perf_counter() - start

    def pair_turn(self, conversation: Conversation, text: str) -> list[float]:
        """Run one turn of our engine; times of: the start, then each decode step of the pair."""
        times = [time.perf_counter()]
        for event in conversation.send(self.engine, text, TurnSettings(self.sampling, self.cap)):
            if isinstance(event, TokenEvent) and event.branch == CAPPED:
                times.append(time.perf_counter())
        return times

    def single_turn(self, text: str) -> list[float]:
        """Times of each decode step of one uncapped row."""
        request = Request("single", (Message(role="user", content=text),), self.sampling)
        times = [
            time.perf_counter() for event in self.engine.stream([request]) if isinstance(event, TokenEvent)
        ]
        self.engine.forget(["single"])
        return times


def measure(bench: Bench, turns: int, repeats: int) -> Timings:
    """`repeats` conversations of `turns` turns, after one warm-up of each way."""
    timings, progress = Timings(), ProgressLine("bench")
    first: list[Message] = [{"role": "user", "content": MESSAGES[0]}]
    bench.generate(first)
    bench.pair_turn(Conversation(), MESSAGES[0])
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
                clock = Clock()
                bench.generate(first, clock)
                timings.plain_step += gaps(clock.times[1:])
                timings.single_step += gaps(bench.single_turn(text))
        bench.engine.forget([conversation.branch_id(branch) for branch in BRANCHES])
    progress.update(1.0)
    return timings


def summary(timings: Timings, turns: int) -> dict[str, float]:
    """Medians in milliseconds and the ratios made of them."""
    ms: dict[str, float] = {
        "plain_step_ms": _median_ms(timings.plain_step),
        "single_step_ms": _median_ms(timings.single_step),
        "pair_step_ms": _median_ms(timings.pair_step),
    }
    for turn in (1, turns):
        ms[f"naive_turn{turn}_ms"] = _median_ms(timings.naive_turn[turn])
        ms[f"pair_turn{turn}_ms"] = _median_ms(timings.pair_turn[turn])
        ms[f"ttft{turn}_ms"] = _median_ms(timings.first_token[turn])
    return {
        "pair_vs_plain": ms["pair_step_ms"] / ms["plain_step_ms"],
        "pair_vs_single": ms["pair_step_ms"] / ms["single_step_ms"],
        f"turn{turns}_vs_naive": ms[f"naive_turn{turns}_ms"] / ms[f"pair_turn{turns}_ms"],
        f"ttft{turns}_vs_ttft1": ms[f"ttft{turns}_ms"] / ms["ttft1_ms"],
        **ms,
    }


def gaps(times: Sequence[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]


def _median_ms(seconds: Sequence[float]) -> float:
    return statistics.median(seconds) * 1e3


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that `make_bench` reads."""
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--axis", help="axis folder or slug (default: the model's)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument(
        "--tokens",
        type=int,
        default=Sampling().max_new_tokens,
        help="length of every reply (default: the page's)",
    )
    parser.add_argument("--json", type=Path, help="also write the figures as JSON")


def make_bench(options: argparse.Namespace) -> Bench:
    """Load model and axis; replies always reach the token limit. Raises UserError."""
    sampling = Sampling(max_new_tokens=options.tokens)
    model = load_model(options.model, device=options.device, dtype=options.dtype)
    axis = load_axis(options.axis or model.slug)
    axis.check_model(model)
    engine = TransformersEngine(model, axis, fixed_length=True)
    return Bench(model, axis, engine, make_cap(axis, *axis.cap_band, axis.cap_floor), sampling)


# In a process of its own: some builds end the whole process when they load a file on a CPU they were not made for.
_SCRIPT = """
import json, sys, time
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=1024, verbose=False)
chat = [{"role": "user", "content": sys.argv[2]}]
times = []
for _ in range(2):
    times = [time.perf_counter() for _ in model.create_chat_completion(chat, max_tokens=int(sys.argv[3]), stream=True)]
steps = sorted(b - a for a, b in zip(times[2:], times[3:]))
print(json.dumps({"step_ms": 1e3 * steps[len(steps) // 2]}))
"""


def llama_cpp(gguf: Path, tokens: int) -> dict[str, float | str]:
    """Median ms per token, or why there is none."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(gguf), MESSAGES[0], str(tokens)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode == 0:
        found: dict[str, float | str] = json.loads(done.stdout.strip().splitlines()[-1])
        return found
    missing = "No module named 'llama_cpp'" in done.stderr
    return {"not measured": "llama-cpp-python is not installed" if missing else f"it ended with status {done.returncode}"}  # fmt: skip
