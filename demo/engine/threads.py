"""How many threads compute on a CPU: as many as are fastest now.

The threads of a parallel region wait for each other by spinning. Where another process takes a core, all wait
for the one that was displaced, and a step on two threads can take longer than on one. Alone, two are faster.
So steps are timed, the next smaller and larger number is tried now and then, and the fastest is kept.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from weakref import WeakKeyDictionary

import psutil
import torch
from torch import Tensor, nn

from demo.engine.forward.forward_pass import Chunk, ForwardPass
from demo.engine.forward.self_test import text_tokens
from demo.engine.kv_cache import open_all
from demo.models.loading import LoadedModel

# A trial takes so many steps, after a first one that may have to wake threads. It is compared with the mean
# of as many steps before it, or of _FEWER where a thread is displaced and each step may take very long.
_STEPS, _FEWER = 6, 2

_WORTH = 0.9  # another number must take at most this share of the time

_ALIKE = 0.1  # steps whose tokens differ by no more than this share are compared

# Seconds of computing between trials. After a trial in vain the next one waits twice as long, up to _LATEST.
_SOONEST, _LATEST = 0.5, 30.0

# With less CPU time than this share of its threads' time, another process has displaced a thread.
_DISPLACED = 0.85

# More threads are tried early only where this share of the cores that they would need is idle.
_IDLE = 0.5


def thread_counts(most: int) -> list[int]:
    """The numbers of threads to choose from: `most`, half of it, and so on down to 1."""
    return [most >> halvings for halvings in range(most.bit_length())]


class ThreadChooser:
    """Chooses between numbers of threads by the time that steps take. It reads no clock and sets nothing.

    Attributes:
        most: The largest number.
        count: The number to use for the next step.
    """

    def __init__(self, most: int, idle: Callable[[], float] = lambda: math.inf) -> None:
        """See `thread_counts`.

        Args:
            idle: How many cores of the machine have been idle on average since it was last called.
        """
        self.most, self._counts, self._idle = most, thread_counts(most), idle
        self._kept = 0  # index of the number in use outside trials
        self._tried: int | None = None
        self._recent: deque[float] = deque(maxlen=_STEPS)
        self._shares: deque[float] = deque(maxlen=_STEPS)
        self._trial: list[float] = []
        self._fresh = True  # the next step is the first with its number of threads
        self._displaced = False
        self._tokens = 0
        self._clock = 0.0
        # When the next trial of fewer threads, and of more, is due, and how long the one after it waits.
        self._due = {-1: _LATEST, 1: _SOONEST}
        self._pause = {-1: _LATEST, 1: _SOONEST}
        self._latest_more = _LATEST  # more threads are tried then, however busy the machine seems

    @property
    def count(self) -> int:
        return self._counts[self._kept if self._tried is None else self._tried]

    def observe(self, tokens: int, seconds: float, cpu_seconds: float) -> None:
        """Take note of a step with `count` threads.

        Args:
            tokens: How many tokens it ran. Only steps of about the same size are compared.
            seconds: The time that passed.
            cpu_seconds: The time that the process computed, all threads together.
        """
        self._clock += seconds
        if abs(tokens - self._tokens) > _ALIKE * self._tokens:
            self._tokens = tokens
            self._begin(None)
        fresh, self._fresh = self._fresh, False
        if self._tried is not None:
            self._trial.append(seconds)
            self._judge()
        elif not fresh:
            self._recent.append(seconds)
            self._shares.append(cpu_seconds / (self.count * seconds) if seconds > 0 else 1.0)
            self._consider()

    def _begin(self, tried: int | None) -> None:
        """Go on with another number of threads, or with steps of another size."""
        self._tried, self._fresh = tried, True
        if tried is None:
            self._recent.clear()
            self._shares.clear()
        else:
            self._trial = []

    def _consider(self) -> None:
        """Start a trial where one is due."""
        displaced = sum(self._shares) < _DISPLACED * len(self._shares)
        if len(self._recent) < (_FEWER if displaced else _STEPS):
            return
        if displaced != self._displaced:  # a neighbour has come, or gone
            self._displaced, self._pause[-1] = displaced, _SOONEST if displaced else _LATEST
            self._due[-1] = self._clock + (0 if displaced else _LATEST)
        if self._kept + 1 < len(self._counts) and self._clock >= self._due[-1]:
            self._begin(self._kept + 1)
        elif self._kept and self._clock >= self._due[1]:
            wanted = self._counts[self._kept - 1] - self._counts[self._kept]
            if self._idle() >= _IDLE * wanted or self._clock >= self._latest_more:
                self._latest_more = self._clock + _LATEST
                self._begin(self._kept - 1)
            else:
                self._due[1] = self._clock + _SOONEST

    def _judge(self) -> None:
        """End the trial once its outcome is clear, or once it has taken as long as the steps before it."""
        assert self._tried is not None
        before, after = sum(self._recent) / len(self._recent), self._trial[1:]  # without the first step
        if len(after) < _STEPS and sum(self._trial) < _STEPS * before:
            return
        won = len(after) == _STEPS and sum(after) < _WORTH * _STEPS * before
        way = -1 if self._tried > self._kept else 1
        if won:
            self._kept = self._tried
            self._pause[way] = self._pause[-way] = _SOONEST
            self._due[-way] = self._clock + _SOONEST
            self._latest_more = self._clock + _LATEST
        else:
            self._pause[way] = min(2 * self._pause[way], _LATEST)
        self._due[way] = self._clock + self._pause[way]
        self._begin(None)


class Threads:
    """Sets the number of threads for the steps of one forward pass, and times them.

    Attributes:
        steady_tokens: Only steps of at most so many tokens run with fewer threads than there are.
    """

    def __init__(self, chooser: ThreadChooser, steady_tokens: int) -> None:
        self._chooser, self.steady_tokens = chooser, steady_tokens

    @contextmanager
    def step(self, tokens: int) -> Iterator[None]:
        """Run a step of `tokens` tokens with the best number of threads known."""
        steady = tokens <= self.steady_tokens
        count = self._chooser.count if steady else self._chooser.most
        # PyTorch keeps the number for each thread that computes, so it is set for whichever runs this step.
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)
        began, cpu = time.perf_counter(), time.process_time()
        yield
        if steady:
            self._chooser.observe(tokens, time.perf_counter() - began, time.process_time() - cpu)


def idle_cores() -> Callable[[], float]:
    """A function that says how many cores of the machine were idle on average since it was last called."""
    last = [time.perf_counter(), psutil.cpu_times().idle]

    def idle() -> float:
        now = time.perf_counter(), psutil.cpu_times().idle
        seconds, spent = now[0] - last[0], now[1] - last[1]
        last[:] = now
        return spent / seconds if seconds > 0 else 0.0

    return idle


# A product of many rows is divided among threads in other ways than one of few, and then rounds otherwise.
# These numbers of tokens are checked, the largest only where the model's weights have at most _LARGE bytes.
_STEADY_TOKENS = (8, 128)
_LARGE = 2 * 1024**3

# PyTorch's number of threads belongs to the process, and so does the choice.
_CHOOSER: list[ThreadChooser] = []

# Of each model, by the name of its pass: how many tokens give the same bits with any number of threads.
_STEADY: WeakKeyDictionary[nn.Module, dict[str, int]] = WeakKeyDictionary()


def threads_for(model: LoadedModel, forward: ForwardPass) -> Threads | None:
    """The threads for a pass on a CPU; None where there is no choice.

    Fewer threads are used only where a check finds the same bits with any number of them: a reply must not
    depend on how busy the machine is.
    """
    if not _CHOOSER:
        _CHOOSER.append(ThreadChooser(torch.get_num_threads(), idle_cores()))
    chooser = _CHOOSER[0]
    if model.device.type != "cpu" or chooser.most == 1:
        return None
    known = _STEADY.setdefault(model.model, {})
    if forward.name not in known:
        size = sum(parameter.nbytes for parameter in model.model.parameters())
        known[forward.name] = 0
        for tokens in _STEADY_TOKENS if size <= _LARGE else _STEADY_TOKENS[:1]:
            if not same_bits(partial(_short_text, model, forward, tokens), chooser.most):
                break
            known[forward.name] = tokens
    return Threads(chooser, known[forward.name])


def _short_text(model: LoadedModel, forward: ForwardPass, most: int) -> list[Tensor]:
    """The logits after a prompt of `most` tokens, after a short one, and after one more token of both."""
    cache, ids = forward.new_cache(), text_tokens(model, most + 1)
    ends = (most // 8 + 1, most)
    open_all(cache, [end + 1 for end in ends])
    logits = [forward.run([Chunk(n, 0, ids[:end], [True] * end)], cache)[0] for n, end in enumerate(ends)]
    step = [Chunk(n, end, ids[end : end + 1], [True], prompt=False) for n, end in enumerate(ends)]
    return [*logits, forward.run(step, cache)[0]]


def same_bits(run: Callable[[], Sequence[Tensor]], most: int) -> bool:
    """Whether a computation gives the same bits with every number of threads that could be chosen."""
    before, results = torch.get_num_threads(), []
    try:
        for count in thread_counts(most):
            torch.set_num_threads(count)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    return all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))
