"""The choice of how many threads compute, on machines that are simulated."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from demo.engine.threads import ThreadChooser, same_bits, thread_counts

# Milliseconds of a pair's step by number of threads, measured on two cores: alone, and beside other programs.
ALONE, ONE_NEIGHBOUR, THREE_NEIGHBOURS = {1: 18.2, 2: 14.0}, {1: 17.7, 2: 29.8}, {1: 39.0, 2: 107.0}
# The same beside one program on a machine where a displaced thread waits far longer.
ONE_SLOW_NEIGHBOUR = {1: 46.6, 2: 508.9}


def run(chooser: ThreadChooser, costs: dict[int, float], steps: int, share: float = 1.0, tokens: int = 2):
    """Run steps that cost milliseconds by number of threads.

    Returns:
        The mean cost of a step, and how often each number was used.
    """
    used = Counter[int]()
    for _ in range(steps):
        count = chooser.count
        used[count] += 1
        seconds = costs[count] / 1000
        chooser.observe(tokens, seconds, seconds * count * (share if count > 1 else 1.0))
    return sum(costs[count] * times for count, times in used.items()) / steps, used


@pytest.mark.parametrize("steps", [300, 4000])
def test_alone_nothing_is_lost(steps):
    mean, used = run(ThreadChooser(2), ALONE, steps)
    assert mean < 1.005 * ALONE[2] and used[1] < steps / 100


@pytest.mark.parametrize("idle", [0.0, 64.0])  # a container may see the idle cores of the whole machine
@pytest.mark.parametrize(
    ("costs", "share"), [(ONE_NEIGHBOUR, 0.67), (THREE_NEIGHBOURS, 0.5), (ONE_SLOW_NEIGHBOUR, 0.67)]
)
def test_beside_other_programs_one_thread_is_used(costs, share, idle):
    mean, _ = run(ThreadChooser(2, lambda: idle), costs, 4000, share)
    assert mean < 1.06 * costs[1]


def test_a_few_very_slow_steps_are_enough_to_change():
    chooser = ThreadChooser(2)
    _, used = run(chooser, ONE_SLOW_NEIGHBOUR, 40, share=0.67)
    assert used[2] <= 4


def test_threads_that_wait_without_computing_are_seldom_replaced():
    """With OMP_WAIT_POLICY=passive a thread that waits takes no CPU time, as if it were displaced."""
    mean, _ = run(ThreadChooser(2), ALONE, 6000, share=0.7)
    assert mean < 1.02 * ALONE[2]


def test_a_displaced_thread_is_noticed_within_half_a_second():
    chooser = ThreadChooser(2)
    run(chooser, ALONE, 3000)
    _, used = run(chooser, ONE_NEIGHBOUR, 40, share=0.67)
    assert used[2] <= 16


@pytest.mark.parametrize(
    ("idle", "steps"),
    [(1.0, 1000), (0.0, 12000)],  # what the machine says of its idle cores may be wrong
)
def test_threads_come_back_when_the_machine_is_free_again(idle, steps):
    cores = [0.0]
    chooser = ThreadChooser(2, lambda: cores[0])
    run(chooser, ONE_NEIGHBOUR, 3000, share=0.67)
    cores[0] = idle
    mean, _ = run(chooser, ALONE, steps)
    assert chooser.count == 2 and mean < 1.05 * ALONE[2]


def test_steps_of_different_sizes_are_not_compared():
    chooser = ThreadChooser(2)
    for turn in range(2000):
        tokens = (2, 64)[turn % 2]
        chooser.observe(tokens, tokens / 1000, 2 * tokens / 1000)
    assert chooser.count == 2


@given(st.integers(1, 5).map(lambda power: 2**power), st.data())
def test_the_fastest_number_is_found_where_each_step_towards_it_is_faster(most, data):
    counts = thread_counts(most)
    best = data.draw(st.sampled_from(counts))
    costs = {count: 10.0 * 1.5 ** abs(counts.index(count) - counts.index(best)) for count in counts}
    chooser = ThreadChooser(most)
    run(chooser, costs, 6000)
    _, used = run(chooser, costs, 1000)
    assert used.most_common(1)[0][0] == best


def test_numbers_of_threads_are_halved_down_to_one():
    assert [thread_counts(most) for most in (1, 2, 6, 16)] == [[1], [2, 1], [6, 3, 1], [16, 8, 4, 2, 1]]


def test_a_pass_whose_bits_depend_on_the_threads_is_recognised_and_their_number_restored():
    before = torch.get_num_threads()
    assert same_bits(lambda: [torch.ones(3)], 4)
    assert not same_bits(lambda: [torch.ones(3) * torch.get_num_threads()], 4)
    assert torch.get_num_threads() == before
