"""python -m demo.bench.shared_cpu: a pair's step alone and beside busy processes.

The threads that compute wait for each other by spinning, so a process that takes a core slows all of them.
The engine changes their number; this compares it with each fixed number, all in one run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from demo.bench.pair import MESSAGES, Bench, add_model_options, gaps, make_bench
from demo.conversation.conversation import Conversation
from demo.conversation.settings import BRANCHES
from demo.engine.threads import thread_counts
from demo.utils.cli import command
from demo.utils.errors import UserError

NEIGHBOURS = (0, 1, 3)  # busy processes
ADAPTIVE = "adaptive"


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Run `count` processes that compute without a pause."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def mean_step(bench: Bench, threads: int | None, turns: int) -> float:
    """The mean of a pair's steps in milliseconds, over the second and later turns.

    A mean, because displacement makes a few steps very long. The first turn is where the engine adapts.

    Args:
        threads: a fixed number of threads; None to let the engine choose.
    """
    scheduler = bench.engine.scheduler
    kept, scheduler.threads = scheduler.threads, scheduler.threads if threads is None else None
    if threads is not None:
        torch.set_num_threads(threads)
    conversation, seconds = Conversation(), list[float]()
    try:
        for turn, text in enumerate(MESSAGES[: turns + 1]):
            times = bench.pair_turn(conversation, text)
            seconds += gaps(times[1:]) if turn else []
    finally:
        scheduler.threads = kept
        bench.engine.forget([conversation.branch_id(branch) for branch in BRANCHES])
    return 1000 * statistics.mean(seconds)


def measure(bench: Bench, rounds: int, turns: int) -> dict[str, Any]:
    """Median over rounds of the mean step, by neighbours and by threads, and the ratios to the best alone."""
    most = torch.get_num_threads()
    methods: dict[str, int | None] = {ADAPTIVE: None}
    methods |= {f"{count} threads": count for count in thread_counts(most)}
    found: dict[int, dict[str, list[float]]] = {n: {name: [] for name in methods} for n in NEIGHBOURS}
    for _ in range(rounds):
        for neighbours in NEIGHBOURS:
            with busy(neighbours):
                for name, threads in methods.items():
                    found[neighbours][name].append(mean_step(bench, threads, turns))
    steps = {n: {name: statistics.median(ms) for name, ms in by.items()} for n, by in found.items()}
    alone = min(ms for name, ms in steps[0].items() if name != ADAPTIVE)
    return {"step_ms": steps, "adaptive_vs_best_alone": {n: steps[n][ADAPTIVE] / alone for n in NEIGHBOURS}}


@command
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.bench.shared_cpu", description=__doc__)
    add_model_options(parser)
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--turns", type=int, default=3, help="turns that count (default: %(default)s)")
    options = parser.parse_args(arguments)
    bench = make_bench(options)
    if bench.engine.scheduler.threads is None:
        raise UserError("There is no number of threads to choose here: run this on a CPU with several cores.")
    found = {
        "dtype": bench.model.dtype_reason,
        "forward": bench.engine.forward.name,
        "steady_tokens": bench.engine.scheduler.threads.steady_tokens,
        **measure(bench, options.rounds, options.turns),
    }
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
